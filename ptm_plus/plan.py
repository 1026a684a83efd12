"""What a run would do and cost, before anything is spent.

A dry run reads, and makes nothing: where the data are not prepared it says what would be made and
why; where they are, it also composes the run and counts rows, epochs, parameters and operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ptm_plus import launch
from ptm_plus.context import Context
from ptm_plus.errors import PtmPlusError
from ptm_plus.inputs import cache_folder, given_inputs, linking_annotator, load_graph
from ptm_plus.layouts import TEXT_LAYOUT
from ptm_plus.plan_costs import data_figures, mask_figures, model_figures
from ptm_plus.plugin_cards import hooks_of
from ptm_plus.plugins import Plugins, load
from ptm_plus.preparation import Planned
from ptm_plus.prepare import plan_stream
from ptm_plus.preview import mask_collator
from ptm_plus.progress import Silent, Task, Watch
from ptm_plus.tokenization import load_tokenizer
from ptm_plus.tokenizer_cache import cached_tokenizer

if TYPE_CHECKING:
    from ptm_plus.run import Prepared, Run
    from ptm_plus.settings import RunSettings


class _WouldWork(PtmPlusError):
    """A dry run came to long work; the message names it. Hooks let errors of this kind pass."""


class DryWatch(Silent):
    """Stops at the first long work: everything that takes time announces itself as a task."""

    @contextmanager
    def task(self, name: str) -> Iterator[Task]:
        """Refuse to begin.

        Raises:
            _WouldWork: always.
        """
        raise _WouldWork(name)
        yield  # pragma: no cover


def make_plan(settings: RunSettings, watch: Watch, *, prepare_data: bool = False) -> dict[str, Any]:
    """Return the plan of a run as plain values.

    Args:
        settings: the run's settings.
        watch: where progress goes.
        prepare_data: prepare data and vectors first where need be.

    Returns:
        ``settings`` (the main ones), ``plugins``, ``prepare`` (artifacts, and whether they are
        there), and, where the data are prepared, ``streams``, ``masking``, ``model``; ``missing``
        says why something is not in the plan.

    Raises:
        PtmPlusError: as a launch would.
    """
    plugins = load(settings.plugins, settings.plugin)
    document: dict[str, Any] = {
        "run": _main_settings(settings),
        "plugins": _plugins(plugins),
        "prepare": [],
        "missing": "",
    }
    if not prepare_data:
        document["prepare"], document["missing"] = _artifacts(settings, plugins)
    if document["missing"]:
        return document
    prepared = launch.prepare(settings, watch if prepare_data else Silent())
    collator = mask_collator(prepared)
    document["masking"] = mask_figures(prepared, collator)
    run = _composed(prepared, watch if prepare_data else DryWatch(), document)
    document["streams"] = data_figures(prepared, run)
    if run is not None:
        document["model"] = model_figures(run)
        document["features"] = _features(run)
    return document


def _main_settings(settings: RunSettings) -> dict[str, Any]:
    train, batch = settings.train, settings.batch
    return {
        "output": str(settings.output),
        "model": settings.model.path or f"new {settings.model.family}",
        "steps": train.steps,
        "rows_per_step": batch.rows,
        "row_tokens": batch.row_tokens,
        "tokens_at_most": train.steps * batch.rows * batch.row_tokens,
        "mask_rate": settings.masking.rate,
        "lr": train.lr,
        "seed": train.seed,
    }


def _plugins(plugins: Plugins) -> list[dict[str, Any]]:
    return [
        {
            "instance": one.instance,
            "distribution": one.distribution,
            "version": one.version,
            "hooks": hooks_of(one.implementation),
            "needs": list(one.info.needs),
            "claims": [asdict(claim) for claim in one.info.claims],
        }
        for one in plugins.instances
    ]


# ---------------------------------------------------------------------------------------------
# What prepare would do


class _NotTrained(Exception):
    """The run's tokenizer is not in the cache."""


def _artifacts(settings: RunSettings, plugins: Plugins) -> tuple[list[dict[str, Any]], str]:
    """Return prepare's artifacts, and what keeps the rest of the plan from being known."""
    inputs = given_inputs(settings)
    launch._check_inputs(settings, plugins, inputs)
    context = Context(settings, inputs, Silent())
    streams = launch._streams(settings, plugins, context, inputs)
    try:
        tokenizer = _tokenizer(settings, [one.component.fingerprint for one in streams])
    except _NotTrained:
        rows = [_unprepared(one.component.name) for one in streams]
        return rows, "the tokenizer is not trained yet, and the data are not prepared"
    context.advance("tokenizer", tokenizer=tokenizer)
    for token in launch.gather(plugins, "ptm_special_tokens", context):
        tokenizer.add_tokens([token.component.text], special_tokens=True)
    sources = [*(one.component for one in streams), *launch._sets(settings)]
    planned = list(_planned(settings, plugins, context, sources, tokenizer))
    made = [one for one in planned if not one.present]
    missing = "" if not made else "the data are not prepared"
    return [asdict(one) for one in planned], missing


def _planned(
    settings: RunSettings, plugins: Plugins, context: Context, sources: Any, tokenizer: Any
) -> Iterator[Planned]:
    layouts = launch.gather(plugins, "ptm_layouts", context, [TEXT_LAYOUT])
    by_name = {one.component.name: one.component for one in layouts}
    core = []
    if settings.data.labels and any("spans:entity" in p.info.needs for p in plugins.instances):
        core.append(linking_annotator(settings, load_graph(settings)))
    annotators = [one.component for one in launch.gather(plugins, "ptm_annotators", context, core)]
    rewriters = [one.component for one in launch.gather(plugins, "ptm_rewriters", context)]
    for stream in sources:
        if stream.layout in by_name:  # a launch says who is at fault for one that is not
            yield from plan_stream(
                stream,
                by_name[stream.layout],
                annotators,
                rewriters,
                tokenizer,
                settings,
                cache_folder(settings),
                settings.train.seed,
            )


def _tokenizer(settings: RunSettings, fingerprints: list[str]) -> Any:
    path = settings.tokenizer.path or settings.model.path
    if path:
        return load_tokenizer(path, settings.model.trust_remote_code)
    size, family = settings.tokenizer.vocabulary, settings.model.family
    texts = _unread()
    return cached_tokenizer(texts, size, family, fingerprints, cache_folder(settings))[0]


def _unread() -> Iterator[str]:
    """Stand in for the run's text: nothing reads it unless a tokenizer has to be trained."""
    raise _NotTrained
    yield  # pragma: no cover


def _unprepared(stream: str) -> dict[str, Any]:
    reason = "the tokenizer is not trained yet"
    return asdict(Planned(stream, "tokens", "", present=False, reason=reason))


# ---------------------------------------------------------------------------------------------
# The composed run


def _composed(prepared: Prepared, watch: Watch, document: dict[str, Any]) -> Run | None:
    """Compose the run on the CPU; ``None`` where that would take long work first."""
    import torch

    prepared.context._values["watch"] = watch
    try:
        return launch.compose(prepared, torch.device("cpu"))
    except _WouldWork as work:
        document["missing"] = f"{work.message} would be made first"
        return None


def _features(run: Run) -> list[dict[str, str]]:
    return [
        {
            "plugin": owner.instance,
            "name": owner.component.name,
            "scope": owner.component.scope,
        }
        for owner in run.collator._features
    ]

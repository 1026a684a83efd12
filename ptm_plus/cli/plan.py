"""What a run would do and cost, before anything is spent.

A dry run reads, and makes nothing: where the data are not prepared it says what would be made and
why; where they are, it also composes the run and counts rows, epochs, parameters and operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from ptm_plus.arrangement import Arrangement, arrange
from ptm_plus.cli.plan_costs import data_figures, mask_figures, model_figures, stage_figures
from ptm_plus.cli.plugin_cards import hooks_of
from ptm_plus.cli.preview import mask_collator
from ptm_plus.errors import PtmPlusError
from ptm_plus.launch import compose
from ptm_plus.plugins import Plugins, load
from ptm_plus.prepare.preparation import Planned
from ptm_plus.prepare.stream import plan_stream
from ptm_plus.prepared import prepare_arranged
from ptm_plus.progress import Silent, Task, Watch
from ptm_plus.tryout import try_out, try_sizes

if TYPE_CHECKING:
    from ptm_plus.run import Run
    from ptm_plus.settings import RunSettings


class _WouldWork(PtmPlusError):
    """A dry run came to long work; the message names it. Hooks let errors of this kind pass."""


class DryWatch(Silent):
    """Stops at the first long work: everything that takes time announces itself as a task."""

    @contextmanager
    def task(self, name: str, begun: int = 0) -> Iterator[Task]:
        """Refuse to begin.

        Raises:
            _WouldWork: always.
        """
        raise _WouldWork(name)
        yield  # pragma: no cover


def make_plan(
    settings: RunSettings, watch: Watch, *, prepare_data: bool = False, device: str = ""
) -> dict[str, Any]:
    """Return the plan of a run as plain values.

    Args:
        settings: the run's settings.
        watch: where progress goes.
        prepare_data: prepare data and vectors first where need be.
        device: ``auto``, ``cpu`` or ``cuda``: prepare, and take some steps there; none if empty.

    Returns:
        ``settings`` (the main ones), ``plugins``, ``prepare`` (artifacts, and whether they are
        there), and, where the data are prepared, ``streams``, ``mixture``, ``masking``, ``stages``,
        ``model``; ``tried`` with a device; ``missing`` says why something is not in the plan.

    Raises:
        PtmPlusError: as a launch would.
    """
    document: dict[str, Any] = {
        "run": _main_settings(settings),
        "plugins": _plugins(load(settings.plugins, settings.plugin)),
        "prepare": [],
        "missing": "",
    }
    prepare_data = prepare_data or bool(device)
    composing = watch if prepare_data else DryWatch()
    try:
        arranged = arrange(settings, composing)
        document["prepare"] = [asdict(one) for one in _artifacts(arranged)]
        if not prepare_data and not all(one["present"] for one in document["prepare"]):
            return {**document, "missing": "the data are not prepared"}
        prepared = prepare_arranged(arranged, watch if prepare_data else Silent())
        document["masking"] = mask_figures(prepared, mask_collator(prepared))
        document |= data_figures(prepared, None)
        run = compose(prepared, torch.device("cpu"))
        document |= data_figures(prepared, run)
        document["stages"] = stage_figures(run)
        document["model"] = model_figures(run)
        document["features"] = _features(run)
        if device:
            document["tried"] = _tried(settings, device, watch)
    except _WouldWork as work:
        document["missing"] = f"{work.message} would be made first"
    return document


def _tried(settings: RunSettings, device: str, watch: Watch) -> dict[str, Any]:
    """Take some steps, as the settings say and with micro-batches of other sizes."""
    train, sizes = settings.train, []
    with watch.task("take some steps") as task:
        found = try_out(settings, device, Silent())
        for size in try_sizes(settings, device, Silent()):
            sizes.append(size)
            task.update(size.rows, settings.batch.rows, f"{size.rows} rows at a time")
    evaluations = 1 + (train.steps // train.evaluate_every if train.evaluate_every else 0)
    seconds = train.steps * found.seconds_per_step + evaluations * found.seconds_per_evaluation
    return {
        "tokens_per_second": found.tokens_per_step / found.seconds_per_step,
        "seconds": seconds,
        "memory": found.memory,
        "micro_rows": [
            {
                "rows": one.rows,
                "tokens_per_second": found.tokens_per_step / one.seconds_per_step,
                "peak_bytes": one.memory["peak_bytes"],
            }
            for one in sizes
        ],
    }


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
        "final_mask_rate": settings.masking.ends[1],
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


def _artifacts(arranged: Arrangement) -> list[Planned]:
    """Return what prepare finds and what it would make."""
    return [
        planned for stream in arranged.sources for planned in plan_stream(**arranged.recipe(stream))
    ]


def _features(run: Run) -> list[dict[str, str]]:
    return [
        {
            "plugin": owner.instance,
            "name": owner.component.name,
            "scope": owner.component.scope,
        }
        for owner in run.collator.features
    ]

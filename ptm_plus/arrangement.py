"""What a run will prepare: plugins, streams, tokenizer, layouts and annotators, before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ptm_plus.components import Annotator, ControlToken, Layout, PluginInfo, Rewriter, Stream
from ptm_plus.compose import Contribution, check_claims, check_needs
from ptm_plus.context import Context
from ptm_plus.errors import PluginError, SettingsError, nearest
from ptm_plus.inputs import (
    cache_folder,
    file_stream,
    given_inputs,
    halves_stream,
    linking_annotator,
    load_graph,
    text_stream,
)
from ptm_plus.knowledge.graph import Graph
from ptm_plus.model import check_model
from ptm_plus.plugins import Plugins, load
from ptm_plus.prepare.layouts import TEXT_LAYOUT
from ptm_plus.prepare.tokenization import load_tokenizer
from ptm_plus.prepare.tokenizer_cache import cached_tokenizer
from ptm_plus.probes import MENTIONS, RETRIEVAL, asked_texts
from ptm_plus.progress import Watch
from ptm_plus.questions import read_questions
from ptm_plus.rules import settle
from ptm_plus.run_folder import source_tokenizer
from ptm_plus.settings import RunSettings
from ptm_plus.sources import read_pairs


@dataclass(frozen=True)
class Arrangement:
    """Everything that prepare starts from.

    Attributes:
        settings: the run's settings.
        plugins: the run's plugins.
        context: what hooks may read; in phase tokenizer.
        streams: streams with their owners.
        sources: streams and evaluation sets, in the order in which they are prepared.
        tokenizer: with the control tokens.
        tokens: the control tokens.
        graph: the graph, if one was given.
        layouts: layout by name.
        annotators: all annotators.
        rewriters: all rewriters, in chain order.
    """

    settings: RunSettings
    plugins: Plugins
    context: Context
    streams: list[Contribution[Stream]]
    sources: list[Stream]
    tokenizer: Any
    tokens: list[ControlToken]
    graph: Graph | None
    layouts: dict[str, Layout]
    annotators: list[Annotator]
    rewriters: list[Rewriter]

    def recipe(self, stream: Stream) -> dict[str, Any]:
        """Return the arguments that prepare one stream.

        Raises:
            PluginError: nobody provides the stream's layout.
        """
        if stream.layout not in self.layouts:
            raise PluginError(
                f"stream {stream.name!r} needs layout {stream.layout!r}, which nobody "
                f"provides{nearest(stream.layout, self.layouts)}"
            )
        return {
            "stream": stream,
            "layout": self.layouts[stream.layout],
            "annotators": self.annotators,
            "rewriters": self.rewriters,
            "tokenizer": self.tokenizer,
            "settings": self.settings,
            "cache": cache_folder(self.settings),
            "seed": self.settings.train.seed,
        }


def arrange(settings: RunSettings, watch: Watch) -> Arrangement:
    """Load plugins and collect what they and the core bring to prepare.

    Args:
        settings: the resolved settings.
        watch: where progress goes; hooks get it too.

    Raises:
        PtmPlusError: a setting, a plugin or an input is wrong.
    """
    plugins = load(settings.plugins, settings.plugin)
    check_model(settings.model, settings.prepare.max_length)
    inputs = given_inputs(settings)
    _check_inputs(plugins, inputs)
    context = Context(settings, inputs, watch)
    streams = _streams(settings, plugins, context, inputs)
    context.advance("streams", streams={one.component.name: one.component for one in streams})
    tokenizer = _tokenizer(settings, streams, watch)
    context.advance("tokenizer", tokenizer=tokenizer)
    tokens = [one.component for one in gather(plugins, "ptm_special_tokens", context)]
    tokenizer.add_tokens([token.text for token in tokens], special_tokens=True)
    graph = load_graph(settings)
    linker: list[Annotator] = []
    if settings.data.labels and any(_takes(p.info, "spans:entity") for p in plugins.instances):
        read = [one.component for one in streams]
        linker.append(linking_annotator(settings, graph, read, watch))
    layouts = gather(plugins, "ptm_layouts", context, [TEXT_LAYOUT])
    return Arrangement(
        settings=settings,
        plugins=plugins,
        context=context,
        streams=streams,
        sources=[*(one.component for one in streams), *_sets(settings)],
        tokenizer=tokenizer,
        tokens=tokens,
        graph=graph,
        layouts={one.name: one for one in _versioned(plugins, layouts)},
        annotators=_versioned(plugins, gather(plugins, "ptm_annotators", context, linker)),
        rewriters=_versioned(plugins, gather(plugins, "ptm_rewriters", context)),
    )


def own_tokenizer(settings: RunSettings, watch: Watch) -> Any:
    """Return the tokenizer that a run trains on its text, before plugins add to it, or ``None``.

    Args:
        settings: of the run; those that name a tokenizer, or a model with one, train none.
        watch: where progress goes.
    """
    if _named_tokenizer(settings):
        return None
    plugins, inputs = load(settings.plugins, settings.plugin), given_inputs(settings)
    streams = _streams(settings, plugins, Context(settings, inputs, watch), inputs)
    return _tokenizer(settings, streams, watch)


def _takes(info: PluginInfo, what: str) -> bool:
    return what in info.needs or what in info.uses


def gather(plugins: Plugins, hook: str, context: Context, core: Sequence[Any] = ()) -> list[Any]:
    """Return the composed answers of a hook, the core's own among them."""
    own = [Contribution("core", component) for component in core]
    return settle([*own, *plugins.collect(hook, context)], plugins.order)


def _versioned(plugins: Plugins, answers: Sequence[Contribution[Any]]) -> list[Any]:
    """Return components whose fingerprint holds their plugin's version, for the cache."""
    version = {one.instance: f" {one.version}" for one in plugins.instances}
    return [
        replace(
            one.component, fingerprint=one.component.fingerprint + version.get(one.instance, "")
        )
        for one in answers
    ]


def _check_inputs(plugins: Plugins, inputs: frozenset[str]) -> None:
    needs = {need for one in plugins.instances for need in one.info.needs}
    spans = {need for need in needs if need.startswith("spans:")}  # shows after prepare
    provided = set(inputs) | spans
    check_needs(plugins.instances, provided)
    check_claims(plugins.instances, provided)
    if not {"text", "pairs"} & inputs and not plugins.instances:
        raise SettingsError(
            "no text was given", "give --text FILE, --pairs FILE, or no input for the sample"
        )


def _streams(
    settings: RunSettings, plugins: Plugins, context: Context, inputs: frozenset[str]
) -> list[Contribution[Stream]]:
    core = []
    if "text" in inputs:
        core.append(text_stream(settings))
    if "pairs" in inputs and not any("pairs" in p.info.needs for p in plugins.instances):
        core.append(halves_stream(settings))
    streams = gather(plugins, "ptm_streams", context, core)
    names = {one.component.name for one in streams}
    for section in ("weights", "alpha", "joins"):
        for name in getattr(settings.batch, section):
            if name not in names:
                raise SettingsError(
                    f"batch.{section}.{name}: there is no stream {name!r}{nearest(name, names)}",
                    f"streams of this run: {', '.join(sorted(names))}",
                )
    return streams


def _named_tokenizer(settings: RunSettings) -> str | None:
    if settings.model.init_from and not (settings.tokenizer.path or settings.model.path):
        return source_tokenizer(settings.model.init_from)
    return settings.tokenizer.path or settings.model.path


def _tokenizer(settings: RunSettings, streams: Sequence[Contribution[Stream]], watch: Watch) -> Any:
    path = _named_tokenizer(settings)
    if path:
        return load_tokenizer(path, settings.model.trust_remote_code)
    texts = (
        text
        for one in streams
        for example in one.component.examples()
        for text in getattr(example, "fields", {}).values()
    )
    key = [one.component.fingerprint for one in streams]
    size, family = settings.tokenizer.vocabulary, settings.model.family
    return cached_tokenizer(texts, size, family, key, cache_folder(settings), watch)


def _sets(settings: RunSettings) -> list[Stream]:
    """Return the evaluation sets: prepared like streams, never trained on."""
    given = settings.evaluate
    sets = []
    if given.mentions:
        sets.append(file_stream(MENTIONS, given.mentions, read_questions, settings))
    if given.pairs:
        sets.append(file_stream(RETRIEVAL, given.pairs, read_pairs, settings))
    for name, argument in asked_texts(given.text).items():
        sets.append(text_stream(settings, name=name, files=[argument], objectives=()))
    return sets

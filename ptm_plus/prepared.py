"""The data side of a run: prepared streams, label lists, held-out sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ptm_plus.arrangement import Arrangement, arrange
from ptm_plus.components import ControlToken
from ptm_plus.context import Context
from ptm_plus.data import StreamData
from ptm_plus.errors import DataError
from ptm_plus.inputs import load_links
from ptm_plus.knowledge.graph import Graph
from ptm_plus.label_lists import Labels, appended
from ptm_plus.linked_pairs import LinkedPairs, linked_pairs
from ptm_plus.plugins import Plugins
from ptm_plus.prepare.store import SequenceStore
from ptm_plus.prepare.stream import prepare_stream
from ptm_plus.progress import Watch
from ptm_plus.settings import Course, RunSettings
from ptm_plus.views import LANGUAGE

NOTHING: Labels = MappingProxyType({})


@dataclass
class Prepared:
    """What is known after prepare.

    Attributes:
        settings: the run's settings.
        plugins: the run's plugins.
        context: what hooks may read.
        tokenizer: with the control tokens.
        tokens: the control tokens.
        streams: data by stream.
        sets: evaluation sets by name: prepared like streams, never trained on.
        labels: the run's label list by span kind.
        kept_labels: of these, the ones that the run had when it began; the first of each list.
        graph: the graph, if one was given.
        accounts: what prepare counted, by stream.
        linked_pairs: by stream of pairs, how many speak of one entity in both halves.
        stream_owners: who declared each stream, ``core`` or an instance.
        stream_objectives: names of the objectives that each stream serves.
        unmasked: names of streams that are read as they are.
        stream_weights: share of the step's rows by stream.
        stream_alpha: exponent of token counts among a stream's strata, over the run.
    """

    settings: RunSettings
    plugins: Plugins
    context: Context
    tokenizer: Any
    tokens: list[ControlToken]
    streams: dict[str, StreamData]
    sets: dict[str, StreamData]
    labels: dict[str, tuple[str, ...]]
    kept_labels: Labels
    graph: Graph | None
    accounts: dict[str, Any]
    linked_pairs: dict[str, LinkedPairs]
    stream_owners: dict[str, str]
    stream_objectives: dict[str, tuple[str, ...]]
    unmasked: frozenset[str]
    stream_weights: dict[str, float]
    stream_alpha: dict[str, Course]


def prepare(settings: RunSettings, watch: Watch, kept_labels: Labels = NOTHING) -> Prepared:
    """Load plugins and tokenizer, prepare every stream.

    Args:
        settings: the run's settings.
        watch: where progress goes.
        kept_labels: label lists of the run that goes on; what is new is appended to them.

    Raises:
        PtmPlusError: a setting, a plugin or an input is wrong.
    """
    return prepare_arranged(arrange(settings, watch), watch, kept_labels)


def prepare_arranged(given: Arrangement, watch: Watch, kept_labels: Labels = NOTHING) -> Prepared:
    """Prepare every stream of an arrangement."""
    settings, plugins, graph = given.settings, given.plugins, given.graph
    stores = _stores(given, watch)
    labels = appended(kept_labels, _label_lists(stores.values(), graph))
    links = load_links(settings)
    _check_spans(plugins, stores, graph, links)
    trained = {one.component.name: one.component for one in given.streams}
    data = {
        name: StreamData(name, store, labels, settings, train=name in trained, links=links)
        for name, store in stores.items()
    }
    linked = {name: linked_pairs(store) for name, store in stores.items() if name in trained}
    _tell_streams({name: data[name] for name in trained}, linked, watch)
    return Prepared(
        settings=settings,
        plugins=plugins,
        context=given.context,
        tokenizer=given.tokenizer,
        tokens=given.tokens,
        streams={name: data[name] for name in trained},
        sets={name: data[name] for name in stores if name not in trained},
        labels=labels,
        kept_labels=kept_labels,
        graph=graph,
        accounts={name: stores[name].account for name in stores},
        linked_pairs={name: found for name, found in linked.items() if found},
        stream_owners={one.component.name: one.instance for one in given.streams},
        stream_objectives={name: one.objectives for name, one in trained.items()},
        unmasked=frozenset(name for name, one in trained.items() if not one.masked),
        stream_weights={
            name: settings.batch.weights.get(name, one.weight) for name, one in trained.items()
        },
        stream_alpha={
            name: settings.batch.alpha.get(name, one.alpha) for name, one in trained.items()
        },
    )


def _stores(given: Arrangement, watch: Watch) -> dict[str, SequenceStore]:
    stores = {}
    for stream in given.sources:
        recipe = given.recipe(stream)
        with watch.task(f"prepare {stream.name}") as task:
            stores[stream.name] = prepare_stream(**recipe, progress=task.update)
        watch.figures("account", {"stream": stream.name, "account": stores[stream.name].account})
    return stores


def _label_lists(
    stores: Iterable[SequenceStore], graph: Graph | None
) -> dict[str, tuple[str, ...]]:
    """Return all labels by span kind, sorted, the graph's entities among them, and languages."""
    found: dict[str, set[str]] = {LANGUAGE: set()}
    for store in stores:
        found[LANGUAGE].update(store.languages)
        for spans in store.spans.values():
            for kind in spans.kinds:
                found.setdefault(kind, set()).update(spans.ids)
    if graph is not None:
        found.setdefault("entity", set()).update(graph.entities)
    return {kind: tuple(sorted(labels - {""})) for kind, labels in sorted(found.items())}


def _tell_streams(
    streams: Mapping[str, StreamData], linked: Mapping[str, LinkedPairs | None], watch: Watch
) -> None:
    """Say how full the rows are, and how many pairs speak of one entity in both halves."""
    for name, data in streams.items():
        fill = min(data.rows(stratum, 0).fill for stratum in data.tokens)
        watch.note(
            f"{name}: {sum(data.tokens.values()):,} training tokens in {len(data.tokens)} strata, "
            f"rows at least {fill:.1%} full, {len(data.held_out):,} sequences held out"
        )
        if data.unsplit:
            watch.note(
                f"{name}: all text of {', '.join(data.unsplit)} would be held out (it is so few "
                "examples); it is trained on instead, and no loss is measured on it"
            )
        found = linked.get(name)
        if found and found.any:
            share = found.both / found.pairs
            few = "; too few for them to act together" if share < 0.01 else ""
            watch.note(
                f"{name}: {found.both:,} of {found.pairs:,} pairs ({share:.1%}) have one entity "
                f"linked in both halves, {found.any:,} in one at least{few}"
            )


def _check_spans(
    plugins: Plugins,
    stores: Mapping[str, SequenceStore],
    graph: Graph | None,
    links: Mapping[str, str],
) -> None:
    """Check that the spans that plugins need exist, and that entities are the graph's."""
    hint = (
        "give --labels with the entities' names in the text's languages, or text with mentions; "
        "`ptm-plus kg check` shows what matches"
    )
    for plugin in plugins.instances:
        for need in plugin.info.needs:
            if not need.startswith("spans:"):
                continue
            kind = need.removeprefix("spans:")
            tables = [
                spans
                for store in stores.values()
                for spans in store.spans.values()
                if kind in spans.kinds and bool((spans.kind == spans.kinds.index(kind)).any())
            ]
            found = f"plugin {plugin.instance!r} needs {kind} spans, but the text "
            if not tables:
                raise DataError(found + "has none", hint)
            labels = {links.get(label, label) for spans in tables for label in spans.ids}
            if graph is not None and kind == "entity" and not labels & set(graph.entities):
                raise DataError(f"{found}mentions none of the graph's ({len(labels)} others)", hint)

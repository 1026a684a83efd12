"""The core's inputs: what was given, and the streams and annotators that it makes of it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ptm_plus.components import Annotator, Refused, Stream
from ptm_plus.errors import DataError
from ptm_plus.examples import Example, Span
from ptm_plus.keyed import derive_key
from ptm_plus.knowledge.common_words import common_words
from ptm_plus.knowledge.graph import Graph, read_graph
from ptm_plus.knowledge.labels import read_labels
from ptm_plus.knowledge.linker import DictionaryLinker, LinkCounts
from ptm_plus.knowledge.links import read_links
from ptm_plus.prepare.word_counts import stream_word_counts
from ptm_plus.progress import Watch
from ptm_plus.settings import RunSettings
from ptm_plus.sources import SourceSpec, parse_source, read_pairs, read_text, source_fingerprint
from ptm_plus.sources.pair_filters import PairFilters
from ptm_plus.sources.readers import placed_pairs

Read = Callable[[SourceSpec], Iterator[Example | Refused]]


def given_inputs(settings: RunSettings) -> frozenset[str]:
    """Return the names of the inputs that were given."""
    data = settings.data
    given = {
        "text": data.text,
        "pairs": data.pairs,
        "graph": data.kg,
        "labels": data.labels,
        "vectors": data.vectors,
    }
    return frozenset(name for name, value in given.items() if value)


def cache_folder(settings: RunSettings) -> Path:
    """Return the folder for prepared data and vectors."""
    import os

    if settings.prepare.cache:
        return Path(settings.prepare.cache)
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "ptm-plus"


def text_stream(
    settings: RunSettings,
    *,
    name: str = "text",
    files: Sequence[str] | None = None,
    layout: str = "text",
    objectives: tuple[str, ...] = ("mlm",),
    weight: float = 1.0,
) -> Stream:
    """Return the files of running text; the core's stream of them, or one of a plugin's own.

    Args:
        settings: the run's settings.
        name: stream name.
        files: what is read, as after ``--text``; the run's own text by default.
        layout: layout that turns a text into sequences.
        objectives: objectives that the stream serves.
        weight: share of the step's rows.
    """
    given = settings.data.text if files is None else files
    stream = file_stream(name, given, read_text, settings)
    return replace(stream, layout=layout, objectives=objectives, weight=weight)


def halves_stream(settings: RunSettings) -> Stream:
    """Return parallel files as single sentences, for runs without a plugin that takes pairs."""
    return _wanted_pairs("halves", settings)


def pairs_stream(
    settings: RunSettings,
    *,
    name: str,
    layout: str,
    objectives: tuple[str, ...],
    weight: float = 1.0,
) -> Stream:
    """Return parallel files as pairs, for plugins.

    Args:
        settings: the run's settings.
        name: stream name.
        layout: layout that turns a pair into a sequence.
        objectives: objectives that the stream serves.
        weight: share of the step's rows.
    """
    stream = _wanted_pairs(name, settings)
    return replace(stream, layout=layout, objectives=objectives, weight=weight)


def _wanted_pairs(name: str, settings: RunSettings) -> Stream:
    """Return a stream over the parallel files, without the pairs that the filters refuse."""
    data = settings.data
    filters = PairFilters(data.length_ratio, data.duplicates, not data.swapped)
    plain = file_stream(name, data.pairs, read_pairs, settings)
    specs = [parse_source(argument) for argument in data.pairs]
    return replace(
        plain,
        examples=partial(_filtered, specs, filters, data.max_examples),
        fingerprint=f"{derive_key(plain.fingerprint, repr(filters)):016x}",
    )


def _filtered(
    specs: Sequence[SourceSpec], filters: PairFilters, limit: int
) -> Iterator[Example | Refused]:
    rows = filters.over(placed_pairs(spec) for spec in specs)
    return itertools.islice(rows, limit) if limit else rows


def file_stream(name: str, arguments: Sequence[str], read: Read, settings: RunSettings) -> Stream:
    """Return a stream over files.

    Args:
        name: stream name.
        arguments: what the flags named.
        read: reader of one source.
        settings: gives the cache folder and the limit on examples.
    """
    specs = [parse_source(argument) for argument in arguments]
    prints = [source_fingerprint(spec, cache_folder(settings)) for spec in specs]
    return Stream(
        name=name,
        examples=partial(_examples, specs, read, settings.data.max_examples),
        fingerprint=f"{derive_key(*prints):016x}",
    )


def _examples(specs: Sequence[SourceSpec], read: Read, limit: int) -> Iterator[Example | Refused]:
    rows = itertools.chain.from_iterable(read(spec) for spec in specs)
    return itertools.islice(rows, limit) if limit else rows


def load_graph(settings: RunSettings) -> Graph | None:
    """Return the graph of the run, or ``None`` when none was given."""
    data = settings.data
    return read_graph(_files(data.kg), _files(data.links)) if data.kg else None


def load_links(settings: RunSettings) -> dict[str, str]:
    """Return the representative of every linked id."""
    return read_links(_files(settings.data.links))


def _files(arguments: Sequence[str]) -> list[str]:
    """Return the files that flags name, patterns expanded.

    Raises:
        DataError: a file is not there, or a dataset of the hub is named.
    """
    specs = [parse_source(argument) for argument in arguments]
    for spec in specs:
        if spec.hub is not None:
            raise DataError(
                "only text and pairs are read from the hub", "name a file", path=spec.argument
            )
    return [path for spec in specs for path in spec.files]


class _Linking:
    """The dictionary linker as an annotator; counts what it saw."""

    def __init__(self, linker: DictionaryLinker) -> None:
        self.linker = linker
        self.counts: Counter[str] = Counter()

    def __call__(self, examples: Sequence[Example]) -> list[list[Span]]:
        return [self._spans(example) for example in examples]

    def _spans(self, example: Example) -> list[Span]:
        spans = []
        for field, text in example.fields.items():
            seen = LinkCounts()
            links = self.linker.link(text, example.languages.get(field, "und"), seen)
            self.counts.update(mentions=seen.found, linked=seen.linked)
            self.counts.update(ambiguous=seen.ambiguous, common=seen.common)
            spans += [Span(field, link.start, link.end, "entity", link.id) for link in links]
        return spans

    def account(self) -> Mapping[str, int]:
        """Return what was counted since the last call."""
        counted, self.counts = dict(self.counts), Counter()
        return counted


def linking_annotator(
    settings: RunSettings, graph: Graph | None, streams: Sequence[Stream], watch: Watch
) -> Annotator:
    """Return the dictionary linker over the given labels, restricted to the graph's entities.

    Args:
        settings: the run's settings.
        graph: the run's graph.
        streams: the run's streams; common words are counted over them, unless that is in the cache.
        watch: where counting is told.
    """
    labels = read_labels(_files(settings.data.labels), _files(settings.data.links))
    degree: dict[str, int] = {}
    if graph is not None:
        degree = dict(zip(graph.entities, np.asarray(graph.degree()).tolist(), strict=True))
        labels = labels.restricted(set(graph.entities))
    options = settings.linker
    common = {}
    if options.common_words:
        counts = stream_word_counts(
            labels, streams, settings.data.max_examples, cache_folder(settings), watch
        )
        common = common_words(labels, counts)
    needs_degree = options.ambiguity == "most_connected"
    linker = DictionaryLinker(
        labels,
        min_length=options.min_length,
        ambiguity="skip" if needs_degree and graph is None else options.ambiguity,
        lower_case=options.lower_case,
        degree=degree,
        common=common,
    )
    linking = _Linking(linker)
    return Annotator(
        name="dictionary",
        annotate=linking,
        fingerprint=linker.fingerprint,
        kinds=("entity",),
        account=linking.account,
    )

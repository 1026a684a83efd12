"""Views: the tokens of one pass as flat arrays, gathered from a store.

T tokens, S sequences, M spans of a kind. A view is made by index arithmetic alone: no Python per
token or per sequence. Sequences stand in order of length, so that those of equal length are
neighbours and attention can take them as one block without padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptm_plus.keyed import Draws, sequence_keys
from ptm_plus.prepare.store import MOVABLE, NO_LANGUAGE, NO_WORD, RESTART, SequenceStore
from ptm_plus.ragged import exclusive_cumsum, offsets_of, ragged_indexes

Ints = NDArray[np.int64]

LANGUAGE = "language"
"""Name of the run's list of languages among the label lists."""


@dataclass(frozen=True)
class SpanTable:
    """Spans of one kind in a view.

    Attributes:
        start: ``[M]`` first token in the view.
        length: ``[M]`` number of tokens.
        sequence: ``[M]`` sequence of the view.
        segment: ``[M]`` segment of the stored sequence (tells the halves of a pair apart).
        id: ``[M]`` row of the run's label list of this kind, -1 for none.
    """

    start: Ints
    length: Ints
    sequence: Ints
    segment: Ints
    id: Ints

    def __len__(self) -> int:
        return len(self.start)

    def tokens(self, chosen: NDArray[Any] | None = None) -> Ints:
        """Return the token indexes of the chosen spans (all by default)."""
        rows = np.arange(len(self)) if chosen is None else chosen
        return ragged_indexes(self.start[rows], self.length[rows])


EMPTY_SPANS = SpanTable(*(np.zeros(0, dtype=np.int64) for _ in range(5)))


@dataclass(frozen=True)
class View:
    """The tokens of one pass.

    Attributes:
        stream: stream name.
        numbers: ``[S]`` sequence numbers in the store.
        keys: ``[S]`` draw index of each sequence (number and epoch).
        offsets: ``[S + 1]`` first token of each sequence.
        ids: ``[T]`` token ids.
        sequence: ``[T]`` sequence of each token.
        source: ``[T]`` place of the token in its stored sequence, whatever the segments' order.
        words: ``[T]`` number of the word in the view, -1 for special tokens.
        positions: ``[T]`` position ids, from 0.
        types: ``[T]`` token type ids.
        segments: ``[T]`` segment of the stored sequence.
        languages: ``[T]`` row of the run's languages, -1 for special tokens.
        spans: span tables by kind.
        labels: ``[S]`` sequence labels by name.
        columns: ``[T]`` token columns that layouts declared.
    """

    stream: str
    numbers: Ints
    keys: NDArray[np.uint64]
    offsets: Ints
    ids: Ints
    sequence: Ints
    source: Ints
    words: Ints
    positions: Ints
    types: Ints
    segments: Ints
    languages: Ints
    spans: Mapping[str, SpanTable]
    labels: Mapping[str, Ints]
    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Ints:
        """``[S]`` tokens of each sequence."""
        return np.diff(self.offsets)

    def spans_of(self, kind: str) -> SpanTable:
        """Return the spans of a kind; an empty table when there are none."""
        return self.spans.get(kind, EMPTY_SPANS)

    def token_draws(self, draws: Draws, name: str) -> NDArray[np.float64]:
        """Return ``[T]`` draws keyed by sequence and token."""
        return draws.uniform(name, self.keys[self.sequence], self.source)


@dataclass(frozen=True)
class _Placed:
    """Segments of the chosen sequences after movable ones have changed places (G segments)."""

    sequence: Ints
    content: Ints
    slot: Ints
    length: Ints
    stored_start: Ints
    start: Ints
    local: Ints


class ViewMaker:
    """Gathers views from one stream's store.

    Args:
        stream: stream name.
        store: the stream's sequences.
        labels: the run's label list by span kind; ids are rows of it.
        seed: the run's seed.
        links: label that stands for another one.
    """

    def __init__(
        self,
        stream: str,
        store: SequenceStore,
        labels: Mapping[str, tuple[str, ...]],
        seed: int,
        links: Mapping[str, str] | None = None,
    ) -> None:
        self.stream = stream
        self.store = store
        self.lengths: Ints = np.diff(store.offsets)
        self._draws = Draws(seed, "core", stream)
        self._moves = bool(np.any(np.asarray(store.segment_flags) & MOVABLE))
        self._languages = _rows_of(store.languages, labels.get(LANGUAGE, ()), NO_LANGUAGE)

        def meant(ids: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(links.get(label, label) for label in ids) if links else ids

        self._rows = {
            name: [_rows_of(meant(spans.ids), labels.get(kind, ())) for kind in spans.kinds]
            for name, spans in store.spans.items()
        }

    def view(self, numbers: Ints, epochs: Ints) -> View:
        """Return the view of some sequences, each in an epoch."""
        lengths = self.lengths[numbers]
        order = np.argsort(lengths, kind="stable")
        numbers, lengths = numbers[order], lengths[order]
        keys = sequence_keys(numbers, epochs[order])
        offsets = offsets_of(lengths)
        placed = self._place(numbers, keys, offsets)
        store = self.store
        stored = ragged_indexes(
            store.offsets[numbers][placed.sequence] + placed.stored_start, placed.length
        )
        sequence = np.repeat(placed.sequence, placed.length)
        source = stored - store.offsets[numbers][sequence]
        languages = self._languages[store.segment_language[placed.content]]
        return View(
            stream=self.stream,
            numbers=numbers,
            keys=keys,
            offsets=offsets,
            ids=store.ids[stored].astype(np.int64),
            sequence=sequence,
            source=source,
            words=_number_words(store.words[stored], sequence),
            positions=self._positions(placed, stored),
            types=np.repeat(store.segment_type[placed.slot].astype(np.int64), placed.length),
            segments=np.repeat(placed.local, placed.length),
            languages=np.repeat(languages, placed.length),
            spans=self.spans(numbers, placed),
            labels={name: column[numbers] for name, column in store.label.items()},
            columns={name: column[stored] for name, column in store.columns.items()},
        )

    def occurrences(self, kind: str, labels: int) -> Ints:
        """Return how often each label of a span kind is marked in all sequences.

        Args:
            kind: span kind.
            labels: length of the run's label list of this kind.
        """
        counts = np.zeros(labels, dtype=np.int64)
        for name, spans in self.store.spans.items():
            if kind in spans.kinds:
                number = spans.kinds.index(kind)
                rows = self._rows[name][number][spans.id[spans.kind == number]]
                counts += np.bincount(rows[rows >= 0], minlength=labels)
        return counts

    def spans(self, numbers: Ints, placed: _Placed | None = None) -> dict[str, SpanTable]:
        """Return the span tables of some sequences; ``start`` is -1 without placed segments."""
        tables: dict[str, list[SpanTable]] = {}
        for name, spans in sorted(self.store.spans.items()):
            first = spans.offsets[numbers]
            count = spans.offsets[numbers + 1] - first
            rows = ragged_indexes(first, count)
            sequence = np.repeat(np.arange(len(numbers), dtype=np.int64), count)
            segment = spans.segment[rows].astype(np.int64)
            start = spans.start[rows].astype(np.int64)
            start = (
                np.full(len(rows), -1)
                if placed is None
                else start + _shift(placed, sequence, segment)
            )
            kinds = spans.kind[rows]
            for number, kind in enumerate(spans.kinds):
                of_kind = kinds == number
                ids = self._rows[name][number][spans.id[rows]]
                columns = (start, spans.length[rows].astype(np.int64), sequence, segment, ids)
                tables.setdefault(kind, []).append(SpanTable(*(c[of_kind] for c in columns)))
        return {kind: _joined(parts) for kind, parts in tables.items()}

    def _place(self, numbers: Ints, keys: NDArray[np.uint64], offsets: Ints) -> _Placed:
        store = self.store
        first = store.segments[numbers]
        count = store.segments[numbers + 1] - first
        slot = ragged_indexes(first, count)
        sequence = np.repeat(np.arange(len(numbers), dtype=np.int64), count)
        content = slot.copy()
        if self._moves:
            movable = np.flatnonzero(store.segment_flags[slot] & MOVABLE)
            chance = self._draws.uniform("segment order", keys[sequence[movable]], slot[movable])
            content[movable] = slot[movable[np.lexsort((chance, sequence[movable]))]]
        stored_length = store.segment_length[slot].astype(np.int64)
        stored_start = _start_within(stored_length, sequence, offsets)
        length = store.segment_length[content].astype(np.int64)
        back = content - slot + np.arange(len(slot))
        return _Placed(
            sequence=sequence,
            content=content,
            slot=slot,
            length=length,
            stored_start=stored_start[back],
            start=_start_within(length, sequence, offsets),
            local=content - np.repeat(first, count),
        )

    def _positions(self, placed: _Placed, stored: Ints) -> Ints:
        """Positions count on from slot to slot and restart where a slot or a sequence says so."""
        flags = self.store.segment_flags[placed.slot]
        first = np.concatenate(([True], placed.sequence[1:] != placed.sequence[:-1]))
        begins = first | ((flags & RESTART) > 0)
        if self.store.position is None:
            within = ragged_indexes(np.zeros(len(placed.length), dtype=np.int64), placed.length)
            extent = placed.length
        else:
            within = self.store.position[stored].astype(np.int64)
            bounds, filled = exclusive_cumsum(placed.length), placed.length > 0
            extent = np.zeros_like(placed.length)
            extent[filled] = np.maximum.reduceat(within, bounds[filled]) + 1
        before = exclusive_cumsum(extent)
        anchor = np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))
        return within + np.repeat(before - before[anchor], placed.length)


def _start_within(length: Ints, sequence: Ints, offsets: Ints) -> Ints:
    """Return where each segment starts within its sequence."""
    return exclusive_cumsum(length) - offsets[sequence]


def _shift(placed: _Placed, sequence: Ints, segment: Ints) -> Ints:
    """Return what to add to a stored token index to get its index in the view."""
    segments = np.bincount(placed.sequence, minlength=int(placed.sequence[-1]) + 1)
    first = exclusive_cumsum(segments)
    by_content = np.empty(len(placed.sequence), dtype=np.int64)
    by_content[first[placed.sequence] + placed.local] = np.arange(len(placed.sequence))
    row = by_content[first[sequence] + segment]
    tokens = np.bincount(placed.sequence, weights=placed.length).astype(np.int64)
    begin = exclusive_cumsum(tokens)
    return begin[sequence] + placed.start[row] - placed.stored_start[row]


def _number_words(words: NDArray[Any], sequence: Ints) -> Ints:
    """Number words through the view: a new number where word or sequence changes."""
    special = words == NO_WORD
    changed = np.ones(len(words), dtype=np.int64)
    changed[1:] = (words[1:] != words[:-1]) | (sequence[1:] != sequence[:-1])
    changed[special] = 1
    numbers = np.cumsum(changed) - 1
    numbers[special] = -1
    return numbers


def _rows_of(own: tuple[str, ...], labels: tuple[str, ...], none: int = -1) -> Ints:
    """Map a store's own numbers to rows of the run's label list; ``none`` becomes -1."""
    known = {label: row for row, label in enumerate(labels)}
    rows = np.full(max(len(own), none) + 1, -1, dtype=np.int64)
    rows[: len(own)] = [known.get(label, -1) for label in own]
    return rows


def _joined(parts: list[SpanTable]) -> SpanTable:
    """Put the spans of several annotators in order of place (moved halves change it as well)."""
    names = ("start", "length", "sequence", "segment", "id")
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in names]
    order = np.lexsort((columns[0], columns[2]))
    return SpanTable(*(column[order] for column in columns))

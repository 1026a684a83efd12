"""From spans over characters to one part of a span table over tokens."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptm_plus.examples import Span
from ptm_plus.prepare.accounts import SpanAccount, add_counts
from ptm_plus.prepare.sequence_parts import Document, Names
from ptm_plus.prepare.store import NO_FIELD, SequenceStore


@dataclass(frozen=True, eq=False)
class Places:
    """Where the tokens of some consecutive sequences lie in their texts.

    Attributes:
        fields: names that ``segment_field`` indexes.
        char_start: ``[n]`` first character of each token.
        char_end: ``[n]`` one past the last one.
        offsets: ``[s+1]`` first token of each sequence.
        segments: ``[s+1]`` first segment of each sequence.
        borders: ``[g+1]`` first token of each segment.
        segment_field: ``[g]`` index into ``fields``, 255 for special tokens.
        document: ``[s]`` number and version of the document, as one rising number.
    """

    fields: tuple[str, ...]
    char_start: NDArray[np.int64]
    char_end: NDArray[np.int64]
    offsets: NDArray[np.int64]
    segments: NDArray[np.int64]
    borders: NDArray[np.int64]
    segment_field: NDArray[np.int64]
    document: NDArray[np.int64]

    @classmethod
    def from_part(cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Places:
        """Read them from a part of the tokens artifact."""
        lengths = arrays["segment_length"].astype(np.int64)
        return cls(
            fields=tuple(header["fields"]),
            char_start=arrays["char_start"].astype(np.int64),
            char_end=arrays["char_end"].astype(np.int64),
            offsets=arrays["offsets"],
            segments=arrays["segments"],
            borders=np.append(0, np.cumsum(lengths)),
            segment_field=arrays["segment_field"].astype(np.int64),
            document=_document(arrays["example"], arrays["version"]),
        )

    @classmethod
    def from_store(cls, store: SequenceStore, first: int, last: int) -> Places:
        """Read those of the examples ``first`` to ``last`` (excluded) from the artifact."""
        low, high = np.searchsorted(store.example, (first, last))
        offsets = store.offsets[low : high + 1].astype(np.int64)
        segments = store.segments[low : high + 1].astype(np.int64)
        tokens, parts = slice(offsets[0], offsets[-1]), slice(segments[0], segments[-1])
        example = store.example[low:high]
        version = np.zeros(len(example)) if store.version is None else store.version[low:high]
        return cls(
            fields=store.fields,
            char_start=store.char_start[tokens].astype(np.int64),
            char_end=store.char_end[tokens].astype(np.int64),
            offsets=offsets - offsets[0],
            segments=segments - segments[0],
            borders=np.append(0, np.cumsum(store.segment_length[parts].astype(np.int64))),
            segment_field=store.segment_field[parts].astype(np.int64),
            document=_document(example, version),
        )

    def has(self, document: Document) -> bool:
        """Return whether the document has sequences here."""
        low, high = self._rows(document)
        return high > low

    def find(self, document: Document, spans: Sequence[Span]) -> Iterator[tuple[int, ...]]:
        """Yield (span, sequence, segment, first token, tokens) for spans that lie whole here."""
        by_field: dict[str, list[int]] = {}
        for number, span in enumerate(spans):
            by_field.setdefault(span.field, []).append(number)
        for sequence in range(*self._rows(document)):
            first_segment = int(self.segments[sequence])
            for segment in range(first_segment, int(self.segments[sequence + 1])):
                field = int(self.segment_field[segment])
                wanted = [] if field == NO_FIELD else by_field.get(self.fields[field], [])
                if not wanted:
                    continue
                base = int(self.borders[segment] - self.offsets[sequence])
                text = document.example.fields[self.fields[field]]
                for number, start, length in self._within(segment, spans, wanted, text):
                    yield number, sequence, segment - first_segment, base + start, length

    def _within(
        self, segment: int, spans: Sequence[Span], wanted: list[int], text: str
    ) -> Iterator[tuple[int, int, int]]:
        tokens = slice(*self.borders[segment : segment + 2])
        starts, ends = self.char_start[tokens], self.char_end[tokens]
        first = np.searchsorted(ends, [spans[number].start for number in wanted], side="right")
        last = np.searchsorted(starts, [spans[number].end for number in wanted], side="left")
        for number, low, high in zip(wanted, first.tolist(), last.tolist(), strict=True):
            # At the segment's ends a part of the mention may have gone elsewhere.
            whole = high > low
            if whole and low == 0:
                whole = not _visible(text[spans[number].start : starts[0]])
            if whole and high == len(ends):
                whole = not _visible(text[ends[-1] : spans[number].end])
            if whole:
                yield number, low, high - low

    def _rows(self, document: Document) -> tuple[int, int]:
        key = _document(np.array(document.number), np.array(document.version))
        low, high = np.searchsorted(self.document, (key, key + 1))
        return int(low), int(high)


def span_part(
    places: Places, documents: Sequence[Document], spans: Sequence[Sequence[Span]]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays and the header (without the rows that it stands for) of a span part.

    Args:
        places: where the tokens lie.
        documents: the documents that have sequences.
        spans: the spans of each document, over characters.
    """
    account, kinds, ids = SpanAccount(), Names(), Names()
    rows: list[tuple[Any, ...]] = []
    for document, found in zip(documents, spans, strict=True):
        distinct = list(dict.fromkeys(found))
        kept = set()
        for number, sequence, segment, start, length in places.find(document, distinct):
            span = distinct[number]
            rows.append((sequence, start, length, span.kind, span.id, segment))
            kept.add(number)
        account.found += len(distinct)
        account.kept += len(kept)
        add_counts(account.kinds, Counter(distinct[number].kind for number in kept))
    account.cut = account.found - account.kept
    rows.sort()
    table = {name: [row[place] for row in rows] for place, name in enumerate(_COLUMNS)}
    counts = np.bincount(np.array(table["sequence"], np.int64), minlength=len(places.document))
    arrays = {
        "offsets": np.append(0, np.cumsum(counts)),
        "start": np.array(table["start"], np.uint16),
        "length": np.array(table["length"], np.uint16),
        "segment": np.array(table["segment"], np.uint8),
        "kind": kinds.numbers(table["kind"]),
        "id": np.array([ids.number(label) if label else -1 for label in table["id"]], np.int64),
    }
    header = {
        "kinds": list(kinds),
        "ids": list(ids),
        "sequences": len(places.document),
        "spans": len(rows),
        "account": asdict(account),
    }
    return arrays, header


_COLUMNS = ("sequence", "start", "length", "kind", "id", "segment")


def _document(example: NDArray[Any], version: NDArray[Any]) -> NDArray[np.int64]:
    return example.astype(np.int64) * 256 + version.astype(np.int64)


def _visible(text: str) -> bool:
    """Return whether there is anything that a tokenizer would not silently drop."""
    return any(not one.isspace() and unicodedata.category(one)[0] not in "CM" for one in text)

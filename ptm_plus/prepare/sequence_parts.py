"""From laid-out sequences to the arrays of one part of the tokens artifact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptm_plus.components import Layout
from ptm_plus.errors import DataError, PluginError
from ptm_plus.examples import Example
from ptm_plus.prepare.accounts import Account, add_counts
from ptm_plus.prepare.layouts import LaidOut, Segment, resolve_positions
from ptm_plus.prepare.store import MOVABLE, NO_FIELD, NO_LANGUAGE, NO_WORD, RESTART

_MOST_SEGMENTS = 255


class Names:
    """Numbers for names, in the order in which they are first met."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Return the number of a name."""
        return self._numbers.setdefault(name, len(self._numbers))

    def numbers(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the numbers of several names."""
        return np.array([self.number(name) for name in names], np.int64)

    def __iter__(self) -> Any:
        return iter(self._numbers)


@dataclass(frozen=True, slots=True)
class Document:
    """One edited copy of an example, on its way to sequences.

    Attributes:
        number: the example's number in the stream.
        version: which copy it is.
        identity: see :func:`~ptm_plus.holding_out.identity_of`.
        example: its text and the spans that a layout may look at.
    """

    number: int
    version: int
    identity: int
    example: Example


class SequencePart:
    """Collects the sequences of one chunk of examples.

    Args:
        layout: what made the sequences; named in errors.
        max_length: longest sequence allowed.
        vocabulary: one more than the highest token id.
        unknown: id of the unknown token, -1 for none.
    """

    def __init__(self, layout: Layout, max_length: int, vocabulary: int, unknown: int) -> None:
        self._layout = layout
        self._max_length = max_length
        self._vocabulary = vocabulary
        self._unknown = unknown
        self._segments: list[Segment] = []
        self._counts: list[int] = []
        self._examples: list[int] = []
        self._identities: list[int] = []
        self._versions: list[int] = []
        self._strata: list[int] = []
        self._labels: dict[str, dict[int, Any]] = {}
        self._fields, self._languages, self._stratum_names = Names(), Names(), Names()
        self.account = Account()

    def add(self, document: Document, sequences: list[LaidOut]) -> None:
        """Add the sequences of one edited copy of an example."""
        example = document.example
        stratum = stratum_of(example)
        for sequence in sequences:
            self._check(example, sequence)
            for name, value in sequence.labels.items():
                if value is not None:
                    known = _label(example, name, value)
                    self._labels.setdefault(name, {})[len(self._counts)] = known
            self._segments += sequence.segments
            self._counts.append(len(sequence.segments))
            self._examples.append(document.number)
            self._versions.append(document.version)
            self._identities.append(document.identity)
            self._strata.append(self._stratum_names.number(stratum))
            self.account.truncated_tokens += sequence.truncated
            self.account.truncated_sequences += sequence.truncated > 0
            add_counts(self.account.stratum_tokens, {stratum: len(sequence)})
        self.account.documents += 1

    def finish(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the part's arrays and header (without the rows that it stands for)."""
        segments = self._segment_arrays()
        tokens = self._token_arrays(segments)
        sequences = {
            "offsets": np.append(0, np.cumsum(segments["segment_length"]))[segments["segments"]],
            "example": np.array(self._examples, np.int64),
            "identity": np.array(self._identities, np.uint64),
            "version": np.array(self._versions, np.uint8),
            "stratum": np.array(self._strata, np.uint16),
        }
        labels = {name: self._label_array(name) for name in sorted(self._labels)}
        sequences |= {f"label.{name}": values for name, (values, _) in labels.items()}
        self.account.sequences = len(self._counts)
        self.account.tokens = len(tokens["ids"])
        self.account.unknown = int(np.count_nonzero(tokens["ids"] == self._unknown))
        header = {
            "fields": list(self._fields),
            "languages": list(self._languages),
            "strata": list(self._stratum_names),
            "labels": {name: strings for name, (_, strings) in labels.items()},
            "sequences": self.account.sequences,
            "tokens": self.account.tokens,
            "segments": len(self._segments),
            "position": "position" in tokens,
            "account": self.account.to_json(),
        }
        return {**tokens, **segments, **sequences}, header

    def _segment_arrays(self) -> dict[str, NDArray[Any]]:
        parts = self._segments
        plain = np.array([not part.field for part in parts], bool)
        fields = self._fields.numbers([part.field for part in parts if part.field])
        languages = self._languages.numbers([part.language for part in parts if part.field])
        field, language = np.full((2, len(parts)), [[NO_FIELD], [NO_LANGUAGE]])
        field[~plain], language[~plain] = fields, languages
        flags = [MOVABLE * part.movable | RESTART * part.restart for part in parts]
        return {
            "segments": np.cumsum([0, *self._counts]),
            "segment_length": np.array([len(part) for part in parts], np.uint16),
            "segment_flags": np.array(flags, np.uint8),
            "segment_type": np.array([part.type for part in parts], np.uint8),
            "segment_field": field.astype(np.uint8),
            "segment_language": language.astype(np.uint16),
        }

    def _token_arrays(self, segments: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        parts, lengths = self._segments, segments["segment_length"]
        ids, words, start, end = (
            _joined([getattr(part, name) for part in parts])
            for name in ("ids", "words", "char_start", "char_end")
        )
        owner = np.repeat(np.arange(len(parts)), lengths)
        same = np.diff(owner) == 0
        if np.any(same & ((np.diff(start) < 0) | (np.diff(end) < 0))) or np.any(start > end):
            raise self._fault("character offsets run backwards within a segment")
        if len(ids) and not 0 <= ids.min() <= ids.max() < self._vocabulary:
            raise self._fault(f"a token id lies outside the vocabulary of {self._vocabulary:,}")
        arrays = {
            "ids": ids.astype(np.uint16 if self._vocabulary < 65536 else np.uint32),
            "words": _number_words(words, owner, segments["segments"]),
            "char_start": start.astype(np.uint32),
            "char_end": end.astype(np.uint32),
        }
        if any(part.parents is not None for part in parts):
            arrays["position"] = _joined([self._positions(part) for part in parts])
        for name, dtype in sorted(self._layout.columns.items()):
            columns = [part.columns.get(name, np.zeros(len(part))) for part in parts]
            arrays[f"column.{name}"] = _joined(columns).astype(dtype)
        return arrays

    def _positions(self, segment: Segment) -> NDArray[np.uint16]:
        if segment.parents is None:
            return np.arange(len(segment), dtype=np.uint16)
        try:
            return resolve_positions(segment.parents).astype(np.uint16)
        except ValueError as error:
            raise self._fault(str(error)) from error

    def _label_array(self, name: str) -> tuple[NDArray[np.int64], list[str] | None]:
        values = self._labels[name]
        array = np.full(len(self._counts), -1, np.int64)
        strings = {value for value in values.values() if isinstance(value, str)}
        if strings and len(strings) < len({*values.values()}):
            raise DataError(f"the label {name!r} is a number on some rows and a text on others")
        numbers = {string: number for number, string in enumerate(sorted(strings))}
        for row, value in values.items():
            array[row] = numbers[value] if strings else value
        return array, sorted(strings) if strings else None

    def _check(self, example: Example, sequence: LaidOut) -> None:
        length = len(sequence)
        if not 0 < length <= self._max_length:
            raise self._fault(
                f"example {example.id} became a sequence of {length} tokens; "
                f"expected 1 to {self._max_length}"
            )
        if len(sequence.segments) > _MOST_SEGMENTS:
            raise self._fault(f"example {example.id} has over {_MOST_SEGMENTS} segments")
        for part in sequence.segments:
            arrays = [part.words, part.char_start, part.char_end, *part.columns.values()]
            arrays += [] if part.parents is None else [part.parents]
            if any(len(array) != len(part) for array in arrays):
                raise self._fault(f"a segment of example {example.id} has arrays of unequal length")
            unknown = sorted(set(part.columns) - set(self._layout.columns))
            if unknown:
                raise self._fault(f"the column {unknown[0]!r} was not declared")

    def _fault(self, what: str) -> PluginError:
        return PluginError(f"the layout {self._layout.name!r} is wrong: {what}")


def stratum_of(example: Example) -> str:
    """Return an example's stratum: its languages in the order of its fields."""
    return "-".join(example.languages.get(name, "und") for name in example.fields)


def _number_words(
    words: NDArray[np.int64], owner: NDArray[np.int64], segments: NDArray[np.int64]
) -> NDArray[np.uint16]:
    """Return word numbers that are unique within each sequence, without gaps.

    Args:
        words: ``[N]`` word numbers, unique within each segment, -1 for none.
        owner: ``[N]`` segment of each token.
        segments: ``[S+1]`` first segment of each sequence.
    """
    numbered = np.full(len(words), NO_WORD, np.uint16)
    real = words >= 0
    if not np.any(real):
        return numbered
    base = int(words.max()) + 1
    distinct, place = np.unique(owner[real] * base + words[real], return_inverse=True)
    first = np.searchsorted(distinct // base, segments[:-1])  # First word of each sequence.
    sequence = np.searchsorted(segments, owner[real], side="right") - 1
    numbered[real] = place - first[sequence]
    return numbered


def _joined(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int64)


def _label(example: Example, name: str, value: Any) -> int | str:
    if isinstance(value, str | int | np.integer):
        return value if isinstance(value, str) else int(value)
    raise DataError(
        f"example {example.id}: the label {name!r} is a {type(value).__name__}",
        "a label is a whole number or a text",
    )

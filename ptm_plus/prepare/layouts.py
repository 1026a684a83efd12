"""From a tokenised example to laid-out sequences: the types, and the core's layout ``text``.

A layout gets the pieces of each text field (token ids with character offsets and word numbers) and
returns sequences made of segments. Special tokens are segments of their own without a field, so
that a later stage can move or repeat the others without touching them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptm_plus.components import Layout
from ptm_plus.examples import Example, Span

# A sentence ends after a full stop (with closing marks) before white space, after a full-width one
# anywhere, and at a line break. Abbreviations are no harm: this only chooses where to split.
_SENTENCE_END = re.compile(r"[.!?…؟۔।॥።።។၊။]+[\"'”’»)\]]*(?=\s)|[。！？｡]+[」』”’）】]*|\n+")
_INSIDE_WORD, _INSIDE_SPAN, _WORD, _SENTENCE = range(4)


@dataclass(frozen=True, eq=False, slots=True)
class Piece:
    """One text field as tokens, without special tokens.

    Attributes:
        ids: ``[n]`` token ids.
        char_start: ``[n]`` first character of each token in the field, white space left out.
        char_end: ``[n]`` one past the last character; equal to the start for a token without any.
        words: ``[n]`` number of the word (the unit that is masked as a whole), from 0 upwards; -1
            for unknown and special tokens, which are never masked.
    """

    ids: NDArray[np.int64]
    char_start: NDArray[np.int64]
    char_end: NDArray[np.int64]
    words: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Template:
    """The special tokens that the tokenizer puts around one field, and around two.

    Attributes:
        prefix: ids before a single field.
        suffix: ids after a single field.
        pair_prefix: ids before the first of two fields.
        middle: ids between two fields.
        pair_suffix: ids after the second of two fields.
        types: token types of (prefix, first field, middle, second field, suffix) of a pair.
        two_types: whether the model behind the tokenizer is given token types at all; when not,
            ``types`` is all 0.
        cls: id of the classifier (or sequence start) token.
        sep: id of the separator (or sequence end) token.
        pad: id of the padding token.
        mask: id of the mask token.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    pair_prefix: tuple[int, ...]
    middle: tuple[int, ...]
    pair_suffix: tuple[int, ...]
    types: tuple[int, int, int, int, int]
    two_types: bool
    cls: int
    sep: int
    pad: int
    mask: int


@dataclass(frozen=True, eq=False, slots=True)
class LayoutInput:
    """What a layout gets.

    Attributes:
        example: the text (after rewriting) with the spans that were given with it.
        pieces: tokens by field name.
        template: the tokenizer's special tokens.
        max_length: longest sequence allowed, special tokens included.
    """

    example: Example
    pieces: Mapping[str, Piece]
    template: Template
    max_length: int


@dataclass(frozen=True, eq=False, slots=True)
class Segment:
    """A run of tokens of one field, or of special tokens.

    Attributes:
        ids: ``[n]`` token ids.
        words: ``[n]`` word numbers, unique within the segment; -1 for tokens never masked.
        char_start: ``[n]`` first character in the field. Never decreases within a segment: a token
            that stands for no characters gets an empty range at its place.
        char_end: ``[n]`` one past the last character; never decreases either.
        field: name of the text field, ``""`` for special tokens.
        language: BCP-47 code, ``""`` for special tokens.
        movable: the segment may change places with the sequence's other movable ones.
        restart: positions start again at this slot (whatever segment is moved into it).
        type: token type id of this slot.
        parents: ``[n]`` index within the segment of the token that each one follows, -1 for none;
            ``None`` for a plain chain. See :func:`resolve_positions`.
        columns: ``[n]`` extra token columns by name (declared by the layout).
    """

    ids: NDArray[np.int64]
    words: NDArray[np.int64]
    char_start: NDArray[np.int64]
    char_end: NDArray[np.int64]
    field: str = ""
    language: str = ""
    movable: bool = False
    restart: bool = False
    type: int = 0
    parents: NDArray[np.int64] | None = None
    columns: Mapping[str, NDArray[Any]] = dataclass_field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False, slots=True)
class LaidOut:
    """One sequence.

    Attributes:
        segments: in the order in which they are stored.
        labels: values for the sequence table: integers, or strings that become indexes.
        truncated: tokens of the example that were left out of this sequence for its length.
    """

    segments: tuple[Segment, ...]
    labels: Mapping[str, Any] = dataclass_field(default_factory=dict)
    truncated: int = 0

    def __len__(self) -> int:
        return sum(len(segment) for segment in self.segments)


@lru_cache(maxsize=64)
def special_segment(ids: tuple[int, ...], type: int = 0, restart: bool = False) -> Segment:
    """Return a segment of special tokens. Equal arguments share one object: never write to it."""
    zeros = np.zeros(len(ids), np.int64)
    return Segment(np.array(ids, np.int64), zeros - 1, zeros, zeros, type=type, restart=restart)


def field_segment(
    piece: Piece, field: str, language: str, first: int = 0, last: int | None = None, **slot: Any
) -> Segment:
    """Return the tokens ``first`` to ``last`` of a field as a segment.

    Args:
        piece: the field's tokens.
        field: its name.
        language: its BCP-47 code.
        first: first token.
        last: one past the last token; ``None`` for all.
        **slot: ``movable``, ``restart``, ``type``, ``parents``, ``columns`` of :class:`Segment`.
    """
    cut = slice(first, last)
    return Segment(
        piece.ids[cut],
        piece.words[cut],
        piece.char_start[cut],
        piece.char_end[cut],
        field=field,
        language=language,
        **slot,
    )


def resolve_positions(parents: ArrayLike) -> NDArray[np.int64]:
    """Return each token's position when it follows its parent: ``position(parent) + 1``.

    Tokens without a parent (-1) are at 0. Works by pointer doubling, so a chain of n tokens takes
    log2(n) array steps; a parent may stand after its child.

    Args:
        parents: ``[n]`` index of the parent, -1 for none.

    Raises:
        ValueError: the pointers leave the segment or run in a circle.
    """
    above = np.array(parents, dtype=np.int64)
    if np.any((above < -1) | (above >= len(above))):
        raise ValueError("a parent pointer leaves its segment")
    depth = (above >= 0).astype(np.int64)
    for _ in range(len(above).bit_length() + 1):
        linked = np.flatnonzero(above >= 0)
        if not len(linked):
            return depth
        depth[linked] += depth[above[linked]]
        above[linked] = above[above[linked]]
    raise ValueError("parent pointers run in a circle")


def tokens_of_span(piece: Piece, start: int, end: int) -> tuple[int, int]:
    """Return the token range that overlaps the characters ``start`` to ``end``; empty if none."""
    first = int(np.searchsorted(piece.char_end, start, side="right"))
    last = int(np.searchsorted(piece.char_start, end, side="left"))
    return first, max(first, last)


def text_layout(given: LayoutInput) -> list[LaidOut]:
    """Lay out every field on its own, in as many sequences as it needs; nothing is truncated.

    A long field is split at the last sentence end that fits, else at the last word border, but not
    inside a span that came with the text unless it is longer than a sequence.
    """
    template = given.template
    room = given.max_length - len(template.prefix) - len(template.suffix)
    before, after = special_segment(template.prefix), special_segment(template.suffix)
    sequences = []
    for name, piece in given.pieces.items():
        language = given.example.languages.get(name, "und")
        spans = [span for span in given.example.spans if span.field == name]
        for first, last in pairwise(split_points(piece, given.example.fields[name], spans, room)):
            body = field_segment(piece, name, language, first, last)
            sequences.append(LaidOut((before, body, after), given.example.labels))
    return sequences


def split_points(piece: Piece, text: str, spans: Sequence[Span], room: int) -> list[int]:
    """Return the token borders ``[0, …, n]`` between which at most ``room`` tokens lie.

    Args:
        piece: tokens of the field.
        text: the field.
        spans: spans of this field that should stay whole.
        room: most tokens between two borders, at least 1.
    """
    size = len(piece)
    if size <= room:
        return [0, size] if size else [0]
    quality = _border_quality(piece, text, spans)
    points = [0]
    while size - points[-1] > room:
        window = quality[points[-1] + 1 : points[-1] + room + 1]
        # The last border of the best quality in reach.
        points.append(points[-1] + room - int(np.argmax(window[::-1])))
    return [*points, size]


def _border_quality(piece: Piece, text: str, spans: Sequence[Span]) -> NDArray[np.int64]:
    """Return ``[n]`` how good it is to split before each token."""
    quality = np.full(len(piece), _INSIDE_WORD, np.int64)
    quality[1:][np.diff(piece.words) != 0] = _WORD
    ends = np.array([match.end() for match in _SENTENCE_END.finditer(text)], np.int64)
    borders = np.searchsorted(piece.char_start, ends, side="left")
    borders = borders[borders < len(piece)]
    quality[borders[quality[borders] == _WORD]] = _SENTENCE
    for span in spans:
        first, last = tokens_of_span(piece, span.start, span.end)
        inside = quality[first + 1 : last]
        np.minimum(inside, _INSIDE_SPAN, out=inside)
    return quality


TEXT_LAYOUT = Layout(name="text", lay_out=text_layout, fingerprint="text-1")
"""The core's layout for running text."""

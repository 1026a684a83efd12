"""Masked language modelling on documents that switch language at each sentence.

Huang et al. 2019 (Unicoder), section 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ptm_plus import (
    ContextView,
    Example,
    Feature,
    LaidOut,
    Layout,
    LayoutInput,
    MovingAverage,
    Objective,
    Part,
    Piece,
    Refused,
    RunSettings,
    Segment,
    Stream,
    Visibility,
    field_segment,
    masked_lm,
    pairs_stream,
    special_segment,
)
from ptm_plus_cross_lingual.grouping import HeldOut, Rows, grouped, regrouped
from ptm_plus_cross_lingual.settings import SwitchingSettings

_FIELDS = ("src", "tgt")


def documents(rows: Rows, held_out: HeldOut, sentences: int) -> Iterator[Example | Refused]:
    """Yield documents: so many consecutive pairs of the same languages, one sentence a line.

    All pairs of a document are held out, or none is.

    Args:
        rows: pairs, with the fields ``src`` and ``tgt``.
        held_out: whether a pair is held out.
        sentences: pairs of a document; the last ones of each language pair may have fewer.
    """
    for group in grouped(rows, sentences, held_out):
        yield group if isinstance(group, Refused) else _document(group)


def _document(pairs: Sequence[Example]) -> Example:
    fields, spans = {}, []
    for name in _FIELDS:
        start, lines = 0, []
        for pair in pairs:
            lines.append(_one_line(pair.fields[name]))
            spans += [
                replace(span, start=span.start + start, end=span.end + start)
                for span in pair.spans
                if span.field == name
            ]
            start += len(lines[-1]) + 1
        fields[name] = "\n".join(lines)
    first = pairs[0]
    by = first.fields["src"]
    return Example(first.id, fields, dict(first.languages), spans, held_out_by=by)


def _one_line(text: str) -> str:
    return " ".join(text.split("\n")) if "\n" in text else text


def switched_layout(given: LayoutInput) -> list[LaidOut]:
    """Lay out a document twice: sentences 1, 3, … in one language and 2, 4, … in the other.

    What does not fit goes into further sequences; a sentence that is longer than one is cut.
    """
    template, fields = given.template, given.example.fields
    before, after = special_segment(template.prefix), special_segment(template.suffix)
    room = given.max_length - len(before) - len(after)
    borders = {name: line_borders(piece, fields[name]) for name, piece in given.pieces.items()}
    lines = len(next(iter(borders.values()))) - 1
    sequences = []
    for names in (_FIELDS, _FIELDS[::-1]):
        body: list[Segment] = []
        left, cut = room, 0
        for line in range(lines):
            name = names[line % 2]
            first, last = borders[name][line : line + 2]
            kept = min(last - first, room)
            if kept > left:
                sequences.append(LaidOut((before, *body, after), truncated=cut))
                body, left, cut = [], room, 0
            if kept:
                language, piece = given.example.languages[name], given.pieces[name]
                body.append(field_segment(piece, name, language, first, first + kept))
                left, cut = left - kept, cut + last - first - kept
        if body:
            sequences.append(LaidOut((before, *body, after), truncated=cut))
    return sequences


def line_borders(piece: Piece, text: str) -> list[int]:
    """Return the token borders ``[0, …, n]`` of the lines of a text."""
    starts = [0, *(place + 1 for place, sign in enumerate(text) if sign == "\n")]
    inner = np.searchsorted(piece.char_start, starts[1:], side="left").tolist()
    return [0, *inner, len(piece)]


@dataclass
class Switching:
    """The objective: stream, layout and loss.

    Attributes:
        settings: its settings.
        instance: the plugin's instance.
        name: the objective's name.
    """

    settings: SwitchingSettings
    instance: str
    name: str

    @property
    def _stream(self) -> str:
        return f"{self.instance}-switched"

    def stream(self, settings: RunSettings) -> Stream:
        """Return documents of neighbouring pairs."""
        stream = pairs_stream(
            settings,
            name=self._stream,
            layout=self._stream,
            objectives=(self.name,),
            weight=self.settings.stream_weight,
        )
        sentences = self.settings.sentences
        make = partial(documents, sentences=sentences)
        return regrouped(stream, settings, make, f"documents-2 {sentences}")

    def layout(self) -> Layout:
        """Return the layout that switches."""
        return Layout(name=self._stream, lay_out=switched_layout, fingerprint="switched-1")

    def features(self) -> list[Feature]:
        """Return no column: words are masked as in any text."""
        return []

    def inputs(self) -> list[Visibility]:
        """Return no rule: sentences see each other."""
        return []

    def parts(self, context: ContextView) -> list[Part | MovingAverage]:
        """Return no part."""
        return []

    def objective(self) -> Objective:
        """Return masked language modelling."""
        return masked_lm(self.name, self.settings.weight)

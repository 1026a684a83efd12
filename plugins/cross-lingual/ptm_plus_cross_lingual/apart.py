"""Pairs whose sentences share a sequence and never see each other.

Contrast and recovery need both sentences of a pair in one micro-batch, each as if it stood alone:
so they are laid out as ``prefix x suffix prefix y suffix``, positions begin anew at the second, and
no token sees the other sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ptm_plus import (
    Feature,
    FeatureInput,
    LaidOut,
    Layout,
    LayoutInput,
    RunSettings,
    Segment,
    Stream,
    Visibility,
    field_segment,
    pairs_stream,
    special_segment,
)

Columns = Callable[[FeatureInput], Mapping[str, NDArray[Any]]]

HALF = "half"
_EPOCHS = 40  # bits of a draw index below its epoch


def fitting(lengths: Sequence[int], room: int) -> list[int]:
    """Return how many tokens of each text fit; longer ones give way first, none is cut to nothing.

    Args:
        lengths: tokens of each text, at least 1.
        room: tokens for all, at least as many as texts.
    """
    taken = [0] * len(lengths)
    for place, number in enumerate(sorted(range(len(lengths)), key=lengths.__getitem__)):
        taken[number] = min(lengths[number], room // (len(lengths) - place))
        room -= taken[number]
    return taken


def apart_layout(given: LayoutInput) -> list[LaidOut]:
    """Lay out ``prefix x suffix prefix y suffix``, the second sentence marked in a column."""
    template, pieces = given.template, given.pieces
    if not all(map(len, pieces.values())):
        return []
    room = given.max_length - len(pieces) * (len(template.prefix) + len(template.suffix))
    lengths = [len(piece) for piece in pieces.values()]
    taken = fitting(lengths, room)
    segments: list[Segment] = []
    for half, (name, piece) in enumerate(pieces.items()):
        own = [
            special_segment(template.prefix),
            field_segment(piece, name, given.example.languages[name], 0, taken[half]),
            special_segment(template.suffix),
        ]
        own = [replace(one, columns=_marks(one, half)) for one in own if len(one)]
        segments += [replace(own[0], restart=half > 0), *own[1:]]
    cut = sum(lengths) - sum(taken)
    return [LaidOut(tuple(segments), given.example.labels, truncated=cut)]


def _marks(segment: Segment, half: int) -> dict[str, NDArray[Any]]:
    return {HALF: np.full(len(segment), half, np.uint8)}


def apart_columns(given: FeatureInput) -> dict[str, NDArray[Any]]:
    """Return what places the sentences of a micro-batch of S pairs.

    Returns:
        ``half`` ``[T]``: 0 or 1. ``first`` ``[2 S]``: first token of each sentence, pair by pair.
        ``pair`` ``[S]``: number of the pair. ``order`` ``[S]``: number and epoch of the pair.
    """
    view = given.view
    half = view.columns[HALF].astype(np.int64)
    second = np.flatnonzero(np.diff(half, prepend=0) > 0)
    return {
        HALF: half,
        "first": np.stack([view.offsets[:-1], second], axis=1).ravel(),
        "pair": (view.keys & np.uint64((1 << _EPOCHS) - 1)).astype(np.int64),
        "order": view.keys.astype(np.int64),
    }


@dataclass(frozen=True)
class SameMark:
    """The rule that a token sees the tokens with the same mark only.

    Attributes:
        column: ``instance.column`` of the marks.
    """

    column: str

    def __call__(self, query: Tensor, key: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        """Return which key a query sees."""
        marks = columns[self.column]
        return marks[query] == marks[key]


@dataclass
class Apart:
    """The stream that contrast and recovery share; masked words of it are predicted, too.

    Attributes:
        weight: rows against the other streams'.
        instance: the plugin's instance.
        name: the stream's name.
        columns: further columns, from the same input.
    """

    weight: float
    instance: str
    name: str
    columns: Columns | None = None

    def stream(self, settings: RunSettings) -> Stream:
        """Return the stream."""
        return pairs_stream(
            settings,
            name=self.name,
            layout=self.name,
            objectives=("mlm",),
            weight=self.weight,
        )

    def layout(self) -> Layout:
        """Return the layout."""
        return Layout(
            name=self.name, lay_out=apart_layout, fingerprint="apart-1", columns={HALF: "u1"}
        )

    def features(self) -> list[Feature]:
        """Return the columns."""
        made = [Feature(name="apart", compute=apart_columns, streams=(self.name,))]
        if self.columns is not None:
            made.append(Feature(name="words", compute=self.columns, streams=(self.name,)))
        return made

    def inputs(self) -> list[Visibility]:
        """Return the rule that keeps the sentences apart."""
        rule = SameMark(f"{self.instance}.{HALF}")
        return [Visibility(name="apart", rule=rule, streams=(self.name,))]

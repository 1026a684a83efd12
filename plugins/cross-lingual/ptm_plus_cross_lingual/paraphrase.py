"""Cross-lingual paraphrase classification (Huang et al. 2019, Unicoder, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ptm_plus import (
    ContextView,
    Encode,
    Feature,
    FeatureInput,
    LaidOut,
    Layout,
    LayoutInput,
    MicroBatch,
    MovingAverage,
    Objective,
    Outcome,
    Part,
    RunSettings,
    Segment,
    Stream,
    Visibility,
    field_segment,
    loss_sum,
    pairs_stream,
    special_segment,
)
from ptm_plus_cross_lingual.apart import SameMark, fitting
from ptm_plus_cross_lingual.grouping import regrouped
from ptm_plus_cross_lingual.retrieval import with_others
from ptm_plus_cross_lingual.settings import ParaphraseSettings

CANDIDATE = "candidate"
_TRANSLATION, _OTHER = 1, 2


def paraphrase_layout(given: LayoutInput) -> list[LaidOut]:
    """Lay out ``prefix x middle C suffix D``: C and D are the translation and another sentence.

    Both are movable, so that it is drawn at each access which of them stands beside the source; the
    other one, behind the end, is seen by nobody. Positions begin anew at each.
    """
    template, pieces = given.template, given.pieces
    if not all(map(len, pieces.values())):
        return []
    frame = (template.pair_prefix, template.middle, template.pair_suffix)
    lengths = [len(piece) for piece in pieces.values()]
    taken = fitting(lengths, given.max_length - sum(map(len, frame)))
    kinds = (template.types[1], template.types[3], template.types[3])
    source, translation, other = (
        _candidate(
            field_segment(
                piece,
                name,
                given.example.languages[name],
                0,
                taken[number],
                movable=number > 0,
                restart=number > 0,
                type=kinds[number],
            ),
            number,
        )
        for number, (name, piece) in enumerate(pieces.items())
    )
    before, between, after = (
        special_segment(ids, template.types[place])
        for ids, place in zip(frame, (0, 2, 4), strict=True)
    )
    segments = (before, source, between, translation, after, other)
    cut = sum(lengths) - sum(taken)
    kept = tuple(one for one in segments if len(one))
    return [LaidOut(kept, given.example.labels, truncated=cut)]


def _candidate(segment: Segment, number: int) -> Segment:
    return replace(segment, columns={CANDIDATE: np.full(len(segment), number, np.uint8)})


def paraphrase_columns(given: FeatureInput) -> dict[str, NDArray[Any]]:
    """Return which tokens are hidden ``[T]``, and whether a translation is shown ``[S]``."""
    view = given.view
    candidate = view.columns[CANDIDATE].astype(np.int64)
    places = np.flatnonzero(candidate)
    sequences, first = np.unique(view.sequence[places], return_index=True)
    shown = np.zeros(len(view.numbers), np.int64)
    shown[sequences] = candidate[places[first]]
    hidden = (candidate > 0) & (candidate != shown[view.sequence])
    return {"hidden": hidden.astype(np.int64), "label": (shown == _TRANSLATION).astype(np.int64)}


@dataclass
class Paraphrase:
    """The objective: stream, columns, head and loss.

    Attributes:
        settings: its settings.
        instance: the plugin's instance.
        name: the objective's name.
    """

    settings: ParaphraseSettings
    instance: str
    name: str

    @property
    def _stream(self) -> str:
        return f"{self.instance}-paraphrases"

    def stream(self, settings: RunSettings) -> Stream:
        """Return pairs with another sentence; they are read as they are."""
        stream = pairs_stream(
            settings,
            name=self._stream,
            layout=self._stream,
            objectives=(self.name,),
            weight=self.settings.stream_weight,
        )
        pool = self.settings.pool
        stream = regrouped(stream, settings, partial(with_others, pool=pool), f"closest-2 {pool}")
        return replace(stream, masked=False)

    def layout(self) -> Layout:
        """Return the layout."""
        return Layout(
            name=self._stream,
            lay_out=paraphrase_layout,
            fingerprint="paraphrase-1",
            columns={CANDIDATE: "u1"},
        )

    def features(self) -> list[Feature]:
        """Return the columns."""
        return [Feature(name="candidates", compute=paraphrase_columns, streams=(self._stream,))]

    def inputs(self) -> list[Visibility]:
        """Return the rule that hides the candidate that is not shown."""
        rule = SameMark(f"{self.instance}.hidden")
        return [Visibility(name="candidates", rule=rule, streams=(self._stream,))]

    def parts(self, context: ContextView) -> list[Part | MovingAverage]:
        """Return the classifier."""
        width = context.model_config.hidden_size
        return [Part(name="paraphrase", build=partial(nn.Linear, width, 2))]

    def objective(self) -> Objective:
        """Return the objective."""
        return Objective(
            name=self.name,
            count=self._count,
            compute=self._loss,
            weight=self.settings.weight,
            streams=None,
        )

    def _count(self, columns: Mapping[str, NDArray[Any]]) -> float:
        return float(len(columns[f"{self.instance}.label"]))

    def _loss(self, batch: MicroBatch, encode: Encode, parts: Mapping[str, nn.Module]) -> Outcome:
        labels = batch.column(self.instance, "label")
        logits = parts["paraphrase"](encode(batch).top[batch.offsets[:-1]])
        right = (logits.argmax(-1) == labels).sum()
        return Outcome(
            loss_sum(logits, labels), {"accuracy": (right, right.new_full((), len(labels)))}
        )

"""Sentence-order prediction (Lan et al. 2020, ALBERT, section 3.1).

Two neighbouring stretches of a text are shown in their order or changed over, and the first token's
state says which. Unlike the next sentence of another text, their topic does not give it away.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from ptm_plus import (
    Claim,
    ContextView,
    Encode,
    Feature,
    FeatureInput,
    LaidOut,
    Layout,
    LayoutInput,
    MicroBatch,
    Objective,
    Outcome,
    Part,
    PluginInfo,
    Section,
    Stream,
    field_segment,
    hookimpl,
    loss_sum,
    special_segment,
    text_stream,
)

SENTENCE = re.compile(r"[.!?…][\"'”’)]*\s+|[。！？]|\n+")
FIRST, SECOND = 1, 3
"""Segments of the stretches: prefix, first, middle, second, suffix."""


class SentenceOrderSettings(Section):
    """``[plugin.sentence-order]``."""

    weight: float = Field(1.0, ge=0, description="Factor on the loss.")
    stream_weight: float = Field(1.0, gt=0, description="Rows against the other streams'.")


def two_stretches(given: LayoutInput) -> list[LaidOut]:
    """Lay out as many whole sentences as fit, in two halves that may change places.

    A stretch of one sentence only, or the rest of one that is longer than a sequence, is left out.
    """
    template = given.template
    (name, piece), *_ = given.pieces.items()
    ends = [found.end() for found in SENTENCE.finditer(given.example.fields[name])]
    borders = np.unique([0, *np.searchsorted(piece.char_start, ends), len(piece)])
    frame = (template.pair_prefix, template.middle, template.pair_suffix)
    room = given.max_length - sum(map(len, frame))
    sequences, first = [], 0
    while first < len(borders) - 1:
        last = int(np.searchsorted(borders, borders[first] + room, side="right")) - 1
        inner = borders[first + 1 : last]
        if len(inner):
            middle = inner[np.argmin(np.abs(inner - (borders[first] + borders[last]) / 2))]
            slots = [borders[first], middle, borders[last]]
            halves = [
                field_segment(
                    piece,
                    name,
                    given.example.languages[name],
                    int(slots[half]),
                    int(slots[half + 1]),
                    movable=True,
                    type=template.types[1 + 2 * half],
                )
                for half in (0, 1)
            ]
            before, between, after = (
                special_segment(ids, template.types[2 * place]) for place, ids in enumerate(frame)
            )
            sequences.append(LaidOut((before, halves[0], between, halves[1], after)))
        first = max(last, first + 1)
    return sequences


def changed_over(given: FeatureInput) -> Mapping[str, NDArray[Any]]:
    """Return ``[S]`` 1 where the second stretch stands first."""
    inner = np.flatnonzero(given.view.languages >= 0)  # special tokens have none
    _, first = np.unique(given.view.sequence[inner], return_index=True)
    return {"changed": (given.view.segments[inner[first]] == SECOND).astype(np.int64)}


class Head(nn.Sequential):
    """The two layers over the first token's state."""

    def __init__(self, hidden: int) -> None:
        super().__init__(nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 2))


@dataclass
class SentenceOrder:
    """A stream of stretches, on which words are masked, too."""

    settings: SentenceOrderSettings
    instance: str

    @hookimpl
    def ptm_streams(self, context: ContextView) -> list[Stream]:
        return [
            text_stream(
                context.settings,
                name=self.instance,
                layout=self.instance,
                objectives=("mlm", self.instance),
                weight=self.settings.stream_weight,
            )
        ]

    @hookimpl
    def ptm_layouts(self, context: ContextView) -> list[Layout]:
        return [Layout(name=self.instance, lay_out=two_stretches, fingerprint="stretches-1")]

    @hookimpl
    def ptm_features(self, context: ContextView) -> list[Feature]:
        return [Feature(name="order", compute=changed_over, streams=(self.instance,))]

    @hookimpl
    def ptm_parts(self, context: ContextView) -> list[Part]:
        return [Part(name="order", build=partial(Head, context.model_config.hidden_size))]

    @hookimpl
    def ptm_objectives(self, context: ContextView) -> list[Objective]:
        return [
            Objective(
                name=self.instance,
                count=self.count,
                compute=self.loss,
                weight=self.settings.weight,
            )
        ]

    def count(self, columns: Mapping[str, NDArray[Any]]) -> float:
        return float(len(columns[f"{self.instance}.changed"]))

    def loss(self, batch: MicroBatch, encode: Encode, parts: Mapping[str, nn.Module]) -> Outcome:
        labels = batch.column(self.instance, "changed")
        logits = parts["order"](encode(batch).top[batch.offsets[:-1]])
        right = logits.argmax(-1) == labels
        accuracy = (right.sum(), torch.ones_like(right).sum())
        return Outcome(loss_sum(logits, labels), {"accuracy": accuracy})


plugin = PluginInfo(
    name="sentence-order",
    summary="Predict whether two neighbouring stretches changed places (ALBERT)",
    hooks=SentenceOrder,
    settings=SentenceOrderSettings,
    needs=("text",),
    claims=(Claim(resource="backbone"),),
)

"""Replaced-token detection (Clark et al. 2020, ELECTRA).

A small generator predicts the masked words and puts what it draws in their place; the encoder reads
that and says of every token whether it was replaced (section 3). The generator shares the word
vectors (section 3.2), and no gradient passes from one to the other through what was drawn.

Departures: the generator reads masks as the run draws them (80 % masked, 10 % random, 10 % kept);
the exported model, whose encoder is what is wanted, has an untrained head for masked words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, gelu

from ptm_plus import (
    Claim,
    ContextView,
    Encode,
    Feature,
    FeatureInput,
    MicroBatch,
    Objective,
    Outcome,
    Part,
    PluginInfo,
    Section,
    attend_within,
    hookimpl,
    loss_sum,
)

STREAM = "text"


class ReplacedTokensSettings(Section):
    """``[plugin.replaced-tokens]``."""

    weight: float = Field(50.0, ge=0, description="Factor on the detection loss (ELECTRA: 50).")
    width: float = Field(0.25, gt=0, le=1, description="Generator's width, of the encoder's.")
    blocks: int = Field(2, ge=1, description="Generator's blocks.")
    heads: int = Field(4, ge=1, description="Generator's attention heads.")


class GeneratorBlock(nn.Module):
    """A pre-norm Transformer block over packed tokens ``[T, g]``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.take, self.give = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, states: Tensor, batch: MicroBatch) -> Tensor:
        shape = (len(states), self.heads, -1)
        query, key, value = (
            one.reshape(shape) for one in self.take(self.before(states)).chunk(3, dim=-1)
        )
        states = states + self.give(attend_within(query, key, value, batch).flatten(1))
        result: Tensor = states + self.down(gelu(self.up(self.between(states))))
        return result


class Generator(nn.Module):
    """A small masked-language model on the encoder's word vectors.

    Args:
        hidden: width of the word vectors.
        width: its own, a multiple of ``heads``.
        heads, blocks: its shape.
        positions: longest sequence.
        vocabulary: number of tokens.
    """

    def __init__(
        self, hidden: int, width: int, heads: int, blocks: int, positions: int, vocabulary: int
    ) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(hidden, width), nn.Linear(width, hidden)
        self.places = nn.Embedding(positions, width)
        self.blocks = nn.ModuleList(GeneratorBlock(width, heads) for _ in range(blocks))
        self.norm, self.last = nn.LayerNorm(width), nn.LayerNorm(hidden)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, batch: MicroBatch, encode: Encode) -> Tensor:
        """Return ``[K, V]`` logits at the masked places."""
        states = self.into(encode.words(batch.ids)) + self.places(batch.positions)
        for block in self.blocks:
            states = block(states, batch)
        found = self.last(gelu(self.out(self.norm(states[batch.predicted]))))
        words = encode.words(torch.arange(len(self.bias), device=found.device))
        logits: Tensor = found @ words.T + self.bias
        return logits


def columns(given: FeatureInput) -> Mapping[str, NDArray[Any]]:
    """Return the words ``[N]``, and a number in [0, 1) for each masked place ``[K]``.

    The numbers are keyed by sequence and token: what is drawn does not depend on the batch.
    """
    chance = given.view.token_draws(given.draws, "generator")
    return {
        "words": np.flatnonzero(given.view.words >= 0),
        "chance": chance[np.flatnonzero(given.plan.predicted)],
    }


def drawn(logits: Tensor, chance: Tensor) -> Tensor:
    """Return ``[K]`` tokens drawn from softmax(logits) by numbers in [0, 1)."""
    below = logits.double().softmax(-1).cumsum(-1) <= chance.double()[:, None]
    return below.sum(-1).clamp(max=logits.shape[-1] - 1)


@dataclass
class ReplacedTokens:
    """Two objectives in the place of masked words: the generator's, and detection."""

    settings: ReplacedTokensSettings
    instance: str

    @hookimpl
    def ptm_features(self, context: ContextView) -> list[Feature]:
        return [Feature(name="replaced", compute=columns, streams=(STREAM,))]

    @hookimpl
    def ptm_parts(self, context: ContextView) -> list[Part]:
        config, settings = context.model_config, self.settings
        hidden, heads = config.hidden_size, settings.heads
        width = max(1, round(hidden * settings.width / heads)) * heads
        longest = context.settings.prepare.max_length
        shape = (hidden, width, heads, settings.blocks, longest, config.vocab_size)
        return [
            Part(name="generator", build=partial(Generator, *shape)),
            Part(name="detector", build=partial(nn.Linear, hidden, 1)),
        ]

    @hookimpl
    def ptm_objectives(self, context: ContextView) -> list[Objective]:
        return [
            Objective(
                name=f"{self.instance}-generator",
                count=lambda columns: float(len(columns["predicted"])),
                compute=self.generate,
                streams=(STREAM,),
            ),
            Objective(
                name=self.instance,
                count=lambda columns: float(len(columns[f"{self.instance}.words"])),
                compute=self.detect,
                weight=self.settings.weight,
                streams=(STREAM,),
                takes_over="mlm",
            ),
        ]

    def generate(
        self, batch: MicroBatch, encode: Encode, parts: Mapping[str, nn.Module]
    ) -> Outcome:
        logits = parts["generator"](batch, encode)
        return Outcome(loss_sum(logits, batch.labels))

    def detect(self, batch: MicroBatch, encode: Encode, parts: Mapping[str, nn.Module]) -> Outcome:
        with torch.no_grad():
            logits = parts["generator"](batch, encode)
        tokens = drawn(logits, batch.column(self.instance, "chance"))
        ids = batch.ids.index_copy(0, batch.predicted, tokens)
        replaced = torch.zeros_like(ids, dtype=logits.dtype)
        replaced[batch.predicted] = (tokens != batch.labels).to(logits.dtype)
        words = batch.column(self.instance, "words")
        wanted = replaced[words]
        scores = parts["detector"](encode(replace(batch, ids=ids)).top[words])[:, 0]
        loss = binary_cross_entropy_with_logits(scores, wanted, reduction="sum")
        right = (scores > 0) == (wanted > 0)
        return Outcome(
            loss,
            {
                "accuracy": (right.sum(), torch.ones_like(right).sum()),
                "found": ((right & (wanted > 0)).sum(), (wanted > 0).sum()),
            },
        )


plugin = PluginInfo(
    name="replaced-tokens",
    summary="Detect words that a small generator put in (ELECTRA)",
    hooks=ReplacedTokens,
    settings=ReplacedTokensSettings,
    needs=("text",),
    claims=(Claim(resource="backbone"),),
)

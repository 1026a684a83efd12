"""Cross-lingual word recovery (Huang et al. 2019, Unicoder, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from ptm_plus import (
    ContextView,
    Encode,
    FeatureInput,
    MicroBatch,
    MovingAverage,
    Objective,
    Outcome,
    Part,
    attend,
    loss_sum,
)
from ptm_plus_cross_lingual.apart import HALF
from ptm_plus_cross_lingual.settings import RecoverySettings


class Translation(nn.Module):
    """Vectors of words, made of those of the words of the other sentence.

    ``A_ij = W [x_i; y_j; x_i ⊙ y_j]`` and ``x'_i = Σ_j softmax_j(A_ij) y_j``. The first third of W
    adds the same to a whole row of A and falls out of the softmax, so it is left out. W reads the
    vectors normalised to unit variance, and begins as the scaled dot product: on word vectors as
    small as a new model's (0.02) it would have to grow for very long before it tells words apart.

    Args:
        width: width d of word vectors.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.other = nn.Parameter(torch.zeros(width))
        self.product = nn.Parameter(torch.full((width,), width**-0.5))

    def forward(self, words: Tensor, sequence: Tensor, half: Tensor) -> Tensor:
        """Return ``[n, d]`` vectors.

        Args:
            words: ``[n, d]`` word vectors.
            sequence: ``[n]`` pair of each word, not decreasing.
            half: ``[n]`` sentence of each word, 0 or 1.
        """
        read = layer_norm(words, words.shape[1:])
        scale = words.shape[1] ** 0.5  # which attend divides by
        query = (read * self.product + self.other) * scale

        def apart(q: Tensor, k: Tensor) -> Tensor:
            return half[q] != half[k]

        rows = (query[:, None], read[:, None], words[:, None])
        return attend(*rows, sequence, sequence, apart)[:, 0]


def recovery_columns(given: FeatureInput, share: float) -> dict[str, NDArray[Any]]:
    """Return the tokens as they were, which of them are words, and which words are predicted.

    Args:
        given: view and draws.
        share: share of the words that is predicted.
    """
    view = given.view
    words = np.flatnonzero(view.languages >= 0)
    drawn = view.token_draws(given.draws, "recovered")[words] < share
    return {"ids": view.ids, "words": words, "recovered": words[drawn]}


@dataclass
class Recovery:
    """The objective: parts and loss.

    Attributes:
        settings: its settings.
        instance: the plugin's instance.
        name: the objective's name.
        stream: the stream of pairs, apart.
    """

    settings: RecoverySettings
    instance: str
    name: str
    stream: str

    def parts(self, context: ContextView) -> list[Part | MovingAverage]:
        """Return the attention over the other sentence."""
        width = context.model_config.hidden_size
        return [Part(name="translation", build=partial(Translation, width))]

    def objective(self) -> Objective:
        """Return the objective."""
        return Objective(
            name=self.name,
            count=self._count,
            compute=self._loss,
            weight=self.settings.weight,
            streams=(self.stream,),
        )

    def _count(self, columns: Mapping[str, NDArray[Any]]) -> float:
        return float(len(columns[f"{self.instance}.recovered"]))

    def _loss(self, batch: MicroBatch, encode: Encode, parts: Mapping[str, nn.Module]) -> Outcome:
        """Predict the words of both sentences, each read as made of the other's words."""
        ids = batch.column(self.instance, "ids")
        places = batch.column(self.instance, "words")
        recovered = batch.column(self.instance, "recovered")
        vectors = encode.words(ids)
        half = batch.column(self.instance, HALF)[places]
        made = parts["translation"](vectors[places], batch.sequence[places], half)
        vectors = vectors.index_copy(0, places, made.to(vectors.dtype))
        states = encode(batch, taps=False, vectors=vectors)
        logits, labels = states.logits(states.top[recovered]), ids[recovered]
        right = (logits.argmax(-1) == labels).sum()
        accuracy = (right, right.new_full((), len(labels)))
        return Outcome(loss_sum(logits, labels), {"accuracy": accuracy})

"""The span-boundary objective: a span's tokens, from what stands on either side of it.

Joshi et al. 2020, section 3.2: for token i of a masked span from s to e,
y_i = f(x_{s-1}, x_{e+1}, p_{i-s+1}), where f is two layers of Linear, GELU, LayerNorm; the loss is
the cross-entropy of y_i under the word vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptm_plus import FeatureInput

PLACE_WIDTH = 200
"""Width of a place vector, as in the original code."""

PLACES = 30
"""Tokens of a span, from its start, that are predicted from its boundary."""


class Boundary(nn.Module):
    """The two layers f.

    Args:
        hidden: width of the encoder's states.
        width: width of the word vectors.
    """

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.place = nn.Embedding(PLACES, PLACE_WIDTH)
        self.first = nn.Linear(2 * hidden + PLACE_WIDTH, hidden)
        self.first_norm = nn.LayerNorm(hidden)
        self.second = nn.Linear(hidden, width)
        self.second_norm = nn.LayerNorm(width)

    def forward(self, left: Tensor, right: Tensor, place: Tensor) -> Tensor:
        """Return ``[P, width]`` vectors to be compared with word vectors.

        Args:
            left: ``[P, hidden]`` states before the span.
            right: ``[P, hidden]`` states behind it.
            place: ``[P]`` place in the span, from 0.
        """
        both = torch.cat((left, right, self.place(place)), dim=-1)
        inner = self.first_norm(nn.functional.gelu(self.first(both)))
        outer: Tensor = self.second_norm(nn.functional.gelu(self.second(inner)))
        return outer


def boundary_columns(given: FeatureInput) -> Mapping[str, NDArray[Any]]:
    """Return what the objective reads: ``[P]`` ``left``, ``right``, ``place`` and ``labels``.

    Spans that touch count as one, and one that reaches a border of its sequence is left out.
    """
    view, plan = given.view, given.plan
    number = plan.kinds.index("span") if "span" in plan.kinds else len(plan.kinds)
    tokens = np.flatnonzero(plan.predicted & (plan.kind == number))
    if not len(tokens):
        nothing = np.zeros(0, dtype=np.int64)
        return dict.fromkeys(("left", "right", "place", "labels"), nothing)
    begins = np.ones(len(tokens), dtype=np.bool_)
    begins[1:] = (tokens[1:] != tokens[:-1] + 1) | (
        view.sequence[tokens[1:]] != view.sequence[tokens[:-1]]
    )
    run = np.cumsum(begins) - 1
    left = tokens[begins] - 1
    right = tokens[np.append(np.flatnonzero(begins)[1:], len(tokens)) - 1] + 1
    sequence = view.sequence[tokens[begins]]
    whole = (left >= view.offsets[sequence]) & (right < view.offsets[sequence + 1])
    place = tokens - left[run] - 1
    kept = whole[run] & (place < PLACES)
    return {
        "left": left[run][kept],
        "right": right[run][kept],
        "place": place[kept],
        "labels": view.ids[tokens[kept]],
    }

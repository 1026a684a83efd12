"""The side network: layers that read an encoder's states and never write them.

Wang et al. 2021, section 3.1: an adapter layer projects down, runs transformer layers, projects up
and adds its input. Its input is the encoder's state at its place plus the output of the layer
before. The adapter's output, joined with the encoder's last state, goes through one more map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values ``[T, H, D]`` to ``[T, H, D]``, within each sequence."""

NEAR_IDENTITY = 2e-4
"""Standard deviation of the projections at their start, as in the original code."""


class TransformerLayer(nn.Module):
    """BERT's layer: attention and feed-forward, each with a residual and a norm behind it.

    Args:
        width: width of a state.
        heads: number of heads; they divide the width.
        dropout: chance to drop an output.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.mixed = nn.Linear(width, width)
        self.mixed_norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, 4 * width)
        self.out = nn.Linear(4 * width, width)
        self.out_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, attend: Attend) -> Tensor:
        """Return ``[T, width]`` states.

        Args:
            states: ``[T, width]``.
            attend: attention within each sequence.
        """
        query, key, value = (
            layer(states).unflatten(-1, (self.heads, -1))
            for layer in (self.query, self.key, self.value)
        )
        mixed = self.mixed(attend(query, key, value).flatten(1))
        states = self.mixed_norm(self.dropout(mixed) + states)
        out = self.out(gelu(self.inner(states)))
        after: Tensor = self.out_norm(self.dropout(out) + states)
        return after


class AdapterLayer(nn.Module):
    """Down, transformer layers, up, and the input added.

    Args:
        hidden: width of the encoder's states.
        size: inner width.
        layers: number of transformer layers.
        heads: their heads.
        dropout: their dropout.
    """

    def __init__(self, hidden: int, size: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.down = nn.Linear(hidden, size)
        self.layers = nn.ModuleList(TransformerLayer(size, heads, dropout) for _ in range(layers))
        self.up = nn.Linear(size, hidden)
        for projection in (self.down, self.up):
            nn.init.normal_(projection.weight, std=NEAR_IDENTITY)
            nn.init.zeros_(projection.bias)

    def forward(self, states: Tensor, attend: Attend) -> Tensor:
        """Return ``[T, hidden]`` states; for the arguments see :class:`TransformerLayer`."""
        inner = self.down(states)
        for layer in self.layers:
            inner = layer(inner, attend)
        after: Tensor = self.up(inner) + states
        return after


class Adapter(nn.Module):
    """Adapter layers, each at its place, and the map behind them.

    Args:
        hidden: width of the encoder's states.
        places: number of places where it reads.
        size: inner width.
        layers: transformer layers of each adapter layer.
        heads: their heads.
        dropout: their dropout.
    """

    def __init__(
        self, hidden: int, places: int, size: int, layers: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.places = nn.ModuleList(
            AdapterLayer(hidden, size, layers, heads, dropout) for _ in range(places)
        )
        self.join = nn.Linear(2 * hidden, hidden)

    def forward(self, read: Sequence[Tensor], last: Tensor, attend: Attend) -> Tensor:
        """Return ``[T, hidden]`` states that know what encoder and adapter know.

        Args:
            read: ``[T, hidden]`` the encoder's states at each place, in order.
            last: ``[T, hidden]`` its last states.
            attend: attention within each sequence.
        """
        before = torch.zeros_like(last)
        for layer, states in zip(self.places, read, strict=True):
            before = layer(states + before, attend)
        joined: Tensor = self.join(torch.cat((last, before), dim=-1))
        return joined

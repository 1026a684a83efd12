"""The modules: fusion at mentions, and the head that predicts entities."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu


class Fusion(nn.Module):
    """Adds what an entity vector and the token's state say together, block by block.

    ``h ← h + W_o gelu(W_t LN(h) + W_e e + b)`` at the tokens that carry an entity: the information
    fusion of ERNIE (Zhang et al. 2019, equation 3) with the residual around it instead of inside
    the block's feed-forward, so that any family can carry it. ``W_o`` starts at zero: at its start
    the model is the backbone, bit for bit.

    Args:
        hidden: width d of the backbone.
        entity: width of entity vectors.
        width: inner width.
        blocks: number of fused blocks.
    """

    def __init__(self, hidden: int, entity: int, width: int, blocks: int) -> None:
        super().__init__()
        self.norm = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(blocks))
        self.token = nn.ModuleList(nn.Linear(hidden, width) for _ in range(blocks))
        self.entity = nn.ModuleList(nn.Linear(entity, width, bias=False) for _ in range(blocks))
        self.out = nn.ModuleList(nn.Linear(width, hidden) for _ in range(blocks))
        for layer in self.out:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, place: int, hidden: Tensor, positions: Tensor, vectors: Tensor) -> Tensor:
        """Fuse vectors into the states of some tokens.

        Args:
            place: which of the fused blocks.
            hidden: ``[T, d]`` states.
            positions: ``[P]`` tokens that carry an entity, each once.
            vectors: ``[P, entity]`` their vectors.
        """
        states = self.norm[place](hidden[positions])
        mixed = gelu(self.token[place](states) + self.entity[place](vectors))
        return hidden.index_add(0, positions, self.out[place](mixed).to(hidden.dtype))


class EntityHead(nn.Module):
    """Scores candidate entities from a mention's state (Zhang et al. 2019, equation 5).

    ``LN(gelu(W h + b))`` times the candidates' vectors, over the root of their width, times a
    learnt scale that starts at one.

    Args:
        hidden: width d of the backbone.
        entity: width of entity vectors.
    """

    def __init__(self, hidden: int, entity: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, entity)
        self.norm = nn.LayerNorm(entity)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, states: Tensor, candidates: Tensor) -> Tensor:
        """Return logits ``[L, C]``.

        Args:
            states: ``[L, d]`` states at the mentions' first tokens.
            candidates: ``[C, entity]`` vectors of the candidates.
        """
        projected: Tensor = self.norm(gelu(self.dense(states)))
        return projected @ candidates.T * (torch.exp(self.scale) / candidates.shape[1] ** 0.5)

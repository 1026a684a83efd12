"""What adapters are trained on: the relation of two mentions, the head of every word."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def relation_keys(relations: Sequence[str]) -> Tensor:
    """Return ``[relations]`` keys of 63 bits that tell labels apart."""
    digests = (hashlib.blake2b(label.encode(), digest_size=8).digest() for label in relations)
    return torch.tensor([int.from_bytes(one) >> 1 for one in digests], dtype=torch.int64)


class RelationHead(nn.Module):
    """Classifies the relation of two mentions (Wang et al. 2021, section 3.3).

    The states of the two markers are joined, mapped and classified.

    Args:
        hidden: width of a state.
        relations: labels of the relations, one for each row.
        dropout: dropout before the classifier.

    Attributes:
        relations: ``[relations]`` keys of the labels, so that weights say what their rows mean.
    """

    relations: Tensor

    def __init__(self, hidden: int, relations: Sequence[str], dropout: float) -> None:
        super().__init__()
        self.register_buffer("relations", relation_keys(relations))
        self.dense = nn.Linear(2 * hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, len(relations))

    def forward(self, head: Tensor, tail: Tensor) -> Tensor:
        """Return logits ``[N, relations]`` from states ``[N, hidden]`` of both markers."""
        logits: Tensor = self.out(self.dropout(self.dense(torch.cat((head, tail), dim=-1))))
        return logits


class PointerHead(nn.Module):
    """Scores every word of a sentence as the head of every other.

    ``(W_q x_i) · (W_k x_j) / √d`` from a word's first token to the first tokens of all words of the
    sentence, and to its very first token for the root: the original's single attention head, whose
    scores are the prediction, so that no sentence is too long for it.

    Args:
        hidden: width of a state.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)

    def forward(self, states: Tensor, table: Tensor, asked: Tensor) -> Tensor:
        """Return logits ``[A, L]`` over the places of a row of the table.

        Args:
            states: ``[T, hidden]``.
            table: ``[S, L]`` tokens that may be heads, by sentence; -1 behind the last.
            asked: ``[A]`` places in the flattened table whose head is asked for.
        """
        words = states[table.clamp(min=0)]
        scores = self.query(words) @ self.key(words).mT / words.shape[-1] ** 0.5
        scores = scores.masked_fill((table < 0)[:, None], torch.finfo(scores.dtype).min)
        chosen: Tensor = scores.flatten(0, 1)[asked]
        return chosen

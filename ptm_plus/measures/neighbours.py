"""Which of many vectors is the nearest: by cosine, and by CSLS, which corrects for hubs.

Similarities are computed some queries at a time, so that memory grows with the number of vectors
and not with its square.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_CELLS = 16_000_000
"""Similarities held at a time."""


def found_within(
    queries: Tensor,
    candidates: Tensor,
    answers: Tensor,
    meanings: Tensor,
    depth: int = 1,
    penalty: Tensor | None = None,
) -> Tensor:
    """Return ``[n]`` whether a right candidate is among the nearest ``depth``.

    A right candidate has to be strictly nearer than the wrong ones: one that merely ties with them
    would have been found by luck.

    Args:
        queries: ``[n, d]`` of unit length.
        candidates: ``[m, d]`` of unit length.
        answers: ``[n, a]`` meanings that are right for each query; -1 for fewer.
        meanings: ``[m]`` what each candidate means; equal candidates mean the same.
        depth: how many of the nearest count.
        penalty: ``[m]`` what is taken off the similarity to each candidate.
    """
    hits = []
    for first, similarity in _similarities(queries, candidates):
        if penalty is not None:
            similarity = similarity - penalty
        wanted = answers[first : first + len(similarity)]
        right = (meanings[None, :, None] == wanted[:, None, :]).any(-1)
        best = similarity.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
        nearer = (similarity >= best) & ~right
        hits.append((nearer.sum(1) < depth) & right.any(1))
    return torch.cat(hits) if hits else torch.zeros(0, dtype=torch.bool)


def crowding(candidates: Tensor, queries: Tensor, neighbours: int) -> Tensor:
    """Return ``[m]`` half the mean cosine of each candidate to its nearest queries.

    Taken off the cosine, it ranks candidates as CSLS does (Conneau et al. 2018, *Word translation
    without parallel data*, equation 3): the query's own term is the same for all of them.

    Args:
        candidates: ``[m, d]`` of unit length.
        queries: ``[n, d]`` of unit length.
        neighbours: how many of the nearest, K.
    """
    count = min(neighbours, len(queries))
    means = [
        similarity.topk(count, dim=1).values.mean(1)
        for _, similarity in _similarities(candidates, queries)
    ]
    return torch.cat(means) / 2


def _similarities(first: Tensor, second: Tensor) -> Iterator[tuple[int, Tensor]]:
    size = max(1, _CELLS // max(1, len(second)))
    for start in range(0, len(first), size):
        yield start, first[start : start + size] @ second.T

"""Which of many vectors is the nearest: by cosine, and by CSLS, which corrects for hubs.

Similarities are computed some queries at a time, so that memory grows with the number of vectors
and not with its square.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

DEPTHS = (1, 5)
"""Ranks within which an answer may count."""

_CELLS = 16_000_000
"""Similarities held at a time."""

_NOISE = 2e-6
"""Difference of cosines below which they tie: more than float32 and padding make of equal texts."""


def middle(blocks: int) -> int:
    """Return the block, from 1, whose states are compared where nobody says which.

    The top of a masked-language model turns back to single words.
    """
    return (blocks + 1) // 2


def nearer_wrong(
    queries: Tensor, candidates: Tensor, right: Tensor, penalty: Tensor | None = None
) -> Tensor:
    """Return ``[n]`` how many wrong candidates are as near to a query as its nearest right one.

    Counted to five: below one, a right one was found; below five, it is among the five nearest.
    What merely ties would have been found by luck, so it counts as nearer.

    Args:
        queries: ``[n, d]`` of unit length.
        candidates: ``[m, d]`` of unit length.
        right: ``[2, e]`` queries in order, and right candidates of theirs; at least one of each.
        penalty: ``[m]`` what is taken off the similarity to each candidate.
    """
    counts = []
    deepest = min(max(DEPTHS), len(candidates))
    for first, similarity in _similarities(queries, candidates):
        if penalty is not None:
            similarity -= penalty
        ends = torch.tensor((first, first + len(similarity)), device=right.device)
        begin, end = torch.searchsorted(right[0].contiguous(), ends).tolist()
        rows, places = right[0, begin:end] - first, right[1, begin:end]
        best = similarity.new_full((len(similarity),), -torch.inf)
        best = best.scatter_reduce(0, rows, similarity[rows, places], "amax")
        similarity[rows, places] = -torch.inf
        nearest = similarity.topk(deepest, dim=1, sorted=False).values
        counts.append((nearest >= best[:, None] - _NOISE).sum(1))
    return torch.cat(counts)


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
    """Yield the number of the first row and a block of rows, which is overwritten by the next."""
    size = min(max(1, _CELLS // max(1, len(second))), len(first))
    block = first.new_empty(size, len(second))
    for start in range(0, len(first), size):
        rows = first[start : start + size]
        yield start, torch.mm(rows, second.T, out=block[: len(rows)])

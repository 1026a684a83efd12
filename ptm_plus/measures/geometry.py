"""How vectors of translations lie: close to each other, and spread over the sphere."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CHUNK = 1024


def alignment(first: Tensor, second: Tensor) -> float:
    """Return the mean squared distance of pairs (Wang and Isola 2020, section 4.2; α = 2).

    Args:
        first: ``[n, d]`` vectors of unit length.
        second: ``[n, d]`` those of their translations.
    """
    return float((first.double() - second.double()).pow(2).sum(1).mean())


def uniformity(vectors: Tensor) -> float:
    """Return ``log E exp(-2 |x - y|²)`` over different vectors (the same, section 4.2; t = 2).

    Args:
        vectors: ``[n, d]`` of unit length, at least two.
    """
    count = len(vectors)
    total = vectors.new_zeros((), dtype=torch.float64)
    for first in range(0, count, _CHUNK):
        rows = vectors[first : first + _CHUNK].double()
        squared = 2 - 2 * rows @ vectors.double().T
        total += torch.exp(-2 * squared.clamp(min=0)).sum()
    own = count  # each vector's distance to itself is zero, and does not count
    return math.log((float(total) - own) / (count * (count - 1)))

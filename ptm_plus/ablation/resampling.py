"""Intervals of paired differences, over seeds and test items at once, and their correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
REPLICATES = 20_000

_CHUNK = 500
"""Replicates drawn at a time: the counts of clusters are ``[chunk, clusters]``."""


@dataclass(frozen=True)
class Difference:
    """A paired difference of means.

    Attributes:
        mean: the difference, over all seeds and items.
        replicates: ``[R]`` sorted, what it would have been with other seeds and items.
        p: chance of so large a difference where there is none, both ways.
    """

    mean: float
    replicates: Floats
    p: float

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the percentile interval of a level."""
        low, high = np.quantile(self.replicates, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


def paired_difference(
    own: Floats, other: Floats, clusters: Sequence[str], replicates: int = REPLICATES
) -> Difference:
    """Compare two arms on the same items and seeds by a bootstrap over both.

    Seeds and clusters of items (the questions about one fact, say) are drawn anew with replacement,
    independently of each other, as they cross: one seed answers many items, and most items are
    answered under every seed (Owen 2007, *The pigeonhole bootstrap*). A sample of n seeds shows
    (n − 1) / n of their variance, which matters for three: their deviations are widened by the root
    of n / (n − 1). With one seed the interval is over items alone.

    Args:
        own: ``[seeds, items]`` what the arm got; NaN where an item is not asked under a seed.
        other: ``[seeds, items]`` the arm that it is compared with, likewise.
        clusters: ``[items]`` which items belong together.
        replicates: how many samples are drawn.
    """
    apart = own - other
    number, of_item = np.unique(np.asarray(clusters), return_inverse=True)

    def by_cluster(rows: Floats) -> Floats:
        return np.stack([np.bincount(of_item, row, minlength=len(number)) for row in rows])

    sums, sizes = by_cluster(np.nan_to_num(apart)), by_cluster(~np.isnan(apart))
    means = sums.sum(axis=1) / sizes.sum(axis=1)
    seeds = len(apart)
    widened = (np.sqrt(seeds / (seeds - 1)) - 1) * (means - means.mean()) if seeds > 1 else 0.0
    rng = np.random.default_rng(0)
    found = []
    for first in range(0, replicates, _CHUNK):
        count = min(_CHUNK, replicates - first)
        drawn = rng.multinomial(len(number), np.full(len(number), 1 / len(number)), size=count)
        by_seed = drawn @ sums.T / np.maximum(drawn @ sizes.T, 1) + widened
        taken = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=count)
        found.append((by_seed * taken).sum(axis=1) / seeds)
    sample = np.sort(np.concatenate(found))
    tail = min(np.count_nonzero(sample <= 0), np.count_nonzero(sample >= 0))
    p = min(1.0, 2 * (tail + 1) / (replicates + 1))
    return Difference(float(means.mean()), sample, p)


def holm(values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm 1979), in the order given."""
    order = np.argsort(values, kind="stable")
    found, largest = [0.0] * len(values), 0.0
    for place, index in enumerate(order.tolist()):
        largest = max(largest, min(1.0, (len(values) - place) * values[index]))
        found[index] = largest
    return found

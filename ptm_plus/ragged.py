"""Index arithmetic on ragged arrays stored flat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def ragged_indexes(starts: Ints, lengths: Ints) -> Ints:
    """Return ``starts[0], starts[0]+1, …, starts[1], …``: every index of every range, in order."""
    total = int(lengths.sum())
    shift = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    return shift + np.arange(total, dtype=np.int64)


def exclusive_cumsum(values: Ints) -> Ints:
    """Return the sum of everything before each value."""
    return np.cumsum(values, dtype=np.int64) - values


def offsets_of(lengths: Ints) -> Ints:
    """Return ``[n + 1]`` offsets of consecutive ranges with the given lengths."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def cumsum_within(values: NDArray[np.float64], groups: Ints) -> NDArray[np.float64]:
    """Return the inclusive running sum of values within runs of equal (sorted) group numbers."""
    if not len(values):
        return values
    total = np.cumsum(values)
    first = np.flatnonzero(np.concatenate(([True], groups[1:] != groups[:-1])))
    before = total[first] - values[first]
    runs = np.diff(np.concatenate((first, [len(values)])))
    return total - np.repeat(before, runs)

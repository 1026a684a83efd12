"""Units that are drawn anew at every access: n-grams and geometric spans of whole words.

Each sequence is cut into runs of words whose lengths are drawn one after another; the arbiter then
draws among the runs. The first run of a text is what a cut that began long before would leave, so
that no word is more likely than another to begin one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptm_plus import Draws, Units, View

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def inverse_lengths(longest: int) -> Floats:
    """Return the chances of lengths 1, 2, …: p(n) ∝ 1/n (ALBERT, Lan et al. 2020, section 4.1)."""
    weights = 1.0 / np.arange(1, longest + 1)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def geometric_lengths(stop: float, longest: int) -> Floats:
    """Return the chances of lengths 1, 2, …: Geo(stop), cut (SpanBERT, Joshi et al. 2020, 3.1)."""
    weights = stop * (1 - stop) ** np.arange(longest)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class WordRuns:
    """Proposes runs of whole words.

    Attributes:
        name: name of the draws.
        chances: ``[N]`` chance of each length, in words.
    """

    name: str
    chances: Floats

    def __call__(self, view: View, draws: Draws) -> Units:
        """Return a run from every word on; the arbiter keeps those that follow each other."""
        start, end, first, last = _words(view)
        if not len(start):
            return Units(start=start, length=start)
        chance = draws.uniform(self.name, view.keys[view.sequence[start]], view.source[start])
        length = 1 + np.searchsorted(np.cumsum(self.chances), chance).clip(
            max=len(self.chances) - 1
        )
        rest = np.cumsum(self.chances[::-1])[::-1]  # chance that a run is at least so long
        rest = np.cumsum(rest / rest.sum())
        begun = 1 + np.searchsorted(rest, chance[first]).clip(max=len(rest) - 1)
        length[first] = begun
        final = np.minimum(np.arange(len(start)) + length - 1, last)
        return Units(start=start, length=end[final] - start)


def _words(view: View) -> tuple[Ints, Ints, NDArray[np.bool_], Ints]:
    """Return words' first token and end, whether they begin a segment, and its last word."""
    words = view.words
    begins = (words >= 0) & np.concatenate(([True], words[1:] != words[:-1]))
    start = np.flatnonzero(begins).astype(np.int64)
    length = np.bincount(words[words >= 0]) if len(start) else np.zeros(0, dtype=np.int64)
    end = start + length[length > 0]
    apart = np.ones(len(start), dtype=np.bool_)  # a special token or a border lies before it
    apart[1:] = (
        (start[1:] != end[:-1])
        | (view.segments[start[1:]] != view.segments[start[:-1]])
        | (view.sequence[start[1:]] != view.sequence[start[:-1]])
    )
    run = np.cumsum(apart) - 1
    ends = np.append(np.flatnonzero(apart)[1:], len(start)) - 1
    return start, end, apart, ends[run] if len(start) else start

"""Masking one half of a pair more than the other, under the one budget of the pair."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptm_plus import Draws, View


def one_half(view: View, draws: Draws, *, focus: float) -> NDArray[np.float64]:
    """Return ``[T]`` chances: ``focus`` for the half that is drawn, 1 for the other.

    The half is drawn at each access by the key of the sequence, so that it depends on neither the
    batch nor the order of the halves.

    Args:
        view: pairs.
        draws: keyed draws.
        focus: chance of the drawn half's words against the other half's.
    """
    words = view.words >= 0
    first = np.full(len(view.numbers), np.iinfo(np.int64).max)
    np.minimum.at(first, view.sequence[words], view.segments[words])
    drawn = draws.uniform("focus", view.keys) < 0.5
    inside = (view.segments == first[view.sequence]) == drawn[view.sequence]
    return np.where(words & inside, focus, 1.0)

"""How a cost grows with a size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Growth:
    """A straight line through costs, and the power that fits them best.

    Attributes:
        fixed: cost at size zero.
        per_unit: cost of one more.
        explained: share of the variance that the line explains; 1 where nothing varies.
        exponent: e of cost ~ size^e: 1 is linear, 0 flat; ``None`` where a size or cost is zero.
    """

    fixed: float
    per_unit: float
    explained: float
    exponent: float | None


def growth(sizes: Sequence[float], costs: Sequence[float]) -> Growth:
    """Fit costs by least squares.

    Args:
        sizes: at least two different ones.
        costs: of these.
    """
    size, cost = np.asarray(sizes, dtype=float), np.asarray(costs, dtype=float)
    per_unit, fixed = np.polyfit(size, cost, 1)
    left = cost - fixed - per_unit * size
    varies = float(((cost - cost.mean()) ** 2).sum())
    explained = 1 - float((left**2).sum()) / varies if varies else 1.0
    exponent = None
    if (size > 0).all() and (cost > 0).all():
        exponent = float(np.polyfit(np.log(size), np.log(cost), 1)[0])
    return Growth(float(fixed), float(per_unit), explained, exponent)

"""What one process does of a step: its rows, cut into micro-batches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ptm_plus.data import HostBatch, Row
from ptm_plus.mixture import StepPlan

if TYPE_CHECKING:
    from ptm_plus.run import Run


@dataclass(frozen=True)
class LocalBatch:
    """A micro-batch of this process.

    Attributes:
        rows: its rows.
        host: the micro-batch.
        real: whether it counts; otherwise it is another process's row, computed with weight zero.
    """

    rows: Sequence[Row]
    host: HostBatch
    real: bool = True


def local_batches(
    run: Run,
    rows: Mapping[str, Sequence[Row]],
    plan: StepPlan,
    micro_rows: int,
    rank: int = 0,
    size: int = 1,
    *,
    level: bool = False,
) -> list[LocalBatch]:
    """Return this process's micro-batches of a step, stream by stream.

    Args:
        run: the run.
        rows: rows of the step by stream, all processes together.
        plan: the step's plan.
        micro_rows: most rows of a micro-batch.
        rank: number of this process.
        size: number of processes.
        level: give every process as many micro-batches of each stream, where there are too few
            rows by one that does not count: sharded processes compute every pass together.
    """
    batches = []
    for stream in sorted(rows):
        own = rows[stream][rank::size]
        parts = [own[first : first + micro_rows] for first in range(0, len(own), micro_rows)]
        batches += [
            LocalBatch(
                part, run.collator.batch(part, rows[stream], plan.mask_rate, plan.kind_weights)
            )
            for part in parts
        ]
        most = math.ceil(math.ceil(len(rows[stream]) / size) / micro_rows)
        for _ in range(most - len(parts) if level else 0):
            ghost = rows[stream][:1]
            host = run.collator.batch(ghost, rows[stream], plan.mask_rate, plan.kind_weights)
            batches.append(LocalBatch(ghost, host, real=False))
    return batches

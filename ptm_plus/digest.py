"""A step's data as one number: sequences, masks and replacements, however they are split.

Digests of tokens are added up, so that the order of rows, micro-batches and processes does not
count; what belongs to another sequence, epoch, mask or replacement gives another sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np

from ptm_plus.data import HostBatch, Reader
from ptm_plus.keyed import derive_key, mix

if TYPE_CHECKING:
    from ptm_plus.run import Run

AHEAD = 8
"""Steps whose digests a checkpoint holds in advance."""

_WHOLE = 1 << 64


def batch_digest(batch: HostBatch) -> int:
    """Return the digest of a micro-batch: 64 bits, additive over sequences."""
    view, plan = batch.view, batch.plan
    tokens = mix(
        derive_key("digest", view.stream),
        view.keys[view.sequence],
        view.source,
        view.ids,
        view.positions,
        plan.ids,
        plan.predicted,
    )
    total = int(tokens.sum(dtype=np.uint64))
    for kind, treatment in plan.treatment.items():
        spans = view.spans_of(kind)
        attached = mix(
            derive_key("digest", view.stream, kind),
            view.keys[spans.sequence],
            view.source[spans.start],
            spans.id,
            treatment,
        )
        total += int(attached.sum(dtype=np.uint64))
    return total % _WHOLE


def add_digests(digests: Iterable[int]) -> int:
    """Return the digest of several micro-batches, or of several steps, together."""
    return sum(digests) % _WHOLE


def split(digest: int) -> tuple[float, float]:
    """Return a digest as two numbers whose sums over processes are exact in float64."""
    return float(digest & 0xFFFFFFFF), float(digest >> 32)


def joined(low: float, high: float) -> int:
    """Return the digest of summed halves."""
    return (int(low) + (int(high) << 32)) % _WHOLE


def digests_ahead(run: Run, reader: Reader, step: int, count: int) -> list[str]:
    """Return the digests of the next steps, all processes together, as hexadecimal numbers.

    Args:
        run: the run.
        reader: where the data stand; it is left as it is.
        step: number of the next step.
        count: how many steps to look ahead; fewer at the end of the run.
    """
    ahead = Reader(run.prepared.streams, run.settings, deepcopy(reader.cursors))
    found = []
    for number in range(step, min(step + count, run.settings.train.steps)):
        plan = run.planner.plan(number)
        rows = ahead.step_rows(plan)
        masked = (
            run.collator.masked(rows[stream], plan.mask_rate, plan.kind_weights)
            for stream in sorted(rows)
        )
        found.append(f"{add_digests(batch_digest(batch) for batch in masked):016x}")
    return found

"""What goes wrong in training, and which rows, objective and plugin it comes from."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from ptm_plus.components import Objective
from ptm_plus.compose import Contribution
from ptm_plus.data import Row
from ptm_plus.local_batches import local_batches
from ptm_plus.microbatch import MicroBatch, to_device
from ptm_plus.mixture import StepPlan
from ptm_plus.processes import World, at_hand, is_sharded
from ptm_plus.step import LossKey, Passes

if TYPE_CHECKING:
    from ptm_plus.run import Run

_LEAST_SPREAD = 0.01
"""Least spread of losses, relative to their median: a plateau must not make noise a spike."""

_NAMED = 5
"""Rows that a message names."""


def is_spike(loss: float, before: Sequence[float], size: float, window: int) -> bool:
    """Return whether a loss lies far above those before it.

    Args:
        loss: loss of a step.
        before: losses of the steps before.
        size: how far, in median absolute deviations above the median.
        window: how many are compared; with fewer there is no spike.
    """
    if len(before) < window:
        return False
    compared = before[-window:]
    middle = statistics.median(compared)
    spread = statistics.median(abs(one - middle) for one in compared)
    return loss > middle + size * max(spread, _LEAST_SPREAD * abs(middle))


def find_culprits(
    run: Run,
    rows: Mapping[str, Sequence[Row]],
    plan: StepPlan,
    divisors: Mapping[LossKey, float],
    world: World,
) -> list[str]:
    """Compute a step's rows one by one and say which have no finite loss or gradient, and in what.

    Args:
        run: the run, with the weights from before the step.
        rows: rows of the step by stream, all processes together.
        plan: the step's plan.
        divisors: count of each loss over the whole step.
        world: the processes; each looks at its own rows, and all of them must call it.
    """
    own = []
    # One row at a time, and as many in every process: sharded ones compute them together.
    for local in local_batches(run, rows, plan, 1, world.rank, world.size, level=True):
        batch = to_device(local.host, run.device, run.float_dtype())
        for owner in run.objectives[batch.stream]:
            if not divisors.get((batch.stream, owner.component.name)):
                continue
            with world.accelerator.autocast():
                what = at_hand(run.root, partial(_not_finite, run, batch, owner))
            if what and local.real:
                own.append(_named(run, local.rows[0], owner, what))
    found = [one for of_process in world.gather(own) for one in of_process]
    more = [f"and {len(found) - _NAMED} more"] if len(found) > _NAMED else []
    return found[:_NAMED] + more


def _not_finite(run: Run, batch: MicroBatch, owner: Contribution[Objective]) -> str:
    """Return what is not finite: ``loss``, ``gradient``, or nothing (an empty word)."""
    parts = run.encoder.parts_of(owner.instance)
    outcome = owner.component.compute(batch, Passes(run.encoder, owner.instance), parts)
    if not bool(torch.isfinite(outcome.sum)):
        return "loss"
    trainable = [p for p in run.encoder.parameters() if p.requires_grad]
    if not outcome.sum.requires_grad or any(map(is_sharded, trainable)):
        return ""  # gradients of sharded parameters exist only after a backward of all processes
    found = torch.autograd.grad(outcome.sum, trainable, allow_unused=True)
    finite = all(bool(torch.isfinite(one).all()) for one in found if one is not None)
    return "" if finite else "gradient"


def _named(run: Run, row: Row, owner: Contribution[Objective], what: str) -> str:
    store = run.prepared.streams[row.stream].store
    examples = sorted({int(number) for number in store.example[row.numbers]})
    return (
        f"{what} of objective {owner.component.name!r} (plugin {owner.instance!r}) on stream "
        f"{row.stream!r}, sequences {', '.join(map(str, sorted(row.numbers.tolist())))} "
        f"(examples {', '.join(map(str, examples))})"
    )

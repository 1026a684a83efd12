"""Where the CPU time of a trainer's steps goes, by the process's own clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from torch import Tensor

from ptm_plus.mixture import StepPlan
from ptm_plus.train import Trainer


@dataclass
class Spent:
    """CPU seconds of some steps.

    Attributes:
        steps: how many.
        tokens: that were read.
        whole: everything.
        forward: in the passes and losses.
        backward: in autograd.
        update: in clipping and the optimizer.
    """

    steps: int = 0
    tokens: int = 0
    whole: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    update: float = 0.0

    @property
    def own(self) -> float:
        """What is neither forward nor backward nor optimizer: data, counts, bookkeeping."""
        return self.whole - self.forward - self.backward - self.update


def spend(trainer: Trainer, first: int, steps: int) -> Spent:
    """Take steps and return what they took.

    Args:
        trainer: one that was started; it goes on from the data where it stands.
        first: the number of a step whose plan all of them have, so that they are of one stage.
        steps: how many.
    """
    spent = Spent(steps)
    before = trainer.progress.tokens
    with _clocked(trainer, spent):
        began = time.process_time()
        for _ in range(steps):
            trainer.step(plan_of(trainer, first))
        trainer.settle()
        spent.whole = time.process_time() - began
    spent.tokens = trainer.progress.tokens - before
    return spent


def plan_of(trainer: Trainer, step: int) -> StepPlan:
    """Return the plan of a step."""
    return trainer.run.planner.plan(step)


@contextmanager
def _clocked(trainer: Trainer, spent: Spent) -> Iterator[None]:
    root, stepper = trainer.run.root, trainer.stepper
    with ExitStack() as stack:
        for owner, method, name in (
            (root, "losses", "forward"),
            (Tensor, "backward", "backward"),
            (stepper, "_update", "update"),
        ):
            timed = _timed(getattr(owner, method), spent, name)
            stack.enter_context(patch.object(owner, method, timed))
        yield


def _timed(function: Callable[..., Any], spent: Spent, name: str) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        began = time.process_time()
        try:
            return function(*arguments, **named)
        finally:
            setattr(spent, name, getattr(spent, name) + time.process_time() - began)

    return wrapped

"""What a run would take, found out by preparing its data and taking a few of its steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from ptm_plus.evaluation import evaluate
from ptm_plus.launch import launch
from ptm_plus.peak_memory import forget_peak, peak_memory
from ptm_plus.processes import make_accelerator
from ptm_plus.progress import Silent, Watch
from ptm_plus.run import Run
from ptm_plus.sampling import expected
from ptm_plus.settings import RunSettings
from ptm_plus.train import Trainer

_WARM_UP, _STEPS = 2, 6
_SLOWER = 1.1
"""Times the quickest size's time: larger ones are not tried any more."""


@dataclass(frozen=True)
class Tryout:
    """Figures of a run that was tried.

    Attributes:
        tokens_per_step: training tokens of a mean step.
        seconds_per_step: of the device at hand, over all stages; 0 where no step was taken.
        seconds_per_evaluation: likewise.
        memory: the most that was held, as ``memory`` in a report.
    """

    tokens_per_step: float
    seconds_per_step: float = 0.0
    seconds_per_evaluation: float = 0.0
    memory: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Size:
    """What micro-batches of a size take.

    Attributes:
        rows: of a micro-batch.
        seconds_per_step: of a step of the first stage.
        memory: as in :class:`Tryout`.
    """

    rows: int
    seconds_per_step: float
    memory: dict[str, Any]


def try_out(settings: RunSettings, device: str, watch: Watch, *, timed: bool = True) -> Tryout:
    """Prepare a run's data, compose it, and take a few steps that are kept nowhere.

    Args:
        settings: of the run.
        device: ``auto``, ``cpu`` or ``cuda``.
        watch: where the progress of preparing goes.
        timed: take steps, some with the plan of each stage's middle, and evaluate once.

    Raises:
        PtmPlusError: as a launch would.
    """
    trainer = _trainer(settings, device, watch)
    run = trainer.run
    tokens = _tokens_per_step(run)
    if not timed:
        return Tryout(tokens)
    trainer.start()
    seconds = sum(
        stage.steps * _seconds_per_step(trainer, stage.first + stage.steps // 2)
        for stage in run.stages
    )
    began = time.perf_counter()
    evaluate(run)
    evaluated = time.perf_counter() - began
    return Tryout(tokens, seconds / settings.train.steps, evaluated, peak_memory(run.device))


def try_sizes(settings: RunSettings, device: str, watch: Watch) -> Iterator[Size]:
    """Yield what micro-batches take, from one row on and twice as many each time.

    Ends with all rows of a step, with the first size that memory does not hold, or when more rows
    have become slower.

    Args:
        settings: of the run, as one process.
        device: ``auto``, ``cpu`` or ``cuda``.
        watch: where the progress of preparing goes.
    """
    batch = settings.batch.model_copy(update={"micro_rows": settings.batch.rows})
    trainer = _trainer(settings.model_copy(update={"batch": batch}), device, watch)
    trainer.start()
    rows, quickest = 1, float("inf")
    while rows <= settings.batch.rows:
        forget_peak(trainer.run.device)
        trainer.progress.micro_rows = rows
        seconds = _seconds_per_step(trainer, 0)
        if trainer.progress.micro_rows < rows or seconds > _SLOWER * quickest:
            return
        yield Size(rows, seconds, peak_memory(trainer.run.device))
        quickest, rows = min(quickest, seconds), 2 * rows


def _trainer(settings: RunSettings, device: str, watch: Watch) -> Trainer:
    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)
    accelerator = make_accelerator(settings.train.precision, device)
    return Trainer(launch(settings, watch, accelerator.device), Silent(), accelerator)


def _seconds_per_step(trainer: Trainer, first: int) -> float:
    """Take some steps with the plan of one, and return what each takes."""
    plan = trainer.run.planner.plan(first)
    for _ in range(_WARM_UP):
        trainer.step(plan)
    trainer.settle()
    began = time.perf_counter()
    for _ in range(_STEPS):
        trainer.step(plan)
    trainer.settle()
    return (time.perf_counter() - began) / _STEPS


def _tokens_per_step(run: Run) -> float:
    batch = run.settings.batch
    filled = sum(
        one.share * run.prepared.streams[stream].rows(stratum, 0).fill
        for (stream, stratum), one in expected(run.planner, run.prepared).items()
    )
    return filled * batch.rows * batch.row_tokens

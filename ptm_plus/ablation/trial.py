"""What a run would take, found out by preparing its data and taking a few of its steps."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ptm_plus.evaluation import evaluate
from ptm_plus.launch import launch
from ptm_plus.processes import make_accelerator
from ptm_plus.profiling import take_step
from ptm_plus.progress import Silent, Watch
from ptm_plus.run import Run
from ptm_plus.sampling import expected
from ptm_plus.settings import RunSettings
from ptm_plus.train import Trainer

_WARM_UP, _STEPS = 2, 6


@dataclass(frozen=True)
class Trial:
    """Figures of a run that was tried.

    Attributes:
        tokens_per_step: training tokens of a mean step.
        seconds_per_step: of the device at hand; 0 where no step was taken.
        seconds_per_evaluation: likewise.
    """

    tokens_per_step: float
    seconds_per_step: float = 0.0
    seconds_per_evaluation: float = 0.0


def try_out(settings: RunSettings, device: str, watch: Watch, *, timed: bool) -> Trial:
    """Prepare a run's data, compose it, and take a few steps that are kept nowhere.

    Args:
        settings: of the run.
        device: ``auto``, ``cpu`` or ``cuda``.
        watch: where the progress of preparing goes.
        timed: take steps.

    Raises:
        PtmPlusError: as a launch would.
    """
    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)
    accelerator = make_accelerator(settings.train.precision, device)
    run = launch(settings, watch, accelerator.device)
    tokens = _tokens_per_step(run)
    if not timed:
        return Trial(tokens)
    trainer = Trainer(run, Silent(), accelerator)
    trainer.start()
    for _ in range(_WARM_UP):
        take_step(trainer)
    trainer.settle()
    before = trainer.progress.seconds
    for _ in range(_STEPS):
        take_step(trainer)
    trainer.settle()
    began = time.perf_counter()
    evaluate(run)
    evaluated = time.perf_counter() - began
    return Trial(tokens, (trainer.progress.seconds - before) / _STEPS, evaluated)


def _tokens_per_step(run: Run) -> float:
    batch = run.settings.batch
    filled = sum(
        one.share * run.prepared.streams[stream].rows(stratum, 0).fill
        for (stream, stratum), one in expected(run.planner, run.prepared).items()
    )
    return filled * batch.rows * batch.row_tokens

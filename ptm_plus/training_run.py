"""What ``train`` and ``resume`` do around the loop: launch, fit, evaluate, report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ptm_plus.allocation import keep_freed_memory
from ptm_plus.evaluation import evaluate
from ptm_plus.identity import versions
from ptm_plus.initialisation import start_from
from ptm_plus.label_lists import read_label_lists, write_label_lists
from ptm_plus.launch import launch
from ptm_plus.processes import World, launcher_note, make_accelerator
from ptm_plus.progress import Watch
from ptm_plus.report import make_report, write_report
from ptm_plus.run import Run
from ptm_plus.run_folder import (
    PROFILE,
    TOKENIZER,
    checkpoints,
    locked,
    source_tokenizer,
    write_settings,
)
from ptm_plus.sampling import epoch_warnings, expected
from ptm_plus.selfcheck import self_check
from ptm_plus.settings import RunSettings
from ptm_plus.settings_paths import anchored
from ptm_plus.train import Trainer

_MOST_WARNINGS = 3


@dataclass(frozen=True)
class Resume:
    """How a run goes on.

    Attributes:
        allow_changes: also where plugins, data, tables or settings are others.
        verify: check the data of so many steps against the digests in the checkpoint.
    """

    allow_changes: bool = False
    verify: int = 0


def train(
    settings: RunSettings, watch: Watch, *, device: str = "auto", resume: Resume | None = None
) -> dict[str, Any]:
    """Train a run from its settings, or go on with it, and write its report.

    Args:
        settings: the resolved settings.
        watch: where progress goes.
        device: ``auto``, ``cpu`` or ``cuda``.
        resume: go on from the newest whole checkpoint of the run folder; from the beginning, with
            what was prepared, where there is none yet.
    """
    began = time.perf_counter()
    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)
    torch.use_deterministic_algorithms(settings.train.deterministic)
    with _world(settings, device) as world:
        return _trained(world, settings, watch, resume, began)


def _trained(
    world: World,
    settings: RunSettings,
    watch: Watch,
    resume: Resume | None,
    began: float,
) -> dict[str, Any]:
    """Train a run in its world, and return the report.

    The trainer ends with this call, before its processes part: torch may wait for ever for a
    reducer that outlives its group.
    """
    if world.accelerator.device.type == "cpu":
        keep_freed_memory()
    settings = _announce(world, settings, watch, resume)
    going_on = resume is not None and bool(checkpoints(settings.output))
    kept = read_label_lists(settings.output) if going_on else {}
    run = launch(settings, watch, world.accelerator.device, kept)
    _warn(run, watch)
    self_check(run)
    if world.is_main:
        _keep_tokenizer(run)
        write_label_lists(run.output, run.prepared.labels)
    if not going_on and settings.model.init_from:
        start_from(run, Path(settings.model.init_from), watch)
    trainer = Trainer(run, watch, world.accelerator)
    if going_on:
        assert resume is not None
        trainer.resume(allow_changes=resume.allow_changes, verify=resume.verify)
    progress = trainer.fit()
    with watch.task("evaluate"), world.lost_processes():
        figures = evaluate(run)
    trainer.tell_evaluated(figures)
    report = make_report(run, progress, figures, time.perf_counter() - began)
    if world.is_main:
        write_report(report, settings.output)

    return report


def profile(settings: RunSettings, watch: Watch, *, device: str = "auto") -> dict[str, Any]:
    """Take a run's first steps and return where their time went; nothing is saved but the trace.

    Args:
        settings: the resolved settings.
        watch: where progress goes.
        device: ``auto``, ``cpu`` or ``cuda``.
    """
    from ptm_plus.profiling import profiled

    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)
    accelerator: Accelerator = make_accelerator(settings.train.precision, device)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    run = launch(settings, watch, accelerator.device)
    trainer = Trainer(run, watch, accelerator)
    trainer.start()
    with watch.task("profile"):
        return profiled(trainer, settings.output / PROFILE)


@contextmanager
def _world(settings: RunSettings, device: str) -> Iterator[World]:
    """Give the processes of the run; the main one holds the run folder."""
    accelerator: Accelerator = make_accelerator(settings.train.precision, device)
    world = World(accelerator)
    with ExitStack() as stack:
        if world.size > 1:  # left to the interpreter's end, gloo's threads may abort the process
            stack.callback(torch.distributed.destroy_process_group)
        if world.is_main:
            stack.enter_context(locked(settings.output))
        stack.enter_context(world.lost_processes())
        yield world


def _announce(
    world: World, settings: RunSettings, watch: Watch, resume: Resume | None
) -> RunSettings:
    """Write the settings and the log's first record; of a resumed run neither is replaced."""
    note = launcher_note(world)
    if note:
        watch.note(note)
    if resume is not None and checkpoints(settings.output):
        return settings
    settings = _with_own_tokenizer(settings, world)
    if world.is_main:
        write_settings(anchored(settings))
    world.wait()
    watch.figures("started", {"processes": world.size, "versions": versions()})
    return settings


def _with_own_tokenizer(settings: RunSettings, world: World) -> RunSettings:
    """Take no tokenizer over from an earlier start; copy that of a run whose weights are taken."""
    own = (settings.output / TOKENIZER).absolute()
    if settings.tokenizer.path == str(own):  # copied already, in a start that was broken off
        return settings
    given, start = settings.tokenizer.path or settings.model.path, settings.model.init_from
    source = source_tokenizer(start) if start and not given else ""
    if world.is_main:
        shutil.rmtree(own, ignore_errors=True)
        if source:
            shutil.copytree(source, own)
    if not source:
        return settings
    tokenizer = settings.tokenizer.model_copy(update={"path": str(own)})
    return settings.model_copy(update={"tokenizer": tokenizer})


def _warn(run: Run, watch: Watch) -> None:
    """Name the strata that are read too often, those that are read most; ``plan`` has all."""
    warnings = epoch_warnings(expected(run.planner, run.prepared), run.settings.batch)
    for words in warnings[:_MOST_WARNINGS]:
        watch.note(words)
    more = len(warnings) - _MOST_WARNINGS
    if more > 0:
        watch.note(f"and {more} more that are read too often; `ptm-plus plan` names them")


def _keep_tokenizer(run: Run) -> None:
    """Save the run's tokenizer, so that its weights can be started from elsewhere."""
    folder = run.output / TOKENIZER
    if not folder.exists():
        draft = folder.with_name(f".{TOKENIZER}.partial")
        shutil.rmtree(draft, ignore_errors=True)
        run.prepared.tokenizer.save_pretrained(draft)
        draft.rename(folder)

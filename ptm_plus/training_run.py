"""What ``train`` and ``resume`` do around the loop: launch, fit, evaluate, report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from ptm_plus.consent import consented
from ptm_plus.errors import SettingsError
from ptm_plus.evaluation import evaluate
from ptm_plus.launch import launch
from ptm_plus.progress import Watch
from ptm_plus.report import make_report, write_report
from ptm_plus.selfcheck import self_check
from ptm_plus.settings import RunSettings
from ptm_plus.settings_files import dump_toml, resolve
from ptm_plus.train import Trainer, make_accelerator

SETTINGS = "settings.toml"


def train(
    settings: RunSettings, watch: Watch, *, device: str = "auto", resume: bool = False
) -> dict[str, Any]:
    """Train a run from its settings, or go on with it, and write its report.

    Args:
        settings: the resolved settings.
        watch: where progress goes.
        device: ``auto``, ``cpu`` or ``cuda``.
        resume: go on from the newest whole checkpoint of the run folder.
    """
    began = time.perf_counter()
    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)
    torch.use_deterministic_algorithms(settings.train.deterministic)
    accelerator = make_accelerator(settings.train.precision, device)
    if accelerator.is_main_process:
        settings.output.mkdir(parents=True, exist_ok=True)
        (settings.output / SETTINGS).write_text(dump_toml(settings), encoding="utf-8")
    run = launch(settings, watch, accelerator.device)
    self_check(run)
    trainer = Trainer(run, watch, accelerator)
    if resume:
        trainer.resume()
    elif any(one.component.at_start for one in run.probes):
        watch.figures("evaluation", {"step": 0, **evaluate(run, at_start=True)})
    progress = trainer.fit()
    with watch.task("evaluate"):
        figures = evaluate(run)
    trainer.tell_evaluated(figures)
    report = make_report(run, progress, figures, time.perf_counter() - began)
    if accelerator.is_main_process:
        write_report(report, settings.output)
    return report


def settings_of(folder: Path, *, allow_code: bool = False) -> RunSettings:
    """Return the resolved settings of a run folder.

    Args:
        folder: the run folder.
        allow_code: run the code that it names.

    Raises:
        SettingsError: it is not a run folder, or it names code.
    """
    if not (folder / SETTINGS).is_file():
        raise SettingsError(f"{folder} is not a run folder: it has no {SETTINGS}", "check the path")
    resolved = resolve(folder / SETTINGS)
    settings = consented(resolved, allow_code, flags=False).settings
    return settings.model_copy(update={"output": folder})

"""A run with the weights of one of its checkpoints, to be measured or exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ptm_plus.checkpoint import load_checkpoint, whole_checkpoint
from ptm_plus.consent import consented
from ptm_plus.errors import SettingsError
from ptm_plus.evaluation import evaluate
from ptm_plus.label_lists import read_label_lists
from ptm_plus.launch import launch
from ptm_plus.optimizer import set_mode
from ptm_plus.progress import Watch
from ptm_plus.run import Run
from ptm_plus.run_folder import home_of, is_run, read_folder


def trained_run(
    folder: Path, watch: Watch, *, allow_code: bool = False, device: torch.device | None = None
) -> tuple[Run, str]:
    """Return a run as it was trained, in float32 and evaluation mode, and its checkpoint's name.

    Args:
        folder: of the run, whose newest whole checkpoint is taken, or of one of its checkpoints.
        watch: where progress goes.
        allow_code: run the code that the run folder names.
        device: where the model lives; the CPU by default.

    Raises:
        SettingsError: the run folder is none, or names code.
        DataError: there is no whole checkpoint, or it belongs to other data.
    """
    settings = consented(read_folder(home_of(folder)), allow_code, flags=False).settings
    checkpoint, skipped = whole_checkpoint(folder)  # before anything is prepared
    for line in skipped:
        watch.note(line)
    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)
    run = launch(settings, watch, device, kept_labels=read_label_lists(settings.output))
    load_checkpoint(run, watch=watch, folder=checkpoint)
    run.encoder.float()
    set_mode(run.encoder, training=False)
    return run, checkpoint.name


def measure_run(folder: Path, device: str, allow_code: bool, watch: Watch) -> dict[str, Any]:
    """Return what a run's own evaluation says: held-out data of its streams, probes of its plugins.

    Args:
        folder: of a run, or of one of its checkpoints.
        device: ``cpu`` or ``cuda``.
        allow_code: run the code that the run folder names.
        watch: where progress goes.

    Raises:
        SettingsError: it is no run.
        DataError: there is no whole checkpoint, or it belongs to other data.
    """
    if not is_run(folder):
        raise SettingsError(
            f"{folder}: not a run folder, so it has no held-out data of its own",
            "give --pairs, --text or --words",
        )
    run, checkpoint = trained_run(folder, watch, allow_code=allow_code, device=torch.device(device))
    return {"checkpoint": checkpoint, **evaluate(run)}

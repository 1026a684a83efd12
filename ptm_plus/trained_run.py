"""A run with the weights of one of its checkpoints, to be measured or exported."""

from __future__ import annotations

from pathlib import Path

import torch

from ptm_plus.checkpoint import load_checkpoint, newest_whole
from ptm_plus.consent import consented
from ptm_plus.label_lists import read_label_lists
from ptm_plus.launch import launch
from ptm_plus.optimizer import set_mode
from ptm_plus.progress import Watch
from ptm_plus.run import Run
from ptm_plus.run_folder import SETTINGS, home_of, read_folder


def is_run(folder: Path) -> bool:
    """Tell whether a folder is that of a run, or one of its checkpoints."""
    return (home_of(folder) / SETTINGS).is_file()


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
    home = home_of(folder)
    settings = consented(read_folder(home), allow_code, flags=False).settings
    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)
    run = launch(settings, watch, device, kept_labels=read_label_lists(settings.output))
    checkpoint = newest_whole(settings.output)[0] if folder == home else folder
    load_checkpoint(run, watch=watch, folder=None if folder == home else folder)
    run.encoder.float()
    set_mode(run.encoder, training=False)
    return run, checkpoint.name

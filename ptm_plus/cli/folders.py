"""Run folders are never overwritten by accident."""

from __future__ import annotations

import shutil
from pathlib import Path

from ptm_plus.errors import EnvironmentProblem, SettingsError
from ptm_plus.run_folder import WRITTEN, checkpoints, locked, refuse_links_in
from ptm_plus.settings import RunSettings


def claim_folder(settings: RunSettings, overwrite: bool) -> None:
    """Make the run folder ready for a new run.

    Args:
        settings: the resolved settings.
        overwrite: remove an earlier run's files (and nothing else) from it.

    Raises:
        SettingsError: an earlier run is in it, or it is a file.
        DataError: there are symbolic links in it.
        EnvironmentProblem: it cannot be written, or another process is training in it.
    """
    folder = settings.output
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"--output {folder}: is a file", "name a folder")
    if checkpoints(folder) and not overwrite:
        raise SettingsError(
            f"{folder} holds a run with checkpoints",
            f"go on with it: ptm-plus resume {folder}; or replace it: --overwrite",
        )
    refuse_links_in(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):  # nobody may be training there
            for name in WRITTEN if overwrite else ():
                _remove(folder / name)
    except OSError as error:
        raise EnvironmentProblem(
            f"{folder}: cannot be written: {error.strerror or error}",
            "name another folder with --output, or make room",
        ) from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

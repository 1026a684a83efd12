"""Run folders: one is never overwritten by accident, and each says what it was run with."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ptm_plus.cli.console import LOG
from ptm_plus.errors import DataError, EnvironmentProblem, SettingsError
from ptm_plus.files import refuse_links
from ptm_plus.settings import RunSettings
from ptm_plus.settings_files import Resolved, dump_toml, resolve

SETTINGS = "settings.toml"
"""The resolved settings in a run folder."""

_OF_A_RUN = ("checkpoints", "report.json", SETTINGS, LOG)
_WRITTEN = (*_OF_A_RUN, "report.partial", "sample", "without-plugins", "without-plugins.log")


def claim_folder(settings: RunSettings, overwrite: bool) -> None:
    """Make the run folder ready for a new run, with its settings in it.

    Args:
        settings: the resolved settings.
        overwrite: remove an earlier run's files (and nothing else) from it.

    Raises:
        SettingsError: an earlier run is in it, or it is a file.
        DataError: there are symbolic links in it.
        EnvironmentProblem: it cannot be written.
    """
    folder = settings.output
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"--output {folder}: is a file", "name a folder")
    if has_checkpoints(folder) and not overwrite:
        raise SettingsError(
            f"{folder} holds a run with checkpoints",
            f"go on with it: ptm-plus resume {folder}; or replace it: --overwrite",
        )
    _refuse_links(folder)
    try:
        if overwrite:
            for name in _OF_A_RUN:
                _remove(folder / name)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / SETTINGS, dump_toml(settings))
    except OSError as error:
        raise EnvironmentProblem(
            f"{folder}: cannot be written: {error.strerror or error}",
            "name another folder with --output, or make room",
        ) from error


def has_checkpoints(folder: Path) -> bool:
    """Tell whether a checkpoint with its final name lies in a run folder."""
    return any((folder / "checkpoints").glob("step-*"))


def read_folder(folder: Path) -> Resolved:
    """Return the settings of a run folder; its own place is its output, wherever it was moved.

    Raises:
        DataError: no run was started in it, or there are symbolic links in it.
        SettingsError: its settings are not those of this version.
    """
    path = folder / SETTINGS
    if not path.is_file():
        near = "no such folder" if not folder.exists() else f"no {SETTINGS} in it: not a run folder"
        raise DataError(near, "name the folder that `ptm-plus train` wrote", path=folder)
    _refuse_links(folder)
    return resolve(path, {"output": folder})


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _refuse_links(folder: Path) -> None:
    """Refuse links where a run writes; others in its folder are not its business."""
    refuse_links([*(folder / name for name in _WRITTEN), *folder.glob(".*.part*")])


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

"""A run folder: its settings, its checkpoints, and the one process that may write to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ptm_plus.errors import DataError, EnvironmentProblem
from ptm_plus.files import refuse_links, write_whole
from ptm_plus.run_log import LOG
from ptm_plus.settings import RunSettings
from ptm_plus.settings_files import Resolved, dump_toml, resolve
from ptm_plus.settings_paths import moved

SETTINGS = "settings.toml"
"""The resolved settings in a run folder."""

TOKENIZER = "tokenizer"
"""The run's tokenizer, as transformers saves it."""

PROFILE = "profile"
"""Folder of the trace of a profiled run."""

LABELS = "labels.json"
"""The run's label lists, in the order of their rows."""

CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints."""

_LOCK = "run.lock"
WRITTEN = (
    *(CHECKPOINTS, "report.json", "report.partial", SETTINGS, LOG, TOKENIZER, LABELS, PROFILE),
    *("sample", "without-plugins", "without-plugins.log"),
)
"""Everything that a run writes into its folder, beside the lock."""

_CHECKPOINT = re.compile(r"step-\d{9,}")

_PATIENCE = 20.0
"""Seconds to wait for a process that is just ending."""


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run folder that have their final name, oldest first."""
    named = (folder / CHECKPOINTS).glob("step-*")
    return sorted(path for path in named if _CHECKPOINT.fullmatch(path.name) and path.is_dir())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder, so that two processes never train in one; a killed process lets it go.

    Raises:
        EnvironmentProblem: another process holds it, or it cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / _LOCK, timeout=_PATIENCE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise EnvironmentProblem(
            f"{folder}: another process is training in this run folder",
            "wait for it or stop it, or name another folder with --output",
        ) from None
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def write_settings(settings: RunSettings) -> None:
    """Write the resolved settings into their run folder, whole or not at all.

    Raises:
        EnvironmentProblem: the folder cannot be written.
    """
    folder = settings.output
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / SETTINGS, dump_toml(settings))
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"{folder}: cannot be written: {error.strerror or error}",
        "name another folder with --output, or make room",
    )


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
    refuse_links_in(folder)
    resolved = resolve(path)
    return replace(resolved, settings=_with_own_tokenizer(moved(resolved.settings, folder)))


def _with_own_tokenizer(settings: RunSettings) -> RunSettings:
    """Take the tokenizer that a run was trained with; text that was added would train another."""
    own = (settings.output / TOKENIZER).absolute()
    if settings.tokenizer.path or settings.model.path or not checkpoints(settings.output):
        return settings
    tokenizer = settings.tokenizer.model_copy(update={"path": str(own) if own.is_dir() else ""})
    return settings.model_copy(update={"tokenizer": tokenizer})


def refuse_links_in(folder: Path) -> None:
    """Refuse links where a run writes; others in its folder are not its business.

    Raises:
        DataError: one of its files or folders is a symbolic link.
    """
    refuse_links([*(folder / name for name in (*WRITTEN, _LOCK)), *folder.glob(".*.part*")])


def home_of(source: Path) -> Path:
    """Return the run folder of a checkpoint, or of itself."""
    return source.parent.parent if source.parent.name == CHECKPOINTS else source


def is_run(folder: Path) -> bool:
    """Tell whether a folder is that of a run, or one of its checkpoints."""
    return (home_of(folder) / SETTINGS).is_file()


def source_tokenizer(source: str) -> str:
    """Return the tokenizer of a run folder or of one of its checkpoints, or an empty string."""
    for home in (Path(source), home_of(Path(source))):
        if (home / TOKENIZER).is_dir():
            return str(home / TOKENIZER)
    return ""

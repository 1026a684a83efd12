"""A run folder: its settings, its log, and the one process that may write to it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptm_plus.errors import DataError, EnvironmentProblem
from ptm_plus.files import refuse_links
from ptm_plus.settings import RunSettings
from ptm_plus.settings_files import Resolved, dump_toml, resolve
from ptm_plus.settings_paths import moved

SETTINGS = "settings.toml"
"""The resolved settings in a run folder."""

LOG = "log.jsonl"
"""Notes and figures in the order in which they came."""

TOKENIZER = "tokenizer"
"""The run's tokenizer, as transformers saves it."""

_LOCK = "run.lock"
WRITTEN = (
    *("checkpoints", "report.json", "report.partial", SETTINGS, LOG, TOKENIZER),
    *("sample", "without-plugins", "without-plugins.log"),
)
"""Everything that a run writes into its folder, beside the lock."""

_PATIENCE = 20.0
"""Seconds to wait for a process that is just ending."""


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
    return replace(resolved, settings=moved(resolved.settings, folder))


def refuse_links_in(folder: Path) -> None:
    """Refuse links where a run writes; others in its folder are not its business.

    Raises:
        DataError: one of its files or folders is a symbolic link.
    """
    refuse_links([*(folder / name for name in (*WRITTEN, _LOCK)), *folder.glob(".*.part*")])


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


def source_tokenizer(source: str) -> str:
    """Return the tokenizer of a run folder or of one of its checkpoints, or an empty string."""
    folder = Path(source)
    run = folder.parent.parent if folder.parent.name == "checkpoints" else folder
    for home in (folder, run):
        if (home / TOKENIZER).is_dir():
            return str(home / TOKENIZER)
    return ""


# ---------------------------------------------------------------------------------------------
# The log


def append_record(folder: Path, line: str) -> None:
    """Append a line to the log, after the half of one that a killed process may have left.

    Raises:
        EnvironmentProblem: it cannot be written.
    """
    path = folder / LOG
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as log:
            if log.tell():
                log.seek(-1, os.SEEK_END)
                line = line if log.read(1) == b"\n" else f"\n{line}"
            log.write(line.encode())
    except OSError as error:
        raise EnvironmentProblem(
            f"{path}: the log cannot be written: {error.strerror or error}",
            "is the disk full or read-only?",
        ) from error


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a run as if it had never been broken off.

    Left out is what a resumed run did again: after ``started`` everything before it, after
    ``resumed`` the steps and evaluations beyond its step. Of two records of one kind and step the
    later one counts; half a line is none.
    """
    records: dict[Any, dict[str, Any]] = {}
    with (folder / LOG).open(encoding="utf-8", errors="replace") as log:
        for number, line in enumerate(log):
            record = _record(line)
            kind, step = record.get("kind"), record.get("step")
            if kind == "started":
                records.clear()
            elif kind == "resumed":
                records = {key: one for key, one in records.items() if one.get("step", 0) <= step}
            if record:
                records[(kind, step) if step is not None else number] = record
    return list(records.values())


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}

"""The log of a run: one JSON object a line, read as if the run had never been broken off."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ptm_plus.errors import EnvironmentProblem

LOG = "log.jsonl"
"""Notes and figures in the order in which they came."""


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

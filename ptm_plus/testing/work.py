"""The work that a plugin does in a step: by arrays and tensors, not token by token."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ptm_plus.data import Row
from ptm_plus.microbatch import to_device
from ptm_plus.run import Run
from ptm_plus.testing.failing import expect
from ptm_plus.testing.subject import Subject

FEW, MANY = 2, 16
_FACTOR, _SLACK = 2, 200
"""What Python may grow by, from few rows to eight times as many: branches that few rows miss."""


def array_work(subject: Subject) -> None:
    """The Python of its own that a micro-batch takes does not grow with the rows in it.

    Counted are the interpreter's instructions in its files, which no clock disturbs, while masks,
    columns, passes and losses are made.
    """
    run = subject.run()
    for stream, rows in _rows(run).items():
        few, many = (_instructions(run, rows[:count], subject.files) for count in (FEW, MANY))
        expect(
            many <= _FACTOR * few + _SLACK,
            f"on {stream!r}, its Python takes {few:,} instructions for {FEW} rows and {many:,} for "
            f"{MANY}: a loop over tokens or sequences; use numpy and torch on whole arrays",
        )


def _rows(run: Run) -> dict[str, list[Row]]:
    """Return rows of every stream that has some, as many as are needed."""
    found: dict[str, list[Row]] = {}
    reader, plan = run.reader(), run.planner.plan(0)
    for _ in range(MANY):
        for stream, rows in reader.step_rows(plan).items():
            found.setdefault(stream, []).extend(rows)
    return {stream: rows for stream, rows in found.items() if len(rows) >= MANY}


def _instructions(run: Run, rows: Sequence[Row], files: Path) -> int:
    """Return the instructions in some files that a micro-batch takes."""
    with _counted(files) as counter:
        host = run.collator.batch(rows, rows, run.settings.masking.rate)
        batch = to_device(host, run.device, run.float_dtype())
        run.root.losses(batch, run.root.count(host), run.planner.objective_weights)
    return counter.count


class _Counter:
    """A trace function that counts instructions in some files.

    Args:
        files: a file, or the folder of a package.
    """

    def __init__(self, files: Path) -> None:
        self._files = files
        self.count = 0

    def enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Follow a call, if it is of these files."""
        path = Path(frame.f_code.co_filename)
        if path != self._files and self._files not in path.parents:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._within

    def _within(self, frame: FrameType, event: str, argument: Any) -> Any:
        self.count += event == "opcode"
        return self._within


@contextmanager
def _counted(files: Path) -> Iterator[_Counter]:
    """Count instructions in some files; who traced before, does so again afterwards."""
    counter, before = _Counter(files), sys.gettrace()
    sys.settrace(counter.enter)
    try:
        yield counter
    finally:
        sys.settrace(before)

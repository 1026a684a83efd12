"""Writing checkpoints beside training, and deciding which ones stay."""

from __future__ import annotations

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import save_file

from ptm_plus.checkpoint import STATE, Snapshot, read_state
from ptm_plus.errors import DataError, EnvironmentProblem
from ptm_plus.run_folder import CHECKPOINTS, checkpoints
from ptm_plus.sealed import seal

if TYPE_CHECKING:
    from ptm_plus.settings import TrainSettings

_SLACK = 1 << 20
"""Bytes beside the tensors: state, manifest, headers."""


class CheckpointWriter:
    """Writes one snapshot at a time in a thread of its own.

    Args:
        output: the run folder.
        settings: says how many checkpoints stay.
    """

    def __init__(self, output: Path, settings: TrainSettings) -> None:
        self._home = output / CHECKPOINTS
        self._output = output
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def start(self, snapshot: Snapshot) -> None:
        """Start to write a snapshot, as soon as the one before is written.

        Raises:
            EnvironmentProblem: the disk has no room for it, or the one before failed.
        """
        self.finish()
        self._check_room(snapshot)
        self._writing = self._thread.submit(self._write, snapshot)

    def check(self) -> None:
        """Raise what went wrong in a write that has ended; does not wait."""
        if self._writing is not None and self._writing.done():
            self.finish()

    def finish(self) -> None:
        """Wait for what is being written.

        Raises:
            EnvironmentProblem: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the last write; its error counts only where nothing else went wrong."""
        if error is None:
            self.finish()
        else:
            with suppress(EnvironmentProblem):
                self.finish()
        self._thread.shutdown()

    def _check_room(self, snapshot: Snapshot) -> None:
        needed = snapshot.nbytes + _SLACK
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._home).free
        except OSError as error:
            raise self._failed(snapshot, error) from error
        if free < needed:
            raise self._problem(
                f"no room for a checkpoint in {self._home}: it takes {needed / 2**20:,.0f} MiB, "
                f"{free / 2**20:,.0f} MiB are free"
            )

    def _write(self, snapshot: Snapshot) -> None:
        target = self._home / f"step-{snapshot.step:09d}"
        draft = self._home / f".{target.name}.partial"
        try:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            for name, tensors in snapshot.tensors.items():
                save_file(tensors, draft / name)
            (draft / STATE).write_text(snapshot.state, encoding="utf-8")
            seal(draft, target)
            self._retain(snapshot.step)
        except (OSError, SafetensorError) as error:  # safetensors wraps what the disk says
            shutil.rmtree(draft, ignore_errors=True)
            raise self._failed(snapshot, error) from error

    def _failed(self, snapshot: Snapshot, error: Exception) -> EnvironmentProblem:
        return self._problem(
            f"cannot write the checkpoint of step {snapshot.step} in {self._home}: "
            f"{getattr(error, 'strerror', '') or error}"
        )

    def _problem(self, message: str) -> EnvironmentProblem:
        return EnvironmentProblem(
            message,
            f"free some space and go on: ptm-plus resume {self._output}; earlier checkpoints are "
            "whole",
        )

    def _retain(self, newest: int) -> None:
        """Drop checkpoints that are neither among the newest, nor the best, nor milestones.

        Those beyond the newest step are damaged: training went on from before them.
        """
        settings = self._settings
        every = checkpoints(self._output)
        written = [one for one in every if _step(one) <= newest]
        kept = set(written[-settings.keep :])
        if settings.keep_every:
            kept |= {one for one in written if not _step(one) % settings.keep_every}
        if settings.keep_best:
            scores = {one: _score(one) for one in written}
            scored = [one for one in written if scores[one] is not None]
            scored.sort(key=lambda one: (scores[one], _step(one)))
            kept |= set(scored[: settings.keep_best])
        for old in set(every) - kept:
            old.rename(old.with_name(f".{old.name}.partial"))  # never half there under its name
        for left in self._home.glob(".step-*.partial"):  # a killed process may have left some, too
            shutil.rmtree(left, ignore_errors=True)


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _score(folder: Path) -> float | None:
    """Return the held-out loss at a checkpoint's step, if it was measured there."""
    try:
        score = read_state(folder).progress.get("score")
    except DataError:
        return None
    return float(score) if isinstance(score, int | float) else None

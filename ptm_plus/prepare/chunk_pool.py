"""Runs chunks through workers, here or in processes, and keeps what an earlier run finished."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain, islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import cast

from ptm_plus.components import Annotator, Layout, Rewriter
from ptm_plus.discovery import FilePlugins
from ptm_plus.errors import EnvironmentProblem, PluginError
from ptm_plus.prepare.artifacts import part_matches, part_path
from ptm_plus.prepare.chunk_worker import ChunkWorker, serve_chunks
from ptm_plus.prepare.preparation import Chunk, Recipe

Progress = Callable[[int, int | None, str], None]
"""Called with rows done, the total (never known) and a few words."""

IN_PROCESS_CHUNKS = 4
"""Up to so many chunks (2,000 rows) are done here: starting workers takes longer."""


def run_chunks(
    recipe: Recipe, chunks: Iterator[Chunk], missing: list[Path], workers: int, progress: Progress
) -> int:
    """Make the missing parts of all chunks; return the number of chunks.

    Args:
        recipe: what to do.
        chunks: the stream's rows.
        missing: folders of the artifacts that are not there.
        workers: processes; 0 takes the number of cores.
        progress: told about every finished chunk.
    """
    done = _Done(progress)

    def wanted() -> Iterator[Chunk]:
        for chunk in chunks:
            if _clear_stale(chunk, missing):
                yield chunk
            else:
                done.reused += 1
                done.add(chunk)

    left = wanted()
    head = list(islice(left, IN_PROCESS_CHUNKS + 1))
    workers = workers or _cores()
    if workers == 1 or len(head) <= IN_PROCESS_CHUNKS:
        worker = ChunkWorker(recipe)
        for chunk in chain(head, left):
            worker.run(chunk)
            done.add(chunk)
    else:
        _run_pool(recipe, chain(head, left), workers, done)
    return done.chunks


def _clear_stale(chunk: Chunk, missing: list[Path]) -> bool:
    """Remove parts that are not this chunk's; return whether any part has to be made."""
    wanted = False
    for folder in missing:
        path = part_path(folder, chunk.number)
        if not part_matches(path, chunk.first, chunk.rows):
            path.unlink(missing_ok=True)
            wanted = True
    return wanted


class _Worker:
    """A worker process and the connection to it.

    The standard pools hang when a process dies at a bad moment: one that is killed as it starts
    leaves the write of its arguments without a reader, or is replaced by one that nobody ends. Here
    the main process keeps no end of a connection but its own, so that a death is an error at once.
    """

    def __init__(self) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve_chunks, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def finished(self) -> None:
        """Wait for the chunk that it was given.

        Raises:
            Exception: what went wrong with it.
            EOFError: the process has died.
        """
        error = self.connection.recv()
        if error is not None:
            raise error


def _run_pool(recipe: Recipe, chunks: Iterator[Chunk], workers: int, done: _Done) -> None:
    _check_travels(recipe)
    crew = [_Worker() for _ in range(workers)]
    running: dict[Connection, tuple[_Worker, Chunk]] = {}
    try:
        for worker in crew:  # all of them start meanwhile
            # In this order: what refers to plugins in files is unpickled after them.
            worker.connection.send((FilePlugins(), recipe))
        idle = list(crew)
        for chunk in chunks:
            if not idle:
                idle = _collect(running, done)
            worker = idle.pop()
            worker.connection.send(chunk)
            running[worker.connection] = worker, chunk
        while running:
            _collect(running, done)
    except (EOFError, BrokenPipeError, ConnectionResetError) as error:
        raise EnvironmentProblem(
            "a worker process of prepare died (out of memory?)",
            "start again: finished parts are kept; --set prepare.workers=1 takes less memory",
        ) from error
    finally:
        # Running chunks are finished and kept also when this ends by an error or Ctrl-C.
        for worker in crew:
            with suppress(OSError):
                worker.connection.send(None)
            worker.process.join()
            worker.connection.close()


def _collect(running: dict[Connection, tuple[_Worker, Chunk]], done: _Done) -> list[_Worker]:
    """Wait until a chunk is finished and return the workers that have become idle."""
    idle = []
    for connection in wait(list(running)):
        worker, chunk = running.pop(cast("Connection", connection))
        worker.finished()
        done.add(chunk)
        idle.append(worker)
    return idle


class _Done:
    """Counts finished chunks and tells about them."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.chunks = 0
        self.reused = 0
        self.rows = 0

    def add(self, chunk: Chunk) -> None:
        self.chunks += 1
        self.rows += chunk.rows
        kept = f", {self.reused} of {self.chunks} parts were there" if self.reused else ""
        self._progress(self.rows, None, f"{self.rows:,} rows{kept}")


def _check_travels(recipe: Recipe) -> None:
    """Check that every component can be sent to a worker process, and name the one that cannot."""
    components: tuple[Layout | Annotator | Rewriter, ...] = (
        recipe.layout,
        *recipe.annotators.values(),
        *recipe.rewriters,
    )
    for component in components:
        try:
            ForkingPickler.dumps(component)
        except (TypeError, AttributeError, ValueError, RuntimeError, OSError) as error:
            what = type(component).__name__.lower()
            raise PluginError(
                f"the {what} {component.name!r} cannot be sent to a worker process: {error}",
                "make its function a module's or an object's, or set prepare.workers=1",
            ) from error


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Those that this process may use.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

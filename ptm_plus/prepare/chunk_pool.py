"""Gives chunks to a crew, and keeps the parts that an earlier run finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

from ptm_plus.components import Annotator, Layout, Rewriter
from ptm_plus.crew import Job, work
from ptm_plus.errors import PluginError
from ptm_plus.prepare.artifacts import part_matches, part_path
from ptm_plus.prepare.chunk_worker import start_worker
from ptm_plus.prepare.preparation import Chunk, Recipe

Progress = Callable[[int, int | None, str], None]
"""Called with rows done, the total (never known) and a few words."""


def prepare_chunks(
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
    job = Job(
        "prepare",
        partial(start_worker, recipe),
        "start again: finished parts are kept; --set prepare.workers=1 takes less memory",
        partial(_check_travels, recipe),
    )
    return run_chunks(job, chunks, missing, workers, progress)


def run_chunks(
    job: Job[Chunk],
    chunks: Iterator[Chunk],
    missing: list[Path],
    workers: int,
    progress: Progress,
) -> int:
    """Give a crew all chunks of which a part is missing; return the number of chunks.

    Args:
        job: writes those parts of a chunk that are not there.
        chunks: some rows.
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

    work(job, wanted(), workers, done.add)
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

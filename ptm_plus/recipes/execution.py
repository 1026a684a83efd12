"""Runs the tasks of a stage: here, or in processes, each task's completion noted by datatrove."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from typing import TypeVar

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup import exact_dedup, minhash, sentence_dedup
from loguru import logger

from ptm_plus.crew import cores, end_with_parent
from ptm_plus.errors import EnvironmentProblem
from ptm_plus.progress import Watch
from ptm_plus.recipes.stages import WORK, Stage, Work, stages_of

T = TypeVar("T")

_QUIET = 1
"""A local rank other than 0: datatrove tells nothing on the terminal."""


def executor_of(work: Work, stage: Stage) -> LocalPipelineExecutor:
    """Return datatrove's executor of a stage; it knows which tasks are done."""
    return LocalPipelineExecutor(
        stage.pipeline(work),
        tasks=stage.tasks,
        workers=1,
        logging_dir=str(work.output / WORK / "done" / stage.slug),
    )


def run_task(work: Work, number: int, rank: int) -> int:
    """Run one task of a stage; return its rank.

    Raises:
        PtmPlusError: something is wrong with a file or the machine.
    """
    quieten()
    stage = stages_of(work)[number]
    executor_of(work, stage)._run_for_rank(rank, _QUIET)
    return rank


def quieten() -> None:
    """Keep datatrove's log and progress off the terminal; ours says what there is to say."""
    logger.disable("datatrove")
    for module in (exact_dedup, minhash, sentence_dedup):
        module.tqdm = _no_bar


def _no_bar(rows: Iterable[T], *rest: object, **more: object) -> Iterable[T]:
    return rows


class Crew:
    """Processes that run tasks; with one worker, this process.

    Args:
        workers: how many.
        watch: takes progress.
    """

    def __init__(self, workers: int, watch: Watch) -> None:
        self.workers, self.watch = workers, watch
        self._pool: ProcessPoolExecutor | None = None

    def run(self, work: Work, number: int, stage: Stage, ranks: list[int]) -> None:
        """Run tasks of a stage; the first that fails ends it, those that are finished stay.

        Raises:
            PtmPlusError: what is wrong with a file or the machine.
            EnvironmentProblem: a process died.
        """
        done = stage.tasks - len(ranks)
        with self.watch.task(stage.name, done) as task:
            task.update(done, stage.tasks)
            for _ in self._finished(work, number, ranks):
                done += 1
                task.update(done, stage.tasks)

    def _finished(self, work: Work, number: int, ranks: list[int]) -> Iterator[int]:
        if self.workers == 1 or len(ranks) == 1:
            for rank in ranks:
                yield run_task(work, number, rank)
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers, get_context("spawn"), initializer=end_with_parent
            )
        waiting = iter(ranks)
        running: set[Future[int]] = {
            self._pool.submit(run_task, work, number, rank)
            for rank in islice(waiting, self.workers)
        }
        try:
            while running:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for one in finished:
                    yield one.result()
                    running |= {
                        self._pool.submit(run_task, work, number, rank)
                        for rank in islice(waiting, 1)
                    }
        except BrokenProcessPool as error:
            raise EnvironmentProblem(
                "a worker process died (out of memory?)",
                "run the same command again: finished shards are kept; --workers 1 takes less",
            ) from error

    def close(self) -> None:
        """End the processes; what they are at is finished or, after an error, given up."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def crew(workers: int, watch: Watch) -> Iterator[Crew]:
    """Give a crew, and turn what a full disk raises into a message."""
    made = Crew(workers or cores(), watch)
    try:
        yield made
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise EnvironmentProblem(
                "the disk is full",
                "make room and run the same command again: finished shards are kept",
            ) from error
        raise
    finally:
        made.close()

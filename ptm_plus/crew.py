"""Tasks for several worker processes: each is done whole, or it is told why it was not."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar, cast

from ptm_plus.discovery import FilePlugins
from ptm_plus.errors import EnvironmentProblem

Task = TypeVar("Task")

IN_PROCESS = 4
"""Up to so many tasks are done here: starting workers takes longer."""


@dataclass(frozen=True)
class Job(Generic[Task]):
    """What a crew does.

    Attributes:
        name: what it is called in errors.
        start: called once in every process; returns what does a task, and keeps its result on disk.
            Must pickle where there are workers.
        hint: what to do when a worker process has died.
        check: called before workers are started; raises where ``start`` cannot be sent to them.
    """

    name: str
    start: Callable[[], Callable[[Task], None]]
    hint: str
    check: Callable[[], None] | None = None


def work(
    job: Job[Task], tasks: Iterator[Task], workers: int, finished: Callable[[Task], None]
) -> None:
    """Do all tasks, here or in worker processes, in whatever order they end.

    Args:
        job: what is done.
        tasks: read as they are needed.
        workers: processes; 0 takes the number of cores.
        finished: called here with every task that is done.

    Raises:
        Exception: what went wrong with a task; those that were begun are finished first.
        EnvironmentProblem: a worker process has died.
    """
    head = list(islice(tasks, IN_PROCESS + 1))
    workers = workers or cores()
    if workers == 1 or len(head) <= IN_PROCESS:
        do = job.start()
        for task in chain(head, tasks):
            do(task)
            finished(task)
    else:
        if job.check is not None:
            job.check()
        _share_out(job, chain(head, tasks), workers, finished)


class _Worker:
    """A worker process and the connection to it.

    The standard pools hang when a process dies at a bad moment: one that is killed as it starts
    leaves the write of its arguments without a reader, or is replaced by one that nobody ends. Here
    the main process keeps no end of a connection but its own, so that a death is an error at once.
    """

    def __init__(self) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def finished(self) -> None:
        """Wait for the task that it was given.

        Raises:
            Exception: what went wrong with it.
            EOFError: the process has died.
        """
        error = self.connection.recv()
        if error is not None:
            raise error


def _share_out(
    job: Job[Task], tasks: Iterator[Task], workers: int, finished: Callable[[Task], None]
) -> None:
    crew = [_Worker() for _ in range(workers)]
    running: dict[Connection, tuple[_Worker, Task]] = {}
    try:
        for worker in crew:  # all of them start meanwhile
            # In this order: what refers to plugins in files is unpickled after them.
            worker.connection.send((FilePlugins(), job.start))
        idle = list(crew)
        for task in tasks:
            if not idle:
                idle = _collect(running, finished)
            worker = idle.pop()
            worker.connection.send(task)
            running[worker.connection] = worker, task
        while running:
            _collect(running, finished)
    except (EOFError, BrokenPipeError, ConnectionResetError) as error:
        raise EnvironmentProblem(
            f"a worker process of {job.name} died (out of memory?)", job.hint
        ) from error
    finally:
        # Running tasks are finished and kept also when this ends by an error or Ctrl-C.
        for worker in crew:
            with suppress(OSError):
                worker.connection.send(None)
            worker.process.join()
            worker.connection.close()


def _collect(
    running: dict[Connection, tuple[_Worker, Task]], finished: Callable[[Task], None]
) -> list[_Worker]:
    """Wait until a task is finished and return the workers that have become idle."""
    idle = []
    for connection in wait(list(running)):
        worker, task = running.pop(cast("Connection", connection))
        worker.finished()
        finished(task)
        idle.append(worker)
    return idle


def _serve(connection: Connection) -> None:
    """Do tasks in a worker process, until there are no more.

    Ctrl-C is for the main process, which ends the workers.

    Args:
        connection: brings the plugins in files with the job's start, then tasks, then ``None``;
            takes ``None`` for each finished task, or what went wrong.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    end_with_parent()
    begin: tuple[FilePlugins, Callable[[], Callable[[Any], None]]] | None = connection.recv()
    if begin is None:  # another worker died before this one was given anything
        return
    _, start = begin
    do = start()
    while (task := connection.recv()) is not None:
        try:
            do(task)
            connection.send(None)
        except Exception as error:
            connection.send(error)


def end_with_parent() -> None:
    """Let this process end with the one that started it, also when that was killed."""
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

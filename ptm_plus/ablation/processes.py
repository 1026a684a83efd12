"""Runs of an ablation, each in a process of its own, several at a time; what is done stays done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from ptm_plus.ablation.outcomes import write_job
from ptm_plus.consent import ALLOW
from ptm_plus.errors import PtmPlusError
from ptm_plus.launched import environment_alone
from ptm_plus.run_folder import CHECKPOINTS, SETTINGS, checkpoints
from ptm_plus.settings import RunSettings
from ptm_plus.settings_files import dump_toml
from ptm_plus.settings_paths import anchored
from ptm_plus.stopping import FOLLOWING

OUTCOMES = "outcomes.json"
"""What a run got right, item by item; it is there when the run is done."""

_LOG = "output.log"


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        title: arm and seed, for people.
        settings: of the run; its output is the folder of the run.
        tasks: that it is measured on.
        device: ``cpu`` or ``cuda``.
        keep: its checkpoints stay when it has been measured.
    """

    title: str
    settings: RunSettings
    tasks: tuple[str, ...]
    device: str
    keep: bool

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.settings.output

    @property
    def outcomes(self) -> Path:
        """The file of what it got right."""
        return self.folder / OUTCOMES

    @property
    def is_done(self) -> bool:
        """Whether it was trained and measured."""
        return self.outcomes.is_file()


class Runner:
    """Runs jobs, so many at a time, each on a device of its own.

    Args:
        slots: per job at a time, the number of its CUDA device; ``None`` for the CPU.
    """

    def __init__(self, slots: Sequence[int | None]) -> None:
        self._slots: SimpleQueue[int | None] = SimpleQueue()
        self._size = len(slots)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ended = False
        for slot in slots:
            self._slots.put(slot)

    def work(self, jobs: Sequence[Job], finished: Callable[[Job], None]) -> None:
        """Do all jobs that are not done.

        Args:
            jobs: in the order in which they are begun.
            finished: called here with each that is done.

        Raises:
            PtmPlusError: one failed; those that ran beside it were stopped, and can be resumed.
        """
        pool = ThreadPoolExecutor(self._size)
        try:
            waiting = {pool.submit(self._do, job): job for job in jobs if not job.is_done}
            for future in as_completed(waiting):
                future.result()
                finished(waiting[future])
        except BaseException:
            self._end()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _do(self, job: Job) -> None:
        slot = self._slots.get()
        try:
            self._train(job, slot)
            measured = job.folder / "job.json"
            write_job(
                measured,
                {
                    "run": str(job.folder),
                    "target": str(job.outcomes),
                    "tasks": list(job.tasks),
                    "seed": job.settings.train.seed,
                    "device": job.device,
                },
            )
            self._call(job, slot, ["ptm_plus.ablation.outcomes", str(measured)])
            measured.unlink()
            if not job.keep:
                shutil.rmtree(job.folder / CHECKPOINTS, ignore_errors=True)
        finally:
            self._slots.put(slot)

    def _train(self, job: Job, slot: int | None) -> None:
        folder = job.folder
        common = ["--device", job.device, "--quiet", "--json", ALLOW]  # allowed at the start
        if (folder / "report.json").is_file() and checkpoints(folder):
            return
        if (folder / SETTINGS).is_file() and checkpoints(folder):
            self._call(job, slot, ["ptm_plus", "resume", str(folder), *common])
            return
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "asked.toml"
        file.write_text(dump_toml(anchored(job.settings)), encoding="utf-8")
        self._call(job, slot, ["ptm_plus", "train", str(file), "--overwrite", *common])

    def _call(self, job: Job, slot: int | None, module: Sequence[str]) -> None:
        """Run a module in a process that ends with this one.

        Raises:
            PtmPlusError: it failed, or everything is being stopped.
        """
        log = job.folder / _LOG
        with log.open("wb") as output, self._started(module, slot, output.fileno()) as process:
            code = process.wait()
        if code:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            told = [line for line in lines if line.startswith("error: ")] or lines[-1:]
            words = told[0].removeprefix("error: ") if told else f"exit code {code}"
            raise PtmPlusError(f"{job.title}: {words}", f"see {log}; run the same command again")

    @contextmanager
    def _started(
        self, module: Sequence[str], slot: int | None, output: int
    ) -> Iterator[subprocess.Popen[bytes]]:
        if self._ended:
            raise PtmPlusError("stopped")
        environment = {**environment_alone(), FOLLOWING: "1"}
        if slot is not None:
            environment["CUDA_VISIBLE_DEVICES"] = str(slot)
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            stdin=subprocess.PIPE,  # its end tells the process that this one was killed
            stdout=output,
            stderr=output,
            env=environment,
        )
        self._running.add(process)
        try:
            yield process
        finally:
            self._running.discard(process)
            if process.stdin is not None:
                process.stdin.close()

    def _end(self) -> None:
        """Ask what runs to stop: training saves its state first."""
        self._ended = True
        for process in list(self._running):
            process.terminate()


def slots(device: str, jobs: int, threads: int) -> list[int | None]:
    """Return where runs may run at a time.

    Args:
        device: ``cpu`` or ``cuda``.
        jobs: how many at a time; 0 takes one for each CUDA device, or as many as the processors
            have room for.
        threads: of a run on the CPU; 0 for all of the machine.
    """
    if device == "cuda":
        import torch

        count = torch.cuda.device_count()
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        numbers = [int(one) for one in given.split(",") if one.isdecimal()] or list(range(count))
        return [numbers[n % len(numbers)] for n in range(jobs or len(numbers))]
    from ptm_plus.crew import cores

    return [None] * (jobs or (max(1, cores() // threads) if threads else 1))

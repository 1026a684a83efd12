"""Break a run in every way but a kill, and see what it says and whether it ends as if unbroken.

    python -m benchmarks.faults --json faults.json

Checkpoints are damaged file by file, the disk fills up at many sizes (on a small tmpfs, which takes
the right to mount), a worker and a process of two are killed, the clock goes backwards, signals
come. Each fault gives what the user saw, the exit code, and whether the run, gone on with, ended
like the unbroken one (of two processes, only how the other one stops).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.kill import difference, settings_file, short_run
from ptm_plus.checkpoint import FILES, newest_whole
from ptm_plus.run_folder import SETTINGS
from ptm_plus.sealed import MANIFEST

STEPS = 20
_LIMIT = 300.0
_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14)
"""Sizes of the disk in MiB; the whole run takes about 15."""


@dataclass
class Fault:
    """What came of one fault.

    Attributes:
        fault: what was done.
        code: exit code of the command that met it.
        said: last words on stderr.
        survived: whether it stopped or went on as it should and then ended like the unbroken run.
        wrong: what was not as it should be.
        seconds: from the fault to the end of the command that met it.
    """

    fault: str
    code: int
    said: str
    survived: bool
    wrong: str
    seconds: float


class Bench:
    """The inputs, an unbroken run, and the tries so far.

    Args:
        scratch: folder for everything.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.settings = short_run(scratch / "inputs", STEPS)
        self.faults: list[Fault] = []
        self.unbroken = self.fresh("unbroken") / "run"
        done = _run(["train", "--config", str(self.unbroken.parent / "given.toml")])
        if done.returncode:
            raise SystemExit(f"the unbroken run failed:\n{done.stderr}")

    def fresh(self, name: str) -> Path:
        """Return a folder with the settings of a run in it."""
        folder = self.scratch / name
        settings_file(folder, self.settings)
        return folder

    def note(
        self, fault: str, done: subprocess.CompletedProcess[str], wrong: str, began: float
    ) -> None:
        """Keep and print what came of a fault."""
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        told = [line for line in lines if line.startswith(("error", "hint", "stopped", "skipped"))]
        if "Traceback" in done.stderr:
            wrong = wrong or "a traceback"
        said = " | ".join(told or lines[-1:])
        seconds = round(time.monotonic() - began, 1)
        self.faults.append(Fault(fault, done.returncode, said, not wrong, wrong, seconds))
        verdict = wrong or "survived"
        print(f"{fault}: exit {done.returncode}, {verdict}: {said}"[:300], flush=True)

    def gone_on(self, folder: Path, code: int | None, expected: int) -> str:
        """Go on with a run to its end; return what is wrong with the code or the end."""
        if code != expected:
            return f"exit code {code} instead of {expected}"
        run = folder / "run"
        again = ["resume", str(run)] if (run / SETTINGS).is_file() else _train(folder)
        done = _run(again)
        return (done.stderr[-500:] or "failed") if done.returncode else self.compared(folder)

    def compared(self, folder: Path) -> str:
        """Return what differs from the unbroken run."""
        return difference(folder / "run", self.unbroken)


def _train(folder: Path) -> list[str]:
    return ["train", "--config", str(folder / "given.toml")]


def _command(words: list[str]) -> list[str]:
    return [sys.executable, "-m", "ptm_plus", *words, "--device", "cpu", "--log-format", "plain"]


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}


def _run(words: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(words),
        env=_environment(**more),
        capture_output=True,
        text=True,
        timeout=_LIMIT,
        check=False,
    )


# ---------------------------------------------------------------------------------------------
# Faults


def damaged_checkpoints(bench: Bench) -> None:
    """Cut, change and remove each file of the newest checkpoint."""
    for name in (*FILES, MANIFEST):
        for harm in (_cut, _flip, Path.unlink):
            folder = bench.scratch / f"damaged {name} {harm.__name__}"
            shutil.copytree(bench.unbroken.parent, folder)
            newest, _ = newest_whole(folder / "run")
            harm(newest / name)
            began = time.monotonic()
            done = _run(["resume", str(folder / "run")])
            wrong = bench.compared(folder) if not done.returncode else "resume failed"
            if f"skipped damaged checkpoint {newest.name}" not in done.stderr:
                wrong = wrong or "nothing was said of it"
            bench.note(f"{name} {harm.__name__.strip('_')}", done, wrong, began)
            shutil.rmtree(folder)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def full_disks(bench: Bench) -> None:
    """Run on disks of many sizes, so that they are full at different writes; then make room."""
    for size in _SIZES:
        folder = bench.scratch / f"disk {size}"
        with _mounted(folder, f"size={size}m"):
            bench.fresh(folder.name)
            began = time.monotonic()
            done = _run(_train(folder))
            subprocess.run(["mount", "-o", "remount,size=200m", str(folder)], check=True)
            wrong = (
                bench.compared(folder)
                if not done.returncode
                else bench.gone_on(folder, done.returncode, 5)
            )
            bench.note(f"disk of {size} MiB", done, wrong, began)


def read_only_output(bench: Bench) -> None:
    """Run into a folder that cannot be written."""
    folder = bench.scratch / "read-only"
    with _mounted(folder, "size=200m"):
        bench.fresh(folder.name)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        began = time.monotonic()
        done = _run(_train(folder))
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        bench.note("read-only output", done, bench.gone_on(folder, done.returncode, 5), began)


@contextmanager
def _mounted(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=False)


def signals(bench: Bench) -> None:
    """Ask a run to stop, while it prepares, trains and evaluates."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        for words in ("prepare pairs: started", "train: started", "evaluate: started"):
            folder = bench.fresh(f"signal {number.name} {words}")
            process, seen = _until(_command(_train(folder)), words)
            began = time.monotonic()
            process.send_signal(number)
            done = _ended(process, seen)
            wrong = bench.gone_on(folder, done.returncode, 75)
            bench.note(f"{number.name} after {words!r}", done, wrong, began)


def killed_worker(bench: Bench) -> None:
    """Kill a worker process of prepare, on more text than one process takes; then begin again."""
    folder = bench.fresh("worker")
    more = [*_train(folder), "--set", "data.max_examples=6000"]
    process, seen = _until(_command(more), "prepare text: started")
    while not (workers := _workers(process.pid)) and process.poll() is None:
        time.sleep(0.01)
    began = time.monotonic()
    for worker in workers[:1]:
        worker.kill()
    done = _ended(process, seen)
    wrong = "" if done.returncode == 5 else f"exit code {done.returncode} instead of 5"
    again = _run(["resume", str(folder / "run")])
    bench.note("prepare worker killed", done, wrong or again.stderr * bool(again.returncode), began)


def _workers(pid: int) -> list[psutil.Process]:
    children = psutil.Process(pid).children(recursive=True)
    return [one for one in children if "spawn_main" in " ".join(one.cmdline())]


def killed_process(bench: Bench) -> None:
    """Kill one process of two while they train: the other one stops and says why."""
    folder = bench.fresh("two processes")
    launcher = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"),
        *("--master_port", "29611", "-m", "ptm_plus", *_train(folder)),
        *("--device", "cpu", "--log-format", "plain", "--set", "train.steps=20000"),
    ]
    process, seen = _until(launcher, "train: started")
    time.sleep(5)
    second = next(
        one
        for one in psutil.Process(process.pid).children(recursive=True)
        if one.environ().get("RANK") == "1"
    )
    began = time.monotonic()
    second.kill()
    done = _ended(process, seen)
    seconds = time.monotonic() - began
    wrong = "" if seconds < 60 else f"the other one went on for {seconds:.0f} s"
    if "another process of this run has ended" not in done.stderr:
        wrong = wrong or "nothing was said of it"
    done.stderr = done.stderr.replace("Traceback", "traceback")  # the launcher's own
    bench.note("one process of two killed", done, wrong, began)


def clock_backwards(bench: Bench) -> None:
    """Let the clock lose an hour at every look."""
    folder = bench.fresh("clock")
    patched = folder / "patched"
    patched.mkdir()
    (patched / "sitecustomize.py").write_text(
        "import itertools, time\n"
        "start, lost = time.time(), itertools.count()\n"
        "time.time = lambda: start - 3600.0 * next(lost)\n",
        encoding="utf-8",
    )
    began = time.monotonic()
    paths = os.pathsep.join(filter(None, (str(patched), os.environ.get("PYTHONPATH"))))
    done = _run(_train(folder), PYTHONPATH=paths)
    wrong = bench.compared(folder) if not done.returncode else "it failed"
    bench.note("clock going backwards", done, wrong, began)


def _until(command: list[str], words: str) -> tuple[subprocess.Popen[str], list[str]]:
    """Start a command and return once it has said something."""
    process = subprocess.Popen(
        command,
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen = []
    assert process.stderr is not None
    for line in process.stderr:
        seen.append(line)
        if words in line:
            return process, seen
    raise SystemExit(f"it never said {words!r}:\n{''.join(seen[-20:])}")


def _ended(process: subprocess.Popen[str], seen: list[str]) -> subprocess.CompletedProcess[str]:
    _, rest = process.communicate(timeout=_LIMIT)
    said = "".join(seen) + rest
    return subprocess.CompletedProcess(process.args, process.returncode, "", said)


FAULTS: dict[str, Callable[[Bench], None]] = {
    "checkpoints": damaged_checkpoints,
    "disk": full_disks,
    "read-only": read_only_output,
    "signals": signals,
    "worker": killed_worker,
    "process": killed_process,
    "clock": clock_backwards,
}


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", choices=FAULTS, action="append", help="repeatable")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        bench = Bench(Path(scratch))
        for name in given.only or FAULTS:
            FAULTS[name](bench)
    survived = sum(one.survived for one in bench.faults)
    print(f"{survived} of {len(bench.faults)} survived")
    if given.json:
        found = {"tries": len(bench.faults), "survived": survived}
        document = {**found, "faults": [asdict(one) for one in bench.faults]}
        given.json.write_text(json.dumps(document, indent=1, ensure_ascii=False), "utf-8")
    if survived < len(bench.faults):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

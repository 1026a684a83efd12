"""Kill a run at random moments, resume it, and compare it with the run that was never killed.

    python -m benchmarks.kill --tries 100 --json kill.json

Each try trains the sample with every compatible plugin for 100 steps, from raw files and an empty
cache, in a process that gets SIGKILL somewhere in one of the run's phases (some are killed a second
time while they resume). The end is compared bit for bit: weights, optimizer state, logged figures,
evaluations. Losses and weights do not depend on the seed of the moments (``--seed``).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ptm_plus.checkpoint import FILES, STATE, newest_whole
from ptm_plus.progress import Silent
from ptm_plus.report import read_report
from ptm_plus.run_folder import SETTINGS, checkpoints
from ptm_plus.run_log import read_log
from ptm_plus.sample import build_world
from ptm_plus.sample_run import sample_settings
from ptm_plus.settings import RunSettings
from ptm_plus.settings_files import dump_toml, resolve
from ptm_plus.settings_paths import anchored

PLUGINS = ("ernie-masking", "k-adapter", "kg-fusion", "tlm")
SMALL = (
    "model.config.hidden_size=64",
    "model.config.num_hidden_layers=2",
    "model.config.num_attention_heads=2",
    "model.config.intermediate_size=128",
    "model.dropout=0.1",
    "tokenizer.vocabulary=2000",
    "data.max_examples=1500",
    "batch.row_tokens=128",
    "batch.rows=3",
    "batch.micro_rows=2",
    "prepare.workers=2",
    "plugin.kg-fusion.vectors.dimension=16",
    "plugin.kg-fusion.vectors.epochs=8",
    "plugin.k-adapter.size=32",
    'plugin.ernie-masking.schedule="stages"',
    "train.checkpoint_every=7",  # beside the log lines, so that sums between them must survive
    "train.log_every=5",
    "train.evaluate_every=40",
    "train.keep=3",
    "evaluate.sequences=24",
)
PHASES = (
    "start",
    "tokenizer",
    "phrases",
    "prepare text",
    "prepare pairs",
    "prepare relation",
    "TransE vectors",
    "train",
    "checkpoint",
    "evaluate",
)
"""Tasks as the run tells them, the time before the first, and the writing of a checkpoint."""

QUESTIONS = 20
"""One in so many of the sample's evaluation questions is asked."""

AGAIN = 0.2
"""Share of tries that are killed a second time, while they resume."""

_LIMIT = 600.0


@dataclass
class Moment:
    """One try.

    Attributes:
        number: number of the try.
        phase: phase in which the process was to be killed.
        delay: seconds into the phase.
        kills: how often a process was really killed.
        resumed_from: step of the newest whole checkpoint after each kill; -1 for none.
        identical: whether the end is that of the unbroken run.
        difference: what differs, or what went wrong.
    """

    number: int
    phase: str
    delay: float
    kills: int
    resumed_from: list[int]
    identical: bool
    difference: str


class Process:
    """A command of ptm-plus, with the tasks that it tells of on stderr."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log.open("ab")
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "ptm_plus", *command, "--log-format", "json"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
        self.started = {"start": time.monotonic()}
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._popen.stderr is not None
        for line in self._popen.stderr:
            self._log.write(line)
            self._lines.put(line)

    def tell(self) -> None:
        """Take in what was told since the last call."""
        while not self._lines.empty():
            try:
                record = json.loads(self._lines.get())
            except ValueError:
                continue
            if record.get("kind") == "task" and record.get("state") == "started":
                self.started.setdefault(str(record["name"]), time.monotonic())

    def ended(self) -> bool:
        """Return whether the process has ended."""
        return self._popen.poll() is not None

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        code = self._popen.wait(_LIMIT)
        self._log.flush()
        return code

    def kill(self) -> None:
        """Send SIGKILL."""
        self._popen.send_signal(signal.SIGKILL)
        self._popen.wait()


def short_run(inputs: Path, steps: int) -> RunSettings:
    """Write the sample's files and return the settings of a short run on them."""
    flags: dict[str, Any] = {"plugins": list(PLUGINS), "output": str(inputs), "train.steps": steps}
    settings = sample_settings(resolve(None, flags, SMALL), build_world(), Silent())
    for file in (*settings.evaluate.mentions, *settings.evaluate.pairs):
        lines = Path(file).read_text(encoding="utf-8").splitlines(keepends=True)
        Path(file).write_text("".join(lines[::QUESTIONS]), encoding="utf-8")
    return anchored(settings)


def settings_file(folder: Path, settings: RunSettings) -> Path:
    """Write the settings of a run in a folder, with a cache of its own, and return the file."""
    prepare = settings.prepare.model_copy(update={"cache": str(folder / "cache")})
    own = settings.model_copy(update={"output": folder / "run", "prepare": prepare})
    file = folder / "given.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(dump_toml(own), encoding="utf-8")
    return file


def unbroken(folder: Path, settings: RunSettings) -> tuple[Path, dict[str, float]]:
    """Run to the end without a kill; return the run folder and how long each phase took."""
    file = settings_file(folder, settings)
    process = Process(["train", "--config", str(file), "--device", "cpu"], folder / "output.log")
    while not process.ended():
        process.tell()
        time.sleep(0.02)
    if process.wait():
        raise SystemExit(f"the unbroken run failed: see {folder / 'output.log'}")
    process.tell()
    process.started["end"] = time.monotonic()
    order = sorted(process.started.items(), key=lambda one: one[1])
    lengths = {
        name: after - begun for (name, begun), (_, after) in pairwise(order) if name in PHASES
    }
    return folder / "run", {**lengths, "checkpoint": 0.05}


def attempt(
    number: int, phase: str, folder: Path, lengths: Mapping[str, float], given: Any
) -> Moment:
    """Kill a run in a phase, resume it to its end, and compare it with the unbroken one."""
    draws = random.Random(f"{given.seed} {number}")
    delay = draws.random() * lengths.get(phase, 1.0)
    moment = Moment(number, phase, round(delay, 3), 0, [], False, "")
    file = settings_file(folder, given.settings)
    run = folder / "run"
    train = ["train", "--config", str(file), "--device", "cpu"]
    process = Process(train, folder / "output.log")
    killed = _killed_in(process, phase, delay, run, moment)
    again = killed and draws.random() < AGAIN
    while killed:
        started = (run / SETTINGS).is_file()
        command = ["resume", str(run), "--device", "cpu"] if started else train
        process = Process(command, folder / "output.log")
        killed = again and _killed_in(process, "start", draws.random() * 15, run, moment)
        again = False
    code = process.wait()
    moment.difference = f"exit code {code}" if code else difference(run, given.unbroken)
    moment.identical = not moment.difference
    return moment


def _killed_in(process: Process, phase: str, delay: float, run: Path, moment: Moment) -> bool:
    """Kill a process so many seconds into a phase; return False when it ended before."""
    while not process.ended():
        process.tell()
        if _due(process, phase, delay, run):
            process.kill()
            moment.kills += 1
            moment.resumed_from.append(_newest(run))
            return True
        time.sleep(0.001)
    return False


def _due(process: Process, phase: str, delay: float, run: Path) -> bool:
    if phase != "checkpoint":
        return phase in process.started and time.monotonic() - process.started[phase] >= delay
    if not any((run / "checkpoints").glob(".step-*.partial")):
        return False
    time.sleep(delay)
    return True


def _newest(run: Path) -> int:
    named = checkpoints(run)
    return int(named[-1].name.rpartition("-")[2]) if named else -1


# ---------------------------------------------------------------------------------------------
# Comparing


def difference(run: Path, other: Path) -> str:
    """Say in what two finished runs differ; empty when they are identical."""
    for name, mine, theirs in (
        ("checkpoint", _hashes(run), _hashes(other)),
        ("log", _logged(run), _logged(other)),
        ("report", _reported(run), _reported(other)),
    ):
        if mine != theirs:
            apart = [key for key in sorted({*mine, *theirs}) if mine.get(key) != theirs.get(key)]
            return f"{name}: {', '.join(apart[:5])}"
    return ""


def _hashes(run: Path) -> dict[str, str]:
    """Return hashes of the last checkpoint's tensors and of its state without times."""
    folder, _ = newest_whole(run)
    found = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in FILES
        if name != STATE
    }
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    del state["progress"]["seconds"]
    return {"folder": folder.name, **found, STATE: json.dumps(state, sort_keys=True)}


def _logged(run: Path) -> dict[str, str]:
    """Return everything that was logged of steps and evaluations, without times."""
    return {
        f"{record['kind']} {record['step']}": json.dumps(
            {key: value for key, value in record.items() if key not in ("time", "seconds")},
            sort_keys=True,
        )
        for record in read_log(run)
        if record["kind"] in ("step", "evaluation")
    }


def _reported(run: Path) -> dict[str, str]:
    report = read_report(run)
    names = ("steps", "tokens", "objectives", "probes", "evaluation", "linked_pairs")
    return {name: json.dumps(report[name], sort_keys=True) for name in names}


# ---------------------------------------------------------------------------------------------


def phases(tries: int, seed: int) -> Iterator[str]:
    """Yield a phase for each try: all in turn, then at random, most often training."""
    draws = random.Random(seed)
    for number in range(tries):
        if number < len(PHASES):
            yield PHASES[number]
        else:
            yield "train" if draws.random() < 0.4 else draws.choice(PHASES)


def run_all(given: Any, scratch: Path) -> dict[str, Any]:
    """Run everything and return the figures."""
    given.settings = short_run(scratch / "inputs", given.steps)
    given.unbroken, lengths = unbroken(scratch / "unbroken", given.settings)
    twin, _ = unbroken(scratch / "twin", given.settings)
    apart = difference(twin, given.unbroken)
    if apart:
        raise SystemExit(f"two unbroken runs differ already: {apart}")
    print(f"an unbroken run takes {sum(lengths.values()):.1f} s", file=sys.stderr)

    def one(numbered: tuple[int, str]) -> Moment:
        number, phase = numbered
        folder = scratch / f"try-{number}"
        moment = attempt(number, phase, folder, lengths, given)
        if moment.identical:
            shutil.rmtree(folder, ignore_errors=True)
        print(
            f"{number + 1}/{given.tries} {phase} +{moment.delay:.2f} s, kills {moment.kills}, "
            f"resumed from {moment.resumed_from}: {moment.difference or 'identical'}",
            file=sys.stderr,
            flush=True,
        )
        return moment

    with ThreadPoolExecutor(given.jobs) as pool:
        moments = list(pool.map(one, enumerate(phases(given.tries, given.seed))))
    return {
        "tries": given.tries,
        "identical": sum(moment.identical for moment in moments),
        "kills": sum(moment.kills for moment in moments),
        "steps": given.steps,
        "plugins": list(PLUGINS),
        "seconds_of_phases": {name: round(value, 2) for name, value in lengths.items()},
        "moments": [asdict(moment) for moment in moments],
    }


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--tries", type=int, default=len(PHASES))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--jobs", type=int, default=1, help="tries at a time")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="kill-"))
    found = run_all(given, scratch)
    print(f"{found['identical']} of {found['tries']} identical, {found['kills']} kills")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if found["identical"] < found["tries"]:
        print(f"the folders of the others are in {scratch}", file=sys.stderr)
        raise SystemExit(1)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()

"""Train for long with every plugin on several processes, and watch memory, files and workers.

    python -m benchmarks.soak --minutes 30 --json soak.json

The sample is trained by ``torchrun`` with frequent checkpoints and evaluations until the time is
up; then the run is asked to stop. Private memory (USS), open files, threads and child processes of
each process are read off every few seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.kill import settings_file, short_run

EVERY = 5.0
"""Seconds between readings."""

WARM = 0.25
"""Share of the readings that is left out: caches and allocators fill up at first."""

_CHANGES = {"checkpoint_every": 50, "evaluate_every": 200, "log_every": 20, "keep": 2}


def soak(minutes: float, processes: int, scratch: Path) -> dict[str, Any]:
    """Train for so many minutes and return what was read off."""
    settings = short_run(scratch / "inputs", 10_000_000)
    changed = settings.train.model_copy(update=_CHANGES)
    file = settings_file(scratch, settings.model_copy(update={"train": changed}))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)),
        *("--master_port", "29621", "-m", "ptm_plus", "train", "--config", str(file)),
        *("--device", "cpu", "--log-format", "plain"),
    ]
    log = scratch / "output.log"
    with log.open("wb") as output:
        launcher = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
    while "train: started" not in log.read_text(errors="replace"):
        if launcher.poll() is not None:
            raise SystemExit(log.read_text(errors="replace")[-2000:])
        time.sleep(1)
    ranks = _ranks(launcher.pid)
    readings: dict[str, list[dict[str, float]]] = {name: [] for name in ranks}
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        time.sleep(EVERY)
        for name, process in ranks.items():
            readings[name].append(_read(process))
    launcher.send_signal(signal.SIGTERM)
    launcher.wait(120)
    said = log.read_text(errors="replace")
    stopped = re.findall(r"stopped after step (\d+)", said)
    return {
        "minutes": minutes,
        "processes": processes,
        "steps": int(stopped[0]) if stopped else None,
        "left_behind": len([one for one in ranks.values() if one.is_running()]),
        "ranks": {name: _trend(values) for name, values in readings.items()},
        "readings": readings,
    }


def _ranks(pid: int) -> dict[str, psutil.Process]:
    children = psutil.Process(pid).children(recursive=True)
    found = {one.environ().get("RANK", ""): one for one in children}
    return {name: one for name, one in sorted(found.items()) if name}


def _read(process: psutil.Process) -> dict[str, float]:
    return {
        "memory": process.memory_full_info().uss / 2**20,
        "files": process.num_fds(),
        "threads": process.num_threads(),
        "children": len(process.children(recursive=True)),
    }


def _trend(values: list[dict[str, float]]) -> dict[str, Any]:
    """Return the medians of the first and last part after warming up, and the slope."""
    warm = values[int(WARM * len(values)) :]
    part = max(1, len(warm) // 4)
    hours = [place * EVERY / 3600 for place in range(len(warm))]
    memory = [one["memory"] for one in warm]
    return {
        "memory_mib": [
            round(statistics.median(memory[:part]), 1),
            round(statistics.median(memory[-part:]), 1),
        ],
        "memory_mib_per_hour": round(statistics.linear_regression(hours, memory).slope, 2),
        **{
            name: [min(one[name] for one in warm), max(one[name] for one in warm)]
            for name in ("files", "threads", "children")
        },
    }


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        found = soak(given.minutes, given.processes, Path(scratch))
    readings = found.pop("readings")
    print(json.dumps(found, indent=1))
    if given.json:
        given.json.write_text(json.dumps({**found, "readings": readings}), encoding="utf-8")


if __name__ == "__main__":
    main()

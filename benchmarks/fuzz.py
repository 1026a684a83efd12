"""Inputs that no reader expects, by the million: no traceback, no hang, no row lost in silence.

    python -m benchmarks.fuzz --inputs 1000000 --seed 0 --json fuzz.json
    python -m benchmarks.fuzz --inputs 5000 --reader text.csv

The inputs are divided evenly among the readers. Each reader runs in a process of its own, so that
one that dies is a finding too. The JSON file holds counts by reader and, for each distinct finding,
the files that show it. The command leaves with 1 if there is any.
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.fuzzing.cases import Outcome, make_case, run_case
from benchmarks.fuzzing.readers import READERS

_SILENCE = 120.0
_REPORT_EVERY = 200


@dataclass
class Count:
    """What came of the inputs of one reader.

    Attributes:
        inputs: how many were read.
        accepted: read to the end.
        rows: rows used in those.
        refused: refused with an error of the right kind.
        violations: that broke a rule.
        seconds: wall time, start of the process left out.
        findings: one entry per distinct violation: what, how often, and the files.
    """

    inputs: int = 0
    accepted: int = 0
    rows: int = 0
    refused: int = 0
    violations: int = 0
    seconds: float = 0.0
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, outcome: Outcome, name: str, seed: int, number: int) -> None:
        """Count one outcome."""
        self.inputs += 1
        if outcome.violation:
            self.violations += 1
            self._found(outcome.violation, name, seed, number)
        elif outcome.rows < 0:
            self.refused += 1
        else:
            self.accepted += 1
            self.rows += outcome.rows

    def _found(self, violation: str, name: str, seed: int, number: int) -> None:
        kind = re.sub(r"/\S+/|'.*'|\d+", "…", violation)[:120]
        if kind not in self.findings:
            files = make_case(READERS[name], seed, number)
            kept = {name: base64.b64encode(content).decode() for name, content in files.items()}
            self.findings[kind] = {
                "violation": violation,
                "times": 0,
                "seed": seed,
                "number": number,
                "files": kept,
            }
        self.findings[kind]["times"] += 1


def fuzz(name: str, inputs: int, seed: int) -> Count:
    """Read inputs of one reader in processes of their own and return what came of them."""
    count, reached = Count(), 0
    while reached < inputs:
        reached, broken = _run(count, name, seed, range(reached, inputs))
        if broken:
            # The one at fault is among those that were to be reported together next.
            suspects = range(reached, min(reached + _REPORT_EVERY, inputs))
            reached = _blame(count, name, seed, suspects, broken)
    return count


def _run(count: Count, name: str, seed: int, numbers: range) -> tuple[int, str]:
    """Run one process; return the number of the next input and how the process died, if it did."""
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(
        target=_work, args=(there, name, seed, numbers)
    )
    process.start()
    there.close()
    reached, broken = numbers.start, ""
    while reached < numbers.stop and not broken:
        if not here.poll(_SILENCE):
            process.kill()
            broken = f"no answer for {_SILENCE} s"
            break
        try:
            outcomes, seconds = here.recv()
        except EOFError:
            process.join()
            broken = f"the process died with {process.exitcode}"
            break
        for outcome in outcomes:
            count.add(outcome, name, seed, reached)
            reached += 1
        count.seconds += seconds
    process.join()
    return reached, broken


def _blame(count: Count, name: str, seed: int, suspects: range, broken: str) -> int:
    """Find the input that kills a process, by one process for each; return the next number."""
    for number in suspects:
        _, again = _run(count, name, seed, range(number, number + 1))
        if again:
            count.add(Outcome(violation=again), name, seed, number)
            return number + 1
    count.add(Outcome(violation=f"{broken}, but not again"), name, seed, suspects.start)
    return suspects.stop


def _work(results: Connection, name: str, seed: int, numbers: range) -> None:
    """Read inputs and report after every few."""
    reader = READERS[name]
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        for first in range(numbers.start, numbers.stop, _REPORT_EVERY):
            began = time.perf_counter()
            outcomes = [
                run_case(reader, make_case(reader, seed, number), Path(folder) / "case")
                for number in range(first, min(first + _REPORT_EVERY, numbers.stop))
            ]
            results.send((outcomes, time.perf_counter() - began))


def _memory() -> str | None:
    """Return a folder in memory where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the fuzzer from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--inputs", type=int, default=100_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--reader", action="append", choices=list(READERS), help="default: all")
    given = parser.parse_args(arguments)
    names = given.reader or list(READERS)
    counts = {}
    for name in names:
        counts[name] = fuzz(name, -(-given.inputs // len(names)), given.seed)
        _tell(name, counts[name])
    if given.json:
        result = {"seed": given.seed, "readers": {name: asdict(c) for name, c in counts.items()}}
        given.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    total = sum((Counter(_numbers(count)) for count in counts.values()), Counter())
    _show("all", total)
    return int(total["violations"] > 0)


def _numbers(count: Count) -> dict[str, Any]:
    return {name: value for name, value in vars(count).items() if name != "findings"}


def _tell(name: str, count: Count) -> None:
    _show(name, _numbers(count))
    for found in count.findings.values():
        print(f"  {found['times']} x {found['violation'][:300]!r}", file=sys.stderr)
        print(f"    input {found['number']} of seed {found['seed']}", file=sys.stderr, flush=True)


def _show(name: str, numbers: dict[str, Any]) -> None:
    words = [f"{numbers[key]:,} {key}" for key in ("inputs", "accepted", "refused", "violations")]
    speed = numbers["inputs"] / max(numbers["seconds"], 1e-9)
    print(f"{name}: {', '.join(words)}; {speed:,.0f} inputs/s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

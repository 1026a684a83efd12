"""Programs in processes of their own, and what they took: time, CPU time, memory.

Run as a program, this file starts another Python and waits for it. So the benchmark itself, which
may have grown, is not what memory is counted from.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes, in which the system counts memory."""


@dataclass(frozen=True)
class Spent:
    """What a program took.

    Attributes:
        began: when it was started, in seconds since the epoch.
        wall: seconds.
        cpu: seconds of the process and of those that it started, all threads.
        peak: bytes that the largest of these processes held at most.
        output: what it printed.
    """

    began: float
    wall: float
    cpu: float
    peak: int
    output: str


def spent(*arguments: str, threads: int = 1) -> Spent:
    """Run Python in a process of its own; one that fails ends the benchmark with what it said.

    Args:
        *arguments: of Python: ``-m``, a module and its arguments, or ``-c`` and a statement.
        threads: of numerical libraries.
    """
    own = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"python {' '.join(arguments)} failed:\n{done.stderr[-4000:]}")
    output, _, took = done.stdout.rstrip().rpartition("\n")
    return Spent(**json.loads(took), output=output)


def main() -> int:
    """Run Python with the arguments of this program, and print what it took as the last line."""
    began, start = time.time(), time.perf_counter()
    process = subprocess.Popen([sys.executable, *sys.argv[1:]])
    _, status, usage = os.wait4(process.pid, 0)
    took = {"began": began, "wall": time.perf_counter() - start}
    took |= {"cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss * UNIT}
    print(f"\n{json.dumps(took)}")
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())

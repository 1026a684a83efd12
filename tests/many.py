"""Programs run by several processes at once, over gloo."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tiny import folder

TESTS = str(Path(__file__).parent)

HEAD = f"""
import sys
sys.path.insert(0, {TESTS!r})
import torch
torch.set_num_threads(1)
"""
TAIL = """
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
"""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """Return the environment that torchrun gives a process."""
    alone = {} if size == 1 else {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    return {
        **os.environ,
        **alone,
        "TINY_WORLD": str(folder()),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(size),
        "OMP_NUM_THREADS": "1",
    }


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def start(commands: list[list[str]]) -> list[subprocess.Popen[bytes]]:
    """Start one process per command, as the ranks of one run."""
    port = free_port()
    return [
        subprocess.Popen(
            command,
            env=environment(rank, len(commands), port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank, command in enumerate(commands)
    ]


def ends(processes: list[subprocess.Popen[bytes]], seconds: float = 240) -> list[Ended]:
    """Wait for all of them."""
    said = [process.communicate(timeout=seconds) for process in processes]
    return [
        Ended(process.returncode, out.decode(), err.decode())
        for process, (out, err) in zip(processes, said, strict=True)
    ]


def run_program(program: str, size: int) -> list[Ended]:
    """Run a program in so many processes; each must end well."""
    found = ends(start([[sys.executable, "-c", HEAD + program + TAIL]] * size))
    for one in found:
        assert one.code == 0, one.err[-3000:]
    return found

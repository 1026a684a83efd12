"""Memory that is freed stays with the process, where the C library can be told so."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import psutil
from ptm_plus.allocation import keep_freed_memory

if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("cannot be told")
rss = psutil.Process().memory_info
before = rss().rss
block = bytearray(200_000_000)
del block
print(round((rss().rss - before) / 1e6))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc only")
def test_a_freed_block_stays_with_the_process() -> None:
    stays = {}
    for how in ("keep", "leave"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=False
        )
        if "cannot be told" in done.stderr:
            pytest.skip("another C library than glibc")
        stays[how] = int(done.stdout)
    assert stays["keep"] > 190
    assert stays["leave"] < 20

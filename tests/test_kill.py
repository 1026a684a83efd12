"""One kill in each phase of a run, from raw files on; the long version is the benchmark itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.ernie_masking,
    pytest.mark.k_adapter,
    pytest.mark.kg_fusion,
    pytest.mark.tlm,
]

ROOT = Path(__file__).parent.parent
PHASES = 10


def test_a_run_that_is_killed_in_any_phase_ends_as_one_that_never_was(tmp_path: Path) -> None:
    figures = tmp_path / "kill.json"
    command = [sys.executable, "-m", "benchmarks.kill", "--tries", str(PHASES), "--steps", "30"]
    done = subprocess.run(
        [*command, "--jobs", "2", "--json", str(figures)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(figures.read_text(encoding="utf-8"))
    assert found["identical"] == found["tries"] == PHASES
    assert len({moment["phase"] for moment in found["moments"]}) == PHASES
    assert found["kills"] >= PHASES - 1  # a moment may come after the end
    assert any(step > 0 for moment in found["moments"] for step in moment["resumed_from"])

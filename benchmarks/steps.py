"""Steps of a long benchmark: what is finished is a file, and is not done again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tomli_w


def once(path: Path, make: Callable[[], Any]) -> Any:
    """Return what a file of JSON says; make and write it whole if it is not there."""
    if not path.exists():
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.partial")
        draft.write_text(json.dumps(made, indent=1, ensure_ascii=False), encoding="utf-8")
        draft.replace(path)
        print(f"done: {path}", file=sys.stderr, flush=True)
    return json.loads(path.read_text(encoding="utf-8"))


def claim(output: Path, options: Mapping[str, Any]) -> None:
    """Make an output folder one of these options, or make sure that it is.

    Raises:
        SystemExit: it was made with others.
    """
    made_with = once(output / "options.json", lambda: dict(options))
    if made_with != options:
        raise SystemExit(f"{output} was made with {made_with}; name another --output")


def ptm_plus(*arguments: str) -> str:
    """Run a command of the product in a process of its own, on one thread; return its output.

    Raises:
        SystemExit: it failed.
    """
    finished = subprocess.run(
        [sys.executable, "-m", "ptm_plus", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise SystemExit(f"ptm-plus {' '.join(arguments)} failed:\n{finished.stderr}")
    return finished.stdout


def check_equal_tokens(runs: Mapping[str, Mapping[str, Any]], slack: float = 0.01) -> None:
    """Check that the runs of a seed were trained on equal tokens.

    Args:
        runs: what is kept of each, ``tokens`` among it, by arm.
        slack: by how much of the fewest they may differ.

    Raises:
        SystemExit: they were not.
    """
    counted = {arm: one["tokens"] for arm, one in runs.items()}
    if max(counted.values()) > (1 + slack) * min(counted.values()):
        raise SystemExit(f"the runs were not trained on equal tokens: {counted}")


def planned_steps(file: Path, settings: Mapping[str, Any], tokens: int) -> int:
    """Return how many steps hold so many tokens, from how full the plan of a run says rows are.

    Args:
        file: the settings are written there, for the plan.
        settings: of the run, without steps and output.
        tokens: that it is to be trained on.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    output = {"output": str(file.parent / "run")}
    given = {**settings, **output, "train": {**settings["train"], "steps": 1000}}
    file.write_text(tomli_w.dumps(given), encoding="utf-8")
    plan = json.loads(ptm_plus("plan", str(file), "--prepare", "--json"))
    filled = sum(one["share"] * one["fill"] for of in plan["streams"] for one in of["strata"])
    batch = settings["batch"]
    return round(tokens / (filled * batch["row_tokens"] * batch["rows"]))


def trained(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Train a run, or go on with it, export it, and return its report.

    Args:
        folder: gets ``run`` and ``model``.
        settings: of the run, without its output.
    """
    run, model, file = folder / "run", folder / "model", folder / "run.toml"
    folder.mkdir(parents=True, exist_ok=True)
    if (run / "settings.toml").exists():
        ptm_plus("resume", str(run), "--device", "cpu", "--quiet")
    else:
        file.write_text(tomli_w.dumps({**settings, "output": str(run)}), encoding="utf-8")
        ptm_plus("train", str(file), "--device", "cpu", "--overwrite", "--quiet")
    shutil.rmtree(model, ignore_errors=True)
    ptm_plus("export", str(run), "--to", str(model), "--quiet")
    report: dict[str, Any] = json.loads((run / "report.json").read_text(encoding="utf-8"))
    return report

"""How long a step is held up by checkpoints that are written beside training.

    python -m benchmarks.checkpoints --steps 300 --every 50 --json checkpoints.json

A sample run with every plugin is trained with a checkpoint every so many steps and profiled: the
time that the loop spends in taking a checkpoint (copying, digests of the next steps, waiting for
the one before), as a share of the time in steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from ptm_plus.launch import launch
from ptm_plus.processes import make_accelerator
from ptm_plus.progress import Silent
from ptm_plus.sample import build_world
from ptm_plus.sample_run import sample_settings
from ptm_plus.settings_files import resolve
from ptm_plus.train import Trainer

PLUGINS = ("kg-fusion", "tlm")


def measure(steps: int, every: int, folder: Path, sets: list[str]) -> dict[str, Any]:
    """Train and return seconds in steps and in checkpoints."""
    flags = {"plugins": list(PLUGINS), "output": str(folder / "run"), "train.steps": steps}
    quick = ["plugin.kg-fusion.vectors.epochs=2", *sets]
    settings = sample_settings(resolve(None, flags, quick), build_world(), Silent())
    torch.set_num_threads(1)
    trainer = Trainer(launch(settings, Silent()), Silent(), make_accelerator("fp32", "cpu"))
    trainer.step(trainer.run.planner.plan(0))  # the first one warms up
    in_steps, held_up = [], []
    for number in range(1, steps):
        began = time.perf_counter()
        trainer.step(trainer.run.planner.plan(number))
        trainer.settle()
        in_steps.append(time.perf_counter() - began)
        if number % every == 0:
            began = time.perf_counter()
            trainer.save()
            held_up.append(time.perf_counter() - began)
    trainer.writer.finish()
    parameters = sum(p.numel() for p in trainer.run.encoder.parameters())
    return {
        "steps": steps,
        "every": every,
        "parameters": parameters,
        "seconds_in_steps": round(sum(in_steps), 3),
        "seconds_held_up": round(sum(held_up), 3),
        "milliseconds_a_step": round(1e3 * statistics.median(in_steps), 2),
        "milliseconds_a_checkpoint": [round(1e3 * one, 2) for one in held_up],
        "share": round(sum(held_up) / sum(in_steps), 5),
    }


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=301)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--set", action="append", default=[], help="as for ptm-plus train")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="checkpoints-") as scratch:
        found = measure(given.steps, given.every, Path(scratch), given.set)
    print(json.dumps(found, indent=1))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

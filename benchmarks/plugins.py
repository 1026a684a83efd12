"""What plugins cost: CPU time of a step with each of them, with all, and with none.

    python -m benchmarks.plugins --json plugins.json
    python -m benchmarks.plugins --quick

Every run is composed on the built-in sample, in one process and on one thread, with a BERT of 4
blocks of 256 unless ``--model`` says otherwise. They take their steps in turn, some at a time, and
every rate is compared with that of no plugin in the same round, so that what else the machine does
meets all alike.

Three things are told apart. What a method computes, as floating-point operations of matrices and
attention, forward and backward, counted by torch. What its step takes. And what of that is
ptm-plus's own, outside of forward, backward and optimizer: making rows, masks and columns, counts,
bookkeeping. Beside them stands a loop written by hand over the same micro-batches: a plain
transformers model, a loss over the predicted positions, clipping and the optimizer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.by_hand import Loop
from benchmarks.speed.corpus import VOCABULARY
from benchmarks.speed.reporting import machine, markdown, options, ranged, report, spread
from benchmarks.speed.sizes import BENCH
from benchmarks.speed.timing import Spent, plan_of, spend
from ptm_plus.launch import launch
from ptm_plus.processes import make_accelerator
from ptm_plus.progress import Silent
from ptm_plus.sample import build_world
from ptm_plus.sample_run import sample_settings
from ptm_plus.settings_files import resolve
from ptm_plus.train import Trainer

MODEL = {**BENCH, "vocab_size": VOCABULARY}
FIVE = ("ernie-masking", "kg-fusion", "k-adapter", "tlm", "domain")
NONE = "no plugin"
BY_HAND = "by hand, the same micro-batches"
ARMS: Mapping[str, Sequence[str]] = {
    NONE: (),
    **{name: (name,) for name in (*FIVE, "cross-lingual")},
    "ernie-masking and tlm": ("ernie-masking", "tlm"),
    "all five": FIVE,
}


TOLD = """\
Time and operations are per token, against no plugin in the same round. Own: per step, outside of
forward, backward and optimizer; its share of the step; and what the plugin adds to it, per token,
as a share of a step without plugins."""


@dataclass
class Arm:
    """One line of the table.

    Attributes:
        name: what is measured.
        trainer: of its run.
        step: one of the steps of the stage that is measured.
        operations: floating-point operations per token.
        rounds: what its steps took, round by round.
    """

    name: str
    trainer: Trainer
    step: int
    operations: float = 0.0
    rounds: list[Spent] = field(default_factory=list)


def composed(name: str, plugins: Sequence[str], folder: Path, sets: Sequence[str]) -> list[Arm]:
    """Compose a run on the sample; return a line for each of its stages."""
    flags = {"plugins": list(plugins), "output": str(folder / name.replace(" ", "-"))}
    settings = sample_settings(resolve(None, flags, sets), build_world(), Silent())
    accelerator = make_accelerator("fp32", "cpu")
    arms = []
    for stage in launch(settings, Silent(), accelerator.device).stages:
        run = launch(settings, Silent(), accelerator.device)
        trainer = Trainer(run, Silent(), accelerator)
        trainer.progress.step = stage.first
        trainer.start()
        several = f", stage {stage.name}" if len(run.stages) > 1 else ""
        arms.append(Arm(name + several, trainer, stage.first + stage.steps // 2))
    return arms


def count_operations(arm: Arm) -> float:
    """Return the operations of a step per token; the step is taken."""
    trainer = arm.trainer
    before = trainer.progress.tokens
    with FlopCounterMode(display=False) as counter:
        trainer.step(plan_of(trainer, arm.step))
        trainer.settle()
    return counter.get_total_flops() / (trainer.progress.tokens - before)


def measure(arms: Sequence[Arm], loop: Loop, rounds: int, steps: int) -> list[float]:
    """Let all take their steps in turn; return seconds per token of the loop by hand.

    Args:
        arms: get their rounds.
        loop: the loop by hand.
        rounds: how often all of them have their turn.
        steps: of a turn.
    """
    by_hand = []
    for number in range(rounds):
        for arm in arms:
            arm.rounds.append(spend(arm.trainer, arm.step, steps))
        began = time.process_time()
        tokens = sum(loop.step() for _ in range(steps))
        by_hand.append((time.process_time() - began) / tokens)
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return by_hand


def figures(arms: Sequence[Arm], by_hand: Sequence[float]) -> dict[str, Any]:
    """Return the figures of every line."""
    base = next(arm for arm in arms if arm.name == NONE)
    seconds = {arm.name: [one.whole / one.tokens for one in arm.rounds] for arm in arms}
    seconds[BY_HAND] = list(by_hand)
    found: dict[str, Any] = {
        name: {
            "tokens_per_cpu_second": 1 / statistics.median(values),
            "time": ranged([own / none for own, none in zip(values, seconds[NONE], strict=True)]),
        }
        for name, values in seconds.items()
    }
    for arm in arms:
        steps, tokens = arm.rounds[0].steps, sum(one.tokens for one in arm.rounds)
        own = [one.own / one.steps for one in arm.rounds]
        found[arm.name] |= {
            "operations": arm.operations / base.operations,
            "tokens_per_step": tokens / steps / len(arm.rounds),
            "own_milliseconds": 1000 * statistics.median(own),
            "own_share": statistics.median(one.own / one.whole for one in arm.rounds),
            "own_of_the_plugin": added(arm, base),
        }
    return found


def added(arm: Arm, base: Arm) -> float:
    """Return own time beyond that of no plugin, per token, as a share of its whole step."""
    more = statistics.median(
        one.own / one.tokens - none.own / none.tokens
        for one, none in zip(arm.rounds, base.rounds, strict=True)
    )
    return more / statistics.median(none.whole / none.tokens for none in base.rounds)


def table(found: Mapping[str, Any]) -> str:
    """Return the table."""
    rows = [
        [
            name,
            f"{one['tokens_per_cpu_second']:,.0f}",
            spread(one["time"], 3),
            f"{one['operations']:.3f}" if "operations" in one else "–",
            _own(one, name) if "own_share" in one else "–",
        ]
        for name, one in found.items()
    ]
    return markdown(["", "tokens per CPU-second", "time per token", "operations", "own"], rows)


def _own(one: Mapping[str, Any], name: str) -> str:
    more = "" if name == NONE else f", {one['own_of_the_plugin']:+.1%} for it"
    return f"{one['own_milliseconds']:.1f} ms, {one['own_share']:.1%}{more}"


def run(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Compose, measure, and return everything that is kept."""
    torch.set_num_threads(1)
    on = machine()
    sets = [
        *(f"model.config.{name}={value}" for name, value in given.model.items()),
        *("train.steps=400", "batch.row_tokens=512", f"batch.rows={given.rows}"),
        *(f"batch.micro_rows={given.rows}", "prepare.max_length=256", "train.threads=1"),
    ]
    chosen = {name: ARMS[name] for name in (NONE, *given.arms)}
    arms = [arm for name, its in chosen.items() for arm in composed(name, its, folder, sets)]
    loop = Loop(arms[0].trainer, steps=given.steps)
    for arm in arms:
        spend(arm.trainer, arm.step, given.warm_up)
        arm.operations = count_operations(arm)
    for _ in range(given.warm_up):
        loop.step()
    found = figures(arms, measure(arms, loop, given.rounds, given.steps))
    return {"machine": on, "model": given.model, "rounds": given.rounds, "arms": found}


def main() -> None:
    """Run the benchmark from the command line."""
    parser = options(__doc__)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS)[1:])
    parser.add_argument("--model", type=json.loads, default=MODEL, help="BERT's configuration")
    parser.add_argument("--rows", type=int, default=4, help="of 512 tokens, in a step")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=8, help="of a turn")
    parser.add_argument("--warm-up", type=int, default=4, help="steps that are not measured")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.steps = 3, 4
    with tempfile.TemporaryDirectory() as scratch:
        document = run(given, Path(scratch))
    report(document, (table(document["arms"]), TOLD), given.json)


if __name__ == "__main__":
    main()

"""Loss at equal tokens, and CPU time to a given loss, beside the stock trainer in its three modes.

    python -m benchmarks.quality --quick --json quality.json
    python -m benchmarks.quality --text corpus.jsonl --tokenizer DIR --steps 600 --json quality.json

Every side trains once, with the settings of ``benchmarks.throughput``, and its model is kept at
equal shares of the run. Each of these is asked for the same masked tokens of held-out text. Sides
differ in the tokens of a step, so they are compared by the tokens seen, without padding: at the
largest number that all of them reached, between two points in a line over the logarithm.

CPU time counts from the end of the first step, writing the models included; what comes before is
measured by ``benchmarks.prepare`` and ``benchmarks.start_up``. The loss to be reached is the last
one of the side that ended worst.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed import reporting
from benchmarks.speed.quality import held_out_loss
from benchmarks.speed.sides import OURS, SIDES, TITLES, Work, trained
from benchmarks.speed.task import add_task, checked, task


@dataclass(frozen=True)
class Point:
    """A model that was kept.

    Attributes:
        step: optimizer steps.
        tokens: seen so far, without padding.
        cpu: seconds since the end of the first step.
        loss: on held-out text.
    """

    step: int
    tokens: int
    cpu: float
    loss: float


Course = Sequence[Point]


def course(work: Work, side: str, folder: Path, steps: int) -> list[Point]:
    """Train a side, and measure the models that it kept."""
    ticks = {one["step"]: one for one in trained(work, side, folder, steps, 1).ticks}
    corpus, began = work.corpus, ticks[1]["cpu"]
    points = []
    for step in range(work.keep_every, steps + 1, work.keep_every):
        loss = held_out_loss(
            folder / f"model-{step}", corpus.tokenizer, corpus.held_out, work.length, work.seed
        )
        one = ticks[step]
        points.append(Point(step, int(one["tokens"]), round(one["cpu"] - began, 3), loss))
        told = f"{points[-1].tokens:,} tokens, {points[-1].cpu:.1f} CPU-seconds, loss {loss:.3f}"
        print(f"{TITLES[side]}, step {step}: {told}", file=sys.stderr, flush=True)
    return points


def loss_at(points: Course, tokens: float) -> float:
    """Return the loss after so many tokens, in a line over the logarithm between two points."""
    known = [one.tokens for one in points]
    return float(np.interp(np.log(tokens), np.log(known), [one.loss for one in points]))


def cpu_to(points: Course, loss: float) -> float | None:
    """Return the CPU-seconds after which a loss was reached first, likewise.

    ``None`` where the first point lies below it already, or none does.
    """
    for before, after in pairwise(points):
        if before.loss >= loss >= after.loss:
            part = (before.loss - loss) / ((before.loss - after.loss) or 1.0)
            return float(before.cpu * (after.cpu / before.cpu) ** part)
    return None


def compared(courses: Mapping[str, Course]) -> dict[str, Any]:
    """Return the sides' losses at equal tokens, and their CPU time to an equal loss."""
    tokens = min(points[-1].tokens for points in courses.values())
    loss = max(points[-1].loss for points in courses.values())
    cpu = {side: cpu_to(points, loss) for side, points in courses.items()}
    return {
        "tokens": tokens,
        "loss": loss,
        "sides": {
            side: {
                "loss_at_equal_tokens": loss_at(points, tokens),
                "cpu_seconds_to_loss": cpu[side],
                "times": _times(cpu[side], cpu[OURS]),
            }
            for side, points in courses.items()
        },
    }


def _times(theirs: float | None, ours: float | None) -> float | None:
    return theirs / ours if theirs and ours else None


def summary(found: Mapping[str, Any]) -> str:
    """Return the table of :func:`compared`."""
    headings = ["", f"loss at {found['tokens']:,} tokens"]
    headings += [f"CPU-seconds to a loss of {found['loss']:.3f}", "ptm-plus is quicker"]
    rows = [
        [
            TITLES[side],
            f"{one['loss_at_equal_tokens']:.3f}",
            "–" if one["cpu_seconds_to_loss"] is None else f"{one['cpu_seconds_to_loss']:,.1f}",
            "–" if side == OURS or one["times"] is None else f"{one['times']:.2f} ×",
        ]
        for side, one in found["sides"].items()
    ]
    return reporting.markdown(headings, rows)


def all_points(courses: Mapping[str, Course]) -> str:
    """Return the table of every model that was kept."""
    rows = [
        [TITLES[side], f"{one.step}", f"{one.tokens:,}", f"{one.cpu:,.1f}", f"{one.loss:.3f}"]
        for side, points in courses.items()
        for one in points
    ]
    return reporting.markdown(["", "step", "tokens", "CPU-seconds", "held-out loss"], rows)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = reporting.options(__doc__)
    add_task(parser)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--points", type=int, default=6, help="models kept of each side")
    parser.add_argument("--dropout", type=float, default=0.0)
    given = checked(parser)
    if given.quick:
        given.steps, given.points = 30, 3
    if not 2 <= given.points <= given.steps // 2:
        parser.error("--points has to be at least 2, and at most half of --steps")
    with tempfile.TemporaryDirectory() as scratch:
        document = run(given, (given.output or Path(scratch)).resolve())
    courses = {side: [Point(**one) for one in points] for side, points in document["sides"].items()}
    tables = [summary(document["compared"]), all_points(courses)]
    reporting.report(document, tables, given.json)


def run(given: argparse.Namespace, folder: Path, sides: Sequence[str] = SIDES) -> dict[str, Any]:
    """Train every side, and return everything that is kept."""
    every = given.steps // given.points
    steps = every * given.points
    work = task(given, folder / "corpus", steps)
    work = replace(work, dropout=given.dropout, keep_every=every)
    machine = reporting.machine()
    courses = {side: course(work, side, folder / side, steps) for side in sides}
    return {
        "machine": machine,
        "model": work.model,
        "steps": steps,
        "dropout": given.dropout,
        "compared": compared(courses),
        "sides": {side: [asdict(one) for one in points] for side, points in courses.items()},
    }


if __name__ == "__main__":
    main()

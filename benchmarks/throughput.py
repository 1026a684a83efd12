"""Tokens per CPU-second of training, beside transformers' own example in its three modes.

    python -m benchmarks.throughput --quick --json throughput.json
    python -m benchmarks.throughput --text corpus.jsonl --tokenizer DIR --json throughput.json

Both sides train the same BERT from scratch (4 blocks of 256 unless ``--model`` says otherwise), on
the same text, with the same tokenizer, optimizer, schedule, mask rate, seed and tokens per step,
each as the whole program that a user would run, in turn: ``ptm-plus train``, and the example with
the stock ``Trainer`` (``speed/peer.py``) line by line, with lines of like length together, and with
text joined and cut into blocks. Padding never counts as a token.

The time is the process's own CPU time over the steps after the first, on one thread: on a machine
that others use too, it is what can be compared. The trained models are then asked for the same
masked tokens of held-out text, because speed without equal loss would not count.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.speed import reporting
from benchmarks.speed.peer import MODES
from benchmarks.speed.quality import held_out_loss
from benchmarks.speed.sides import OURS, SIDES, TITLES, Measured, Work, trained
from benchmarks.speed.task import add_task, checked, task


def measure(work: Work, folder: Path, steps: int, skipped: int, repeats: int) -> dict[str, Any]:
    """Train every side so often, in turn; return rates and losses by side."""
    found: dict[str, list[Measured]] = {side: [] for side in SIDES}
    for number in range(repeats):
        for side in SIDES:
            took = trained(work, side, folder / f"{side}-{number}", steps, skipped)
            found[side].append(took)
            said = f"{took.tokens:,} tokens, {took.cpu:.1f} CPU-seconds, {took.rate:,.0f} a second"
            print(f"{TITLES[side]}: {said}", file=sys.stderr, flush=True)
    return {side: figures(work, taken) for side, taken in found.items()}


def figures(work: Work, taken: Sequence[Measured]) -> dict[str, Any]:
    """Return the figures of a side."""
    corpus = work.corpus
    loss = held_out_loss(taken[0].model, corpus.tokenizer, corpus.held_out, work.length, work.seed)
    return {
        "tokens": taken[0].tokens,
        "tokens_per_cpu_second": reporting.ranged([one.rate for one in taken]),
        "wall_seconds": [round(one.wall, 2) for one in taken],
        "cpu_seconds": [round(one.cpu, 2) for one in taken],
        "held_out_loss": loss,
    }


def ratios(found: Mapping[str, Any]) -> dict[str, float]:
    """Return how many times the peer's rate ours is, by mode."""
    rate = {side: found[side]["tokens_per_cpu_second"]["median"] for side in SIDES}
    return {mode: rate[OURS] / rate[mode] for mode in MODES}


def table(found: Mapping[str, Any]) -> str:
    """Return the table of one setting."""
    times = ratios(found)
    headings = ["", "tokens per CPU-second (lowest to highest)", "ptm-plus is", "held-out loss"]
    rows = [
        [
            TITLES[side],
            reporting.spread(found[side]["tokens_per_cpu_second"]),
            f"{times[side]:.2f} ×" if side in times else "–",
            f"{found[side]['held_out_loss']:.3f}",
        ]
        for side in SIDES
    ]
    return reporting.markdown(headings, rows)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = reporting.options(__doc__)
    add_task(parser)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--skipped", type=int, default=20, help="steps that are not measured")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dropout", type=float, nargs="+", default=[0.0, 0.1])
    given = checked(parser)
    if given.quick:
        given.steps, given.skipped, given.repeats, given.dropout = 30, 10, 1, [0.0]
    with tempfile.TemporaryDirectory() as scratch:
        document = run(given, (given.output or Path(scratch)).resolve())
    tables = [
        f"Dropout {dropout}\n\n{table(one['sides'])}"
        for dropout, one in document["dropout"].items()
    ]
    reporting.report(document, tables, given.json)


def run(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure in every setting, and return everything that is kept."""
    work = task(given, folder / "corpus", given.steps)
    document: dict[str, Any] = {
        "machine": reporting.machine(),
        "model": work.model,
        "steps": [given.skipped, given.steps],
        "dropout": {},
    }
    for dropout in given.dropout:
        place = folder / f"dropout-{dropout}"
        found = measure(
            replace(work, dropout=dropout), place, given.steps, given.skipped, given.repeats
        )
        document["dropout"][str(dropout)] = {"sides": found, "times": ratios(found)}
    return document


if __name__ == "__main__":
    main()

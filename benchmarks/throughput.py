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
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.corpus import VOCABULARY, Corpus, made_texts, made_words, write_corpus
from benchmarks.speed.peer import MODES
from benchmarks.speed.quality import held_out_loss
from benchmarks.speed.sides import Measured, Work, ours, peer

MODEL = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "max_position_embeddings": 512,
}
OURS = "ptm-plus"
SIDES = (OURS, *MODES)
TITLES = {
    OURS: "ptm-plus",
    "lines": "stock, line by line",
    "grouped": "stock, grouped by length",
    "blocks": "stock, concatenated blocks",
}


def measure(work: Work, folder: Path, steps: int, skipped: int, repeats: int) -> dict[str, Any]:
    """Train every side so often, in turn; return rates and losses by side."""
    found: dict[str, list[Measured]] = {side: [] for side in SIDES}
    for number in range(repeats):
        for side in SIDES:
            place = folder / f"{side}-{number}"
            took = (
                ours(work, place, steps, skipped)
                if side == OURS
                else peer(work, side, place, steps, skipped)
            )
            found[side].append(took)
            said = f"{took.tokens:,} tokens, {took.cpu:.1f} CPU-seconds, {took.rate:,.0f} a second"
            print(f"{TITLES[side]}: {said}", file=sys.stderr, flush=True)
    return {side: figures(work, taken) for side, taken in found.items()}


def figures(work: Work, taken: Sequence[Measured]) -> dict[str, Any]:
    """Return the figures of a side."""
    rates = [one.rate for one in taken]
    corpus = work.corpus
    loss = held_out_loss(taken[0].model, corpus.tokenizer, corpus.held_out, work.length, work.seed)
    return {
        "tokens": taken[0].tokens,
        "tokens_per_cpu_second": {
            "median": statistics.median(rates),
            "lowest": min(rates),
            "highest": max(rates),
        },
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
    lines = ["| | tokens per CPU-second (lowest to highest) | ptm-plus is | held-out loss |"]
    lines.append("|---|---|--:|--:|")
    times = ratios(found)
    for side in SIDES:
        one = found[side]
        rate = one["tokens_per_cpu_second"]
        spread = f"{rate['median']:,.0f} ({rate['lowest']:,.0f} to {rate['highest']:,.0f})"
        factor = f"{times[side]:.2f} ×" if side in times else "–"
        lines.append(f"| {TITLES[side]} | {spread} | {factor} | {one['held_out_loss']:.3f} |")
    return "\n".join(lines)


def corpus_of(given: argparse.Namespace, folder: Path, sequences: int) -> Corpus:
    """Write the text of the benchmark, made or given."""
    if given.text is None:
        words = made_words()
        return write_corpus(folder, made_texts(words), sequences, 200, words)
    rows = (json.loads(line)["text"] for line in given.text.open(encoding="utf-8"))
    texts = (part for text in rows for part in text.splitlines() if part.strip())
    corpus = write_corpus(folder, texts, sequences, 200, None)
    return Corpus(corpus.lines, corpus.rows, corpus.held_out, given.tokenizer.resolve())


def vocabulary_of(tokenizer: Path) -> int:
    """Return the size of a tokenizer's vocabulary."""
    from transformers import AutoTokenizer

    return len(AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False))


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer steps, once")
    parser.add_argument("--text", type=Path, help="JSON lines instead of text that is made")
    parser.add_argument("--tokenizer", type=Path, help="of --text")
    parser.add_argument("--model", type=json.loads, default=MODEL, help="BERT's configuration")
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY, help="rows of the head")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--skipped", type=int, default=20, help="steps that are not measured")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dropout", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="keeps the runs")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if (given.text is None) != (given.tokenizer is None):
        parser.error("--text and --tokenizer go together")
    if given.quick:
        given.steps, given.skipped, given.repeats, given.dropout = 30, 10, 1, [0.0]
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.output or Path(scratch)
        document = run(given, folder.resolve())
    if given.json:
        given.json.write_text(json.dumps(document, indent=1), encoding="utf-8")


def run(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure in every setting, print the tables, and return everything that is kept."""
    sequences = 16
    corpus = corpus_of(given, folder / "corpus", sequences * given.steps * 2)
    vocabulary = max(given.vocabulary, vocabulary_of(corpus.tokenizer))
    model = {**given.model, "vocab_size": vocabulary}
    document: dict[str, Any] = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load": os.getloadavg(),
        },
        "model": model,
        "steps": [given.skipped, given.steps],
        "dropout": {},
    }
    for dropout in given.dropout:
        work = Work(corpus, model, 256, 1024, sequences, dropout, given.threads)
        found = measure(
            work, folder / f"dropout-{dropout}", given.steps, given.skipped, given.repeats
        )
        document["dropout"][str(dropout)] = {"sides": found, "times": ratios(found)}
        print(f"\nDropout {dropout}\n\n{table(found)}")
    return document


if __name__ == "__main__":
    main()

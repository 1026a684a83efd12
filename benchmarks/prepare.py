"""Tokens per CPU-second of preparing text, beside `datasets`; and whether memory stays as it grows.

    python -m benchmarks.prepare --quick --json prepare.json
    python -m benchmarks.prepare --text corpus.jsonl --megabytes 50 --workers 2 --json prepare.json

``ptm-plus prepare`` aligns words and subwords, keeps account of every row, and links entities where
names are given; ``datasets.map`` (``speed/tokenised.py``) does nothing but tokenise and cut. Both
read the same file with the same tokenizer of subwords, trained on it, by as many worker processes,
into a fresh cache, in turn. The names are words of the text of middling frequency: one word in some
25 of made text is linked.

Each side works on a tenth of the text and on the whole, as a whole program: CPU time is that of the
process and of those that it started. What a program costs before it begins is told apart: the rate
of *further tokens* is that of the nine tenths between the two. Memory is the largest process's.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from benchmarks.speed import reporting
from benchmarks.speed.corpus import given_texts, made_texts, made_words
from benchmarks.speed.spent import Spent, spent

PART = 10
"""The smaller text is one in so many of the whole."""

LENGTH, VOCABULARY = 128, 8000
NAMES = slice(1000, 2000)
"""Words that become names, by their rank."""

TITLES = {
    "ptm-plus": "ptm-plus prepare",
    "linked": "ptm-plus prepare, entities linked",
    "datasets": "datasets.map, tokens alone",
}


@dataclass(frozen=True)
class Task:
    """What every side gets.

    Attributes:
        part: JSON lines, a tenth of the text.
        whole: all of them.
        tokenizer: folder.
        labels: names of entities.
        workers: processes.
    """

    part: Path
    whole: Path
    tokenizer: Path
    labels: Path
    workers: int


@dataclass(frozen=True)
class Preparing:
    """What it took to prepare a text once.

    Attributes:
        tokens: that it was made into, special ones included.
        mentions: of entities, linked.
        spent: time and memory.
    """

    tokens: int
    mentions: int
    spent: Spent


def make_task(folder: Path, texts: Iterator[str], megabytes: float, workers: int) -> Task:
    """Write text up to a size, train a tokenizer on it, and choose names."""
    folder.mkdir(parents=True, exist_ok=True)
    part, whole = folder / "part.jsonl", folder / "whole.jsonl"
    labels, tokenizer = folder / "labels.tsv", folder / "tokenizer"
    names = [word for word, _ in write_texts(part, whole, texts, megabytes).most_common()][NAMES]
    rows = (f"Q{number}\ten\t{name}\n" for number, name in enumerate(names))
    labels.write_text("id\tlang\tlabel\n" + "".join(rows), encoding="utf-8")
    arguments = ("--text", f"en={whole}", "--family", "bert", "--vocabulary", str(VOCABULARY))
    spent("-m", "ptm_plus", "tokenizer", "train", *arguments, "-o", str(tokenizer), "--quiet")
    return Task(part, whole, tokenizer, labels, workers)


def write_texts(part: Path, whole: Path, texts: Iterator[str], megabytes: float) -> Counter[str]:
    """Write texts up to a size, and their first tenth; return how often words occur in that.

    Raises:
        SystemExit: there are too few.
    """
    counts: Counter[str] = Counter()
    size, limit = 0, megabytes * 1e6
    with part.open("w", encoding="utf-8") as first, whole.open("w", encoding="utf-8") as every:
        while size < limit:
            text = next(texts, None)
            if text is None:
                raise SystemExit(f"the text has {size / 1e6:.1f} megabytes; ask for fewer")
            row = json.dumps({"text": text}, ensure_ascii=False) + "\n"
            every.write(row)
            if size < limit / PART:
                first.write(row)
                counts.update(word for word in text.split() if word.isalpha() and len(word) > 2)
            size += len(row.encode())
    return counts


def ours(task: Task, text: Path, folder: Path, linked: bool) -> Preparing:
    """Prepare a text with the product."""
    settings: dict[str, Any] = {
        "output": str(folder / "run"),
        "data": {"text": [f"en={text}"]},
        "tokenizer": {"path": str(task.tokenizer)},
        "prepare": {
            "max_length": LENGTH,
            "workers": task.workers,
            "cache": str(folder / "cache"),
        },
    }
    if linked:
        settings["plugins"] = ["ernie-masking"]
        settings["plugin"] = {"ernie-masking": {"kinds": ["entity"]}}
        settings["data"]["labels"] = [str(task.labels)]
        settings["linker"] = {"lower_case": True, "common_words": False}
    file = folder / "run.toml"
    file.write_text(tomli_w.dumps(settings), encoding="utf-8")
    took = spent("-m", "ptm_plus", "prepare", str(file), "--json", "--quiet")
    account = json.loads(took.output)["streams"]["text"]
    mentions = sum(one["kept"] for one in account["spans"].values())
    return Preparing(account["tokens"], mentions, took)


def theirs(task: Task, text: Path, folder: Path) -> Preparing:
    """Tokenise a text with `datasets`."""
    given = {
        "text": text,
        "tokenizer": task.tokenizer,
        "length": LENGTH,
        "workers": task.workers,
        "cache": folder / "cache",
    }
    flags = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    took = spent("-m", "benchmarks.speed.tokenised", *flags)
    return Preparing(json.loads(took.output.splitlines()[-1])["tokens"], 0, took)


def prepared(task: Task, side: str, text: Path, folder: Path) -> Preparing:
    """Prepare a text on one side, in a fresh folder that is gone afterwards."""
    folder.mkdir(parents=True)
    try:
        if side == "datasets":
            return theirs(task, text, folder)
        return ours(task, text, folder, linked=side == "linked")
    finally:
        shutil.rmtree(folder)


def measure(task: Task, folder: Path, repeats: int) -> dict[str, Any]:
    """Prepare both texts on every side so often, in turn; return the figures by side."""
    found: dict[str, list[tuple[Preparing, Preparing]]] = {side: [] for side in TITLES}
    for _ in range(repeats):
        for side, taken in found.items():
            part, whole = (
                prepared(task, side, text, folder / side) for text in (task.part, task.whole)
            )
            taken.append((part, whole))
            told = f"{whole.tokens:,} tokens, {whole.spent.cpu:.1f} CPU-seconds"
            print(f"{TITLES[side]}: {told}", file=sys.stderr, flush=True)
    return {side: figures(taken) for side, taken in found.items()}


def figures(taken: Sequence[tuple[Preparing, Preparing]]) -> dict[str, Any]:
    """Return the figures of a side, from its tries on the part and on the whole."""
    further = [
        (whole.tokens - part.tokens) / (whole.spent.cpu - part.spent.cpu) for part, whole in taken
    ]
    return {
        "tokens": taken[0][1].tokens,
        "mentions": taken[0][1].mentions,
        "tokens_per_cpu_second": reporting.ranged(
            [whole.tokens / whole.spent.cpu for _, whole in taken]
        ),
        "further_tokens_per_cpu_second": reporting.ranged(further),
        "cpu_seconds": [[round(one.spent.cpu, 2) for one in pair] for pair in taken],
        "wall_seconds": [[round(one.spent.wall, 2) for one in pair] for pair in taken],
        "peak_mib": [max(pair[at].spent.peak for pair in taken) / 2**20 for at in (0, 1)],
    }


def ratios(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return how many times the rates of `datasets` ours are, by side."""
    return {
        side: {
            name: found[side][name]["median"] / found["datasets"][name]["median"]
            for name in ("tokens_per_cpu_second", "further_tokens_per_cpu_second")
        }
        for side in found
        if side != "datasets"
    }


def table(found: Mapping[str, Any]) -> str:
    """Return the table of the sides."""
    times = ratios(found)
    rows = []
    for side, one in found.items():
        cells = [f"{one['tokens']:,}", f"{one['mentions']:,}"]
        for name in ("tokens_per_cpu_second", "further_tokens_per_cpu_second"):
            factor = f", {times[side][name]:.2f} ×" if side in times else ""
            cells.append(f"{reporting.spread(one[name])}{factor}")
        rows.append([TITLES[side], *cells, *(f"{one:,.0f}" for one in one["peak_mib"])])
    headings = ["", "tokens", "linked", "tokens per CPU-second, × of datasets"]
    headings += ["of further tokens, likewise", "MiB at a tenth", "MiB at the whole"]
    return reporting.markdown(headings, rows)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = reporting.options(__doc__)
    parser.add_argument("--text", type=Path, help="JSON lines instead of text that is made")
    parser.add_argument("--megabytes", type=float, default=20.0, help="of text")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    if given.quick:
        given.megabytes, given.repeats = 2.0, 1
    with tempfile.TemporaryDirectory() as scratch:
        document = run(given, Path(scratch))
    reporting.report(document, [table(document["sides"])], given.json)


def run(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure every side, and return everything that is kept."""
    texts = made_texts(made_words()) if given.text is None else given_texts(given.text)
    task = make_task(folder / "text", texts, given.megabytes, given.workers)
    machine = reporting.machine()
    found = measure(task, folder, given.repeats)
    return {
        "machine": machine,
        "bytes": [task.part.stat().st_size, task.whole.stat().st_size],
        "workers": task.workers,
        "max_length": LENGTH,
        "sides": found,
        "times": ratios(found),
    }


if __name__ == "__main__":
    main()

"""How fast a corpus is built, what each step takes of it, and whether memory stays as it grows.

    python -m benchmarks.recipes --megabytes 20 --json recipes.json
    python -m benchmarks.recipes --text 'corpus/*.jsonl' --megabytes 200 --workers 2

The text is made of sentences of ``--text``, or of English words, put together anew: twenty to a
document, one document in ten a near duplicate of an earlier one. It is built at a tenth of the size
and at the whole, by the same number of shards, each time in processes of its own.

Clustering near duplicates holds every pair at once. ``--pairs N`` measures that step alone, on so
many pairs of documents and on four times as many; three documents are a cluster.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ptm_plus.sources import parse_source, read_text

SHARDS = 4

RECIPE = """
name = "measured"
title = "Measured"
languages = ["en"]
[[sources]]
name = "made"
files = ["*.jsonl"]
licence = "none"
provenance = "made for a measurement"
[[steps]]
kind = "normalise"
[[steps]]
kind = "language"
[[steps]]
kind = "gopher-quality"
[[steps]]
kind = "gopher-repetition"
[[steps]]
kind = "mask"
[[steps]]
kind = "exact-duplicates"
[[steps]]
kind = "near-duplicates"
[[steps]]
kind = "repeated-lines"
[[steps]]
kind = "decontaminate"
against = ["evaluation/*.jsonl"]
"""

WORDS = (
    "the of and to in that was with for his they from had were which one all would there their "
    "been has when who will more out some them only time could people these two may then first "
    "water long little very after words called where most know work river house year light paper"
)


def sentences(patterns: list[str]) -> list[str]:
    """Return sentences to make documents of."""
    if patterns:
        texts = (row for name in patterns for row in read_text(parse_source(name)))
        parts = (one for row in texts if hasattr(row, "fields") for one in _cut(row))
        return [part for part, _ in zip(parts, range(100_000), strict=False)]
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS.split(), k=16)).capitalize() + "." for _ in range(20_000)]


def _cut(row: Any) -> Iterator[str]:
    for text in row.fields.values():
        yield from (f"{one.strip()}." for one in text.split(". ") if len(one) > 40)


def write_corpus(folder: Path, known: list[str], size: int) -> None:
    """Write some bytes of documents as shards."""
    draw = random.Random(1)
    streams = [(folder / f"{n}.jsonl").open("w", encoding="utf-8") for n in range(SHARDS)]
    written = number = 0
    before = [known[0]]
    while written < size:
        parts = [draw.choice(known) for _ in range(20)]
        if draw.random() < 0.1:
            parts = [*before[:19], parts[0]]
        before = parts
        line = json.dumps({"id": str(number), "text": "\n".join(parts)}, ensure_ascii=False)
        written += streams[number % SHARDS].write(line + "\n")
        number += 1
    for stream in streams:
        stream.close()
    (folder / "evaluation").mkdir()
    rows = "".join(
        json.dumps({"text": " ".join(draw.choices(known, k=3))}) + "\n" for _ in range(9)
    )
    (folder / "evaluation" / "task.jsonl").write_text(rows, encoding="utf-8")
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")


def measure(known: list[str], size: int, workers: int) -> dict[str, Any]:
    """Build a corpus of a size; return what the account says of cost."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder, known, size)
        command = [sys.executable, "-m", "ptm_plus", "recipe", "build", str(folder / "recipe.toml")]
        command += ["-o", str(folder / "corpus"), "--json", "-q", "--workers", str(workers)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    account = json.loads(done.stdout)
    return {
        "bytes": size,
        "documents": account["documents"],
        "tokens": account["tokens"],
        "duplicates": account["duplicates"],
        **account["cost"],
        "share_of_time": {one["kind"]: one["share_of_time"] for one in account["steps"]},
    }


def cluster(folder: Path) -> None:
    """Cluster the pairs of a folder in this process, and print seconds and the memory it took."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupCluster

    from ptm_plus.peak_memory import peak_resident
    from ptm_plus.recipes.execution import quieten

    quieten()
    config = MinhashConfig(num_buckets=1)
    step = MinhashDedupCluster(
        str(folder / "pairs"), str(folder / "found"), config=config, lines_to_buffer=1000
    )
    before, began = peak_resident(), time.process_time()
    step.run()
    print(json.dumps([time.process_time() - began, peak_resident() - before]))


def measure_clusters(pairs: int) -> dict[str, Any]:
    """Cluster so many pairs in a process of its own; return what a pair took."""
    draw = random.Random(0)
    order = list(range(pairs))
    draw.shuffle(order)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pairs").mkdir()
        with (folder / "pairs" / "00000_00.dups").open("wb") as file:
            for first in range(0, pairs, 2):  # chains of three documents: a – b – c
                a, b = order[first], order[min(first + 1, pairs - 1)]
                c = pairs + first
                file.write(struct.pack("<8I", 0, a, 0, b, 0, b, 0, c))
        code = "import sys, pathlib; from benchmarks.recipes import cluster; "
        code += "cluster(pathlib.Path(sys.argv[1]))"
        command = [sys.executable, "-c", code, name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, held = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "pairs": pairs,
        "microseconds_per_pair": round(1e6 * seconds / pairs, 2),
        "bytes_per_pair": round(held / pairs, 1),
    }


def main() -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--text", action="append", default=[])
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=500_000, help="of the step that clusters")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    known = sentences(given.text)
    size = int(given.megabytes * 1e6)
    figures = {
        "machine": platform.machine(),
        "workers": given.workers,
        "clustering": [measure_clusters(count) for count in (given.pairs, 4 * given.pairs)],
        "builds": [measure(known, part, given.workers) for part in (size // 10, size)],
    }
    text = json.dumps(figures, indent=1)
    print(text)
    if given.json:
        given.json.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()

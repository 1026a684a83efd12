"""Made-up documents with planted duplicates, for tests of recipes."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tomli_w

SUBJECTS = ("The court", "A nurse", "The committee", "Our team", "The inspector", "Every tenant")
VERBS = ("reviewed", "postponed", "described", "approved", "measured", "rejected", "published")
THINGS = (
    "the second report",
    "a longer trial",
    "the winter budget",
    "an older statute",
    "the first sample",
    "a new contract",
    "the annual survey",
    "the missing record",
)
ENDS = (
    "before the meeting in spring",
    "because the figures had changed",
    "although nobody had asked for it",
    "after a delay of several weeks",
    "without a word to the neighbours",
    "with great care and patience",
    "in the old building near the river",
)


def sentence(draw: random.Random) -> str:
    """Return a sentence of some fifteen words."""
    parts = [draw.choice(words) for words in (SUBJECTS, VERBS, THINGS, ENDS)]
    number = draw.randrange(10_000)
    return f"{' '.join(parts)}, as file {number} of {_word(draw)} and {_word(draw)} shows."


def text(draw: random.Random, sentences: int = 12) -> str:
    """Return a text in two paragraphs."""
    made = [sentence(draw) for _ in range(sentences)]
    half = sentences // 2
    return " ".join(made[:half]) + "\n" + " ".join(made[half:])


def near(draw: random.Random, original: str) -> str:
    """Return a text of which every sixtieth word is another: 11 of 13 shingles in common.

    MinHash with 14 bands of 8 finds such a pair with a probability of 0.98.
    """
    words = original.split(" ")
    for at in range(draw.randrange(60), len(words), 60):
        words[at] = _word(draw)
    return " ".join(words)


def alike(draw: random.Random, original: str) -> str:
    """Return a text that looks like another and says something else: a form filled in anew."""
    return " ".join(_word(draw) if draw.random() < 0.3 else word for word in original.split(" "))


def _word(draw: random.Random) -> str:
    return "".join(draw.choice("bdklmnprst") + draw.choice("aeiou") for _ in range(3))


def rows(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield unlike documents."""
    draw = random.Random(seed)
    for number in range(count):
        yield {"id": f"d{number}", "text": text(draw), "year": 1990 + number % 30}


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write JSON lines, compressed where the name says so."""
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def read_rows(corpus: Path) -> list[dict[str, Any]]:
    """Return the rows of a built corpus."""
    return [json.loads(line) for line in decompressed(corpus).splitlines()]


def decompressed(corpus: Path) -> bytes:
    """Return all shards of a built corpus, decompressed, in order."""
    return b"".join(
        gzip.decompress(path.read_bytes()) for path in sorted((corpus / "data").glob("*.jsonl.gz"))
    )


def write_recipe(folder: Path, *steps: dict[str, Any], **source: Any) -> Path:
    """Write a recipe over ``*.jsonl`` files beside it."""
    given = {"name": "planted", "files": ["*.jsonl"], "licence": "CC0 1.0", "provenance": "made up"}
    recipe = {
        "name": "planted",
        "title": "Planted cases",
        "languages": ["en"],
        "sources": [given | source],
        "steps": list(steps),
    }
    path = folder / "recipe.toml"
    path.write_text(tomli_w.dumps(recipe), encoding="utf-8")
    return path

"""The data of the benchmark on a real domain, split by article.

An article belongs to training or to the questions as a whole: its text, and the sentences of its
abstract with their sections. General text is split by document.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ptm_plus.files import open_lines

DOMAIN = "domain/biomed_en.jsonl.xz"
GENERAL = "text/en.simplewiki.jsonl.xz"
TASK = "tasks/pmc_sections.train.jsonl.gz"

ASKED = 0.25
"""Share of the articles that belong to the questions."""

GENERAL_BYTES, GENERAL_ASKED = 14_000_000, 0.03
"""General text that is taken, and the share of its documents that is asked about."""

TASK_SENTENCES = {"train": 3_000, "test": 2_000}
"""Most sentences of the task, which say what they cost to learn and to ask."""


def is_asked(name: str, share: float) -> bool:
    """Return whether a document belongs to the questions, by its name alone."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def article(row: Mapping[str, Any]) -> str:
    """Return the article that a row is of: several rows may be parts of one."""
    return str(row["id"]).partition(":")[0]


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of JSON lines."""
    for _, line in open_lines(str(path)):
        yield json.loads(line)


def document(row: Mapping[str, Any]) -> str:
    """Return the name of a row that is a document of its own."""
    return str(row["id"])


def split(
    rows: Iterable[Mapping[str, Any]],
    whole: Callable[[Mapping[str, Any]], str],
    share: float,
    most: int = 0,
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return texts to train on, and texts to ask about.

    Args:
        rows: documents.
        whole: names what is asked about as a whole or not at all.
        share: of what is asked about.
        most: bytes that are taken in all; 0 for all of them.
    """
    sides: tuple[list[dict[str, str]], list[dict[str, str]]] = ([], [])
    taken = 0
    for row in rows:
        taken += len(row["text"].encode())
        if most and taken > most:
            break
        made = {"id": str(row["id"]), "text": row["text"], "lang": "en"}
        sides[is_asked(whole(row), share)].append(made)
    return sides


def sections(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """Return the sentences of abstracts with their sections, by side, as many as are taken."""
    sides: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    for row in rows:
        side = "test" if is_asked(article(row), ASKED) else "train"
        for text, label in zip(row["sentences"], row["labels"], strict=True):
            if len(sides[side]) < TASK_SENTENCES[side]:
                sides[side].append({"text": text, "label": label})
    return sides


def write_inputs(data: Path, folder: Path) -> dict[str, Any]:
    """Write texts and questions; return what was counted.

    Args:
        data: the folder of the data.
        folder: gets ``raw/domain.jsonl``, ``general.jsonl``, ``asked.domain.jsonl``,
            ``asked.general.jsonl``, ``task.train.jsonl`` and ``task.test.jsonl``.
    """
    trained, asked = split(read_rows(data / DOMAIN), article, ASKED)
    general, asked_general = split(
        read_rows(data / GENERAL), document, GENERAL_ASKED, GENERAL_BYTES
    )
    task = sections(read_rows(data / TASK))
    files = {
        "raw/domain": trained,
        "asked.domain": asked,
        "general": general,
        "asked.general": asked_general,
        **{f"task.{side}": rows for side, rows in task.items()},
    }
    for name, rows in files.items():
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return {name: len(rows) for name, rows in files.items()}

"""The documentation as its tests see it: blocks that are files, and commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = (
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    *sorted(DOCS.glob("*.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
)

_BLOCK = re.compile(r"^<!-- (file|read): (.+?) -->\n```\w+\n(.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    """A marked block of code."""

    page: str
    mark: str
    words: tuple[str, ...]
    content: str


def blocks(page: Path, mark: str) -> list[Block]:
    """Return the blocks behind ``<!-- file: NAME -->`` or ``<!-- read: READER SOURCE -->``."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [
        Block(page.name, kind, tuple(words.split()), text)
        for kind, words, text in found
        if kind == mark
    ]


def file_of(page: str, name: str) -> str:
    """Return the content of one block that is a file."""
    (block,) = [one for one in blocks(DOCS / page, "file") if one.words == (name,)]
    return block.content


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words after ``ptm-plus`` of every command that a page prints in a block."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith("    ") or "ptm-plus " not in line:
            continue
        for part in line.split("&&"):
            # Three spaces or more set an explanation off.
            said = re.split(r"\s{3,}", part.strip())[0]
            if said.startswith("ptm-plus "):
                yield shlex.split(said)[1:]

"""WikiExtractor's output: pages between <doc> and </doc>, or as JSON lines; links become mentions.

WikiExtractor run with ``--links`` leaves ``<a href="Title">words</a>``. The words stay, and where a
table of titles and Wikidata ids is given, they are marked as a mention of that entity.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ptm_plus.errors import DataError
from ptm_plus.files import open_lines
from ptm_plus.json_rows import json_row

LONGEST_PAGE = 10_000_000
"""Characters beyond which a page's end mark must have been lost."""

_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
_LINK = re.compile(r'<a href="([^"]*)">(.*?)</a>', re.DOTALL)
_OTHER_TAG = re.compile(r"</?(?:a|b|i|br|ref|nowiki|templatestyles)\b[^<>]*>")
_QID = re.compile(r"Q[1-9][0-9]*")


@dataclass
class Page:
    """A page: its id and title, its text, the links that lead to a known entity, and the rest."""

    id: str
    title: str
    text: str
    mentions: list[dict[str, Any]] = field(default_factory=list)
    rest: dict[str, Any] = field(default_factory=dict)


def read_qids(path: Path) -> dict[str, str]:
    """Read a table of page titles and Wikidata ids, tab-separated, without a header.

    Raises:
        DataError: it cannot be read, or a line is not such a pair.
    """
    qids = {}
    for number, line in open_lines(path):
        title, tab, qid = line.partition("\t")
        if not tab or not _QID.fullmatch(qid.strip()):
            raise DataError(
                f"no title and Wikidata id: {line[:60]!r}",
                "a line is like: Berlin<tab>Q64",
                path=path,
                line=number,
            )
        qids[title_key(title)] = qid.strip()
    return qids


def title_key(title: str) -> str:
    """Return a title as MediaWiki compares it: blanks for underscores, first letter upper case."""
    plain = unquote(title).partition("#")[0].replace("_", " ").strip()
    return plain[:1].upper() + plain[1:]


def wiki_pages(path: str, qids: Mapping[str, str]) -> Iterator[Page]:
    """Yield the pages of a file of WikiExtractor, in either of its formats.

    Raises:
        DataError: it cannot be read, or is neither.
    """
    page: dict[str, str] | None = None
    lines: list[str] = []
    size = start = 0
    found = False
    for number, line in open_lines(path):
        if page is None:
            if line.startswith("<doc "):
                page, lines, size, start = dict(_ATTRIBUTE.findall(line)), [], 0, number
            elif line.startswith("{"):
                found = True
                row = json_row(line, path, number)
                yield _page(row, str(row.get("text", "")), qids)
            elif line.strip():
                raise DataError(
                    "neither <doc …> nor a JSON object",
                    "format = 'wiki' reads what WikiExtractor writes",
                    path=path,
                    line=number,
                )
        elif line.strip() == "</doc>":
            found = True
            yield _page(page, "\n".join(lines), qids)
            page = None
        else:
            lines.append(line)
            size += len(line)
            if size > LONGEST_PAGE:
                break
    if page is not None:
        raise DataError(
            "a page without </doc>", "the file is cut short; extract again", path=path, line=start
        )
    if not found:
        raise DataError("holds no page", "an empty file is usually a mistake", path=path)


def _page(row: Mapping[str, Any], body: str, qids: Mapping[str, str]) -> Page:
    title = html.unescape(str(row.get("title", "")))
    lines = body.split("\n")
    if lines and lines[0].strip() == title:  # WikiExtractor repeats the title as the first line
        lines = lines[1:]
    text, mentions = linked("\n".join(lines).strip(), qids)
    rest = {key: row[key] for key in ("url", "revid") if key in row}
    return Page(str(row.get("id", title)), title, text, mentions, rest)


def linked(text: str, qids: Mapping[str, str]) -> tuple[str, list[dict[str, Any]]]:
    """Return a text without tags, and where its links were that lead to an entity.

    Args:
        text: with ``<a href="Title">words</a>``, escaped as HTML where WikiExtractor did so.
        qids: Wikidata ids by title, as ``title_key`` writes it.
    """
    if "&lt;a href" in text:
        text = html.unescape(text)
    parts: list[str] = []
    mentions: list[dict[str, Any]] = []
    done = length = 0
    for match in _LINK.finditer(text):
        before = _OTHER_TAG.sub("", text[done : match.start()])
        words = _OTHER_TAG.sub("", match[2])
        parts += [before, words]
        start = length + len(before)
        length = start + len(words)
        done = match.end()
        qid = qids.get(title_key(html.unescape(match[1])))
        if qid and words.strip():
            mentions.append({"start": start, "end": length, "qid": qid})
    parts.append(_OTHER_TAG.sub("", text[done:]))
    return "".join(parts), mentions

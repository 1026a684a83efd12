"""From the files of a source to documents: tables, plain text, PubMed, JATS, WikiExtractor."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptm_plus.errors import DataError, listed, nearest, shown
from ptm_plus.files import open_lines
from ptm_plus.knowledge.labels import standard_language
from ptm_plus.recipes.articles import jats_articles, pubmed_articles
from ptm_plus.recipes.recipe import Source
from ptm_plus.recipes.wiki import read_qids, wiki_pages
from ptm_plus.sources import column_rows
from ptm_plus.sources.spec import SourceSpec


@dataclass
class RawDocument:
    """A text as its source has it.

    Attributes:
        id: the source's own identifier, or file and line.
        text: the text; paragraphs end with a line break.
        language: BCP-47 code; empty where nothing says it.
        metadata: further columns that the recipe keeps.
        mentions: entities in it: start and end in characters, and a Wikidata id.
    """

    id: str
    text: str
    language: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    mentions: list[dict[str, Any]] = field(default_factory=list)


def read_documents(source: Source, path: str, data: Path) -> Iterator[RawDocument]:
    """Yield the documents of one file, or of a hub data set.

    Args:
        source: says how the file is read.
        path: the file, or ``hub:NAME``.
        data: folder of the recipe's files, for ``qids``.

    Raises:
        DataError: the file cannot be read, is not what ``format`` says, or lacks a column.
    """
    if source.format == "pubmed":
        documents = _articles(pubmed_articles, path)
    elif source.format == "jats":
        documents = _articles(jats_articles, path)
    elif source.format == "wiki":
        qids = read_qids(data / source.qids) if source.qids else {}
        documents = (
            RawDocument(page.id, page.text, "", {"title": page.title, **page.rest}, page.mentions)
            for page in wiki_pages(path, qids)
        )
    elif source.format == "lines":
        documents = (
            RawDocument(f"{Path(path).name}:{number}", line)
            for number, line in open_lines(path)
            if line.strip()
        )
    else:
        documents = _table(source, path)
    kept = set(source.metadata) | ({"title"} if source.format == "wiki" else set())
    for document in documents:
        document.language = document.language or source.language
        document.metadata = {k: v for k, v in document.metadata.items() if k in kept}
        yield document


def _articles(
    read: Callable[[str], Iterator[Mapping[str, Any]]], path: str
) -> Iterator[RawDocument]:
    for article in read(path):
        rest = {key: value for key, value in article.items() if key not in ("id", "text", "lang")}
        yield RawDocument(article["id"], article["text"], article.get("lang", ""), rest)


def _table(source: Source, path: str) -> Iterator[RawDocument]:
    columns = source.text if source.format != "text" else ()
    spec = SourceSpec(path, "", (path,))
    if path.startswith("hub:"):
        from ptm_plus.sources import parse_source

        spec = parse_source(path)
    name = Path(path).name
    for _, line, row in column_rows(spec, columns):
        if row is None:
            continue
        text = "\n".join(filter(None, (_text(row, one, path, line) for one in source.text)))
        given = row.get(source.id)
        identifier = f"{name}:{line}" if given is None or given == "" else str(given)
        yield RawDocument(
            identifier, text, _language(row, path, line), dict(row), _mentions(row, text)
        )


def _text(row: Mapping[str, Any], column: str, path: str, line: int) -> str:
    if column not in row:
        raise DataError(
            f"no {column!r} among {listed(sorted(map(str, row)))}{nearest(column, map(str, row))}",
            "name the source's columns in the recipe: text = ['…']",
            path=path,
            line=line,
        )
    value = row[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"{column!r} is {shown(value)}, not a text",
            "name another column in the recipe, or put it in quotes",
            path=path,
            line=line,
        )
    return value


def _language(row: Mapping[str, Any], path: str, line: int) -> str:
    tag = row.get("lang", "")
    if not tag:
        return ""
    try:
        return standard_language(str(tag))
    except DataError as error:
        raise DataError(error.message, error.hint, path=path, line=line) from error


def _mentions(row: Mapping[str, Any], text: str) -> list[dict[str, Any]]:
    """Return the mentions that a row brings, those that lie in the text."""
    found = row.get("mentions")
    if not isinstance(found, list):
        return []
    return [
        json.loads(json.dumps(one))
        for one in found
        if isinstance(one, dict)
        and isinstance(one.get("start"), int)
        and isinstance(one.get("end"), int)
        and 0 <= one["start"] < one["end"] <= len(text)
    ]

"""Scientific articles in XML: PubMed's citations and JATS full text, read element by element."""

from __future__ import annotations

import lzma
import re
import zlib
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, ParseError, iterparse

from ptm_plus.errors import DataError
from ptm_plus.files import open_bytes

_SPACE = re.compile(r"\s+")

_LANGUAGES = {"eng": "en", "ger": "de", "fre": "fr", "spa": "es", "chi": "zh", "rus": "ru"}
"""PubMed has the bibliographic codes of ISO 639-2; other languages keep their code."""


def pubmed_articles(path: str) -> Iterator[dict[str, Any]]:
    """Yield the articles of a PubMed file: title and abstract, its sections with their labels.

    Articles without an abstract are left out. Memory stays that of one article.

    Raises:
        DataError: the file cannot be read or is not such XML.
    """
    for article in _elements(path, "PubmedArticle"):
        sections = [
            (one.get("Label", ""), _words(one))
            for one in article.findall(".//Article/Abstract/AbstractText")
        ]
        body = [f"{label.capitalize()}: {text}" if label else text for label, text in sections]
        if not any(text for _, text in sections):
            continue
        language = article.findtext(".//Article/Language", "").strip()
        yield {
            "id": article.findtext("./MedlineCitation/PMID", "").strip(),
            # The abstracts are in English, whatever the article is in.
            "lang": "en",
            "article_language": _LANGUAGES.get(language, language),
            "text": "\n".join([_words(article.find(".//ArticleTitle")), *body]).strip(),
            "year": article.findtext(".//JournalIssue/PubDate/Year", "").strip(),
            "journal": article.findtext(".//Journal/Title", "").strip(),
            "mesh": [_words(one) for one in article.findall(".//MeshHeading/DescriptorName")],
        }


def jats_articles(path: str) -> Iterator[dict[str, Any]]:
    """Yield the articles of a JATS file: title, abstract, and the paragraphs of the body.

    Tables, figures, formulas and references are left out.

    Raises:
        DataError: the file cannot be read or is not such XML.
    """
    for article in _elements(path, "article"):
        front = article.find("./front/article-meta")
        if front is None:
            front = Element("article-meta")
        names = {one.get("pub-id-type"): _words(one) for one in front.findall("./article-id")}
        paragraphs = [_words(front.find("./title-group/article-title"))]
        for part in (front.find("./abstract"), article.find("./body")):
            if part is not None:
                paragraphs += [_words(one) for one in part.iter("p")]
        licence = front.find("./permissions/license")
        yield {
            "id": next((names[k] for k in ("pmcid", "pmc", "pmid", "doi") if names.get(k)), path),
            "text": "\n".join(filter(None, paragraphs)),
            "lang": article.get("{http://www.w3.org/XML/1998/namespace}lang", ""),
            "journal": article.findtext("./front/journal-meta//journal-title", "").strip(),
            "year": front.findtext("./pub-date/year", "").strip(),
            "licence": "" if licence is None else _words(licence)[:200],
        }


def _elements(path: str, name: str) -> Iterator[Element]:
    found = False
    try:
        with open_bytes(path) as stream:
            events = iterparse(stream, events=("start", "end"))
            _, root = next(events)
            for event, element in events:
                if event == "end" and element.tag == name:
                    found = True
                    yield element
                    if element is not root:
                        root.clear()  # what was read is not kept
    except StopIteration:
        pass
    except ParseError as error:
        raise DataError(
            f"broken XML: {error}", "copy the file again; it may be cut short", path=path
        ) from error
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise DataError(
            f"cannot be read: {error}",
            "the file is cut short or is not what its suffix says; copy it again",
            path=path,
        ) from error
    if not found:
        raise DataError(f"has no element <{name}>", "check the source's format", path=path)


_LEFT_OUT = {"table-wrap", "fig", "disp-formula", "xref", "fn", "ref-list", "tex-math"}


def _words(element: Element | None) -> str:
    """Return the text inside an element on one line, without what is no running text."""
    if element is None:
        return ""
    parts: list[str] = []

    def collect(one: Element) -> None:
        parts.append(one.text or "")
        for child in one:
            if child.tag not in _LEFT_OUT:
                collect(child)
            parts.append(child.tail or "")

    collect(element)
    return _SPACE.sub(" ", "".join(parts)).strip()

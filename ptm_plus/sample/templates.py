"""Patterns of sentences, and how names go into them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from ptm_plus.examples import Span

_HOLE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Mention:
    """A name that goes into a pattern.

    Attributes:
        id: label of the entity.
        name: what it is called in the pattern's language.
    """

    id: str
    name: str


@cache
def _file() -> dict[str, dict[str, str | dict[str, str]]]:
    return tomllib.loads(
        resources.files("ptm_plus.sample").joinpath("templates.toml").read_text("utf-8")
    )


def _line(language: str, name: str) -> str:
    found = _file()[language][name]
    if not isinstance(found, str):
        raise TypeError(f"templates.toml: {language}.{name} is a table, not a line")
    return found


def _relation(language: str, relation: str) -> Mapping[str, str]:
    found = _file()[language][relation]
    if isinstance(found, str):
        raise TypeError(f"templates.toml: {language}.{relation} is a line, not a table")
    return found


def statements(language: str, relation: str) -> tuple[str, ...]:
    """Return the patterns that state one fact; pattern k means the same in every language."""
    table = _relation(language, relation)
    return card(language, relation), table["dash"], table["first"]


def card(language: str, *relations: str) -> str:
    """Return a card's pattern: the subject ``{s}``, then a line per relation.

    The first relation's object is ``{o}``, the second's ``{o2}``, the third's ``{o3}``.
    """
    lines = [_line(language, "header")]
    for number, relation in enumerate(relations, start=1):
        hole = "{o}" if number == 1 else f"{{o{number}}}"
        lines.append(_relation(language, relation)["fact"].replace("{o}", hole))
    return _line(language, "joiner").join(lines)


def namings(language: str, code: str) -> tuple[str, ...]:
    """Return the patterns that name a subject ``{s}`` by its code and state nothing else."""
    parts = _line(language, "header"), _line(language, "code")
    both = _line(language, "joiner").join(parts), _line(language, "named")
    return tuple(pattern.replace("{code}", code) for pattern in both)


def fill(
    pattern: str, mentions: Mapping[str, Mention], field: str = "text"
) -> tuple[str, list[Span]]:
    """Put names into a pattern.

    Args:
        pattern: text with holes such as ``{s}``; every hole has a mention.
        mentions: what goes into the holes, by the hole's name.
        field: the field that the text will be, for the spans.

    Returns:
        The text, and one ``"entity"`` span per hole, from left to right.
    """
    text, spans, end = "", [], 0
    for hole in _HOLE.finditer(pattern):
        mention = mentions[hole[1]]
        text += pattern[end : hole.start()]
        spans.append(Span(field, len(text), len(text) + len(mention.name), "entity", mention.id))
        text += mention.name
        end = hole.end()
    return text + pattern[end:], spans

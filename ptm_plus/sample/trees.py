"""Sentences of the sample world with the head of every word, in the languages of ``trees.toml``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from itertools import pairwise

from ptm_plus.examples import Example
from ptm_plus.sample.facts import Fact
from ptm_plus.sample.templates import statements

PATTERNS = ("dash", "first")
"""The patterns with heads: those numbered 1 and 2, which are one sentence each."""

_WORD = re.compile(r"\{\w+\}|\w+[’']|\w+|[^\w\s]")


@cache
def _heads() -> dict[str, dict[str, dict[str, list[int]]]]:
    return tomllib.loads(
        resources.files("ptm_plus.sample").joinpath("trees.toml").read_text("utf-8")
    )


def parsed(fact: Fact, example: Example) -> tuple[list[str], list[int]] | None:
    """Return the words of a sentence that states a fact, and the head of each; from 1, 0 the root.

    The words of a name hang on its first one.

    Args:
        fact: the fact.
        example: its sentence, named ``…/PATTERN``.

    Returns:
        ``None`` for a pattern or a language without heads.
    """
    language, number = example.languages["text"], int(example.id.rpartition("/")[2])
    if language not in _heads() or not 0 < number <= len(PATTERNS):
        return None
    pattern = statements(language, fact.relation)[number]
    slots = _heads()[language][fact.relation][PATTERNS[number - 1]]
    text = example.fields["text"]
    names = {span.id: text[span.start : span.end] for span in example.spans}
    filled = {"{s}": names[fact.subject], "{o}": names[fact.object]}
    parts = [_WORD.findall(filled.get(word, word)) for word in _WORD.findall(pattern)]
    first = [0, 1]
    for part in parts:
        first.append(first[-1] + len(part))
    heads = []
    for place, (part, slot) in enumerate(zip(parts, slots, strict=True), start=1):
        heads += [first[slot], *[first[place]] * (len(part) - 1)]
    return [word for part in parts for word in part], heads


def conllu_lines(fact: Fact, example: Example) -> Iterator[str]:
    """Yield the lines of a sentence in CoNLL-U; none where it has no heads."""
    found = parsed(fact, example)
    if found is None:
        return
    words, heads = found
    text, at, places = example.fields["text"], 0, []
    for word in words:
        start = text.index(word, at)
        at = start + len(word)
        places.append((start, at))
    glued = [end == start for (_, end), (start, _) in pairwise(places)]
    yield f"# sent_id = {example.id}"
    yield f"# lang = {example.languages['text']}"
    yield f"# text = {text}"
    for number, (word, head) in enumerate(zip(words, heads, strict=True), start=1):
        space = "SpaceAfter=No" if number == len(words) or glued[number - 1] else "_"
        relation = "dep" if head else "root"
        yield "\t".join((str(number), word, *"____", str(head), relation, "_", space))
    yield ""

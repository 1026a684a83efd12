"""Evaluation sets of masked mentions: which entity belongs here?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ptm_plus.components import Refused
from ptm_plus.errors import DataError, shown
from ptm_plus.examples import Example
from ptm_plus.files import open_lines, plain_suffix
from ptm_plus.json_rows import json_row
from ptm_plus.sources import SourceSpec
from ptm_plus.sources.readers import BLANK_LINE, text_example

_HINT = 'write {"text", "lang", "mentions": [{"start", "end", "id"}], "target"}'


def read_questions(spec: SourceSpec) -> Iterator[Example | Refused]:
    """Yield linked sentences with one mention to be masked, or one refusal, per row.

    A row is ``{"text", "lang", "mentions": [{"start", "end", "id"}], "target", "group"}``: the
    index of the masked mention, and the share that it is counted in.

    Raises:
        DataError: a file is no ``.jsonl``, empty, or a row is not of this form.
    """
    if spec.hub is not None:
        raise DataError("questions are read from files", "name a .jsonl file", path=spec.argument)
    for path in spec.files:
        if plain_suffix(path) != ".jsonl":
            raise DataError("questions are .jsonl", _HINT, path=path)
        empty = True
        for line, text in open_lines(path):
            empty = False
            yield _question(text, path, line) if text.strip() else Refused(BLANK_LINE, path, line)
        if empty:
            raise DataError("holds no questions", _HINT, path=path)


def _question(line: str, path: str, number: int) -> Example | Refused:
    row = json_row(line, path, number)
    sentence = {name: row.get(name) for name in ("text", "lang", "mentions")}
    example = text_example(sentence, "und", path, number)
    if isinstance(example, Refused):
        return example
    problem = _problem(row, len(example.spans))
    if problem:
        raise DataError(f"not a question: {problem}", _HINT, path=path, line=number)
    order = sorted(range(len(example.spans)), key=lambda index: example.spans[index].start)
    return replace(
        example,
        spans=[example.spans[index] for index in order],
        labels={"target": order.index(row["target"]), "group": row.get("group", "all")},
    )


def _problem(row: Mapping[str, Any], identified: int) -> str:
    """Say what keeps a linked sentence from being a question; empty if nothing does."""
    mentions, target, group = row.get("mentions") or (), row.get("target"), row.get("group", "all")
    if identified < len(mentions):
        return "a mention has no id"
    if type(target) is not int or not 0 <= target < len(mentions):
        return f"'target' is {shown(target)}, not the index of one of {len(mentions)} mentions"
    return "" if isinstance(group, str) else f"'group' is {shown(group)}, not a text"

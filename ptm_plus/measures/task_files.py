"""Labelled sentences of a task: what is read, and which characters of it are asked about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ptm_plus.errors import DataError, SettingsError, nearest, shown
from ptm_plus.files import open_lines
from ptm_plus.json_rows import json_row

Kind = Literal["text", "tokens", "relation", "typing", "heads"]
Range = tuple[int, int]
"""First character and the one behind the last."""


@dataclass(frozen=True)
class Question:
    """A sentence and what is asked about it.

    Attributes:
        text: the sentence.
        items: what is asked about, each by the character ranges whose states are read: one, or
            head and tail of a relation.
        answers: per item, its labels: one, or any number of types.
    """

    text: str
    items: tuple[tuple[Range, ...], ...]
    answers: tuple[tuple[str, ...], ...]


def read_questions(kind: Kind, path: str) -> list[Question]:
    """Return the questions of a file of JSON lines.

    Raises:
        DataError: a row is not what the kind of task needs, or there is none.
    """
    found = []
    for number, line in open_lines(path):
        if line.strip():
            row = json_row(line, path, number)
            try:
                found.append(_READERS[kind](row))
            except _WrongError as error:
                raise DataError(str(error), _HINTS[kind], path=path, line=number) from error
    if not found:
        raise DataError("holds no questions", _HINTS[kind], path=path)
    return found


def parse_task(argument: str) -> tuple[Kind, str, str]:
    """Return kind, training file and test file of ``KIND=TRAIN,TEST``.

    Raises:
        SettingsError: it is not of that form, or the kind is unknown.
    """
    kind, equals, files = argument.partition("=")
    names = files.split(",")
    if not equals or len(names) != 2 or not all(names):
        raise SettingsError(
            f"--task {argument}: not KIND=TRAIN,TEST",
            "such as text=train.jsonl,test.jsonl; docs/evaluating.md has the kinds",
        )
    for known in KINDS:
        if kind == known:
            return known, names[0], names[1]
    raise SettingsError(f"--task {kind}=…: unknown kind{nearest(kind, KINDS)}", " or ".join(KINDS))


# ---------------------------------------------------------------------------------------------
# Rows


class _WrongError(Exception):
    """What is wrong with a row."""


def _text(row: dict[str, Any]) -> Question:
    text = _string(row, "text")
    return Question(text, (((0, len(text)),),), ((_string(row, "label"),),))


def _tokens(row: dict[str, Any]) -> Question:
    tokens, tags = _strings(row, "tokens"), _strings(row, "tags")
    if len(tokens) != len(tags):
        raise _WrongError(f"{len(tokens)} tokens and {len(tags)} tags")
    text, ranges = _placed(tokens, row.get("text"))
    return Question(text, tuple((one,) for one in ranges), tuple((tag,) for tag in tags))


def _relation(row: dict[str, Any]) -> Question:
    text = _string(row, "text")
    if "mentions" in row:
        mentions = row["mentions"]
        if not isinstance(mentions, list) or len(mentions) != 2:
            raise _WrongError(f"mentions is {shown(mentions)}, not two of them")
    else:
        mentions = [row.get("head"), row.get("tail")]
    ranges = tuple(_range(one, text) for one in mentions)
    return Question(text, (ranges,), ((_string(row, "relation"),),))


def _typing(row: dict[str, Any]) -> Question:
    text = _string(row, "text")
    return Question(text, ((_range(row, text),),), (tuple(_strings(row, "types")),))


def _heads(row: dict[str, Any]) -> Question:
    tokens, heads = _strings(row, "tokens"), row.get("heads")
    if not isinstance(heads, list) or len(heads) != len(tokens):
        raise _WrongError(f"heads is {shown(heads)}, not a number for each of {len(tokens)} tokens")
    for head in heads:
        if type(head) is not int or not 0 <= head <= len(tokens):
            raise _WrongError(f"the head {shown(head)} is neither 0 nor a token from 1")
    text, ranges = _placed(tokens, row.get("text"))
    return Question(text, tuple((one,) for one in ranges), tuple((str(head),) for head in heads))


_READERS: dict[Kind, Callable[[dict[str, Any]], Question]] = {
    "text": _text,
    "tokens": _tokens,
    "relation": _relation,
    "typing": _typing,
    "heads": _heads,
}
KINDS = tuple(_READERS)
_HINTS: dict[Kind, str] = {
    "text": 'write {"text": "…", "label": "…"}',
    "tokens": 'write {"tokens": ["…"], "tags": ["…"]}, one tag a token',
    "relation": 'write {"text": "…", "head": {"start": 0, "end": 3}, "tail": {…}, "relation": "…"}',
    "typing": 'write {"text": "…", "start": 0, "end": 3, "types": ["…"]}',
    "heads": 'write {"tokens": ["…"], "heads": [2, 0, …]}: each token\'s head, 0 the root',
}


def _placed(tokens: Sequence[str], given: object) -> tuple[str, list[Range]]:
    """Return tokens' places in the given text, or joined by spaces where it does not hold them."""
    text = given if isinstance(given, str) else ""
    ranges, at = [], 0
    for token in tokens:
        at = text.find(token, at)
        if at < 0:
            return _placed(tokens, " ".join(tokens))
        ranges.append((at, at + len(token)))
        at += len(token)
    return text, ranges


def _string(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise _WrongError(f"{key} is {shown(value)}, not a text")
    return value


def _strings(row: dict[str, Any], key: str) -> list[str]:
    value = row.get(key)
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise _WrongError(f"{key} is {shown(value)}, not a list of texts")
    return value


def _range(mention: object, text: str) -> Range:
    if not isinstance(mention, dict):
        raise _WrongError(f"a mention is {shown(mention)}")
    start, end = mention.get("start"), mention.get("end")
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
        raise _WrongError(
            f"start {shown(start)} and end {shown(end)} are no range of {len(text)} characters"
        )
    return start, end

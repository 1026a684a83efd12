"""Evaluation sets of masked mentions: which entity belongs here?"""

from __future__ import annotations

import json
from collections.abc import Iterator

from ptm_plus.components import Refused
from ptm_plus.errors import DataError
from ptm_plus.examples import Example, Span
from ptm_plus.files import open_lines
from ptm_plus.sources import SourceSpec


def read_questions(spec: SourceSpec) -> Iterator[Example | Refused]:
    """Yield linked sentences with one mention to be masked.

    A row is ``{"text", "lang", "mentions": [{"start", "end", "id"}], "target", "group"}``: the
    index of the masked mention, and the share that it is counted in.

    Raises:
        DataError: a row is not of this form.
    """
    for path in spec.files:
        for line, text in open_lines(path):
            try:
                row = json.loads(text)
                yield _question(row, f"{path}:{line}")
            except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
                raise DataError(
                    f"not a question: {type(error).__name__} {error}",
                    'write {"text", "lang", "mentions": [{"start", "end", "id"}], "target"}',
                    path=path,
                    line=line,
                ) from error


def _question(row: dict[str, object], name: str) -> Example:
    mentions = row["mentions"]
    if not isinstance(mentions, list):
        raise TypeError(f"'mentions' is a {type(mentions).__name__}, not a list")
    order = sorted(range(len(mentions)), key=lambda index: mentions[index]["start"])
    spans = [
        Span("text", int(m["start"]), int(m["end"]), "entity", str(m["id"]))
        for m in (mentions[index] for index in order)
    ]
    target = order.index(int(str(row["target"])))
    return Example(
        name,
        {"text": str(row["text"])},
        {"text": str(row.get("lang", "und"))},
        spans,
        {"target": target, "group": str(row.get("group", "all"))},
    )

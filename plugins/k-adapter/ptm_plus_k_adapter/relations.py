"""Sentences with two mentions and their relation, and what the model is asked about them.

The mentions are put between markers, ``@ head @`` and ``# tail #``, as in the original code; the
relation is read off the states of the first marker of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptm_plus import DataError, Example, Refused, Span, View, json_row, open_lines, shown

HEAD, TAIL = "relation", "relation-tail"
"""Span kinds of the first markers; the first carries the relation as its id."""

MARKS = {"head": "@", "tail": "#"}

_ROLES = {"head": "head", "subject": "head", "e1": "head", "h": "head"}
_ROLES |= {"tail": "tail", "object": "tail", "e2": "tail", "t": "tail"}
_SHAPE = (
    'write {"text": "…", "relation": "P26", "head": {"start": 0, "end": 5}, "tail": {…}}, or '
    '"mentions" with "role": "head" and "tail"'
)


def read_relations(path: str) -> Iterator[Example | Refused]:
    """Yield the sentences of a file.

    A row has ``text``, ``relation`` and ``head`` and ``tail`` with ``start`` and ``end`` in
    characters; or ``mentions`` with a ``role`` each (head and tail, subject and object, e1 and e2);
    or, as in FewRel, ``tokens`` with ``h`` and ``t`` as (name, id, [[token numbers]]).

    Raises:
        DataError: a row is something else, or a mention lies outside of its text.
    """
    for number, line in open_lines(path):
        if line.strip():
            yield _example(json_row(line, path, number), path, number)


def _example(row: Mapping[str, Any], path: str, number: int) -> Example | Refused:
    def fault(words: str) -> DataError:
        return DataError(words, _SHAPE, path=path, line=number)

    relation = row.get("relation")
    if not isinstance(relation, str) or not relation:
        raise fault(f"its relation is {shown(relation)}, not a text")
    text, spans = _of_tokens(row) if "tokens" in row and "text" not in row else _of_text(row)
    if not isinstance(text, str):
        raise fault(f"its text is {shown(text)}, not a text")
    for role in MARKS:
        if role not in spans:
            raise fault(f"it has no {role}")
        start, end = spans[role]
        if not (type(start) is type(end) is int and 0 <= start < end <= len(text)):
            raise fault(f"its {role} from {shown(start)} to {shown(end)} lies outside of the text")
    (first, end), (second, _) = sorted(spans.values())
    if second < end or first == second:
        return Refused("head and tail overlap", path, number)
    marked, places = mark(text, spans)
    found = [
        Span("text", places["head"], places["head"] + 1, HEAD, relation),
        Span("text", places["tail"], places["tail"] + 1, TAIL),
    ]
    name = str(row.get("id") or f"{path}:{number}")
    language = row.get("lang") if isinstance(row.get("lang"), str) else ""
    return Example(name, {"text": marked}, {"text": str(language or "und")}, found)


def _of_text(row: Mapping[str, Any]) -> tuple[Any, dict[str, tuple[Any, Any]]]:
    given = [{"role": role, **row[role]} for role in MARKS if isinstance(row.get(role), dict)]
    mentions = row.get("mentions")
    given += (
        [one for one in mentions if isinstance(one, dict)] if isinstance(mentions, list) else []
    )
    spans = {
        _ROLES[str(one["role"])]: (one.get("start"), one.get("end"))
        for one in given
        if isinstance(one, dict) and str(one.get("role")) in _ROLES
    }
    return row.get("text"), spans


def _of_tokens(row: Mapping[str, Any]) -> tuple[Any, dict[str, tuple[Any, Any]]]:
    tokens = row["tokens"]
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return None, {}
    starts = np.cumsum([0, *(len(token) + 1 for token in tokens)]).tolist()
    spans = {}
    for key in ("h", "t"):
        try:
            numbers = row[key][2][0]
            first, last = numbers[0], numbers[-1]
            spans[_ROLES[key]] = (starts[first], starts[last] + len(tokens[last]))
        except (KeyError, IndexError, TypeError):
            continue
    return " ".join(tokens), spans


def mark(text: str, spans: Mapping[str, tuple[int, int]]) -> tuple[str, dict[str, int]]:
    """Put markers around head and tail; return the text and where the first marker of each stands.

    Args:
        text: the sentence.
        spans: (start, end) of ``head`` and ``tail``, which do not overlap.
    """
    marked, places, at = "", {}, 0
    for role, (start, end) in sorted(spans.items(), key=lambda one: one[1]):
        sign = MARKS[role]
        marked += text[at:start]
        places[role] = len(marked)
        marked += f"{sign} {text[start:end]} {sign}"
        at = end
    return marked + text[at:], places


def relation_columns(view: View) -> Mapping[str, NDArray[Any]]:
    """Return ``[N]`` ``head`` and ``tail``, the markers' tokens, and ``relation``, its row.

    A sentence that was cut between its markers is not asked about.
    """
    heads, tails = view.spans_of(HEAD), view.spans_of(TAIL)
    tail_of = np.full(len(view.numbers), -1, dtype=np.int64)
    tail_of[tails.sequence] = tails.start
    tail = tail_of[heads.sequence] if len(heads) else heads.start
    kept = (tail >= 0) & (heads.id >= 0)
    return {"head": heads.start[kept], "tail": tail[kept], "relation": heads.id[kept]}


def relations_left_out(view: View) -> dict[str, int]:
    """Return how many sentences were cut between their markers."""
    return {"cut": len(view.spans_of(HEAD)) - len(relation_columns(view)["relation"])}

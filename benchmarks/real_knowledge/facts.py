"""Questions about facts: a sentence mentions both entities of a triple, and one is to be told.

Facts are split by their two entities. No sentence with both entities of a fact that only the graph
is to hold stays in the text, whatever it says of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from benchmarks.real_domain.data import is_asked
from benchmarks.real_knowledge.data import Row, Triple

GRAPH_ONLY, IN_TEXT = "graph only", "in the text"
"""Groups of questions, by where training can find the fact."""

SHARES = {GRAPH_ONLY: 0.2, IN_TEXT: 0.1}
"""Of the facts, that only the graph holds; of the sentences with another, that are asked."""


def split_by_fact(
    rows: Iterable[Row], graph: Iterable[Triple]
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Return the sentences to train on, and the questions.

    Args:
        rows: linked sentences with ``triples``.
        graph: the triples that training has.
    """
    known = set(graph)
    hidden = {
        _pair(one) for one in known if is_asked(" ".join(sorted(_pair(one))), SHARES[GRAPH_ONLY])
    }
    training: list[Row] = []
    asked: list[tuple[Row, str]] = []
    for row in rows:
        if any(pair in hidden for pair in _pairs(row)):
            asked.append((row, GRAPH_ONLY))
        elif is_asked(row["id"], SHARES[IN_TEXT]):
            asked.append((row, IN_TEXT))
        else:
            training.append(row)
    read = {pair for row in training for pair in _pairs(row)}
    questions = []
    for row, group in asked:
        for triple in map(tuple, row["triples"]):
            pair = _pair(triple)
            fits = pair in hidden if group == GRAPH_ONLY else pair in read
            question = _question(row, triple) if fits and triple in known else None
            if question:
                questions.append({**question, "group": group})
                break
    return training, questions


def _pair(triple: Sequence[str]) -> frozenset[str]:
    return frozenset((triple[0], triple[2]))


def _pairs(row: Row) -> Iterator[frozenset[str]]:
    entities = sorted({one["qid"] for one in row["mentions"] if one["qid"]})
    for number, first in enumerate(entities):
        for second in entities[number + 1 :]:
            yield frozenset((first, second))


def _question(row: Row, triple: Sequence[str]) -> dict[str, Any] | None:
    """Ask for the object of a triple, which stands once in the sentence, beside its subject."""
    mentions = sorted((one for one in row["mentions"] if one["qid"]), key=lambda one: one["start"])
    ids = [one["qid"] for one in mentions]
    subject, _, object_ = triple
    if subject not in ids or ids.count(object_) != 1:
        return None
    target = ids.index(object_)
    name = row["text"][mentions[target]["start"] : mentions[target]["end"]]
    if row["text"].count(name) != 1:
        return None
    places = [{key: one[key] for key in ("start", "end", "qid")} for one in mentions]
    return {"text": row["text"], "lang": row["lang"], "mentions": places, "target": target}

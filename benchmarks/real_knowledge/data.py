"""The data of the benchmark on real knowledge, with what the questions ask for taken out.

The questions are FewRel's held-out sentences: two marked mentions, which relation? A linked
sentence leaves the text if it is one of them, shares eight words in a row with one, or mentions
both entities of one, by id or by name. A triple between the two entities of any FewRel sentence,
training or held-out, leaves the graph: with only one half gone, training sentences would not look
like held-out ones.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptm_plus.files import open_lines
from ptm_plus.knowledge.shuffling import shuffled_triples

RUN = 8
"""So many words in a row, in common, make two sentences one."""

Row = Mapping[str, Any]
Triple = tuple[str, str, str]

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Question:
    """A FewRel sentence.

    Attributes:
        text: the sentence.
        spans: (start, end) of ``head`` and ``tail``, in characters.
        entities: their ids.
        relation: the answer.
    """

    text: str
    spans: Mapping[str, tuple[int, int]]
    entities: Mapping[str, str]
    relation: str

    @property
    def pair(self) -> frozenset[str]:
        """The two entities, whichever comes first."""
        return frozenset(self.entities.values())

    @property
    def names(self) -> tuple[str, str]:
        """Head and tail as the sentence calls them."""
        first, second = (self.text[start:end] for start, end in self.spans.values())
        return first, second


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file of JSON lines, compressed or not."""
    for _, line in open_lines(str(path)):
        if line.strip():
            yield json.loads(line)


def question_of(row: Row) -> Question:
    """Return a row of FewRel as a question."""
    mentions = {one["role"]: one for one in row["mentions"]}
    return Question(
        row["text"],
        {role: (mentions[role]["start"], mentions[role]["end"]) for role in ("head", "tail")},
        {role: mentions[role]["qid"] for role in ("head", "tail")},
        row["relation"],
    )


def read_questions(folder: Path) -> dict[str, list[Question]]:
    """Return FewRel's sentences by split, ``train`` and ``dev``."""
    found: dict[str, list[Question]] = {"train": [], "dev": []}
    for row in read_rows(folder / "linked" / "fewrel.jsonl.gz"):
        found[row["split"]].append(question_of(row))
    return found


# ---------------------------------------------------------------------------------------------
# What gives an answer away


class Overlap:
    """Tells which sentences say what some questions ask.

    Args:
        asked: the questions.
    """

    def __init__(self, asked: Sequence[Question]) -> None:
        self._sentences = {_words(one.text) for one in asked}
        self._runs = {run for words in self._sentences for run in _runs(words)}
        self._pairs = {one.pair for one in asked}
        self._tails = defaultdict(set)
        for one in asked:
            first, second = one.names
            self._tails[first].add(second)

    def reason(self, row: Row) -> str:
        """Return why a linked sentence is left out, or nothing.

        Args:
            row: with ``text`` and ``mentions``.
        """
        words = _words(row["text"])
        if words in self._sentences:
            return "same sentence"
        if not self._runs.isdisjoint(_runs(words)):
            return f"{RUN} words in a row"
        entities = sorted({one["qid"] for one in row["mentions"] if one["qid"]})
        if any(frozenset((a, b)) in self._pairs for a in entities for b in entities):
            return "both entities"
        text = row["text"]
        for head, tails in self._tails.items():
            if head in text and any(tail in text for tail in tails):
                return "both names"
        return ""


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.lower()))


def _runs(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[at : at + RUN]) for at in range(len(words) - RUN + 1)}


def kept_triples(triples: Iterable[Triple], pairs: set[frozenset[str]]) -> list[Triple]:
    """Return the triples that are between none of the pairs, in either direction."""
    return [one for one in triples if frozenset((one[0], one[2])) not in pairs]


def relation_rows(rows: Iterable[Row], pairs: set[frozenset[str]]) -> Iterator[dict[str, Any]]:
    """Yield sentences that are labelled with a relation, by the graph's triples (as T-REx is).

    A sentence serves for the first of its triples whose mentions do not overlap and which is
    between none of the pairs.

    Args:
        rows: linked sentences with ``triples``.
        pairs: entities that FewRel asks about.
    """
    for row in rows:
        places: dict[str, Row] = {}
        for mention in row["mentions"]:
            places.setdefault(mention["qid"], mention)
        for head, relation, tail in kept_triples(map(tuple, row["triples"]), pairs):
            first, second = places.get(head), places.get(tail)
            if not first or not second or head == tail or _overlap(first, second):
                continue
            yield {
                "text": row["text"],
                "lang": row["lang"],
                "relation": relation,
                "head": {"start": first["start"], "end": first["end"]},
                "tail": {"start": second["start"], "end": second["end"]},
            }
            break


def _overlap(first: Row, second: Row) -> bool:
    return bool(first["start"] < second["end"] and second["start"] < first["end"])


# ---------------------------------------------------------------------------------------------
# Files


def write_inputs(data: Path, folder: Path) -> dict[str, Any]:
    """Write text, relations and graph; return what was counted.

    Args:
        data: the folder with ``linked/``, ``kg/`` and ``tasks/``.
        folder: where to; gets ``text.jsonl``, ``relations.jsonl`` and ``graph.tsv``.
    """
    questions = read_questions(data)
    pairs = {one.pair for split in questions.values() for one in split}
    overlap, left_out = Overlap(questions["dev"]), Counter[str]()
    rows = []
    for row in read_rows(data / "linked" / "wiki_silver.jsonl.xz"):
        reason = overlap.reason(row)
        left_out[reason] += bool(reason)
        if not reason:
            rows.append(row)
    labelled = list(relation_rows(rows, pairs))
    graph = read_triples(data / "kg" / "wikidata-merged" / "train.tsv.xz")
    kept = kept_triples(graph, pairs)
    write_rows(folder / "text.jsonl", rows)
    write_rows(folder / "relations.jsonl", labelled)
    write_triples(folder / "graph.tsv", kept)
    known = {entity for head, _, tail in kept for entity in (head, tail)}
    return {
        "sentences": len(rows),
        "sentences_left_out": {reason: count for reason, count in left_out.items() if reason},
        "mentions": sum(len(row["mentions"]) for row in rows),
        "relation_sentences": len(labelled),
        "relations": len({row["relation"] for row in labelled}),
        "triples": len(kept),
        "triples_left_out": len(graph) - len(kept),
        "questions": {
            split: {
                "sentences": len(asked),
                "with_a_vector": sum(any(e in known for e in one.pair) for one in asked),
                "with_two": sum(all(e in known for e in one.pair) for one in asked),
            }
            for split, asked in questions.items()
        },
    }


def read_triples(path: Path) -> list[Triple]:
    """Return the triples of a tab-separated file."""
    found = []
    for _, line in open_lines(str(path)):
        head, relation, tail = line.rstrip("\n").split("\t")
        found.append((head, relation, tail))
    return found


def write_triples(path: Path, triples: Iterable[Triple]) -> None:
    """Write triples, tab-separated."""
    path.write_text("".join("\t".join(one) + "\n" for one in triples), encoding="utf-8")


def write_shuffled(graph: Path, target: Path, seed: int) -> None:
    """Write the graph with objects permuted within each relation."""
    write_triples(target, shuffled_triples(read_triples(graph), seed))


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

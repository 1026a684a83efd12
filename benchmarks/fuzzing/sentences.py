"""Readers of labelled sentences: relations of two mentions, heads of words."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.fuzzing.cases import Files, Reader
from benchmarks.fuzzing.counting import filled_lines
from benchmarks.fuzzing.rows import check_example
from benchmarks.fuzzing.rules import require
from benchmarks.fuzzing.words import IDS, LANGUAGES, WORDS, phrase
from ptm_plus import Example, Refused
from ptm_plus_k_adapter.dependencies import read_dependencies
from ptm_plus_k_adapter.relations import read_relations

Read = Callable[[str], Iterator[Example | Refused]]


def _relation(random: Random) -> dict[str, Any]:
    row: dict[str, Any] = {"relation": random.choice(IDS), "lang": random.choice(LANGUAGES)}
    if random.random() < 0.3:
        tokens = random.choices(WORDS, k=6)
        places = random.sample(range(6), 2)
        named = {key: ["x", "Q1", [[at]]] for key, at in zip("ht", places, strict=True)}
        return {**row, "tokens": tokens, **named}
    text = f"{phrase(random)} and {phrase(random)}"
    first, second = sorted(random.sample(range(len(text)), 2))
    ends = [{"start": 0, "end": max(1, first)}, {"start": second, "end": len(text)}]
    random.shuffle(ends)
    if random.random() < 0.5:
        return {**row, "text": text, **dict(zip(("head", "tail"), ends, strict=True))}
    roles = random.choice((("head", "tail"), ("e1", "e2"), ("subject", "object")))
    marks = [{"role": role, **end} for role, end in zip(roles, ends, strict=True)]
    return {**row, "text": text, "mentions": marks}


def _heads(size: int, random: Random) -> list[int]:
    """Return a tree: each word hangs on an earlier one of a shuffled order."""
    order = random.sample(range(1, size + 1), size)
    heads = [0] * size
    for at, word in enumerate(order[1:], start=1):
        heads[word - 1] = random.choice(order[:at])
    return heads


def _tree(random: Random) -> dict[str, Any]:
    tokens = [word.replace("\0", "") for word in random.choices(WORDS[:20], k=random.randint(1, 7))]
    row = {"tokens": tokens, "heads": _heads(len(tokens), random)}
    if random.random() < 0.7:
        row["text"] = random.choice((" ", "", "  ")).join(tokens)
    return {**row, "lang": random.choice(LANGUAGES)}


def _json_lines(row: Callable[[Random], dict[str, Any]], random: Random) -> Files:
    rows = [row(random) for _ in range(random.randint(1, 4))]
    escaped = random.random() < 0.5
    lines = "".join(f"{json.dumps(one, ensure_ascii=escaped)}\n" for one in rows)
    return {"a.jsonl": lines.encode()}


def _conllu(random: Random) -> Files:
    sentences = []
    for number in range(random.randint(1, 3)):
        row = _tree(random)
        lines = [f"# sent_id = s{number}"]
        if "text" in row:
            lines.append(f"# text = {row['text']}")
        pairs = enumerate(zip(row["tokens"], row["heads"], strict=True), start=1)
        for place, (form, head) in pairs:
            if random.random() < 0.1 and place < len(row["tokens"]):
                lines.append("\t".join((f"{place}-{place + 1}", form, *"________")))
            glued = random.choice(("_", "SpaceAfter=No"))
            lines.append("\t".join((str(place), form, *"____", str(head), "_", "_", glued)))
            if random.random() < 0.1:
                lines.append("\t".join((f"{place}.1", "_", *"________")))
        sentences.append("\n".join(lines) + "\n\n")
    return {"a.conllu": "".join(sentences).encode()}


def _check(read: Read, path: Path) -> int:
    found = list(read(str(path)))
    used = [one for one in found if isinstance(one, Example)]
    for example in used:
        check_example(example)
        for span in example.spans:
            require(span.end > span.start, "an empty span")
    if ".jsonl" in path.suffixes:
        held = filled_lines(path)
        require(len(found) == held, f"{held} rows in the file, {len(found)} used or refused")
    for example in used:
        labels = [span.id for span in example.spans if span.kind == "dependency"]
        numbers = {label.partition(":")[0] for label in labels} | {"0"}
        heads = [label.partition(":")[2] for label in labels]
        require(set(heads) <= numbers, f"a head that is no word: {labels}")
        require(not labels or heads.count("0") == 1, f"not one root: {labels}")
    return len(used)


_p = functools.partial

READERS = (
    Reader("relations", _p(_json_lines, _relation), _p(_check, read_relations), by_line=True),
    Reader("trees", _p(_json_lines, _tree), _p(_check, read_dependencies), by_line=True),
    Reader("conllu", _conllu, _p(_check, read_dependencies), by_line=True),
)

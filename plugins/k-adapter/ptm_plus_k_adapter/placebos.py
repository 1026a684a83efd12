"""Labelled sentences with the labels of others: relations permuted, words hung on other words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptm_plus import Example, RunSettings, json_row, open_lines
from ptm_plus_k_adapter.dependencies import WORD, read_dependencies


@dataclass(frozen=True)
class OtherLabels:
    """Gives a run sentences whose labels are wrong.

    Attributes:
        instance: the plugin's name in the run.
        relations: files of sentences with a relation.
        dependencies: files of trees.
    """

    instance: str
    relations: Sequence[str]
    dependencies: Sequence[str]

    def __call__(self, settings: RunSettings, folder: Path, seed: int) -> RunSettings:
        """Return the settings with files of the same sentences, relations and tree shapes."""
        rng = np.random.default_rng(seed)
        changes = {}
        if self.relations:
            path = folder / "relations.jsonl"
            _write(path, permuted_relations(self.relations, rng))
            changes["relations"] = [str(path)]
        if self.dependencies:
            path = folder / "dependencies.jsonl"
            trees = (one for file in self.dependencies for one in read_dependencies(file))
            _write(path, (rehung(tree, rng) for tree in trees))
            changes["dependencies"] = [str(path)]
        return settings.with_plugin(self.instance, **changes)


def permuted_relations(files: Sequence[str], rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Yield the rows of some files, each with the relation of another row."""
    rows = [
        dict(json_row(line, file, number))
        for file in files
        for number, line in open_lines(file)
        if line.strip()
    ]
    order = rng.permutation(len(rows))
    for row, other in zip(rows, order.tolist(), strict=True):
        yield {**row, "relation": rows[other].get("relation")}


def rehung(tree: Example, rng: np.random.Generator) -> dict[str, Any]:
    """Return a sentence whose words have exchanged their places in its tree.

    Args:
        tree: a sentence, each of its words a span.
        rng: what draws the exchange.
    """
    words = sorted((one for one in tree.spans if one.kind == WORD), key=lambda one: one.start)
    numbers, heads = zip(*(map(int, one.id.split(":")) for one in words), strict=True)
    place = {number: at for at, number in enumerate(numbers)}
    order = rng.permutation(len(words)).tolist()  # the word that takes each word's place
    found = [0] * len(words)
    for at, head in enumerate(heads):
        found[order[at]] = order[place[head]] + 1 if head else 0
    text = tree.fields["text"]
    return {
        "text": text,
        "tokens": [text[one.start : one.end] for one in words],
        "heads": found,
        "lang": tree.languages["text"],
    }


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

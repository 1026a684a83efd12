"""A small world to try plugins on: text with mentions in two languages, pairs, a graph, vectors.

Sentences are made of a few words; every sentence mentions one or two places.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptm_plus.knowledge.table import write_table

PLACES = {
    "Q1": ("Altona", "Altonien"),
    "Q2": ("Berga", "Bergen"),
    "Q3": ("Cordia", "Kordien"),
    "Q4": ("Dunmor", "Dunmohr"),
    "Q5": ("Elvas", "Elfenau"),
    "Q6": ("Fennia", "Finnland"),
}
LANGUAGES = ("en", "de")
_WORDS = (
    ("the old river town of", "lies near", "and people there like", "a small lake"),
    ("die alte Stadt am Fluss", "liegt bei", "und die Leute dort mögen", "einen kleinen See"),
)
_SENTENCES, _EACH = 160, 6

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
"""Configuration of a model that trains in no time."""


@dataclass(frozen=True)
class World:
    """Files of the small world.

    Attributes:
        folder: where they lie, and the cache of what is prepared of them.
    """

    folder: Path

    @property
    def text(self) -> Path:
        """Sentences with mentions."""
        return self.folder / "text.jsonl"

    @property
    def documents(self) -> Path:
        """Texts of several sentences, with mentions."""
        return self.folder / "documents.jsonl"

    @property
    def pairs(self) -> Path:
        """Translations with mentions in both halves."""
        return self.folder / "pairs.jsonl"

    @property
    def triples(self) -> Path:
        """The graph."""
        return self.folder / "triples.tsv"

    @property
    def labels(self) -> Path:
        """Names of its entities."""
        return self.folder / "labels.jsonl"

    @property
    def vectors(self) -> Path:
        """Vectors of its entities, 8 wide."""
        return self.folder / "vectors.safetensors"

    @property
    def relations(self) -> Path:
        """Sentences with two mentions and their relation, for plugins that learn these."""
        return self.folder / "relations.jsonl"

    @property
    def cache(self) -> Path:
        """Where prepared data is kept."""
        return self.folder / "cache"


def write_world(folder: Path) -> World:
    """Write the world's files; the same ones every time."""
    world = World(folder)
    rng = np.random.default_rng(0)
    names = list(PLACES)
    texts, pairs, relations = [], [], []
    for number in range(_SENTENCES):
        first, second = rng.permutation(names)[:2].tolist()
        texts.append(_sentence(rng, number % 2, first, second))
        length = rng.bit_generator.state
        source = _sentence(rng, 0, first, second)
        rng.bit_generator.state = length
        target = _sentence(rng, 1, first, second)
        pairs.append(_pair(source, target))
        if len(texts[-1]["mentions"]) == 2:
            relations.append(_relation(texts[-1]))
    _lines(world.text, texts)
    _lines(world.documents, _documents(texts))
    _lines(world.pairs, pairs)
    _lines(world.relations, relations)
    _lines(world.labels, _labels())
    triples = [f"{a}\tnear\t{b}\n" for a, b in zip(names, names[1:] + names[:1], strict=True)]
    world.triples.write_text("".join(triples), encoding="utf-8")
    vectors = rng.standard_normal((len(names), 8)).astype(np.float32)
    write_table(world.vectors, names, vectors)
    return world


def _sentence(rng: np.random.Generator, language: int, first: str, second: str) -> dict[str, Any]:
    words = _WORDS[language]
    parts: list[tuple[str, str | None]] = [(words[0], None), (PLACES[first][language], first)]
    if rng.random() < 0.7:
        parts += [(words[1], None), (PLACES[second][language], second)]
    parts += [(word, None) for word in words[2:][: int(rng.integers(0, 3))]]
    text, mentions = "", []
    for part, entity in parts:
        text += " " if text else ""
        if entity:
            mentions.append({"start": len(text), "end": len(text) + len(part), "id": entity})
        text += part
    return {"text": text, "lang": LANGUAGES[language], "mentions": mentions}


def _documents(texts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return texts of six sentences of one language."""
    found = []
    for language in LANGUAGES:
        own = [one for one in texts if one["lang"] == language]
        for at in range(0, len(own), _EACH):
            text, mentions = "", []
            for one in own[at : at + _EACH]:
                begin = len(text)
                mentions += [
                    {**m, "start": m["start"] + begin, "end": m["end"] + begin}
                    for m in one["mentions"]
                ]
                text += f"{one['text']}. "
            found.append({"text": text.rstrip(), "lang": language, "mentions": mentions})
    return found


def _pair(source: Mapping[str, Any], target: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "src": source["text"],
        "tgt": target["text"],
        "src_lang": source["lang"],
        "tgt_lang": target["lang"],
        "src_mentions": source["mentions"],
        "tgt_mentions": target["mentions"],
    }


def _relation(sentence: Mapping[str, Any]) -> dict[str, Any]:
    head, tail = sentence["mentions"]
    relation = "near" if head["id"] < tail["id"] else "far"
    ends = {"head": head, "tail": tail}
    places = {name: {"start": one["start"], "end": one["end"]} for name, one in ends.items()}
    return {"text": sentence["text"], "lang": sentence["lang"], "relation": relation, **places}


def _labels() -> list[dict[str, str]]:
    return [
        {"id": name, "lang": language, "label": label}
        for name, labels in PLACES.items()
        for language, label in zip(LANGUAGES, labels, strict=True)
    ]


def _lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")

"""Stores for tests, written array by array from explicit Python lists.

Nothing of ``prepare`` takes part, so that the reading side is tested against the format itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ptm_plus.prepare.accounts import Account, SpanAccount
from ptm_plus.prepare.meta import FORMAT_VERSION
from ptm_plus.prepare.store import (
    MOVABLE,
    NO_FIELD,
    NO_LANGUAGE,
    NO_WORD,
    RESTART,
    SequenceStore,
)

CLS, SEP, MASK = 2, 3, 4
FIRST_ORDINARY, VOCABULARY = 10, 300


@dataclass(frozen=True)
class Seg:
    """A segment; without ``words`` its tokens are special (a word -1 is special as well)."""

    ids: Sequence[int]
    words: Sequence[int] | None = None
    movable: bool = False
    restart: bool = False
    type: int = 0
    language: str = ""
    positions: Sequence[int] | None = None
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def all_words(self) -> list[int]:
        return [-1] * len(self.ids) if self.words is None else list(self.words)

    def all_positions(self) -> list[int]:
        return list(range(len(self.ids)) if self.positions is None else self.positions)


@dataclass(frozen=True)
class Mention:
    """A span; ``start`` counts from the start of its segment."""

    segment: int
    start: int
    length: int
    id: str | None
    kind: str = "entity"
    annotator: str = "given"


@dataclass(frozen=True)
class Seq:
    """A sequence in stored order; word numbers are unique within it."""

    segments: Sequence[Seg]
    mentions: Sequence[Mention] = ()
    stratum: str = "all"
    example: int | None = None
    labels: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(segment.ids) for segment in self.segments)

    def first_token(self, segment: int) -> int:
        """Return where a segment starts in stored order."""
        return sum(len(earlier.ids) for earlier in self.segments[:segment])


def build_store(folder: Path, sequences: Sequence[Seq]) -> SequenceStore:
    """Write the artifacts of some sequences below ``folder`` and open them."""
    annotators = sorted({mention.annotator for seq in sequences for mention in seq.mentions})
    _write_tokens(folder / "tokens", sequences)
    for name in annotators:
        _write_spans(folder / name, sequences, name)
    return SequenceStore.open(folder / "tokens", {name: folder / name for name in annotators})


def _write_tokens(folder: Path, sequences: Sequence[Seq]) -> None:
    segments = [segment for seq in sequences for segment in seq.segments]
    languages = sorted({segment.language for segment in segments} - {""})
    strata = sorted({seq.stratum for seq in sequences})
    columns = sorted({name for segment in segments for name in segment.columns})
    labels = sorted({name for seq in sequences for name in seq.labels})
    positions = any(segment.positions is not None for segment in segments)
    words = np.array([word for segment in segments for word in segment.all_words()], dtype=np.int64)
    words[words < 0] = NO_WORD
    tokens = len(words)
    flags = [MOVABLE * segment.movable + RESTART * segment.restart for segment in segments]
    code = {language: number for number, language in enumerate(languages)}
    arrays: dict[str, Any] = {
        "ids": _column((i for s in segments for i in s.ids), np.uint16),
        "words": words.astype(np.uint16),
        "char_start": np.zeros(tokens, np.uint32),
        "char_end": np.zeros(tokens, np.uint32),
        "offsets": _offsets([len(seq) for seq in sequences]),
        "segments": _offsets([len(seq.segments) for seq in sequences]),
        "segment_length": _column((len(s.ids) for s in segments), np.uint16),
        "segment_flags": _column(flags, np.uint8),
        "segment_type": _column((s.type for s in segments), np.uint8),
        "segment_field": _column((0 if s.language else NO_FIELD for s in segments), np.uint8),
        "segment_language": _column((code.get(s.language, NO_LANGUAGE) for s in segments), "u2"),
        "example": _column(
            (n if s.example is None else s.example for n, s in enumerate(sequences)), np.int64
        ),
        "identity": _column(
            (n if s.example is None else s.example for n, s in enumerate(sequences)), np.uint64
        ),
        "stratum": _column((strata.index(seq.stratum) for seq in sequences), np.uint16),
    }
    if positions:
        arrays["position"] = _column((p for s in segments for p in s.all_positions()), np.uint16)
    for name in columns:
        arrays[f"column.{name}"] = np.array([v for s in segments for v in s.columns[name]])
    for name in labels:
        arrays[f"label.{name}"] = _column((seq.labels[name] for seq in sequences), np.int64)
    meta = {
        "artifact": "tokens",
        "key": "built",
        "stream": "text",
        "inputs": {},
        "fields": ["text"],
        "languages": languages,
        "strata": strata,
        "labels": dict.fromkeys(labels),
        "columns": {name: str(arrays[f"column.{name}"].dtype) for name in columns},
        "position": positions,
        "versions": 1,
        "tokens": tokens,
        "sequences": len(sequences),
        "segments": len(segments),
        "account": Account(sequences=len(sequences), tokens=tokens).to_json(),
    }
    _write(folder, arrays, meta)


def _write_spans(folder: Path, sequences: Sequence[Seq], annotator: str) -> None:
    own = [[m for m in seq.mentions if m.annotator == annotator] for seq in sequences]
    starts = [[seq.first_token(m.segment) + m.start for m in seq.mentions] for seq in sequences]
    rows = [
        (start, mention)
        for seq, begin in zip(sequences, starts, strict=True)
        for start, mention in sorted(zip(begin, seq.mentions, strict=True), key=lambda r: r[0])
        if mention.annotator == annotator
    ]
    kinds = sorted({mention.kind for _, mention in rows})
    ids = sorted({mention.id for _, mention in rows if mention.id is not None})
    number = {label: n for n, label in enumerate(ids)}
    arrays = {
        "offsets": _offsets([len(mentions) for mentions in own]),
        "start": _column((start for start, _ in rows), np.uint16),
        "length": _column((m.length for _, m in rows), np.uint16),
        "segment": _column((m.segment for _, m in rows), np.uint8),
        "kind": _column((kinds.index(m.kind) for _, m in rows), np.uint8),
        "id": _column((-1 if m.id is None else number[m.id] for _, m in rows), np.int32),
    }
    meta = {
        "artifact": "spans",
        "key": "spans",
        "tokens_key": "built",
        "kinds": kinds,
        "ids": ids,
        "rows": len(rows),
        "sequences": len(sequences),
        "account": asdict(SpanAccount(found=len(rows), kept=len(rows))),
    }
    _write(folder, arrays, meta)


def _write(folder: Path, arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    text = json.dumps({**meta, "version": FORMAT_VERSION})
    (folder / "meta.json").write_text(text, encoding="utf-8")


def _column(values: Any, dtype: Any) -> Any:
    return np.fromiter(values, dtype=dtype)


def _offsets(lengths: Sequence[int]) -> Any:
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64)


def chi_square_z(counts: Any) -> float:
    """Return how many deviations the chi-square of counts is off its mean, were they uniform."""
    expected = np.sum(counts) / len(counts)
    square = float(np.sum((counts - expected) ** 2) / expected)
    return (square - (len(counts) - 1)) / (2 * (len(counts) - 1)) ** 0.5


# ---------------------------------------------------------------------------------------------
# Random sequences

ENTITIES = tuple(f"Q{number}" for number in range(40))


def random_body(
    rng: np.random.Generator, words: int, first_word: int
) -> tuple[list[int], list[int], list[int]]:
    """Return token ids, word numbers and the first token of each word (1 to 3 tokens each)."""
    sizes = rng.choice([1, 1, 2, 3], size=words)
    numbers = np.repeat(np.arange(words), sizes) + first_word
    ids = rng.integers(FIRST_ORDINARY, VOCABULARY, size=len(numbers))
    return ids.tolist(), numbers.tolist(), np.concatenate(([0], np.cumsum(sizes))).tolist()


def random_mentions(
    rng: np.random.Generator, borders: Sequence[int], segment: int, entities: Sequence[str | None]
) -> list[Mention]:
    """Return one mention of one or two whole words per entity, without overlap."""
    words = len(borders) - 1
    places = np.sort(rng.permutation(words // 2)[: len(entities)]) * 2
    found = []
    for place, entity in zip(places.tolist(), entities, strict=False):
        end = place + int(rng.integers(1, 3))
        found.append(Mention(segment, borders[place], borders[end] - borders[place], entity))
    return found


def random_text(rng: np.random.Generator, shortest: int = 4, longest: int = 40) -> Seq:
    """Return ``[CLS] words [SEP]`` with up to three mentions, some of the same entity."""
    ids, words, borders = random_body(rng, int(rng.integers(shortest, longest)), 0)
    names = [ENTITIES[n] for n in rng.integers(0, 6, size=rng.integers(0, 4))]
    language = str(rng.choice(["en", "fr"]))
    body = Seg(ids, words, language=language)
    mentions = random_mentions(rng, borders, 1, names)
    return Seq([Seg([CLS]), body, Seg([SEP])], mentions, stratum=language)


def random_pair(rng: np.random.Generator, shortest: int = 4, longest: int = 20) -> Seq:
    """Return ``[CLS] en [SEP] fr [SEP]``, movable halves, with mentions that both halves share."""
    shared = [ENTITIES[n] for n in rng.integers(0, 40, size=rng.integers(0, 3))]
    source, source_words, source_borders = random_body(rng, int(rng.integers(shortest, longest)), 0)
    first = source_words[-1] + 1
    target, target_words, borders = random_body(rng, int(rng.integers(shortest, longest)), first)
    mentions = random_mentions(rng, source_borders, 1, [*shared, ENTITIES[rng.integers(0, 40)]])
    mentions += random_mentions(rng, borders, 3, [*shared, None])
    segments = [
        Seg([CLS]),
        Seg(source, source_words, movable=True, language="en"),
        Seg([SEP], type=0),
        Seg(target, target_words, movable=True, restart=True, type=1, language="fr"),
        Seg([SEP], type=1),
    ]
    return Seq(segments, mentions, stratum="en-fr")


def random_sequences(
    count: int, seed: int, make: Callable[[np.random.Generator], Seq] = random_text
) -> list[Seq]:
    """Return sequences drawn with a fixed seed."""
    rng = np.random.default_rng(seed)
    return [make(rng) for _ in range(count)]

"""What a step did to the documents of a shard, and the sum over shards."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

EXAMPLES = 3
"""Dropped documents that are shown, of each step and reason."""

EXCERPT = 400
"""Characters of such a document that are shown."""


@dataclass
class Tally:
    """Documents and tokens in and out of a step.

    Attributes:
        step: number of the step in the recipe; -1 for reading, and one past the last for writing.
        docs_in: documents that came.
        docs_out: documents that went on.
        tokens_in: their words and marks.
        tokens_out: likewise.
        changed: documents whose text changed.
        mentions_lost: entities that could not be found again in a changed text.
        seconds: of computing, without the other steps.
        dropped: documents by the reason why they were dropped.
        counts: what else the step counts.
        examples: by reason, some dropped documents: id, source, start of the text.
    """

    step: int
    docs_in: int = 0
    docs_out: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    changed: int = 0
    mentions_lost: int = 0
    seconds: float = 0.0
    dropped: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def drop(self, reason: str, identifier: str, source: str, text: str) -> None:
        """Count a dropped document."""
        self.dropped[reason] += 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < EXAMPLES:
            shown.append({"id": identifier, "source": source, "text": text[:EXCERPT]})

    def add(self, other: Tally) -> None:
        """Add the tally of another shard."""
        for name in ("docs_in", "docs_out", "tokens_in", "tokens_out", "changed", "mentions_lost"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.seconds += other.seconds
        self.dropped += other.dropped
        self.counts += other.counts
        for reason, shown in other.examples.items():
            mine = self.examples.setdefault(reason, [])
            mine += shown[: EXAMPLES - len(mine)]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {
            name: dict(value) if isinstance(value, Counter) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Tally:
        """Read it back."""
        counters = {name: Counter(document[name]) for name in ("dropped", "counts")}
        return cls(**{**document, **counters})


@dataclass
class Measures:
    """What the finished documents are like.

    Attributes:
        languages: documents and tokens by language.
        sources: likewise by source.
        lengths: documents by the power of two at or below their number of tokens.
        characters: of all texts.
        mentions: entities in them.
    """

    languages: dict[str, list[int]] = field(default_factory=dict)
    sources: dict[str, list[int]] = field(default_factory=dict)
    lengths: Counter[str] = field(default_factory=Counter)
    characters: int = 0
    mentions: int = 0

    def take(self, language: str, source: str, tokens: int, characters: int, mentions: int) -> None:
        """Count a document."""
        for table, key in ((self.languages, language or "und"), (self.sources, source)):
            entry = table.setdefault(key, [0, 0])
            entry[0] += 1
            entry[1] += tokens
        self.lengths[str(1 << max(0, tokens.bit_length() - 1))] += 1
        self.characters += characters
        self.mentions += mentions

    def add(self, other: Measures) -> None:
        """Add the measures of another shard."""
        for mine, theirs in (
            (self.languages, other.languages),
            (self.sources, other.sources),
        ):
            for key, (docs, tokens) in theirs.items():
                entry = mine.setdefault(key, [0, 0])
                entry[0] += docs
                entry[1] += tokens
        self.lengths += other.lengths
        self.characters += other.characters
        self.mentions += other.mentions

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {**vars(self), "lengths": dict(self.lengths)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Measures:
        """Read it back."""
        return cls(**{**document, "lengths": Counter(document["lengths"])})

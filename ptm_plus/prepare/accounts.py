"""What prepare counted: every row is used or refused, every span kept or cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class SpanAccount:
    """What became of an annotator's spans.

    Attributes:
        found: spans that it reported (or that came with the text).
        kept: spans that lie whole within a sequence.
        cut: spans that were dropped: cut by the end of a sequence, or without any token.
        kinds: kept spans per kind.
        counts: what the annotator itself counted.
    """

    found: int = 0
    kept: int = 0
    cut: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SpanAccount:
        """Return the account that ``dataclasses.asdict`` made ``data`` from."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__})

    def add(self, other: SpanAccount) -> None:
        """Add another part's figures."""
        self.found += other.found
        self.kept += other.kept
        self.cut += other.cut
        add_counts(self.kinds, other.kinds)
        add_counts(self.counts, other.counts)


@dataclass
class Account:
    """What became of a stream's rows.

    Attributes:
        rows: rows read; equal to ``used`` plus the sum of ``refused``.
        used: rows that became sequences.
        refused: rows that did not, by reason.
        refused_first: where the first row of each reason stands, ``path:line``.
        documents: texts laid out: ``used`` times the edited copies of each.
        sequences: sequences made.
        tokens: tokens in them, special tokens included.
        unknown: tokens that are the unknown token.
        truncated_tokens: tokens left out because a sequence was full.
        truncated_sequences: sequences that lost tokens so.
        stratum_examples: used rows per language or language pair.
        stratum_tokens: tokens likewise.
        spans: by annotator; ``given`` are those that came with the text.
        seconds: wall time of the run that made the sequences.
    """

    rows: int = 0
    used: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    refused_first: dict[str, str] = field(default_factory=dict)
    documents: int = 0
    sequences: int = 0
    tokens: int = 0
    unknown: int = 0
    truncated_tokens: int = 0
    truncated_sequences: int = 0
    stratum_examples: dict[str, int] = field(default_factory=dict)
    stratum_tokens: dict[str, int] = field(default_factory=dict)
    spans: dict[str, SpanAccount] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens made per second of wall time."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def add(self, other: Account) -> None:
        """Add another part's figures; its spans and seconds are counted elsewhere."""
        for name, value in vars(other).items():
            if name in ("refused", "stratum_examples", "stratum_tokens"):
                add_counts(getattr(self, name), value)
            elif name == "refused_first":
                self.refused_first = {**value, **self.refused_first}
            elif isinstance(value, int):
                setattr(self, name, getattr(self, name) + value)

    def to_json(self) -> dict[str, Any]:
        """Return plain dictionaries and numbers, ``tokens_per_second`` among them."""
        return {**asdict(self), "tokens_per_second": round(self.tokens_per_second, 1)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Account:
        """Return the account that :meth:`to_json` made ``data`` from."""
        plain = {name: data[name] for name in cls.__dataclass_fields__}
        plain["spans"] = {
            name: SpanAccount.from_json(spans) for name, spans in plain["spans"].items()
        }
        return cls(**plain)

    def lines(self) -> list[str]:
        """Return the account as lines of text for a console."""
        refused = sum(self.refused.values())
        lines = [f"rows: {self.rows:,} read, {self.used:,} used, {refused:,} refused"]
        for reason, count in _by_count(self.refused):
            first = self.refused_first.get(reason)
            lines.append(f"  refused, {reason}: {count:,}{f' (first: {first})' if first else ''}")
        copies = f" from {self.documents:,} edited copies" if self.documents > self.used else ""
        lines.append(f"sequences: {self.sequences:,}{copies}, {self.tokens:,} tokens")
        if self.truncated_tokens:
            lines.append(
                f"truncated: {self.truncated_tokens:,} tokens of "
                f"{self.truncated_sequences:,} sequences"
            )
        lines.append(f"unknown tokens: {self.unknown:,} ({_percent(self.unknown, self.tokens)})")
        for stratum, tokens in _by_count(self.stratum_tokens):
            examples = self.stratum_examples.get(stratum, 0)
            lines.append(f"  {stratum}: {examples:,} examples, {tokens:,} tokens")
        for name, spans in sorted(self.spans.items()):
            lines += _span_lines(name, spans)
        lines.append(f"time: {self.seconds:.1f} s, {self.tokens_per_second:,.0f} tokens/s")
        return lines


def add_counts(counts: dict[str, int], more: Mapping[str, int]) -> None:
    """Add counts by name, in place."""
    for name, count in more.items():
        counts[name] = counts.get(name, 0) + count


def _span_lines(name: str, spans: SpanAccount) -> list[str]:
    if not spans.found and not spans.counts:
        return []
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in _by_count(spans.kinds))
    lines = [f"spans ({name}): {spans.found:,} found, {spans.kept:,} kept, {spans.cut:,} cut"]
    lines[0] += f"; {kinds}" if kinds else ""
    return lines + [f"  {what}: {count:,}" for what, count in sorted(spans.counts.items())]


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "0 %"

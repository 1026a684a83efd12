"""Settings of the ernie-masking plugin."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ptm_plus import Section

Kind = Literal["phrase", "entity", "ngram", "span"]


class PhraseSettings(Section):
    """Where phrases come from in text that brings none of its own."""

    segment: bool = Field(True, description="Words of Chinese text, by jieba, are phrases.")
    collocations: bool = Field(
        True, description="Neighbouring words that the corpus holds together are phrases."
    )
    threshold: float = Field(
        0.5, gt=-1, lt=1, description="Least normalised pointwise mutual information of two words."
    )
    min_count: int = Field(5, ge=2, description="Least occurrences of a phrase in the sample.")
    longest: int = Field(4, ge=2, le=8, description="Most words of a collocation.")
    sample: int = Field(
        20_000_000, ge=1_000, description="Characters of each language that are counted."
    )


class ErnieMaskingSettings(Section):
    """``[plugin.ernie-masking]``."""

    kinds: tuple[Kind, ...] = Field(
        ("phrase", "entity"),
        min_length=1,
        description="Units beside words: phrase, entity, ngram, span.",
    )
    weights: dict[Kind, float] = Field(
        default_factory=dict, description="Chance of a kind's token against a word's; default 1."
    )
    rates: dict[Kind, float] = Field(
        default_factory=dict,
        description="Share of a kind's tokens to predict, instead of a weight.",
    )
    schedule: Literal["mixture", "stages"] = Field(
        "mixture",
        description="All kinds from the start, or words first and then one kind more at a time.",
    )
    shares: tuple[float, ...] = Field(
        (), description="Length of each stage, words first, against the others; default: equal."
    )
    phrases: PhraseSettings = Field(default_factory=PhraseSettings)
    ngram: int = Field(3, ge=2, le=10, description="Most words of an n-gram (ALBERT).")
    span: int = Field(10, ge=2, le=30, description="Most words of a span (SpanBERT).")
    stop: float = Field(0.2, gt=0, lt=1, description="Chance of a span to end after each word.")
    boundary_weight: float = Field(
        1.0, ge=0, description="Factor on the span-boundary loss, for the kind `span`; 0 for none."
    )

    @model_validator(mode="after")
    def _fit_together(self) -> ErnieMaskingSettings:
        if len(set(self.kinds)) < len(self.kinds):
            raise ValueError("kinds: one of them is named twice")
        for name, table in (("weights", self.weights), ("rates", self.rates)):
            for kind, value in table.items():
                if kind not in self.kinds:
                    raise ValueError(f"{name}.{kind}: kinds does not name {kind!r}")
                if value < 0 or (name == "rates" and value > 1):
                    raise ValueError(f"{name}.{kind}: {value} is out of range")
        both = sorted(set(self.weights) & set(self.rates))
        if both:
            raise ValueError(f"{both[0]!r} has a weight and a rate; give one of them")
        if self.shares and (
            len(self.shares) != len(self.kinds) + 1 or min(self.shares) < 0 or not sum(self.shares)
        ):
            raise ValueError(
                f"shares: {len(self.kinds) + 1} numbers from 0 are needed, one for words and one "
                "for each of kinds"
            )
        return self

    def bounds(self) -> list[float]:
        """Return, for each kind, the part of the run (from 0 to 1) after which it joins."""
        if self.schedule == "mixture":
            return [0.0] * len(self.kinds)
        shares = self.shares or (1.0,) * (len(self.kinds) + 1)
        return [sum(shares[: place + 1]) / sum(shares) for place in range(len(self.kinds))]

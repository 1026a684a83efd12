"""How well names are linked, against mentions that are known to be right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property

from ptm_plus.knowledge.labels import standard_language
from ptm_plus.knowledge.linker import DictionaryLinker, Link


@dataclass(slots=True)
class LinkScores:
    """What was linked in one language, and what should have been; parts add up with ``+``.

    Attributes:
        gold: mentions that are known.
        gold_spans: their characters: a mention that may mean several entities counts once.
        without_name: of those, whose entity has no name in the language: out of reach.
        ambiguous: of those, whose words are a name that may mean several, and is left out.
        common: of those, whose words mean one entity, but are left out as a common word.
        linked: mentions that the linker made.
        right: of those, known ones: the same characters and the same entity.
        same_span: of those, on the characters of a known one, whatever the entity.
        missed: words of known mentions that were not linked so, with how often.
        wrong: words of linked mentions that are not known, with how often. Where not every mention
            of the text is known, some of them are right.
    """

    gold: int = 0
    gold_spans: int = 0
    without_name: int = 0
    ambiguous: int = 0
    common: int = 0
    linked: int = 0
    right: int = 0
    same_span: int = 0
    missed: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: LinkScores) -> LinkScores:
        return LinkScores(
            *(getattr(self, one.name) + getattr(other, one.name) for one in fields(self))
        )

    @property
    def precision(self) -> float:
        """Share of the linked mentions that are known; 0 without any."""
        return self.right / max(1, self.linked)

    @property
    def recall(self) -> float:
        """Share of the known mentions that were linked; 0 without any."""
        return self.right / max(1, self.gold)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall: twice what is right by all that there is."""
        return 2 * self.right / max(1, self.linked + self.gold)

    @property
    def accuracy(self) -> float:
        """Share of the linked mentions on known characters that have the right entity."""
        return self.right / max(1, self.same_span)

    @property
    def span_precision(self) -> float:
        """Share of the linked mentions on known characters, whatever the entity."""
        return self.same_span / max(1, self.linked)

    @property
    def span_recall(self) -> float:
        """Share of the known characters' mentions that were linked, whatever the entity."""
        return self.same_span / max(1, self.gold_spans)

    @property
    def span_f1(self) -> float:
        """Harmonic mean of span precision and span recall."""
        return 2 * self.same_span / max(1, self.linked + self.gold_spans)


def total_scores(parts: Iterable[Mapping[str, LinkScores]]) -> dict[str, LinkScores]:
    """Add up scores by language, the languages in order."""
    total: dict[str, LinkScores] = {}
    for part in parts:
        for language, scores in part.items():
            total[language] = total.get(language, LinkScores()) + scores
    return dict(sorted(total.items()))


class LinkScorer:
    """Links text without looking at its known mentions, and counts by language.

    Args:
        linker: what is measured.
    """

    def __init__(self, linker: DictionaryLinker) -> None:
        self._linker = linker
        self.by_language: dict[str, LinkScores] = {}

    @cached_property
    def _named(self) -> dict[str, set[str]]:
        return {
            language: {entity for bearers in namings.values() for entity, _ in bearers}
            for language, namings in self._linker.labels.by_language.items()
        }

    def add(self, text: str, language: str, known: Iterable[Link]) -> None:
        """Link one text and compare.

        Args:
            text: the text.
            language: its code.
            known: the mentions that are right.
        """
        language = standard_language(language)
        scores = self.by_language.setdefault(language, LinkScores())
        namings = self._linker.labels.by_language.get(language, {})
        named = self._named.get(language, set())
        gold = set(known)
        spans = {one[:2] for one in gold}
        linked = set(self._linker.link(text, language))
        scores.gold += len(gold)
        scores.gold_spans += len(spans)
        scores.linked += len(linked)
        scores.right += len(gold & linked)
        scores.same_span += sum(one[:2] in spans for one in linked)
        common = self._linker.common.get(language, frozenset())
        for one in gold:
            words = text[one.start : one.end]
            scores.without_name += one.id not in named
            bearers = namings.get(words)
            ambiguous = bearers is not None and not self._linker.choose(bearers)
            scores.ambiguous += ambiguous
            scores.common += not ambiguous and words in common
        scores.missed.update(text[one.start : one.end] for one in gold - linked)
        scores.wrong.update(text[one.start : one.end] for one in linked - gold)

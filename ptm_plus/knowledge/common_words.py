"""Aliases that a text mostly writes in lower case, inside sentences: words, not names.

Knowledge graphs have aliases such as "His" (Jesus), "Met" or "Village". Where a text begins a
sentence or a title with the word, an alias of that kind is linked; its share of the wrong links is
large. How the same text writes the word inside sentences tells it from a name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ptm_plus.knowledge.boundaries import cuts_word
from ptm_plus.knowledge.labels import EntityLabels, Namings, standard_language

if TYPE_CHECKING:
    from ahocorasick_rs import AhoCorasick

VERSION = 1
"""Raised whenever the same text and names would be counted differently."""

Counts = Mapping[str, Mapping[str, int]]
"""By language and word: how often it stands inside sentences, written exactly so."""

_GOES_ON = frozenset(",;)]")
"""Besides letters and digits: what a sentence goes on behind. A colon may begin another one."""


class WordCounter:
    """Counts the aliases of one capitalised word, and the same words in lower case.

    Counted are whole words behind a space that is behind a letter, a digit, or one of ``,;)]``:
    whatever may begin a sentence, a quotation or a line is not. Several counters' counts add up
    with :func:`add_up`. Pickles without its automata, which are built at first use.

    Args:
        labels: the names; only aliases that are nobody's label are counted.

    Attributes:
        counts: what was counted.
    """

    def __init__(self, labels: EntityLabels) -> None:
        self._capitalised = {
            language: frozenset(_aliases(names)) for language, names in labels.by_language.items()
        }
        self._words = {
            language: [form for name in sorted(names) for form in (name, name.lower())]
            for language, names in self._capitalised.items()
        }
        self._automata: dict[str, AhoCorasick] = {}
        self.counts: dict[str, Counter[str]] = {}

    def add(self, text: str, language: str) -> None:
        """Count one text; nothing is counted in ``und`` or a language without such aliases."""
        language = standard_language(language)
        words = self._words.get(language) if language != "und" else None
        if not words:
            return
        counts = self.counts.setdefault(language, Counter())
        for pattern, start, end in self._automaton(language).find_matches_as_indexes(text):
            before = text[start - 1 : start]
            if (before.isalnum() or before in _GOES_ON) and not cuts_word(text, end):
                counts[words[pattern]] += 1

    def aliases(self, language: str) -> frozenset[str]:
        """Return the aliases of a language that may turn out to be common words."""
        return self._capitalised.get(standard_language(language), frozenset())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_automata": {}}

    def _automaton(self, language: str) -> AhoCorasick:
        if language not in self._automata:
            from ahocorasick_rs import AhoCorasick, MatchKind

            # Words with the space before them never overlap, and the longest that begins at a space
            # is the only one that can end with its word: one pass without overlapping matches.
            self._automata[language] = AhoCorasick(
                [f" {word}" for word in self._words[language]],
                matchkind=MatchKind.LeftmostLongest,
                store_patterns=False,
            )
        return self._automata[language]


def add_up(*parts: Counts) -> dict[str, Counter[str]]:
    """Return the counts of several parts of a text together."""
    total: dict[str, Counter[str]] = {}
    for part in parts:
        for language, counts in part.items():
            total.setdefault(language, Counter()).update(counts)
    return total


def common_words(labels: EntityLabels, counts: Counts) -> dict[str, frozenset[str]]:
    """Return the aliases that the text writes more often in lower case than capitalised.

    Args:
        labels: the names that were counted.
        counts: how the text writes them.
    """
    found = {}
    for language, seen in counts.items():
        aliases = _aliases(labels.by_language.get(language, {}))
        common = {name for name in aliases if seen.get(name.lower(), 0) > seen.get(name, 0)}
        if common:
            found[language] = frozenset(common)
    return found


def _aliases(names: Namings) -> Iterator[str]:
    for name, bearers in names.items():
        if _is_capitalised_word(name) and all(is_alias for _, is_alias in bearers):
            yield name


def _is_capitalised_word(name: str) -> bool:
    # "US" and "IT" differ from the words "us" and "it" in more than a first letter.
    return name[0].isupper() and name[1:].islower() and name.isalpha()

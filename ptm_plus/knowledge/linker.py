"""Finds entities in text by their names: one Aho-Corasick automaton per language."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from ptm_plus.errors import SettingsError, nearest
from ptm_plus.knowledge.boundaries import cuts_word, is_linkable
from ptm_plus.knowledge.labels import EntityLabels, Namings, standard_language
from ptm_plus.knowledge.links import id_order

if TYPE_CHECKING:
    from ahocorasick_rs import AhoCorasick

Ambiguity = Literal["skip", "most_connected", "first"]

VERSION = 1
"""Goes into the fingerprint: raised whenever the same settings would link differently."""


class Link(NamedTuple):
    """A linked mention: characters ``start`` to ``end`` (exclusive) stand for entity ``id``."""

    start: int
    end: int
    id: str


@dataclass(slots=True)
class LinkCounts:
    """What linking found; counts of parts add up with ``+``.

    Attributes:
        found: names found in text.
        linked: of those, linked to one entity.
        ambiguous: of those, left out because they may mean several.
        common: of those, meaning one entity, but left out as common words of the text.
        by_id: linked mentions by entity id.
    """

    found: int = 0
    linked: int = 0
    ambiguous: int = 0
    common: int = 0
    by_id: Counter[str] = field(default_factory=Counter)

    def add_known(self, ids: Iterable[str]) -> None:
        """Count mentions that came with a text as found and linked."""
        before = self.by_id.total()
        self.by_id.update(ids)
        self.found += self.by_id.total() - before
        self.linked += self.by_id.total() - before

    def __add__(self, other: LinkCounts) -> LinkCounts:
        return LinkCounts(
            self.found + other.found,
            self.linked + other.linked,
            self.ambiguous + other.ambiguous,
            self.common + other.common,
            self.by_id + other.by_id,
        )


class _Dictionary(NamedTuple):
    """The names of one language: an automaton and, by its pattern numbers, their entities."""

    automaton: AhoCorasick
    entities: Sequence[str | None]
    """Entity id by pattern number; empty where the name is ambiguous and skipped, ``None`` where it
    means one entity but is a common word."""


class DictionaryLinker:
    """Links names in text to entities, longest name first, never inside a word.

    Of the names that begin and end at word borders, the leftmost is taken, and the longest where
    several begin together; the search goes on behind it. Case is exact. A name that is some
    entities' label and others' alias means one of the former. Of several that remain, by
    ``ambiguity``: ``skip`` leaves the name unlinked (it still hides what lies inside it),
    ``most_connected`` takes the one with the highest degree, then the smallest id, and ``first``
    the one read first.

    Automata are built per language at first use and are not pickled: a worker process gets the
    names and builds what it needs.

    Args:
        labels: the names.
        min_length: shortest name, in characters (two are enough in scripts without spaces).
        ambiguity: what to do with a name of several entities.
        lower_case: also look for names without capitals and digits in scripts with case; common
            words flood the links then.
        degree: how connected each entity is; needed for ``most_connected``.
        common: names that are left out as common words of the text, by language
            (``ptm_plus.knowledge.common_words`` finds them).

    Raises:
        SettingsError: an unknown policy, or ``most_connected`` without ``degree``.
    """

    def __init__(
        self,
        labels: EntityLabels,
        *,
        min_length: int = 3,
        ambiguity: Ambiguity = "skip",
        lower_case: bool = False,
        degree: Mapping[str, int] | None = None,
        common: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        policies = get_args(Ambiguity)
        if ambiguity not in policies:
            hint = f"one of {', '.join(policies)}{nearest(ambiguity, policies)}"
            raise SettingsError(f"unknown ambiguity policy {ambiguity!r}", hint)
        if ambiguity == "most_connected" and degree is None:
            raise SettingsError("ambiguity 'most_connected' needs a graph", "give one with --kg")
        self.labels = labels
        self.min_length = min_length
        self.ambiguity: Ambiguity = ambiguity
        self.lower_case = lower_case
        self.degree = dict(degree or {})
        self.common = {name: frozenset(words) for name, words in (common or {}).items() if words}
        self._dictionaries: dict[str, _Dictionary | None] = {}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over everything that decides what is linked."""
        degree = sorted(self.degree.items()) if self.ambiguity == "most_connected" else []
        common = sorted((language, sorted(words)) for language, words in self.common.items())
        settings = [VERSION, self.min_length, self.ambiguity, self.lower_case, degree, common]
        text = json.dumps([self.labels.fingerprint, *settings])
        return hashlib.sha256(text.encode()).hexdigest()

    def link(self, text: str, language: str, counts: LinkCounts | None = None) -> list[Link]:
        """Return the linked mentions of ``text`` in order, none overlapping another.

        Args:
            text: any text; offsets are in characters.
            language: its code; nothing is linked in ``und`` or a language without names.
            counts: where to add what was found.
        """
        dictionary = self._dictionary(standard_language(language))
        if dictionary is None:
            return []
        counts = LinkCounts() if counts is None else counts
        links = []
        for start, end, pattern in _longest_words(dictionary.automaton, text):
            counts.found += 1
            entity = dictionary.entities[pattern]
            if entity:
                counts.linked += 1
                counts.by_id[entity] += 1
                links.append(Link(start, end, entity))
            elif entity is None:
                counts.common += 1
            else:
                counts.ambiguous += 1
        return links

    def choose(self, bearers: Sequence[tuple[str, bool]]) -> str:
        """Return the entity that a name with these bearers means; empty when it is skipped."""
        labelled = [entity for entity, is_alias in bearers if not is_alias]
        candidates = labelled or [entity for entity, _ in bearers]
        if len(candidates) == 1 or self.ambiguity == "first":
            return candidates[0]
        if self.ambiguity == "skip":
            return ""
        return min(candidates, key=lambda entity: (-self.degree.get(entity, 0), id_order(entity)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_dictionaries": {}}

    def _dictionary(self, language: str) -> _Dictionary | None:
        if language not in self._dictionaries:
            namings = None if language == "und" else self.labels.by_language.get(language)
            common = self.common.get(language, frozenset())
            self._dictionaries[language] = self._build(namings, common) if namings else None
        return self._dictionaries[language]

    def _build(self, namings: Namings, common: Collection[str]) -> _Dictionary | None:
        from ahocorasick_rs import AhoCorasick, MatchKind

        names = [
            surface
            for surface in namings
            if is_linkable(surface, min_length=self.min_length, lower_case=self.lower_case)
        ]
        if not names:
            return None
        automaton = AhoCorasick(names, matchkind=MatchKind.Standard, store_patterns=False)
        return _Dictionary(
            automaton,
            [self._meaning(namings[name], name in common) for name in names],
        )

    def _meaning(self, bearers: Sequence[tuple[str, bool]], is_common: bool) -> str | None:
        entity = self.choose(bearers)
        return None if entity and is_common else entity


def _longest_words(automaton: AhoCorasick, text: str) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, pattern) of the leftmost longest names that cut no word.

    All occurrences are asked for, overlapping ones too, because the automaton's own leftmost
    longest search would hide a whole word behind a longer name that ends inside one.
    """
    whole = [
        (start, -end, pattern)
        for pattern, start, end in automaton.find_matches_as_indexes(text, overlapping=True)
        if not cuts_word(text, start) and not cuts_word(text, end)
    ]
    free = 0
    for start, negative_end, pattern in sorted(whole):
        if start >= free:
            free = -negative_end
            yield start, free, pattern

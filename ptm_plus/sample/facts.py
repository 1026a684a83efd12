"""Which facts the text may tell, and which only the graph holds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ptm_plus.sample.cldr import Names, Triple
from ptm_plus.word_draws import draw

Half = Literal["", "development", "reported"]

SHARED_BY = 4
"""An object is asked for when at least so many subjects share it: one subject teaches no name."""

ASKED: tuple[Half, Half] = ("development", "reported")


@dataclass(frozen=True, slots=True, order=True)
class Fact:
    """One edge of the graph.

    Attributes:
        subject: label of a territory.
        relation: one of ``cldr.RELATIONS``.
        object: label of what the territory has.
        in_text: whether text and pairs may state it; the graph holds it either way.
        half: ``"development"`` when it is asked while tuning, ``"reported"`` when the final figures
            ask it, empty when it is never asked.
    """

    subject: str
    relation: str
    object: str
    in_text: bool
    half: Half = ""

    @property
    def triple(self) -> Triple:
        """Subject, relation and object."""
        return self.subject, self.relation, self.object


def _by_object(triples: Iterable[Triple]) -> dict[tuple[str, str], list[Triple]]:
    groups: dict[tuple[str, str], list[Triple]] = defaultdict(list)
    for triple in triples:
        groups[triple[1], triple[2]].append(triple)
    return groups


def names_give_away(triple: Triple, names: Names) -> bool:
    """Tell whether the object's name contains the subject's in some language.

    "New Zealand: New Zealand Dollar" needs neither graph nor text.
    """
    subject, _, object_ = triple
    return any(
        subject in known
        and object_ in known
        and known[subject].casefold() in known[object_].casefold()
        for known in names.values()
    )


def _withheld(group: Sequence[Triple], names: Names, seed: int) -> list[Triple]:
    """Return two fifths of an object's facts (rounded down), in a keyed order."""
    quota = 2 * len(group) // 5 if len(group) >= SHARED_BY else 0
    open_ = [triple for triple in group if not names_give_away(triple, names)]
    return sorted(open_, key=lambda triple: (draw(seed, "withhold", *triple), triple))[:quota]


def _halves(groups: Iterable[Sequence[Triple]]) -> Iterator[tuple[int, Triple, Half]]:
    """Deal the groups' facts to the two halves in turn; yields group number, fact and half."""
    turn = 0
    for number, group in enumerate(groups):
        for triple in group:
            yield number, triple, ASKED[turn % 2]
            turn += 1


def split_facts(triples: Iterable[Triple], names: Names, seed: int) -> list[Fact]:
    """Withhold facts from the text and choose which are asked.

    Per relation and object that at least ``SHARED_BY`` subjects share, two fifths of the facts are
    withheld.  They are dealt to the two halves in turn, in keyed order.  As many facts of the same
    object that the text may tell join the same halves, so that accuracy in and out of the text is
    taken over the same objects.

    Returns:
        Every fact, sorted.
    """
    groups = [group for _, group in sorted(_by_object(triples).items())]
    hidden = [_withheld(group, names, seed) for group in groups]
    facts = {triple: Fact(*triple, in_text=True) for group in groups for triple in group}
    told = [
        sorted(set(group) - set(gone), key=lambda triple: (draw(seed, "ask", *triple), triple))
        for group, gone in zip(groups, hidden, strict=True)
    ]
    for number, triple, half in _halves(hidden):
        facts[triple] = Fact(*triple, in_text=False, half=half)
        twin = told[number].pop()
        facts[twin] = Fact(*twin, in_text=True, half=half)
    return sorted(facts.values())


def commonest_objects(facts: Iterable[Fact]) -> dict[str, str]:
    """Return the object that the text shows most often, by relation."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for fact in facts:
        if fact.in_text:
            counts[fact.relation][fact.object] += 1
    return {
        relation: max(counter, key=lambda object_: (counter[object_], object_))
        for relation, counter in counts.items()
    }

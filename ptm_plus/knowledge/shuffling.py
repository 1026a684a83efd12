"""A graph with the same degrees and other facts: what a plugin gains on it is not the graph's."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from ptm_plus.word_draws import draw

Triple = tuple[str, str, str]
"""Head, relation and tail."""


def shuffled_triples(triples: Iterable[Triple], seed: int) -> list[Triple]:
    """Return a graph with the same degrees and other facts: objects permuted in each relation.

    Permuting can give a subject one object twice; such an object changes places with one that
    repairs it, so no triple is lost to duplication.

    Returns:
        As many triples, all distinct, sorted.
    """
    groups: dict[str, list[Triple]] = defaultdict(list)
    for triple in sorted(triples):
        groups[triple[1]].append(triple)
    found: list[Triple] = []
    for relation, group in sorted(groups.items()):
        order = sorted(group, key=lambda triple: (draw(seed, "shuffle", *triple), triple))
        objects = [triple[2] for triple in order]
        pairs = _distinct([triple[0] for triple in group], objects)
        found.extend((subject, relation, object_) for subject, object_ in pairs)
    return sorted(found)


def _distinct(subjects: Sequence[str], objects: Sequence[str]) -> list[tuple[str, str]]:
    """Pair the lists off, exchanging objects wherever a pair would occur twice."""
    pairs = list(zip(subjects, objects, strict=True))
    counts = Counter(pairs)
    for i, (subject, object_) in enumerate(pairs):
        if counts[subject, object_] == 1:
            continue
        for j, (other, taken) in enumerate(pairs):
            if not counts[subject, taken] and not counts[other, object_]:
                pairs[i], pairs[j] = (subject, taken), (other, object_)
                counts[subject, object_] -= 1
                counts[other, taken] -= 1
                counts.update([pairs[i], pairs[j]])
                break
    return pairs

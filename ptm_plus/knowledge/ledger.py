"""How well a graph, names, vectors and linked text fit together, in figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ptm_plus.errors import DataError
from ptm_plus.knowledge.graph import Graph
from ptm_plus.knowledge.labels import EntityLabels
from ptm_plus.knowledge.linker import LinkCounts
from ptm_plus.knowledge.table import VectorTable


@dataclass(slots=True)
class MentionCuts:
    """Mentions that sequences of limited length do not hold whole.

    Attributes:
        max_length: longest sequence in tokens, specials included.
        mentions: mentions looked at.
        split: of those, cut by a border between the sequences that a text is split into.
        truncated: of those, cut or left out if a text is kept only as far as one sequence goes.
        without_tokens: of those, on characters that no token stands for.
    """

    max_length: int
    mentions: int = 0
    split: int = 0
    truncated: int = 0
    without_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Ledger:
    """The account of one graph; counts are of distinct ids unless they say mentions.

    Attributes:
        entities: entities in the graph.
        relations: relations in the graph.
        triples: triples in the graph.
        labelled: entities of the graph that have a name, by language; ``any`` for all together.
        mentions: names found, and of those linked, ambiguous, and common words.
        mentions_in_graph: linked mentions whose entity is in the graph.
        ids_linked: entities linked in the text.
        ids_in_graph: of those, in the graph.
        ids_without_vector: of those linked, without a vector; ``None`` without a table.
        vectors: rows of the table; ``None`` without one.
        vectors_without_label: rows that no language names; ``None`` without table or labels.
        frequency: entities of the graph by how often they are linked: ``"0"`` never, ``"1"`` once,
            ``"2"`` 2 to 3 times, ``"4"`` 4 to 7 times, and so on by powers of two up to the last
            that any is.
        cuts: mentions that the ends of sequences cut; ``None`` where no tokenizer was given.
    """

    entities: int
    relations: int
    triples: int
    labelled: Mapping[str, int]
    mentions: Mapping[str, int]
    mentions_in_graph: int
    ids_linked: int
    ids_in_graph: int
    ids_without_vector: int | None
    vectors: int | None
    vectors_without_label: int | None
    frequency: Mapping[str, int]
    cuts: MentionCuts | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the ledger as plain JSON values."""
        return asdict(self)

    def require_overlap(self) -> None:
        """Stop where linked text and graph share nothing.

        Raises:
            DataError: no linked mention is an entity of the graph.
        """
        if not self.ids_in_graph:
            raise DataError(
                f"the graph has no overlap with the text: {self.mentions['linked']} linked "
                f"mentions of {self.ids_linked} ids, none of them among the {self.entities} "
                "entities of the graph",
                "text, labels and graph must name entities by the same ids (QIDs, say); "
                "look with: ptm-plus kg check",
            )


def check(
    graph: Graph,
    labels: EntityLabels | None = None,
    counts: LinkCounts | None = None,
    table: VectorTable | None = None,
    cuts: MentionCuts | None = None,
) -> Ledger:
    """Compare graph, names, linked mentions and vectors.

    Args:
        graph: the facts.
        labels: names by language.
        counts: what linking the text found, or counts of mentions given with the text.
        table: entity vectors.
        cuts: what the ends of sequences cut.
    """
    counts = counts or LinkCounts()
    inside = {id: count for id, count in counts.by_id.items() if id in graph.index}
    return Ledger(
        entities=len(graph.entities),
        relations=len(graph.relations),
        triples=len(graph.triples),
        labelled=_labelled(graph, labels),
        mentions={
            "found": counts.found,
            "linked": counts.linked,
            "ambiguous": counts.ambiguous,
            "common": counts.common,
        },
        mentions_in_graph=sum(inside.values()),
        ids_linked=len(counts.by_id),
        ids_in_graph=len(inside),
        ids_without_vector=None
        if table is None
        else len(counts.by_id) - len(table.index(counts.by_id)),
        vectors=None if table is None else len(table),
        vectors_without_label=_unnamed(table, labels),
        frequency=_frequency(inside, len(graph.entities)),
        cuts=cuts,
    )


def _labelled(graph: Graph, labels: EntityLabels | None) -> dict[str, int]:
    if labels is None:
        return {"any": 0}
    named = {
        language: labels.labelled[language] & graph.index.keys()
        for language in sorted(labels.labelled)
    }
    everywhere = len(frozenset().union(*named.values()))
    return {"any": everywhere, **{language: len(ids) for language, ids in named.items()}}


def _unnamed(table: VectorTable | None, labels: EntityLabels | None) -> int | None:
    if table is None or labels is None:
        return None
    return len(set(table.labels).difference(*labels.labelled.values()))


def _frequency(counts: Mapping[str, int], entities: int) -> dict[str, int]:
    """Count entities by the power of two below how often they occur."""
    buckets = Counter(count.bit_length() - 1 for count in counts.values())
    powers = range(max(buckets, default=-1) + 1)
    return {"0": entities - len(counts), **{str(1 << power): buckets[power] for power in powers}}

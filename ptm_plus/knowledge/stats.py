"""What a graph and its names are like, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ptm_plus.knowledge.graph import Graph
from ptm_plus.knowledge.labels import EntityLabels

QUANTILES = {"least": 0.0, "median": 0.5, "p90": 0.9, "p99": 0.99, "most": 1.0}
"""Of the degrees, each as a value that occurs: no fewer than that share lie at or below it."""


@dataclass(frozen=True, slots=True)
class NameStats:
    """The names that one language has for the entities of a graph.

    Attributes:
        entities: entities with a name.
        names: distinct names.
        ambiguous: of those, borne by more than one entity.
    """

    entities: int
    names: int
    ambiguous: int


@dataclass(frozen=True, slots=True)
class GraphStats:
    """The account of a graph.

    Attributes:
        entities: how many.
        relations: how many.
        triples: how many, each once.
        loops: triples whose head is their tail.
        inverse_pairs: pairs of entities that triples join in both directions.
        degree: triple ends per entity: ``mean``, and ``QUANTILES``.
        components: parts that no triple joins.
        largest_component: entities of the largest one.
        by_relation: triples of each relation, most frequent first.
        names: by language; none where no names were given.
        without_name: entities that no language names; ``None`` where no names were given.
    """

    entities: int
    relations: int
    triples: int
    loops: int
    inverse_pairs: int
    degree: Mapping[str, float]
    components: int
    largest_component: int
    by_relation: Mapping[str, int]
    names: Mapping[str, NameStats]
    without_name: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the account as plain JSON values."""
        return asdict(self)


def graph_stats(graph: Graph, labels: EntityLabels | None = None) -> GraphStats:
    """Return the account of a graph.

    Args:
        graph: the facts.
        labels: names by language; those of other entities do not count.
    """
    import networkx

    head, relation, tail = graph.triples.T
    ends = networkx.Graph()
    ends.add_nodes_from(range(len(graph.entities)))
    ends.add_edges_from(zip(head.tolist(), tail.tolist(), strict=True))
    sizes = [len(one) for one in networkx.connected_components(ends)]
    joined = set(zip(head.tolist(), tail.tolist(), strict=True))
    both = sum((b, a) in joined for a, b in joined if a < b)
    counts = np.bincount(relation, minlength=len(graph.relations)).tolist()
    by_relation = sorted(zip(graph.relations, counts, strict=True), key=lambda one: -one[1])
    degree = graph.degree()
    quantiles = np.quantile(degree, list(QUANTILES.values()), method="inverted_cdf")
    known = None if labels is None else labels.restricted(set(graph.entities))
    named: set[str] = set() if known is None else set().union(*known.labelled.values())
    return GraphStats(
        entities=len(graph.entities),
        relations=len(graph.relations),
        triples=len(graph.triples),
        loops=int((head == tail).sum()),
        inverse_pairs=both,
        degree={
            "mean": float(degree.mean()),
            **dict(zip(QUANTILES, quantiles.tolist(), strict=True)),
        },
        components=len(sizes),
        largest_component=max(sizes),
        by_relation=dict(by_relation),
        names={} if known is None else _names(known),
        without_name=None if known is None else len(graph.entities) - len(named),
    )


def _names(labels: EntityLabels) -> dict[str, NameStats]:
    return {
        language: NameStats(
            len(labels.labelled[language]),
            len(namings),
            sum(len(bearers) > 1 for bearers in namings.values()),
        )
        for language, namings in sorted(labels.by_language.items())
        if namings
    }

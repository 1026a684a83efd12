"""What a graph says about an entity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ptm_plus.errors import DataError, listed, nearest

if TYPE_CHECKING:
    import networkx

    from ptm_plus.knowledge.graph import Graph
    from ptm_plus.knowledge.labels import EntityLabels


@dataclass(frozen=True)
class Neighbour:
    """An entity near another one.

    Attributes:
        hops: how far it is.
        path: relations that lead there, the ones against their direction with ``^`` before them.
        id: its id.
        label: its name; empty where it has none.
        degree: how many triple ends it is.
    """

    hops: int
    path: tuple[str, ...]
    id: str
    label: str
    degree: int


def resolve(wanted: str, graph: Graph, labels: EntityLabels | None) -> str:
    """Return the id of an entity given by id or by one of its names.

    Raises:
        DataError: the graph does not have it, or several bear the name.
    """
    if wanted in graph.index:
        return wanted
    bearers: set[str] = set()
    surfaces: set[str] = set()
    for namings in (labels.by_language if labels else {}).values():
        bearers.update(entity for entity, _ in namings.get(wanted, ()) if entity in graph.index)
        surfaces.update(namings)
    if len(bearers) == 1:
        return bearers.pop()
    if bearers:
        raise DataError(
            f"{wanted!r} names {len(bearers)} entities: {listed(sorted(bearers)[:10])}",
            "give the id of one of them",
        )
    known = surfaces or set(graph.entities)
    raise DataError(
        f"the graph has no entity {wanted!r}{nearest(wanted, known)}",
        "give an id of the graph" + ("" if labels else ", or --labels for names"),
    )


def neighbours(
    entity: str, graph: Graph, labels: EntityLabels | None, language: str, hops: int
) -> list[Neighbour]:
    """Return the entities up to so many hops away, along shortest paths, near ones first.

    Args:
        entity: its id.
        graph: the graph.
        labels: names.
        language: language of the names shown, where there are any.
        hops: how far.
    """
    import networkx

    whole = graph.networkx()
    around = whole.to_undirected(as_view=True)
    paths = networkx.single_source_shortest_path(around, entity, cutoff=hops)
    degree = graph.degree_by_label()
    found = []
    for other, nodes in paths.items():
        for path in _relations(whole, nodes) if other != entity else ():
            name = labels.label(other, language) if labels else None
            found.append(Neighbour(len(nodes) - 1, path, other, name or "", degree[other]))
    return sorted(found, key=lambda one: (one.hops, one.path, -one.degree, one.id))


def _relations(graph: networkx.MultiDiGraph[str], nodes: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the paths along some nodes: all relations of a single step, else one each."""

    def between(head: str, tail: str) -> list[str]:
        return [*graph.get_edge_data(head, tail, default={})]

    steps = [
        sorted([*between(a, b), *(f"^{relation}" for relation in between(b, a))])
        for a, b in pairwise(nodes)
    ]
    if len(steps) == 1:
        return [(relation,) for relation in steps[0]]
    return [tuple(step[0] for step in steps)]


def lookup(
    wanted: str, graph: Graph, labels: EntityLabels | None, language: str, hops: int
) -> dict[str, Any]:
    """Return an entity and its neighbours as plain values.

    Raises:
        DataError: as :func:`resolve`.
    """
    entity = resolve(wanted, graph, labels)
    found = neighbours(entity, graph, labels, language, hops)
    return {
        "id": entity,
        "label": (labels.label(entity, language) if labels else None) or "",
        "degree": graph.degree_by_label()[entity],
        "neighbours": [asdict(one) for one in found],
    }

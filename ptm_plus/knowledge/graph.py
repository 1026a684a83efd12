"""A graph of facts: triples of labels, with indexes that follow from the labels alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ptm_plus.errors import DataError
from ptm_plus.files import Pathish
from ptm_plus.knowledge.links import read_columns, read_links, representative

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True, eq=False)
class Graph:
    """Distinct triples over sorted labels. Labels are text, even where they look like numbers.

    Attributes:
        entities: labels of heads and tails, sorted.
        relations: labels of relations, sorted.
        triples: int64 [n, 3], rows of (head, relation, tail) as positions in the two tuples above,
            sorted and without duplicates.
    """

    entities: tuple[str, ...]
    relations: tuple[str, ...]
    triples: NDArray[np.int64]

    @classmethod
    def build(cls, triples: Iterable[tuple[str, str, str]]) -> Graph:
        """Make a graph from labelled triples in any order.

        Raises:
            DataError: there is no triple.
        """
        distinct = set(triples)
        if not distinct:
            raise DataError("the graph has no triples", "give at least one triple")
        entities = tuple(sorted({end for head, _, tail in distinct for end in (head, tail)}))
        relations = tuple(sorted({relation for _, relation, _ in distinct}))
        place = {label: at for at, label in enumerate(entities)}
        kind = {label: at for at, label in enumerate(relations)}
        rows = sorted((place[h], kind[r], place[t]) for h, r, t in distinct)
        return cls(entities, relations, np.asarray(rows, dtype=np.int64))

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Position of every entity in ``entities``."""
        return {label: at for at, label in enumerate(self.entities)}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the sorted labelled triples: equal for equal graphs, however stored."""
        digest = hashlib.sha256()
        for head, relation, tail in self.triples.tolist():
            fact = (self.entities[head], self.relations[relation], self.entities[tail])
            digest.update(("\t".join(fact) + "\n").encode())
        return digest.hexdigest()

    def degree(self) -> NDArray[np.int64]:
        """Return int64 [entities]: how many triple ends each entity is (a loop counts twice)."""
        ends = self.triples[:, [0, 2]].ravel()
        return np.bincount(ends, minlength=len(self.entities)).astype(np.int64)

    def degree_by_label(self) -> dict[str, int]:
        """Return ``degree()`` by entity label, as the linker wants it."""
        return dict(zip(self.entities, self.degree().tolist(), strict=True))

    def networkx(self) -> networkx.MultiDiGraph[str]:
        """Return the graph as a networkx one: nodes by label, edges keyed by relation label."""
        import networkx

        graph: networkx.MultiDiGraph[str] = networkx.MultiDiGraph()
        graph.add_nodes_from(self.entities)
        for head, relation, tail in self.triples.tolist():
            graph.add_edge(self.entities[head], self.entities[tail], key=self.relations[relation])
        return graph


def read_graph(paths: Sequence[Pathish], links: Sequence[Pathish] = ()) -> Graph:
    """Read files of ``head<TAB>relation<TAB>tail`` (no header; .gz, .xz, .bz2 too) as one graph.

    Args:
        paths: triple files; relation labels are taken as given, over all files.
        links: files of two entity ids that are one; see ``read_links``.

    Raises:
        DataError: a file is missing, empty of triples, not UTF-8, or a row has not three columns.
    """
    united = read_links(links)
    graph_triples: set[tuple[str, str, str]] = set()
    for path in paths:
        graph_triples.update(_read_triples(path, united))
    return Graph.build(graph_triples)


def _read_triples(path: Pathish, united: Mapping[str, str]) -> Iterable[tuple[str, str, str]]:
    found = False
    for _, (head, relation, tail) in read_columns(path, 3, "head, relation, tail"):
        found = True
        yield representative(united, head), relation, representative(united, tail)
    if not found:
        raise DataError("holds no triples", "rows are head<TAB>relation<TAB>tail", path=path)

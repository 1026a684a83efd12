"""Held-out triples and how well they are ranked: splits, filtered metrics, a baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptm_plus import DataError
from ptm_plus.knowledge import Graph, read_graph

Triples = NDArray[np.int64]

HITS = (1, 3, 10)

_NOTHING = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class HeldOut:
    """Triples that are asked for.

    Attributes:
        triples: ``[n, 3]`` in the numbers of the graph that is trained on.
        unknown: how many were left out, because that graph lacks an entity or a relation of theirs.
    """

    triples: Triples
    unknown: int


def read_held_out(paths: Sequence[str], links: Sequence[str], graph: Graph) -> HeldOut:
    """Read triples under the numbers of a graph.

    Args:
        paths: triple files.
        links: files of ids that are one.
        graph: what is trained on.

    Raises:
        DataError: a file is wrong, or the graph knows none of its triples.
    """
    asked = read_graph(paths, links)
    entity = np.array([graph.index.get(one, -1) for one in asked.entities])
    kinds = {name: number for number, name in enumerate(graph.relations)}
    relation = np.array([kinds.get(one, -1) for one in asked.relations])
    head, kind, tail = asked.triples.T
    rows = np.stack((entity[head], relation[kind], entity[tail]), axis=1)
    known = (rows >= 0).all(axis=1)
    if not known.any():
        raise DataError(
            "no held-out triple has its entities and its relation in the graph",
            "give --valid and --test of the same graph as --kg",
            path=paths[0],
        )
    return HeldOut(rows[known], int((~known).sum()))


def metrics(ranks: NDArray[np.float64]) -> dict[str, float]:
    """Return mean reciprocal rank and hits of ranks from 1."""
    hits = {f"hits_at_{k}": float((ranks <= k).mean()) for k in HITS}
    return {"mrr": float((1 / ranks).mean()), **hits}


def popularity(
    train: Triples, asked: Triples, others: Sequence[Triples], entities: int
) -> dict[str, float]:
    """Rank entities by how often they stand on that side of the relation, and return the metrics.

    Known true triples are left out of the ranks; ties count as the mean of their best and worst.

    Args:
        train: ``[n, 3]`` triples that are counted.
        asked: ``[m, 3]`` triples that are asked for, heads and tails.
        others: further true triples.
        entities: number of entities.
    """
    true = np.unique(np.concatenate((train, asked, *others)), axis=0)
    ranks = [rank for side in (0, 2) for rank in _side(train, asked, true, side, entities)]
    return metrics(np.array(ranks))


def _side(
    train: Triples, asked: Triples, true: Triples, side: int, entities: int
) -> Iterator[float]:
    given = 2 - side
    counts: dict[int, dict[int, int]] = {}
    for relation, entity in train[:, [1, side]].tolist():
        of = counts.setdefault(relation, {})
        of[entity] = of.get(entity, 0) + 1
    answers: dict[tuple[int, int], list[int]] = {}
    for relation, fixed, entity in true[:, [1, given, side]].tolist():
        answers.setdefault((relation, fixed), []).append(entity)
    ordered = {
        relation: np.sort(np.fromiter(of.values(), dtype=np.int64))
        for relation, of in counts.items()
    }
    for relation, fixed, entity in asked[:, [1, given, side]].tolist():
        of, values = counts.get(relation, {}), ordered.get(relation, _NOTHING)
        own = of.get(entity, 0)
        behind = int(np.searchsorted(values, own, side="right"))
        greater = len(values) - behind
        equal = behind - int(np.searchsorted(values, own)) if own else entities - len(values)
        for other in answers[relation, fixed]:
            if other != entity:
                greater -= of.get(other, 0) > own
                equal -= of.get(other, 0) == own
        yield 1 + greater + (equal - 1) / 2

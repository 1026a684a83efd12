"""Training a PyKEEN model with negatives that all triples of a step share.

A step draws a few entities and ranks each triple's tail, and its head, against them by softmax
cross-entropy: 1-N scoring (Dettmers et al. 2018, section 4.1; Lacroix et al. 2018, section 2.3)
over a sample. Scoring every triple against the same candidates is one matrix product, or one matrix
of distances, where negatives of each triple's own need a vector for every pair.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ptm_plus_kg_fusion.touched_rows import AllRows, TouchedRows, few_are_touched

Query = Callable[[Tensor, Tensor], Tensor]
"""Puts what is known of a triple, an entity and the relation, in the place of what is asked."""

_HEAD, _TAIL = 0, 2

_QUERIES: dict[str, dict[int, Query]] = {
    "TransEInteraction": {_TAIL: lambda h, r: h + r, _HEAD: lambda t, r: t - r},
    "RotatEInteraction": {_TAIL: lambda h, r: h * r, _HEAD: lambda t, r: t * r.conj()},
    "DistMultInteraction": {_TAIL: lambda h, r: h * r, _HEAD: lambda t, r: t * r},
    "ComplExInteraction": {_TAIL: lambda h, r: h * r, _HEAD: lambda t, r: t * r.conj()},
}
"""Of PyKEEN's interactions that are a distance or a product of such a query and an entity."""


def epochs(
    model: Any,
    triples: Tensor,
    *,
    number: int,
    batch_size: int,
    learning_rate: float,
    negatives: int,
    seed: int,
) -> Iterator[float]:
    """Train, and yield the mean loss after each pass over the triples.

    Args:
        model: a PyKEEN model, with its own regularizer and constraints; trained in place.
        triples: int64 ``[n, 3]``.
        number: passes.
        batch_size: triples per optimizer step, at most; steps are equally long.
        learning_rate: see ``AllRows`` and ``TouchedRows``: which one depends on the share of the
            entities that a step touches.
        negatives: entities that a step draws; all of them once, where there are no more.
        seed: of the order and the drawing.
    """
    device = next(model.parameters()).device
    few = few_are_touched(model, batch_size, negatives)
    updates = (TouchedRows if few else AllRows)(model, learning_rate)
    generator = torch.Generator().manual_seed(seed)
    entities, steps = model.num_entities, math.ceil(len(triples) / batch_size)
    for _ in range(number):
        model.train()
        total = torch.zeros((), device=device)
        for rows in torch.randperm(len(triples), generator=generator).tensor_split(steps):
            if negatives < entities:
                drawn = torch.randint(entities, (negatives,), generator=generator)
            else:
                drawn = torch.arange(entities)
            loss = batch_loss(model, triples[rows].to(device), drawn.to(device))
            total += loss.detach() * len(rows)
            updates.zero_grad()
            (loss + model.collect_regularization_term()).backward()
            updates.step()
        yield float(total) / len(triples)


def batch_loss(model: Any, batch: Tensor, drawn: Tensor) -> Tensor:
    """Return the mean cross-entropy of tails and heads, each against the drawn entities.

    Args:
        model: a PyKEEN model.
        batch: int64 ``[b, 3]``.
        drawn: int64 ``[n]``; a triple's own answer among them does not count against it.
    """
    losses = []
    for side in (_TAIL, _HEAD):
        true, others = scores(model, batch, side, drawn)
        others = others.masked_fill(batch[:, side, None] == drawn, -torch.inf)
        losses.append(torch.logaddexp(true, others.logsumexp(1)) - true)
    return torch.stack(losses).mean()


def scores(model: Any, batch: Tensor, side: int, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores of triples ``[b]``, and those with a drawn entity on one side ``[b, n]``.

    Args:
        model: a PyKEEN model.
        batch: int64 ``[b, 3]``.
        side: column of the entity that is replaced.
        drawn: int64 ``[n]``.
    """
    interaction = getattr(model, "interaction", None)
    queries = _QUERIES.get(type(interaction).__name__)
    if queries is None or getattr(interaction, "power_norm", False):
        true = model.score_hrt(batch)[:, 0]
        if side == _TAIL:
            return true, model.score_t(batch[:, :2], tails=drawn)
        return true, model.score_h(batch[:, 1:], heads=drawn)
    (entity,), (relation,) = model.entity_representations, model.relation_representations
    query = _real(queries[side](entity(batch[:, _TAIL - side]), relation(batch[:, 1])))
    own, candidates = _real(entity(batch[:, side])), _real(entity(drawn))
    norm = getattr(interaction, "p", None)
    if norm is None:
        return (query * own).sum(1), query @ candidates.T
    distances = torch.linalg.vector_norm(query - own, ord=norm, dim=1)
    return -distances, -torch.cdist(query, candidates, p=norm)


def _real(vectors: Tensor) -> Tensor:
    """Write complex numbers as pairs: the product of the pairs is Re(query · conj(entity))."""
    return torch.view_as_real(vectors).flatten(1) if vectors.is_complex() else vectors

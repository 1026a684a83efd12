"""Columns of a micro-batch: which tokens carry which entity vector, what is to be predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptm_plus import FeatureInput
from ptm_plus.knowledge import VectorTable

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
KEEP, MASK, RANDOM = 0, 1, 2

MODES = ("neither", "tokens", "entity", "both")
"""Mention modes by 2 · (entity masked or replaced) + (tokens masked)."""


@dataclass(frozen=True)
class EntityColumns:
    """Computes the columns from spans and mask plan; a function of its input alone.

    Attributes:
        table: entity vectors, memory-mapped.
        rows: ``[labels]`` row of the table by row of the run's entity list, -1 for none.
        every_token: attach the vector to every token of a mention.
        label_all: predict uncorrupted entities too.
        fused: ``[labels]`` whether an entity's vector is fused, the last entry for none.
    """

    table: VectorTable
    rows: Ints
    every_token: bool
    label_all: bool
    fused: Bools

    def __call__(self, given: FeatureInput) -> Mapping[str, NDArray[Any]]:
        """Return the columns.

        ``positions`` ``[P]`` tokens that carry a vector, ``owner`` ``[P]`` row of ``vectors``
        ``[U, e]``, ``table`` ``[S, L]`` which of these stand in one sequence, -1 behind the last,
        ``place`` ``[P]`` where each stands in the flattened table, ``labelled`` ``[L]`` tokens
        whose entity is asked for, ``labels`` ``[L]`` row of ``candidates`` ``[C, e]``, ``mode``
        ``[L]`` index into ``MODES``.

        Candidates are the distinct entities of every row of the step, on all ranks, so the loss
        does not depend on how the step was split. The entity that replaces another one is drawn
        among them, the same for every mention of an entity in a sequence.
        """
        spans = given.view.spans_of("entity")
        treatment = given.plan.treatment.get("entity", np.zeros(len(spans), dtype=np.int64))
        hit = given.plan.hit.get("entity", np.zeros(len(spans), dtype=np.bool_))
        own = self.rows[spans.id]
        candidates = self._candidates(given)
        carried = np.where(treatment == MASK, -1, own)
        chance = given.draws.uniform("random entity", given.view.keys[spans.sequence], spans.id)
        swap = (treatment == RANDOM) & (own >= 0)
        carried[swap] = candidates[(chance[swap] * len(candidates)).astype(np.int64)]
        carried[(own < 0) | ~self.fused[spans.id]] = -1
        attached = np.flatnonzero(carried >= 0)
        positions, which = self._tokens(spans.start[attached], spans.length[attached])
        unique, owner = np.unique(carried[attached][which], return_inverse=True)
        asked = np.flatnonzero((own >= 0) & (self.label_all | (treatment != KEEP)))
        return {
            "positions": positions,
            "owner": owner.reshape(-1).astype(np.int64),
            "vectors": self._vectors(unique),
            **_by_sequence(spans.sequence[attached][which]),
            "labelled": spans.start[asked],
            "labels": np.searchsorted(candidates, own[asked]),
            "candidates": self._vectors(candidates),
            "mode": 2 * (treatment[asked] != KEEP) + hit[asked],
        }

    def _candidates(self, given: FeatureInput) -> Ints:
        spans = given.step_spans.get("entity", given.view.spans_of("entity"))
        rows = np.unique(self.rows[spans.id])
        return rows[rows >= 0]

    def _tokens(self, start: Ints, length: Ints) -> tuple[Ints, Ints]:
        """Return tokens that carry a vector, each once, and the mention of each."""
        which = np.arange(len(start), dtype=np.int64)
        if self.every_token:
            which = np.repeat(which, length)
            first = np.repeat(start - (np.cumsum(length) - length), length)
            start = first + np.arange(len(which))
        tokens, index = np.unique(start, return_index=True)
        return tokens, which[index]

    def _vectors(self, rows: Ints) -> NDArray[np.float32]:
        """Return vectors brought to a mean square of 1, as layer-normed states have."""
        vectors = self.table.gather(rows).astype(np.float32)
        size = np.sqrt(np.mean(vectors**2, axis=1, keepdims=True))
        return np.asarray(vectors / np.maximum(size, 1e-12), dtype=np.float32)


def _by_sequence(sequence: Ints) -> dict[str, Ints]:
    """Return ``table`` and ``place`` of things in ascending order of their sequence."""
    first = np.flatnonzero(np.diff(sequence, prepend=-1))
    counts = np.diff(first, append=len(sequence))
    row = np.repeat(np.arange(len(first)), counts)
    column = np.arange(len(sequence)) - np.repeat(first, counts)
    width = int(counts.max(initial=0))
    table = np.full((len(first), width), -1, dtype=np.int64)
    table[row, column] = np.arange(len(sequence))
    return {"table": table, "place": row * width + column}

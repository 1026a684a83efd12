"""Row plans: which sequences are packed into which rows in an epoch.

A row is the unit of planning: a list of whole sequences of at most ``row_tokens`` tokens. The plan
is a function of (seed, stream, stratum, epoch) and of the sequences' lengths; neither workers nor
processes nor micro-batches change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptm_plus.keyed import derive_key, mix
from ptm_plus.ragged import offsets_of

_POOL = 4096


@dataclass(frozen=True)
class RowPlan:
    """The rows of one stratum in one epoch.

    Attributes:
        sequences: sequence numbers, row after row.
        bounds: ``[rows + 1]`` offsets into ``sequences``.
        fill: tokens over slots.
    """

    sequences: NDArray[np.int64]
    bounds: NDArray[np.int64]
    fill: float

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def row(self, number: int) -> NDArray[np.int64]:
        """Return the sequence numbers of a row."""
        return self.sequences[self.bounds[number] : self.bounds[number + 1]]


def plan_rows(
    sequences: NDArray[np.int64],
    lengths: NDArray[np.int64],
    row_tokens: int,
    *,
    seed: int,
    stream: str,
    stratum: str,
    epoch: int,
) -> RowPlan:
    """Shuffle sequences, pack them pool by pool (best fit, longest first), shuffle the rows.

    Args:
        sequences: sequence numbers of the stratum.
        lengths: their lengths in tokens, each at most ``row_tokens``.
        row_tokens: tokens of a row.
        seed: the run's seed.
        stream: stream name.
        stratum: stratum name.
        epoch: epoch number.
    """
    order_key = derive_key(seed, "rows", stream, stratum, epoch)
    shuffled = np.argsort(mix(order_key, sequences), kind="stable")
    rows: list[list[int]] = []
    for first in range(0, len(shuffled), _POOL):
        pool = shuffled[first : first + _POOL]
        rows.extend(_best_fit(pool, lengths[pool], row_tokens))
    row_key = derive_key(seed, "row order", stream, stratum, epoch)
    ordered = [rows[number] for number in np.argsort(mix(row_key, np.arange(len(rows))))]
    flat = np.fromiter((index for row in ordered for index in row), np.int64, len(shuffled))
    bounds = offsets_of(np.array([len(row) for row in ordered], dtype=np.int64))
    fill = float(lengths.sum()) / max(1, len(ordered) * row_tokens)
    return RowPlan(sequences[flat], bounds, fill)


def _best_fit(
    pool: NDArray[np.int64], lengths: NDArray[np.int64], row_tokens: int
) -> Sequence[list[int]]:
    """Pack a pool: each sequence, longest first, goes where it leaves the least room.

    ``rooms`` has bit r set when a row with r free slots exists; the lowest set bit at or above the
    length is the best fit.
    """
    rows: list[list[int]] = []
    with_room: dict[int, list[int]] = {}
    rooms = 0
    for index in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[index])
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                rooms &= ~(1 << room)
        else:
            room, row = row_tokens, len(rows)
            rows.append([])
        rows[row].append(int(pool[index]))
        left = room - length
        with_room.setdefault(left, []).append(row)
        rooms |= 1 << left
    return rows

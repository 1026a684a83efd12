"""A micro-batch on the device: what parts, inputs and objectives compute with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptm_plus.data import HostBatch
from ptm_plus.views import View


@dataclass(frozen=True)
class Block:
    """Neighbouring sequences of one length: attention takes them without padding.

    Attributes:
        start: first token.
        count: number of sequences.
        length: tokens of each.
    """

    start: int
    count: int
    length: int


@dataclass(frozen=True)
class MicroBatch:
    """One flat row of T tokens in S sequences, with K predicted slots.

    Attributes:
        stream: stream name.
        ids: ``[T]`` token ids after replacement.
        positions: ``[T]`` position ids, from 0 (the encoder adds the family's offset).
        types: ``[T]`` token type ids.
        languages: ``[T]`` row of the run's languages, -1 for special tokens.
        sequence: ``[T]`` sequence of each token.
        segments: ``[T]`` segment of the stored sequence.
        offsets: ``[S + 1]`` first token of each sequence.
        blocks: runs of equally long sequences; they cover the batch in order.
        predicted: ``[K]`` tokens with a masked-LM label.
        labels: ``[K]`` their original ids.
        kinds: unit kinds of the stream.
        kind: ``[K]`` which of them took each predicted token.
        columns: feature columns, named ``instance.column``.
    """

    stream: str
    ids: Tensor
    positions: Tensor
    types: Tensor
    languages: Tensor
    sequence: Tensor
    segments: Tensor
    offsets: Tensor
    blocks: tuple[Block, ...]
    predicted: Tensor
    labels: Tensor
    kinds: tuple[str, ...]
    kind: Tensor
    columns: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.ids)

    def column(self, instance: str, name: str) -> Tensor:
        """Return a plugin's column."""
        return self.columns[f"{instance}.{name}"]


def to_device(
    batch: HostBatch, device: torch.device, float_dtype: torch.dtype = torch.float32
) -> MicroBatch:
    """Move a host micro-batch to the device.

    Args:
        batch: the host micro-batch.
        device: where to.
        float_dtype: dtype of floating-point columns.
    """
    view, plan = batch.view, batch.plan
    predicted = np.flatnonzero(plan.predicted)

    def move(array: NDArray[np.generic]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        dtype = float_dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(device=device, dtype=dtype, non_blocking=True)

    return MicroBatch(
        stream=view.stream,
        ids=move(plan.ids),
        positions=move(view.positions),
        types=move(view.types),
        languages=move(view.languages),
        sequence=move(view.sequence),
        segments=move(view.segments),
        offsets=move(view.offsets),
        blocks=equal_blocks(view.lengths),
        predicted=move(predicted),
        labels=move(view.ids[predicted]),
        kinds=plan.kinds,
        kind=move(plan.kind[predicted]),
        columns={name: move(array) for name, array in batch.columns.items()},
    )


def host_columns(batch: HostBatch) -> dict[str, NDArray[np.generic]]:
    """Return what objectives may count from: ``predicted``, sequence labels, feature columns."""
    view: View = batch.view
    return {
        "predicted": np.flatnonzero(batch.plan.predicted),
        **{f"label.{name}": column for name, column in view.labels.items()},
        **batch.columns,
    }


def equal_blocks(lengths: Sequence[int] | NDArray[np.int64]) -> tuple[Block, ...]:
    """Return the runs of equal lengths."""
    values = np.asarray(lengths)
    first = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))
    counts = np.diff(np.concatenate((first, [len(values)])))
    starts = np.concatenate(([0], np.cumsum(values)))[first]
    return tuple(
        Block(int(start), int(count), int(values[index]))
        for start, count, index in zip(starts, counts, first, strict=True)
    )

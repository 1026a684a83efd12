"""A few sequences of a stream, together in one micro-batch and one by one, and their comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptm_plus.data import HELD_OUT_EPOCH, HostBatch, Row, StreamData
from ptm_plus.keyed import derive_key
from ptm_plus.run import Run

_SEQUENCES, _MORE, _LOOKED_AT = 5, 64, 512
_RATE = 0.4  # each objective should have something to predict in a few sequences

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Trial:
    """Sequences of a stream, equally masked.

    Attributes:
        stream: stream name.
        together: all of them in one micro-batch.
        alone: one micro-batch for each.
    """

    stream: str
    together: HostBatch
    alone: tuple[HostBatch, ...]

    def error(self, together: Tensor, alone: Sequence[Tensor]) -> float:
        """Return the largest difference of states, relative to the sequence's largest value.

        Args:
            together: ``[T, d]`` states of the common micro-batch.
            alone: states of each sequence, in the order of ``alone``.
        """
        view = self.together.view
        packed = dict(
            zip(view.numbers.tolist(), together.split(view.lengths.tolist()), strict=True)
        )
        errors = []
        for batch, states in zip(self.alone, alone, strict=True):
            found = packed[int(batch.view.numbers[0])]
            errors.append(float((found - states).abs().max() / states.abs().max().clamp(min=1e-30)))
        return float(np.max(errors))  # NaN stays NaN


def make_trial(run: Run, data: StreamData) -> Trial:
    """Choose sequences with spans, short ones and (if there are) several of one length."""
    numbers = _ranked(data)
    middle = len(numbers) // 2
    chosen = np.unique(np.concatenate((numbers[:3], numbers[middle : middle + _SEQUENCES - 3])))
    return Trial(
        data.name,
        _batch(run, data.name, chosen, chosen),
        tuple(_batch(run, data.name, chosen[n : n + 1], chosen) for n in range(len(chosen))),
    )


def larger_batches(run: Run) -> Iterator[HostBatch]:
    """Yield larger micro-batches of every stream: there a part may find what it works on."""
    for data in run.prepared.streams.values():
        numbers = _ranked(data)[:_MORE]
        yield _batch(run, data.name, numbers, numbers)


def _ranked(data: StreamData) -> Ints:
    """Return sequences, those with spans first and short ones before long ones."""
    numbers = data.held_out[:_LOOKED_AT]
    if len(numbers) < _MORE:
        numbers = np.arange(min(len(data.store), _LOOKED_AT), dtype=np.int64)
    spans = np.zeros(len(numbers))
    for table in data.maker.spans(numbers).values():
        spans += np.bincount(table.sequence[table.id >= 0], minlength=len(numbers))
    return numbers[np.lexsort((data.maker.lengths[numbers], spans == 0))]


def _batch(run: Run, stream: str, numbers: Ints, step: Ints) -> HostBatch:
    row, rows = (Row(stream, "", HELD_OUT_EPOCH, part) for part in (numbers, step))
    return run.collator.batch([row], [rows], max(_RATE, *run.settings.masking.ends))


# ---------------------------------------------------------------------------------------------
# Leaving no trace


@contextmanager
def left_as_it_was(run: Run) -> Iterator[None]:
    """Set evaluation mode; put back modes, random states and gradients."""
    modes = {module: module.training for module in run.root.modules()}
    devices = [run.device] if run.device.type == "cuda" else []
    run.encoder.eval()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training
            run.encoder.zero_grad(set_to_none=True)


@contextmanager
def perturbed(parts: nn.Module) -> Iterator[None]:
    """Move parameters away from their start, by noise that every process draws alike."""
    generator = torch.Generator().manual_seed(derive_key("self-check") % 2**63)

    def moved(start: Tensor) -> Tensor:
        noise = torch.randn(start.shape, generator=generator, dtype=start.dtype)
        return start + 0.05 * noise.to(start.device)

    with changed(parts, moved):
        yield


@contextmanager
def changed(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Give a module other parameters for a while.

    Args:
        module: the module.
        change: parameter to what stands in its place.
    """
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    try:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(change(parameter))
        yield
    finally:
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(before[name])

"""Samples that plain transformers must reproduce: single sequences as anybody would pass them.

Positions count from the start of the sequence and token types are 0, whatever the stream's layout
says, so that ids alone say everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ptm_plus.data import HELD_OUT_EPOCH, Row, held_out_rows
from ptm_plus.microbatch import MicroBatch, to_device
from ptm_plus.run import Run

_SEQUENCES, _POSITIONS = 6, 4


@dataclass(frozen=True)
class Samples:
    """Some sequences in one packed micro-batch, and the positions whose logits are kept.

    Attributes:
        batch: the micro-batch.
        positions: per sequence, ``[K]`` places in it.
    """

    batch: MicroBatch
    positions: tuple[Tensor, ...]


def make_samples(run: Run) -> Samples:
    """Return samples from held-out sequences, masked as in training."""
    name = "text" if "text" in run.prepared.streams else min(run.prepared.streams)
    data = run.prepared.streams[name]
    numbers = np.concatenate(
        [row.numbers for row in held_out_rows(data, run.settings.batch.row_tokens, _SEQUENCES)]
        or [np.arange(min(_SEQUENCES, len(data.store)))]
    )
    row = Row(name, "", HELD_OUT_EPOCH, numbers)
    host = run.collator.batch([row], [row], run.settings.masking.rate)
    batch = to_device(host, run.device, run.float_dtype())
    start = batch.offsets[batch.sequence]
    within = torch.arange(len(batch), device=run.device) - start
    chosen = [
        torch.linspace(0, length - 1, min(_POSITIONS, length)).long()
        for length in host.view.lengths.tolist()
    ]
    plain = replace(batch, positions=within, types=torch.zeros_like(batch.types))
    return Samples(plain, tuple(chosen))


def logits_of(run: Run, samples: Samples, without: Sequence[str]) -> list[Tensor]:
    """Return the logits ``[K, V]`` of every sample by the packed path.

    Args:
        run: the run.
        samples: the samples.
        without: plugins whose taps and inputs are silenced.
    """
    with torch.no_grad(), run.encoder.without(without):
        states = run.encoder.encode(samples.batch).top
        starts = samples.batch.offsets[:-1].tolist()
        return [
            run.encoder.logits(states[start + places.to(states.device)]).cpu()
            for start, places in zip(starts, samples.positions, strict=True)
        ]


def sample_tensors(samples: Samples, logits: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return what is stored: ``lengths``, and per sequence ``ids``, ``positions``, ``logits``."""
    lengths = samples.batch.offsets.diff().cpu()
    tensors = {"lengths": lengths}
    sequences = samples.batch.ids.cpu().split(lengths.tolist())
    for number, ids in enumerate(sequences):
        tensors[f"ids.{number}"] = ids.clone()
        tensors[f"positions.{number}"] = samples.positions[number]
        tensors[f"logits.{number}"] = logits[number].contiguous()
    return tensors

"""Does the model use the vectors? What happens to masked mentions when they are zeroed."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptm_plus import MicroBatch, ProbeContext, View, paired, predicted_sequences


def entity_vectors(context: ProbeContext, *, instance: str) -> dict[str, Any]:
    """Return, per stream, how much the loss on masked mentions rises with all vectors zeroed.

    In each held-out sequence with two linked entities at least, one entity's tokens are masked. In
    mode ``both`` its vector is masked too, at every mention, so that only the vectors of the others
    can help; in mode ``tokens`` it stays.
    """
    figures: dict[str, Any] = {}
    for stream in context.streams:
        for mode, attached in (("both", False), ("tokens", True)):
            found = _rise(context, stream, instance, attached)
            if found:
                figures.setdefault(stream, {})[mode] = found
    return figures


def _rise(
    context: ProbeContext, stream: str, instance: str, attached: bool
) -> dict[str, Any] | None:
    owners, whole, zeroed = [], [], []
    for host in context.masked_spans(stream, "entity", one_of_several, attached=attached):
        batch = context.on_device(host)
        owners.append(predicted_sequences(host))
        whole.append(context.scores(batch)[0])
        zeroed.append(context.scores(without_vectors(batch, instance))[0])
    rise = paired(owners, whole, zeroed)
    if not rise.count:
        return None
    return {
        "loss": float(torch.cat(whole).mean()),
        "loss_zeroed": float(torch.cat(zeroed).mean()),
        "rise": asdict(rise),
    }


def without_vectors(batch: MicroBatch, instance: str) -> MicroBatch:
    """Return the micro-batch with all entity vectors at zero."""
    name = f"{instance}.vectors"
    return replace(batch, columns={**batch.columns, name: torch.zeros_like(batch.columns[name])})


def one_of_several(view: View) -> NDArray[np.bool_]:
    """Choose the last linked mention of each sequence that has two different entities at least."""
    spans = view.spans_of("entity")
    linked = np.flatnonzero(spans.id >= 0)
    chosen = np.zeros(len(spans), dtype=np.bool_)
    if not len(linked):
        return chosen
    sequence, entity = spans.sequence[linked], spans.id[linked]
    pairs = np.unique(np.stack((sequence, entity)), axis=1)
    several = np.bincount(pairs[0], minlength=len(view.numbers)) > 1
    last = np.append(sequence[1:] != sequence[:-1], True)
    chosen[linked[last & several[sequence]]] = True
    return chosen

"""Masked language modelling at predicted positions only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ptm_plus.components import Objective, Outcome
from ptm_plus.microbatch import MicroBatch

if TYPE_CHECKING:
    from ptm_plus.encoder import Encode


def masked_lm(name: str = "mlm", weight: float = 1.0) -> Objective:
    """Return a masked-LM objective (Devlin et al. 2019, section 3.1).

    The vocabulary projection sees the K predicted positions only; the loss is the sum of their
    cross-entropies, in fp32 at least. Where several kinds of units are masked, accuracy is told of
    each, too.

    Args:
        name: key of the loss; ``tlm`` for translation pairs, say.
        weight: factor on the mean.
    """
    return Objective(name=name, count=_count, compute=_compute, weight=weight, reads="predicted")


def _count(columns: Mapping[str, NDArray[Any]]) -> float:
    return float(len(columns["predicted"]))


def _compute(batch: MicroBatch, encode: Encode, parts: Mapping[str, nn.Module]) -> Outcome:
    states = encode(batch)
    logits = states.logits(states.top[batch.predicted])
    return Outcome(loss_sum(logits, batch.labels), _accuracies(logits, batch))


def _accuracies(logits: Tensor, batch: MicroBatch) -> dict[str, tuple[Tensor, Tensor]]:
    """Return how many predicted tokens are right, of how many: all, and by the kind of their unit.

    Args:
        logits: ``[K, V]``.
        batch: whose predicted tokens these are.
    """
    right = _is_highest(logits.detach(), batch.labels)
    asked = torch.ones_like(right)
    found = {"accuracy": (right.sum(), asked.sum())}
    if len(batch.kinds) > 1:
        for number, name in enumerate(batch.kinds):
            own = batch.kind == number
            found[f"accuracy_{name}"] = ((right & own).sum(), own.sum())
    return found


def _is_highest(logits: Tensor, labels: Tensor) -> Tensor:
    """Return whether each label ``[K]`` has the highest of its logits ``[K, V]``.

    On CPUs the highest value is found ten times as fast as its place, and in fp32 no two logits are
    equal by chance; in half precision they often are, and one of them alone is the answer.
    """
    if logits.element_size() < 4:
        return logits.argmax(-1) == labels
    return logits.gather(1, labels[:, None])[:, 0] == logits.amax(-1)


def loss_sum(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of cross-entropies of ``[K, V]`` logits, computed in fp32 or better."""
    scores = logits.float() if logits.element_size() < 4 else logits
    return cross_entropy(scores, labels, reduction="sum")

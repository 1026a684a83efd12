"""One optimizer step: counts first, then sums, so that no split changes the gradient.

The root module is the only place where parameters are used; its forward returns the micro-batch's
contribution to the step's loss, already divided by the global counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ptm_plus.attention import Rule
from ptm_plus.components import Objective
from ptm_plus.compose import Contribution
from ptm_plus.data import HostBatch
from ptm_plus.encoder import Encode, Encoder, States
from ptm_plus.microbatch import MicroBatch, host_columns

LossKey = tuple[str, str]
"""(stream, objective)."""


class Passes:
    """The passes of one micro-batch; objectives that read the same view share its pass."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._done: dict[Any, States] = {}

    def __call__(
        self,
        batch: MicroBatch,
        *,
        taps: bool = True,
        rules: Sequence[Rule] = (),
    ) -> States:
        """Run a pass, or return the one that already ran with the same arguments."""
        key = (id(batch), taps, tuple(id(rule) for rule in rules))
        if key not in self._done:
            self._done[key] = self._encoder.encode(batch, taps=taps, rules=rules)
        return self._done[key]


@dataclass
class Tally:
    """Sums of a step by loss: kept on the device until somebody reads them."""

    sums: dict[LossKey, Tensor] = field(default_factory=dict)
    counts: dict[LossKey, float] = field(default_factory=dict)
    metrics: dict[tuple[str, str, str], tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass
class Progress:
    """Where a training stands.

    Attributes:
        step: optimizer steps done.
        tokens: training tokens seen, all processes.
        seconds: time spent in steps.
        first: first logged mean loss by ``stream/objective``.
        last: last logged mean loss.
        metrics: last logged metrics, by ``stream/objective/metric``.
        tally: sums since the last log line.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    first: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)


class Root(nn.Module):
    """Everything that holds parameters.

    Args:
        encoder: backbone and parts.
        objectives: objectives by stream, with their owners, in a fixed order.
    """

    def __init__(
        self, encoder: Encoder, objectives: Mapping[str, Sequence[Contribution[Objective]]]
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.objectives = {stream: tuple(owners) for stream, owners in objectives.items()}

    def forward(
        self,
        batch: MicroBatch | None,
        divisors: Mapping[LossKey, float],
        weights: Mapping[str, float],
        touch: bool = False,
    ) -> tuple[Tensor, dict[LossKey, Tensor], dict[tuple[str, str, str], tuple[Tensor, Tensor]]]:
        """Return the micro-batch's share of the step's loss.

        Args:
            batch: the micro-batch; ``None`` for a rank that has no row left.
            divisors: count of each loss over the whole step, all ranks.
            weights: factor by objective.
            touch: add zero times every trainable parameter, so that each takes part in the
                synchronised backward.
        """
        total = next(self.encoder.parameters()).new_zeros(())
        sums: dict[LossKey, Tensor] = {}
        metrics: dict[tuple[str, str, str], tuple[Tensor, Tensor]] = {}
        if batch is not None:
            encode: Encode = Passes(self.encoder)
            for owner in self.objectives[batch.stream]:
                key = (batch.stream, owner.component.name)
                if not divisors[key]:
                    continue
                parts = self.encoder.parts_of(owner.instance)
                outcome = owner.component.compute(batch, encode, parts)
                total = total + outcome.sum * (weights[owner.component.name] / divisors[key])
                sums[key] = outcome.sum.detach()
                metrics.update({(*key, name): pair for name, pair in outcome.metrics.items()})
        if touch:
            trainable = (p for p in self.encoder.parameters() if p.requires_grad)
            total = total + sum(p.reshape(-1)[0] * 0 for p in trainable)
        return total, sums, metrics

    def count(self, batch: HostBatch) -> dict[LossKey, float]:
        """Return what the micro-batch adds to each loss's count; needs no forward pass."""
        columns = host_columns(batch)
        stream = batch.view.stream
        return {
            (stream, owner.component.name): owner.component.count(columns)
            for owner in self.objectives[stream]
        }


def add_counts(
    counts: Sequence[Mapping[LossKey, float]],
    reduce: Callable[[Tensor], Tensor],
    keys: Sequence[LossKey],
) -> dict[LossKey, float]:
    """Sum counts over micro-batches and, by ``reduce``, over processes.

    Args:
        counts: counts of this process's micro-batches.
        reduce: sums a float64 vector over processes.
        keys: every loss of the run, in the same order on every process.
    """
    own = torch.tensor(
        [sum(count.get(key, 0.0) for count in counts) for key in keys], dtype=torch.float64
    )
    return dict(zip(keys, reduce(own).tolist(), strict=True))


def add_outcome(
    tally: Tally,
    sums: Mapping[LossKey, Tensor],
    metrics: Mapping[tuple[str, str, str], tuple[Tensor, Tensor]],
) -> None:
    """Add a micro-batch's sums to a tally, without reading any number."""
    for key, value in sums.items():
        tally.sums[key] = tally.sums[key] + value if key in tally.sums else value
    for name, (top, bottom) in metrics.items():
        before = tally.metrics.get(name)
        tally.metrics[name] = (
            (top, bottom) if before is None else (before[0] + top, before[1] + bottom)
        )


def shares(tally: Tally) -> dict[str, float]:
    """Return a tally's metrics by ``stream/objective/metric``; what was never counted has none."""
    return {
        "/".join(name): float(top) / float(bottom)
        for name, (top, bottom) in sorted(tally.metrics.items())
        if float(bottom)
    }

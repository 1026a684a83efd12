"""One optimizer step: counts first, then sums, so that no split changes the gradient.

The root module is the only place where parameters are used; its forward returns the micro-batch's
contribution to the step's loss, already divided by the global counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from ptm_plus.attention import Rule
from ptm_plus.components import Objective
from ptm_plus.compose import Contribution
from ptm_plus.data import HostBatch, Row
from ptm_plus.encoder import Encode, Encoder, States, part_key
from ptm_plus.errors import DataError
from ptm_plus.microbatch import MicroBatch, host_columns
from ptm_plus.processes import is_sharded

if TYPE_CHECKING:
    from ptm_plus.processes import World

LossKey = tuple[str, str]
"""(stream, objective)."""

MetricKey = tuple[str, str, str]
"""(stream, objective, metric)."""

Kept = dict[MetricKey, list[Tensor]]
"""What objectives keep until the step is done, by (stream, objective, name)."""

T = TypeVar("T")


class Passes:
    """The passes of one micro-batch, as one plugin asks for them.

    Args:
        encoder: backbone and parts.
        instance: the plugin.
        done: passes that ran, of all plugins: objectives that read the same view share its pass.
        predicted: whether nobody reads other tokens' states after the last block.
    """

    def __init__(
        self,
        encoder: Encoder,
        instance: str = "",
        done: dict[Any, tuple[MicroBatch, States]] | None = None,
        predicted: bool = False,
    ) -> None:
        self._encoder = encoder
        self._instance = instance
        self._done = {} if done is None else done
        self._predicted = predicted

    def __call__(
        self,
        batch: MicroBatch,
        *,
        taps: bool = True,
        rules: Sequence[Rule] = (),
        weights: str = "",
        vectors: Tensor | None = None,
    ) -> States:
        """Run a pass, or return the one that already ran with the same arguments."""
        average = part_key(self._instance, weights) if weights else ""
        only = batch.predicted if self._predicted else None
        run = partial(
            self._encoder.encode, batch, taps=taps, rules=rules, weights=average, only=only
        )
        if vectors is not None:
            return run(vectors=vectors)
        key = (id(batch), taps, tuple(id(rule) for rule in rules), average)
        if key not in self._done:
            # Kept with its states: the id of one that is gone could be another's.
            self._done[key] = (batch, run())
        return self._done[key][1]

    def words(self, ids: Tensor) -> Tensor:
        """Return ``[n, d]`` word vectors of ``[n]`` token ids."""
        vectors: Tensor = self._encoder.word_vectors()(ids)
        return vectors


@dataclass
class Tally:
    """Sums by loss, in float64: kept on the device until somebody reads them.

    Attributes:
        sums: what objectives summed up.
        counts: divisors, all processes together.
        metrics: (numerator, denominator) of this process by stream, objective and metric.
    """

    sums: dict[LossKey, Tensor] = field(default_factory=dict)
    counts: dict[LossKey, float] = field(default_factory=dict)
    metrics: dict[MetricKey, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass
class Progress:
    """Where a training stands.

    Attributes:
        step: optimizer steps done.
        tokens: training tokens seen, all processes.
        taken: [rows, tokens] of these by ``stream/stratum``.
        seconds: time spent in steps.
        micro_rows: most rows of a micro-batch, after memory ran out; 0 for the setting.
        skipped: updates that were left out because a gradient was not finite.
        rolled_back: how often training went back to a checkpoint.
        troubles: of both, since the last checkpoint.
        score: held-out loss at this step, if it was measured.
        best: lowest held-out loss so far.
        recent: losses of the last steps, for the spike guard.
        data: digest of the data since the last log line.
        first: first logged mean loss by ``stream/objective``.
        last: last logged mean loss.
        metrics: last logged metrics, by ``stream/objective/metric``.
        tally: sums since the last log line, all processes together; metrics of this one.
    """

    step: int = 0
    tokens: int = 0
    taken: dict[str, list[int]] = field(default_factory=dict)
    seconds: float = 0.0
    micro_rows: int = 0
    skipped: int = 0
    rolled_back: int = 0
    troubles: int = 0
    score: float | None = None
    best: float | None = None
    recent: list[float] = field(default_factory=list)
    data: int = 0
    first: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)

    def add_rows(self, rows: Iterable[Row], tokens: Iterable[int]) -> None:
        """Count rows, each with its tokens."""
        for row, length in zip(rows, tokens, strict=True):
            counted = self.taken.setdefault(f"{row.stream}/{row.stratum}", [0, 0])
            counted[0] += 1
            counted[1] += length
            self.tokens += length

    def to_json(self, world: World) -> dict[str, Any]:
        """Return plain values, sums of all processes; every process must call it."""
        values = {name: value for name, value in vars(self).items() if name != "tally"}
        tally = self.tally
        values["sums"] = {"/".join(key): float(value) for key, value in tally.sums.items()}
        values["counts"] = {"/".join(key): value for key, value in tally.counts.items()}
        values["shares"] = all_metrics(tally, world)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any], main: bool = True) -> Progress:
        """Return the progress that was saved.

        Args:
            values: from :meth:`to_json`.
            main: whether this process goes on with the sums of all processes' metrics.

        Raises:
            DataError: they are not those of a progress.
        """
        try:
            plain = dict(values)
            sums, counts, metrics = (plain.pop(name) for name in ("sums", "counts", "shares"))
            progress = cls(**plain)
            progress.tally = Tally(
                {loss_key(name): float64(value) for name, value in sums.items()},
                {loss_key(name): float(value) for name, value in counts.items()},
                {
                    metric_key(name): (float64(top), float64(bottom))
                    for name, (top, bottom) in (metrics.items() if main else ())
                },
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"the checkpoint's progress is broken: {error}") from error
        return progress


def float64(value: float) -> Tensor:
    """Return a number as a scalar on the host."""
    return torch.tensor(float(value), dtype=torch.float64)


def loss_key(name: str) -> LossKey:
    """Return the key of ``stream/objective``."""
    stream, objective = name.split("/")
    return stream, objective


def metric_key(name: str) -> MetricKey:
    """Return the key of ``stream/objective/metric``."""
    stream, objective, metric = name.split("/")
    return stream, objective, metric


class Root(nn.Module):
    """Everything that holds parameters.

    Args:
        encoder: backbone and parts.
        objectives: objectives by stream, with their owners, in a fixed order; of all stages.
    """

    def __init__(
        self, encoder: Encoder, objectives: Mapping[str, Sequence[Contribution[Objective]]]
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.objectives = {stream: tuple(owners) for stream, owners in objectives.items()}

    def forward(self, work: Callable[[], T]) -> T:
        """Do a piece of work with the parameters at hand.

        Whatever uses parameters runs in here: sharded ones (FSDP2) are whole only within a call.
        """
        return work()

    def losses(
        self,
        batch: MicroBatch | None,
        divisors: Mapping[LossKey, float],
        weights: Mapping[str, float],
        *,
        touch: bool = False,
        share: float = 1.0,
        kept: Kept | None = None,
    ) -> tuple[Tensor, dict[LossKey, Tensor], dict[MetricKey, tuple[Tensor, Tensor]]]:
        """Return the micro-batch's share of the step's loss.

        Args:
            batch: the micro-batch; ``None`` for a rank that has no row left.
            divisors: count of each loss over the whole step, all ranks; others are not computed.
            weights: factor by objective.
            touch: add zero times every trainable parameter, so that each takes part in the
                synchronised backward.
            share: factor on everything; 0 for a micro-batch that does not count.
            kept: gets what the objectives keep until the step is done.
        """
        first = next(self.encoder.parameters())
        total = torch.zeros((), device=first.device, dtype=first.dtype)
        sums: dict[LossKey, Tensor] = {}
        metrics: dict[MetricKey, tuple[Tensor, Tensor]] = {}
        keeping: Kept = {} if kept is None else kept
        if batch is not None:
            # A count of zero: nothing to predict, or no objective of this stage.
            active = [
                owner
                for owner in self.objectives[batch.stream]
                if divisors.get((batch.stream, owner.component.name))
            ]
            predicted = all(owner.component.reads == "predicted" for owner in active)
            done: dict[Any, tuple[MicroBatch, States]] = {}
            for owner in active:
                key = (batch.stream, owner.component.name)
                parts = self.encoder.parts_of(owner.instance)
                encode: Encode = Passes(self.encoder, owner.instance, done, predicted)
                outcome = owner.component.compute(batch, encode, parts)
                factor = share * weights[owner.component.name] / divisors[key]
                total = total + outcome.sum * factor
                if share:
                    sums[key] = outcome.sum.detach()
                    metrics.update({(*key, name): pair for name, pair in outcome.metrics.items()})
                    for name, tensor in outcome.kept.items():
                        keeping.setdefault((*key, name), []).append(tensor.detach())
        if touch:  # sharded blocks need none of it: every pass runs through all of them
            trainable = (p for p in self.encoder.parameters() if p.requires_grad)
            total = total + sum(p.reshape(-1)[0] * 0 for p in trainable if not is_sharded(p))
        return total, sums, metrics

    def count(self, batch: HostBatch) -> dict[LossKey, float]:
        """Return what the micro-batch adds to each loss's count; needs no forward pass."""
        columns = host_columns(batch)
        stream = batch.view.stream
        return {
            (stream, owner.component.name): owner.component.count(columns)
            for owner in self.objectives[stream]
        }


def add_counts(counts: Sequence[Mapping[LossKey, float]], keys: Sequence[LossKey]) -> list[float]:
    """Return the counts of some micro-batches together, in the order of the keys."""
    return [sum(count.get(key, 0.0) for count in counts) for key in keys]


def add_outcome(
    tally: Tally,
    sums: Mapping[LossKey, Tensor],
    metrics: Mapping[MetricKey, tuple[Tensor, Tensor]],
) -> None:
    """Add a micro-batch's sums to a tally, without reading any number."""
    for key, value in sums.items():
        tally.sums[key] = tally.sums[key] + value.double() if key in tally.sums else value.double()
    for name, pair in metrics.items():
        top, bottom = (value.double() for value in pair)
        before = tally.metrics.get(name)
        tally.metrics[name] = (
            (top, bottom) if before is None else (before[0] + top, before[1] + bottom)
        )


def joined(kept: Kept, world: World) -> dict[str, dict[str, Tensor]]:
    """Return what objectives kept in a step, of all processes, by ``stream/objective`` and name."""
    own = {key: torch.cat(tensors) for key, tensors in sorted(kept.items())}
    found: dict[str, dict[str, Tensor]] = {}
    for (stream, objective, name), tensor in world.joined(own).items():
        found.setdefault(f"{stream}/{objective}", {})[name] = tensor
    return found


def shares(metrics: Mapping[str, Sequence[Any]]) -> dict[str, float]:
    """Return numerators over denominators by name; what was never counted has none."""
    return {
        name: float(top) / float(bottom)
        for name, (top, bottom) in sorted(metrics.items())
        if float(bottom)
    }


def all_metrics(tally: Tally, world: World) -> dict[str, tuple[float, float]]:
    """Return (numerator, denominator) of all processes by ``stream/objective/metric``."""
    own = {"/".join(k): (float(top), float(low)) for k, (top, low) in tally.metrics.items()}
    total: dict[str, tuple[float, float]] = {}
    for found in world.gather(own):
        for name, (top, low) in found.items():
            before = total.get(name, (0.0, 0.0))
            total[name] = (before[0] + top, before[1] + low)
    return total

"""What a step is made of: a pure function of the step number.

The base plan comes from the settings; schedules change it one after another. Rows are shared out
among streams by weight and among a stream's strata by p ∝ tokens^alpha, with one keyed offset per
step and systematic sampling, so that counts are within one row of their expectation in every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ptm_plus.keyed import derive_key, uniform
from ptm_plus.settings import RunSettings
from ptm_plus.stages import Stage, stage_at


@dataclass(frozen=True)
class StepPlan:
    """The plan of one optimizer step.

    Attributes:
        step: number of the step, from 0.
        steps: length of the run.
        stage: name of the stage.
        stage_step: number of the step in its stage, from 0.
        stage_steps: length of the stage.
        stream_weights: share of rows by stream.
        alpha: exponent of token counts among strata, by stream.
        objective_weights: factor by objective name; of those that are computed in the step.
        mask_rate: predicted share of maskable tokens.
        lr: factor on the peak learning rate.
        kind_weights: factor on the weight of unit kinds, by name; 0 leaves a kind out of the step.
    """

    step: int
    steps: int
    stage: str
    stage_step: int
    stage_steps: int
    stream_weights: Mapping[str, float]
    alpha: Mapping[str, float]
    objective_weights: Mapping[str, float]
    mask_rate: float
    lr: float
    kind_weights: Mapping[str, float] = field(default_factory=dict)

    def changed(self, **values: object) -> StepPlan:
        """Return a copy with some fields changed; for schedules."""
        return replace(self, **values)  # type: ignore[arg-type]


def learning_rate(step: int, steps: int, warmup: float, decay: str) -> float:
    """Return the factor on the peak rate at a step: linear warm-up, then the decay."""
    ramp = max(1, round(warmup * steps))
    if step < ramp:
        return (step + 1) / ramp
    left = (steps - step) / max(1, steps - ramp)
    if decay == "linear":
        return left
    return 0.5 * (1 - math.cos(math.pi * left)) if decay == "cosine" else 1.0


class Planner:
    """Makes the plan of any step.

    Args:
        settings: the run's settings.
        stream_weights: weight by active stream.
        alpha: exponent by active stream.
        objective_weights: weight by objective.
        schedules: changes, in chain order.
        stages: the run's stages; one over everything where none are given.

    Attributes:
        objective_weights: weight by objective, of all stages.
    """

    def __init__(
        self,
        settings: RunSettings,
        stream_weights: Mapping[str, float],
        alpha: Mapping[str, float],
        objective_weights: Mapping[str, float],
        schedules: Sequence[Callable[[StepPlan], StepPlan]] = (),
        stages: Sequence[Stage] = (),
    ) -> None:
        self.objective_weights = dict(objective_weights)
        self._settings = settings
        self._alpha = dict(alpha)
        self._schedules = tuple(schedules)
        everything = dict(stream_weights), self.objective_weights
        whole = Stage("main", 0, settings.train.steps, frozenset(), {})
        self._stages = tuple(stages) or (whole,)
        self._weights = {
            stage.name: _weights_in(stage, *everything) if stages else everything
            for stage in self._stages
        }

    def plan(self, step: int) -> StepPlan:
        """Return the plan of a step."""
        train, stage = self._settings.train, stage_at(self._stages, step)
        streams, objectives = self._weights[stage.name]
        plan = StepPlan(
            step=step,
            steps=train.steps,
            stage=stage.name,
            stage_step=step - stage.first,
            stage_steps=stage.steps,
            stream_weights=streams,
            alpha=self._alpha,
            objective_weights=objectives,
            mask_rate=self._settings.masking.rate,
            lr=learning_rate(step - stage.first, stage.steps, train.warmup, train.decay),
        )
        for change in self._schedules:
            plan = change(plan)
        return plan


def _weights_in(
    stage: Stage, streams: Mapping[str, float], objectives: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the weights of streams and objectives that a stage trains on."""
    return (
        {name: weight for name, weight in streams.items() if stage.objectives.get(name)},
        {name: weight for name, weight in objectives.items() if name in stage.loss_names},
    )


def shares(tokens: Mapping[str, int], alpha: float) -> dict[str, float]:
    """Return p ∝ tokens^alpha over strata (XLM, Conneau and Lample 2019, section 3.1)."""
    powers = {name: float(count) ** alpha for name, count in tokens.items() if count}
    total = sum(powers.values())
    return {name: power / total for name, power in powers.items()}


def share_out(rows: int, weights: Mapping[str, float], offset: float) -> dict[str, int]:
    """Share rows out by weight: systematic sampling with an offset in [0, 1).

    Every count is the floor or the ceiling of ``rows · weight``; its mean over offsets is exact.
    """
    names = sorted(name for name, weight in weights.items() if weight > 0)
    if not names:
        return {}
    values = np.array([weights[name] for name in names], dtype=np.float64)
    ends = np.cumsum(values) / values.sum() * rows
    ends[-1] = rows
    marks: NDArray[np.int64] = np.floor(ends + (1 - offset) - 1e-12).astype(np.int64)
    marks[-1] = rows
    counts = np.diff(np.concatenate(([0], marks)))
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}


def draw_rows(
    plan: StepPlan, rows: int, seed: int, tokens: Mapping[str, Mapping[str, int]]
) -> dict[tuple[str, str], int]:
    """Return how many rows of each (stream, stratum) a step takes.

    Args:
        plan: the step's plan.
        rows: rows of the step over all processes.
        seed: the run's seed.
        tokens: training tokens by stream and stratum.
    """
    weights = {name: w for name, w in plan.stream_weights.items() if tokens.get(name)}
    counts = share_out(rows, weights, _offset(seed, "streams", plan.step))
    drawn: dict[tuple[str, str], int] = {}
    for stream, count in counts.items():
        offset = _offset(seed, stream, plan.step)
        strata = share_out(count, shares(tokens[stream], plan.alpha.get(stream, 1.0)), offset)
        drawn.update({(stream, stratum): number for stratum, number in strata.items()})
    return drawn


def _offset(seed: int, owner: str, step: int) -> float:
    return float(uniform(derive_key(seed, "mixture", owner), step))

"""What a step is made of: a pure function of the step number.

The base plan comes from the settings; schedules change it one after another. Rows are shared out
among streams by weight and among a stream's strata by p ∝ tokens^alpha, by systematic sampling with
one offset per step. Counts are within one row of their expectation in every step; the offsets of
successive steps are multiples of the golden ratio, so that sums over steps stay within a few rows
of theirs, however long the run (a keyed random offset would be off by the root of the steps).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ptm_plus.keyed import derive_key
from ptm_plus.settings import Course, RunSettings
from ptm_plus.stages import Stage, stage_at

Stratum = tuple[str, str]
"""(stream, stratum)."""

K = TypeVar("K", str, Stratum)

NOTHING: Mapping[str, Mapping[str, Course]] = MappingProxyType({})

_GOLDEN = 0x9E3779B97F4A7C15
"""The golden ratio's fractional part in units of 2^-64."""


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
        stratum_weights: factor on a stratum's share, by stream and stratum; 1 where nothing is
            said, 0 leaves it out of the step.
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
    stratum_weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def changed(self, **values: object) -> StepPlan:
        """Return a copy with some fields changed; for schedules."""
        return replace(self, **values)  # type: ignore[arg-type]


def learning_rate(step: int, steps: int, warmup: float, decay: str, cooldown: float = 1.0) -> float:
    """Return the factor on the peak rate at a step: linear warm-up, then the decay.

    Decays to zero reach it one step after the last. ``wsd`` (Hu et al. 2024, *MiniCPM*) goes down
    in the last steps alone, by 1 − √ of their share that is done, which Hägele et al. 2024
    (*Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations*) found better than
    a straight line.

    Args:
        step: number of the step.
        steps: how many there are.
        warmup: share of them for warm-up.
        decay: ``linear``, ``cosine``, ``constant`` or ``wsd``.
        cooldown: share of them in which ``wsd`` goes down.
    """
    ramp = max(1, round(warmup * steps))
    if step < ramp:
        return (step + 1) / ramp
    if decay == "wsd":
        length = min(round(cooldown * steps), steps - ramp)
        done = max(0, step - (steps - length))
        return 1 - math.sqrt(done / max(1, length))
    left = (steps - step) / max(1, steps - ramp)
    if decay == "linear":
        return left
    return 0.5 * (1 - math.cos(math.pi * left)) if decay == "cosine" else 1.0


def mask_rate(step: int, steps: int, ends: tuple[float, float]) -> float:
    """Return the mask rate of a step, on a straight line over the run.

    Yang et al. 2023, *Learning Better Masking for Better Language Model Pre-training*.

    Args:
        step: number of the step.
        steps: length of the run.
        ends: the rate in the first step and in the last.
    """
    first, last = ends
    done = min(1.0, step / max(1, steps - 1))
    return first + (last - first) * done


def first_step(start: float, steps: int) -> int:
    """Return the first step that begins at a share of the run, or after it."""
    return round(start * steps)


def value_at(course: Course, step: int, steps: int) -> float:
    """Return the value of a course at a step.

    Args:
        course: one number, or (share of the run, number) pairs in order, the first from 0.
        step: number of the step.
        steps: length of the run.
    """
    if not isinstance(course, tuple):
        return course
    starts = [first_step(start, steps) for start, _ in course]
    return course[bisect_right(starts, step) - 1][1]


class Planner:
    """Makes the plan of any step.

    Args:
        settings: the run's settings.
        stream_weights: weight by active stream.
        alpha: exponent by active stream, over the run.
        objective_weights: weight by objective.
        schedules: changes, in chain order.
        stages: the run's stages; one over everything where none are given.
        strata: factor on strata, over the run, by stream and stratum.

    Attributes:
        objective_weights: weight by objective, of all stages.
        scheduled: whether there are schedules.
    """

    def __init__(
        self,
        settings: RunSettings,
        stream_weights: Mapping[str, float],
        alpha: Mapping[str, Course],
        objective_weights: Mapping[str, float],
        schedules: Sequence[Callable[[StepPlan], StepPlan]] = (),
        stages: Sequence[Stage] = (),
        strata: Mapping[str, Mapping[str, Course]] = NOTHING,
    ) -> None:
        self.objective_weights = dict(objective_weights)
        self.scheduled = bool(schedules)
        self._settings = settings
        self._alpha = dict(alpha)
        self._strata = dict(strata)
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
            alpha=self._values(self._alpha, step),
            objective_weights=objectives,
            mask_rate=mask_rate(step, train.steps, self._settings.masking.ends),
            lr=learning_rate(
                step - stage.first, stage.steps, train.warmup, train.decay, train.cooldown
            ),
            stratum_weights={
                stream: self._values(courses, step) for stream, courses in self._strata.items()
            },
        )
        for change in self._schedules:
            plan = change(plan)
        return plan

    def _values(self, courses: Mapping[str, Course], step: int) -> dict[str, float]:
        steps = self._settings.train.steps
        return {name: value_at(course, step, steps) for name, course in courses.items()}

    def changes(self) -> list[int]:
        """Return the steps at which stage, alpha or factors change, 0 among them, in order."""
        steps = self._settings.train.steps
        courses = [*self._alpha.values(), *(c for of in self._strata.values() for c in of.values())]
        starts = {
            first_step(start, steps)
            for course in courses
            if isinstance(course, tuple)
            for start, _ in course
        }
        return sorted(one for one in {0, *starts, *(s.first for s in self._stages)} if one < steps)


def _weights_in(
    stage: Stage, streams: Mapping[str, float], objectives: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the weights of streams and objectives that a stage trains on."""
    return (
        {name: weight for name, weight in streams.items() if stage.objectives.get(name)},
        {name: weight for name, weight in objectives.items() if name in stage.loss_names},
    )


def shares(
    tokens: Mapping[str, int], alpha: float, weights: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Return p ∝ weight · tokens^alpha over strata (XLM, Conneau and Lample 2019, section 3.1).

    Args:
        tokens: training tokens by stratum.
        alpha: exponent.
        weights: factor by stratum; 1 where nothing is said.
    """
    weights = weights or {}
    logs = {
        name: alpha * math.log(count)
        for name, count in tokens.items()
        if count and weights.get(name, 1.0) > 0
    }
    top = max(logs.values(), default=0.0)  # no power overflows
    powers = {name: weights.get(name, 1.0) * math.exp(log - top) for name, log in logs.items()}
    total = sum(powers.values())
    return {name: power / total for name, power in powers.items()}


def row_shares(plan: StepPlan, tokens: Mapping[str, Mapping[str, int]]) -> dict[Stratum, float]:
    """Return the share of a step's rows by stream and stratum; they sum to one.

    A stream without strata in the step leaves its rows to the others.

    Args:
        plan: the step's plan.
        tokens: training tokens by stream and stratum.
    """
    strata = {
        stream: shares(
            tokens.get(stream, {}),
            plan.alpha.get(stream, 1.0),
            plan.stratum_weights.get(stream),
        )
        for stream, weight in plan.stream_weights.items()
        if weight > 0
    }
    total = sum(plan.stream_weights[stream] for stream, found in strata.items() if found)
    return {
        (stream, stratum): plan.stream_weights[stream] / total * share
        for stream, found in strata.items()
        for stratum, share in found.items()
    }


def share_out(rows: int, weights: Mapping[K, float], offset: float) -> dict[K, int]:
    """Share rows out by weight: systematic sampling with an offset in [0, 1).

    Every count is the floor or the ceiling of ``rows · weight``, also that of neighbours together;
    its mean over offsets is exact.
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
) -> dict[Stratum, int]:
    """Return how many rows of each (stream, stratum) a step takes.

    The strata of a stream are neighbours, so a stream's rows meet its weight as well.

    Args:
        plan: the step's plan.
        rows: rows of the step over all processes.
        seed: the run's seed.
        tokens: training tokens by stream and stratum.
    """
    offset = (derive_key(seed, "mixture") + plan.step * _GOLDEN) % 2**64
    return share_out(rows, row_shares(plan, tokens), (offset >> 11) / 2**53)

"""What a whole run takes of each stratum: expected rows, epochs, and a limit on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ptm_plus.errors import SettingsError, nearest
from ptm_plus.mixture import Planner, StepPlan, Stratum, row_shares
from ptm_plus.settings import BatchSettings, Course

if TYPE_CHECKING:
    from ptm_plus.data import StreamData
    from ptm_plus.prepared import Prepared
    from ptm_plus.stages import Stage

_SAMPLED_STEPS = 200
_CLOSE = 1e-9
_ROUNDS = 2_000
_NOTHING_LEFT = 1e-12

Courses = Mapping[str, Mapping[str, Course]]
"""Factor on a stratum's share, over the run, by stream and stratum."""


@dataclass(frozen=True)
class Expected:
    """What a run takes of a stratum.

    Attributes:
        share: share of the run's rows.
        rows: rows.
        epochs: how often its text is read.
        used_up: optimizer steps after which all of it was read once; ``None`` if it never is.
    """

    share: float
    rows: float
    epochs: float
    used_up: int | None


def make_planner(
    prepared: Prepared,
    objective_weights: Mapping[str, float],
    schedules: Sequence[Callable[[StepPlan], StepPlan]] = (),
    stages: Sequence[Stage] = (),
) -> Planner:
    """Return the planner of a run, with late joins and the limit on epochs.

    Args:
        prepared: its data.
        objective_weights: weight by objective.
        schedules: changes, in chain order.
        stages: the run's stages.

    Raises:
        SettingsError: a step would have no rows, or the limit cannot be kept.
    """
    settings = prepared.settings
    make = partial(
        Planner,
        settings,
        prepared.stream_weights,
        prepared.stream_alpha,
        objective_weights,
        schedules,
        stages,
    )
    joins = _late_joins(settings.batch, prepared.streams)
    planner = make(joins)
    mixtures = _mixtures(planner, settings.train.steps)
    _check_rows(mixtures, prepared.streams)
    if settings.batch.exhausted == "repeat":
        return planner
    return make(_limited(mixtures, joins, prepared.streams, settings.batch))


def expected(planner: Planner, prepared: Prepared) -> dict[Stratum, Expected]:
    """Return what a run takes of each stratum.

    Exact where no schedule is in the way; otherwise plans of evenly spaced steps are looked at.

    Args:
        planner: the run's.
        prepared: its data.
    """
    steps, batch = prepared.settings.train.steps, prepared.settings.batch
    tokens, epoch_rows = _tokens(prepared.streams), _epoch_rows(prepared.streams)
    taken = dict.fromkeys(epoch_rows, 0.0)
    used_up: dict[Stratum, int] = {}
    begun = 0
    for length, plan in _mixtures(planner, steps):
        for one, share in row_shares(plan, tokens).items():
            each = share * batch.rows
            left = epoch_rows[one] - taken[one]
            if one not in used_up and left <= each * length * (1 + _CLOSE):
                used_up[one] = begun + int(np.ceil(left / each - _CLOSE))
            taken[one] += each * length
        begun += length
    return {
        one: Expected(
            share=rows / (steps * batch.rows),
            rows=rows,
            epochs=rows / epoch_rows[one],
            used_up=used_up.get(one),
        )
        for one, rows in taken.items()
    }


def epoch_warnings(found: Mapping[Stratum, Expected], batch: BatchSettings) -> list[str]:
    """Return a line for every stratum that is read more than ``batch.max_epochs`` times.

    Args:
        found: what the run takes.
        batch: the run's settings.
    """
    several = {stream for stream, _ in found if sum(one[0] == stream for one in found) > 1}
    return [
        f"{'/'.join(one)} is read {taken.epochs:.1f} times (batch.max_epochs is "
        f"{batch.max_epochs:g}): give more text of it or take fewer steps"
        + (
            f", raise batch.alpha.{one[0]}, or limit it with batch.exhausted='limit'"
            if one[0] in several
            else ""
        )
        for one, taken in sorted(found.items(), key=lambda item: -item[1].epochs)
        if too_often(taken.epochs, batch.max_epochs)
    ]


def too_often(epochs: float, limit: float) -> bool:
    """Tell whether a stratum is read more often than a limit says, by more than rounding."""
    return epochs > limit * (1 + 1e-6)


def _mixtures(planner: Planner, steps: int) -> list[tuple[int, StepPlan]]:
    """Return plans and the number of steps that each of them stands for, in order."""
    starts = set(planner.changes())
    if planner.scheduled:
        starts |= set(np.linspace(0, steps - 1, min(steps, _SAMPLED_STEPS)).astype(int).tolist())
    firsts = sorted(starts)
    ends = [*firsts[1:], steps]
    return [(end - first, planner.plan(first)) for first, end in zip(firsts, ends, strict=True)]


def _tokens(streams: Mapping[str, StreamData]) -> dict[str, dict[str, int]]:
    return {name: data.tokens for name, data in streams.items()}


def _epoch_rows(streams: Mapping[str, StreamData]) -> dict[Stratum, int]:
    return {
        (name, stratum): len(data.rows(stratum, 0))
        for name, data in streams.items()
        for stratum in data.tokens
    }


# ---------------------------------------------------------------------------------------------
# Late joins


def _late_joins(batch: BatchSettings, streams: Mapping[str, StreamData]) -> Courses:
    """Return the factors of ``batch.joins``: 0 before a stratum joins, 1 from then on.

    Raises:
        SettingsError: there is no such stratum.
    """
    for stream, joins in batch.joins.items():
        for stratum in joins:
            known = streams[stream].tokens
            if stratum not in known:
                raise SettingsError(
                    f"batch.joins.{stream}: stream {stream!r} has no text of "
                    f"{stratum!r}{nearest(stratum, known)}",
                    f"it has: {', '.join(sorted(known))}",
                )
    return {
        stream: {
            stratum: ((0.0, 0.0), (share, 1.0)) if share else 1.0
            for stratum, share in joins.items()
        }
        for stream, joins in batch.joins.items()
    }


def _check_rows(
    mixtures: Sequence[tuple[int, StepPlan]], streams: Mapping[str, StreamData]
) -> None:
    tokens = _tokens(streams)
    for _, plan in mixtures:
        if not row_shares(plan, tokens):
            raise SettingsError(
                f"nothing to read in step {plan.step + 1} (stage {plan.stage!r}): no stream with "
                "a weight has a stratum that has joined",
                "let one join earlier (batch.joins), or give a stream a weight (batch.weights)",
            )


# ---------------------------------------------------------------------------------------------
# The limit on epochs


def _limited(
    mixtures: Sequence[tuple[int, StepPlan]],
    courses: Courses,
    streams: Mapping[str, StreamData],
    batch: BatchSettings,
) -> Courses:
    """Return factors with which no stratum is read more than ``batch.max_epochs`` times.

    A stratum that would be, gets a smaller share from its first step on, and the others of its
    stream get the rest (UniMax; Chung et al. 2023, section 3, for any alpha). A factor is lowered
    until its stratum's rows meet the limit, again and again, because every one that is lowered
    raises the others.

    Raises:
        SettingsError: a stratum is read too often, however small its share.
    """
    tokens, epoch_rows = _tokens(streams), _epoch_rows(streams)
    parts = [(length * batch.rows, row_shares(plan, tokens)) for length, plan in mixtures]
    factors = dict.fromkeys(epoch_rows, 1.0)
    for _ in range(_ROUNDS):
        rows = _rows_with(factors, parts)
        over = {
            one: rows[one] / (batch.max_epochs * whole)
            for one, whole in epoch_rows.items()
            if rows[one] > batch.max_epochs * whole * (1 + _CLOSE)
        }
        if not over:
            return _scaled(courses, factors)
        factors |= {one: factors[one] / times for one, times in over.items()}
        if min(factors.values()) < _NOTHING_LEFT:
            break
    worst = max(over, key=lambda one: over[one])
    steps = sum(length for length, _ in mixtures)
    raise SettingsError(
        f"batch.exhausted = 'limit': {'/'.join(worst)} would be read "
        f"{over[worst] * batch.max_epochs:.1f} times, however small its share among the strata of "
        f"its stream; batch.max_epochs is {batch.max_epochs:g}",
        f"take at most {int(steps / over[worst]):,} steps, raise batch.max_epochs, or lower "
        f"batch.weights.{worst[0]}",
    )


def _rows_with(
    factors: Mapping[Stratum, float], parts: Iterable[tuple[int, Mapping[Stratum, float]]]
) -> dict[Stratum, float]:
    """Return rows by stratum when shares are multiplied by factors within their streams.

    Args:
        factors: by stratum.
        parts: rows, and how they are shared out without factors.
    """
    total = dict.fromkeys(factors, 0.0)
    for rows, found in parts:
        before: dict[str, float] = defaultdict(float)
        after: dict[str, float] = defaultdict(float)
        for one, share in found.items():
            before[one[0]] += share
            after[one[0]] += share * factors[one]
        for one, share in found.items():
            total[one] += rows * share * factors[one] * before[one[0]] / after[one[0]]
    return total


def _scaled(courses: Courses, factors: Mapping[Stratum, float]) -> Courses:
    scaled: dict[str, dict[str, Course]] = {name: dict(of) for name, of in courses.items()}
    for (stream, stratum), factor in factors.items():
        course = courses.get(stream, {}).get(stratum, 1.0)
        scaled.setdefault(stream, {})[stratum] = (
            tuple((start, value * factor) for start, value in course)
            if isinstance(course, tuple)
            else course * factor
        )
    return scaled

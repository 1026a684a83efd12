"""An ablation from its settings to its document: planned, run, compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptm_plus.ablation.arms import (
    NONE,
    Arm,
    Design,
    arms_of,
    placebos_of,
    settings_of,
)
from ptm_plus.ablation.comparisons import (
    Table,
    compare,
    pairs_of,
    resolution,
    tables_of,
    verdicts,
)
from ptm_plus.ablation.curves import Curve, at_equal_time, curves_of
from ptm_plus.ablation.processes import Crew, Job, read_outcomes
from ptm_plus.ablation.trial import Trial, try_out
from ptm_plus.errors import SettingsError
from ptm_plus.files import read_json, write_whole
from ptm_plus.plugins import requests_by_instance
from ptm_plus.progress import Silent, Watch
from ptm_plus.report import read_report
from ptm_plus.run_log import read_log
from ptm_plus.settings import RunSettings
from ptm_plus.settings_files import dump_toml, plain_settings

VERSION = 1
DOCUMENT = "ablation.json"
"""What an ablation found, in its folder."""

_PLAN, _PLACEBOS = "plan.json", "placebos"
_CURVE = 8
"""Evaluations of a run whose settings ask for none: the curve that equal time is read off."""

_SPARE, _LEAST = 0.9, 0.1
"""Share of the hours that steps may take, and of the steps that must be left."""


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        settings: of the run with all plugins; its output is the folder of the ablation.
        design: which arms there are.
        seeds: how many, from ``train.seed`` on.
        hours: that it may take; 0 for as many as it needs.
        tasks: ``KIND=TRAIN,TEST``, beside what the run itself measures.
        device: ``cpu`` or ``cuda``.
        slots: where runs may run at a time, see ``processes.slots``.
        threads: of a run on the CPU whose settings leave them open.
        keep: checkpoints of measured runs stay.
    """

    settings: RunSettings
    design: Design
    seeds: int
    hours: float
    tasks: tuple[str, ...]
    device: str
    slots: tuple[int | None, ...]
    threads: int
    keep: bool

    @property
    def key(self) -> str:
        """Return a hash of what each run depends on; seeds may be added later."""
        parts = [dump_toml(self.settings), self.design, self.hours, self.tasks]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class PlannedArm:
    """An arm, and what its runs take.

    Attributes:
        arm: the arm.
        steps: of each run.
        tokens: that each is to be trained on.
        hours: of training and evaluating each.
        fixed: of these, what does not depend on the steps.
    """

    arm: Arm
    steps: int
    tokens: float
    hours: float
    fixed: float


def plan_ablation(request: Request, watch: Watch) -> list[PlannedArm]:
    """Prepare every arm's data, and work out steps of equal tokens and the hours they take.

    Args:
        request: what is asked for.
        watch: where progress goes.

    Raises:
        SettingsError: no plugin is asked for, or the hours are too few.
        PtmPlusError: an arm cannot be launched.
    """
    arms = _arms(request, watch)
    kept = request.settings.output / _PLAN
    if kept.is_file():
        return _kept_plan(request, arms, kept)
    trials: dict[str, Trial] = {}
    with watch.task("try the arms out") as task:
        for number, arm in enumerate(arms):
            task.update(number, len(arms), arm.name)
            settings = _arm_settings(request, arm, request.settings.train.seed, watch)
            timed = arm.placebo is None
            trials[arm.name] = try_out(settings, request.device, Silent(), timed=timed)
        task.update(len(arms), len(arms))
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the runs are processes of their own
    planned = [_planned(request, arm, trials, watch) for arm in arms]
    planned = _within_hours(request, planned)
    rows = [{"name": one.arm.name, **_figures(one)} for one in planned]
    write_whole(kept, json.dumps({"key": request.key, "arms": rows}, indent=1))
    return planned


def total_hours(request: Request, planned: Sequence[PlannedArm]) -> float:
    """Return the hours that all runs take, as many at a time as there is room for."""
    return sum(one.hours for one in planned) * request.seeds / len(request.slots)


def ablate(request: Request, planned: Sequence[PlannedArm], watch: Watch) -> dict[str, Any]:
    """Train and measure what is not done, and return the document, which is also written.

    Args:
        request: what is asked for.
        planned: from ``plan_ablation``.
        watch: where progress goes.

    Raises:
        PtmPlusError: a run failed.
    """
    arms = [one.arm for one in planned]
    jobs = {
        (one.arm.name, seed): _job(request, one, seed, watch)
        for seed in range(request.seeds)  # seed by seed: a broken off ablation has whole ones
        for one in planned
    }
    done = sum(job.is_done for job in jobs.values())
    with watch.task("runs", done) as task:
        task.update(done, len(jobs))

        def finished(job: Job) -> None:
            nonlocal done
            done += 1
            task.update(done, len(jobs), job.title)

        Crew(request.slots).work(list(jobs.values()), finished)
    by_arm = {arm.name: [jobs[arm.name, seed] for seed in range(request.seeds)] for arm in arms}
    with watch.task("compare"):
        found = _document(request, planned, by_arm)
    write_whole(request.settings.output / DOCUMENT, json.dumps(found, indent=1))
    return found


def read_ablation(folder: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, Curve]]]]:
    """Return the document of an ablation, and the curves of its runs by arm, seed by seed.

    Raises:
        DataError: a file is missing or broken.
    """
    document = read_json(folder / DOCUMENT)
    curves = {
        arm["name"]: [curves_of(read_log(folder / run)) for run in arm["runs"]]
        for arm in document["arms"]
    }
    return document, curves


# ---------------------------------------------------------------------------------------------
# Planning


def _arms(request: Request, watch: Watch) -> list[Arm]:
    settings = request.settings
    if not settings.plugins:
        raise SettingsError("no plugin to ask about", "name some with --plugin")
    placebos = placebos_of(settings, watch)
    return arms_of(list(requests_by_instance(settings.plugins)), placebos, request.design)


def _arm_settings(request: Request, arm: Arm, seed: int, watch: Watch) -> RunSettings:
    """Return the settings of an arm's run; its placebo's files are written."""
    settings = settings_of(request.settings, arm, requests_by_instance(request.settings.plugins))
    folder = request.settings.output.absolute()
    threads = settings.train.threads or request.threads
    train = settings.train.model_copy(update={"seed": seed, "threads": threads})
    settings = settings.model_copy(
        update={"train": train, "output": folder / f"seed-{seed}" / arm.slug}
    )
    if arm.placebo is not None:
        return arm.placebo.change(settings, folder / _PLACEBOS / f"seed-{seed}" / arm.slug, seed)
    return settings


def _planned(request: Request, arm: Arm, trials: Mapping[str, Trial], watch: Watch) -> PlannedArm:
    """Return an arm with steps of as many tokens as the run without plugins has."""
    settings = _arm_settings(request, arm, request.settings.train.seed, watch)
    own, base = trials[arm.name], trials[NONE]
    steps = max(1, round(settings.train.steps * base.tokens_per_step / own.tokens_per_step))
    timed = own if arm.placebo is None else trials[arm.plugins[0]]
    fixed = (_CURVE + 1) * timed.seconds_per_evaluation / 3600
    hours = fixed + steps * timed.seconds_per_step / 3600
    return PlannedArm(arm, steps, steps * own.tokens_per_step, hours, fixed)


def _within_hours(request: Request, planned: list[PlannedArm]) -> list[PlannedArm]:
    """Cut every arm's steps alike where they would take too long.

    Raises:
        SettingsError: a tenth of them would still take too long.
    """
    needed = total_hours(request, planned)
    fixed = total_hours(request, [replace(one, hours=one.fixed) for one in planned])
    if not request.hours or needed <= _SPARE * request.hours:
        return planned
    share = (_SPARE * request.hours - fixed) / (needed - fixed)
    if share < _LEAST:
        least = (fixed + _LEAST * (needed - fixed)) / _SPARE
        raise SettingsError(
            f"--hours {request.hours:g}: {len(planned) * request.seeds} runs would take "
            f"{needed:.1f} hours, and with a tenth of their steps still {least:.1f}",
            f"give {least:.1f} hours at least, fewer plugins or --seeds, or run more at a time "
            "with --jobs",
        )
    return [
        replace(
            one,
            steps=max(1, round(one.steps * share)),
            tokens=one.tokens * share,
            hours=one.fixed + (one.hours - one.fixed) * share,
        )
        for one in planned
    ]


def _kept_plan(request: Request, arms: Sequence[Arm], path: Path) -> list[PlannedArm]:
    kept = read_json(path)
    if kept.get("key") != request.key:
        raise SettingsError(
            f"{path.parent} holds an ablation with other settings",
            "name another folder with --output, or remove this one",
        )
    rows = {row.pop("name"): row for row in kept["arms"]}
    return [PlannedArm(arm, **rows[arm.name]) for arm in arms]


def _figures(one: PlannedArm) -> dict[str, Any]:
    return {name: getattr(one, name) for name in ("steps", "tokens", "hours", "fixed")}


def _job(request: Request, planned: PlannedArm, number: int, watch: Watch) -> Job:
    seed = request.settings.train.seed + number
    settings = _arm_settings(request, planned.arm, seed, watch)
    every = settings.train.evaluate_every or max(1, planned.steps // _CURVE)
    train = settings.train.model_copy(
        update={"steps": planned.steps, "evaluate_every": every, "keep": 1, "keep_best": 0}
    )
    return Job(
        title=f"{planned.arm.name}, seed {seed}",
        settings=settings.model_copy(update={"train": train}),
        tasks=request.tasks,
        device=request.device,
        keep=request.keep,
    )


# ---------------------------------------------------------------------------------------------
# The document


def _document(
    request: Request, planned: Sequence[PlannedArm], jobs: Mapping[str, Sequence[Job]]
) -> dict[str, Any]:
    outcomes: dict[str, Any] = {arm: [read_outcomes(job) for job in of] for arm, of in jobs.items()}
    curves = {arm: [curves_of(read_log(job.folder)) for job in of] for arm, of in jobs.items()}
    tables = tables_of(outcomes)
    comparisons = compare(tables, pairs_of([one.arm for one in planned]))
    folder = request.settings.output.absolute()
    arms = [_arm_row(one, jobs[one.arm.name], folder) for one in planned]
    base = arms[0]
    costs = {
        row["name"]: {
            "speed": row["tokens_per_second"] / base["tokens_per_second"],
            "memory": row["peak_memory"] / base["peak_memory"],
        }
        for row in arms
    }
    return {
        "version": VERSION,
        "design": request.design,
        "seeds": [request.settings.train.seed + n for n in range(request.seeds)],
        "plugins": list(requests_by_instance(request.settings.plugins)),
        "tasks": list(request.tasks),
        "settings": plain_settings(request.settings),
        "arms": [{**row, "relative": costs[row["name"]]} for row in arms],
        "measures": [_measure(one) for one in tables],
        "comparisons": comparisons,
        "resolution": resolution(comparisons),
        "equal_time": at_equal_time(curves),
        "verdicts": verdicts(comparisons, costs),
    }


def _arm_row(planned: PlannedArm, jobs: Sequence[Job], folder: Path) -> dict[str, Any]:
    reports = [read_report(job.folder) for job in jobs]
    arm = planned.arm
    return {
        "name": arm.name,
        "plugins": list(arm.plugins),
        "placebo": arm.placebo.summary if arm.placebo else None,
        "runs": [str(job.folder.relative_to(folder)) for job in jobs],
        "steps": planned.steps,
        "tokens": [one["tokens"] for one in reports],
        # Of the least disturbed run: on a shared machine the others are slowed by chance.
        "tokens_per_second": max(one["speed"]["tokens_per_second"] for one in reports),
        "peak_memory": min(one["memory"]["peak_bytes"] for one in reports),
        "seconds": [one["seconds"] for one in reports],
    }


def _measure(table: Table) -> dict[str, Any]:
    return {
        "name": table.name,
        "unit": table.unit,
        "higher_is_better": table.higher,
        "items": len(table.clusters),
        "clusters": len(set(table.clusters)),
        "seeds": {arm: np.nanmean(values, axis=1).tolist() for arm, values in table.values.items()},
    }

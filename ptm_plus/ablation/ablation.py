"""An ablation: its runs, and the document of what they show."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptm_plus.ablation.comparisons import (
    Table,
    compare,
    pairs_of,
    resolution,
    tables_of,
    verdicts,
)
from ptm_plus.ablation.curves import Curve, at_equal_time, curves_of
from ptm_plus.ablation.planning import CURVE, PlannedArm, Request, arm_settings
from ptm_plus.ablation.processes import Job, Runner
from ptm_plus.files import read_json, write_whole
from ptm_plus.plugins import requests_by_instance
from ptm_plus.progress import Watch
from ptm_plus.report import read_report
from ptm_plus.run_log import read_log
from ptm_plus.settings_files import plain_settings

VERSION = 1
DOCUMENT = "ablation.json"
"""What an ablation found, in its folder."""


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
        (one.arm.name, seed): _job(request, one, seed)
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

        Runner(request.slots).work(list(jobs.values()), finished)
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


def _job(request: Request, planned: PlannedArm, number: int) -> Job:
    seed = request.settings.train.seed + number
    settings = arm_settings(request, planned.arm, seed)
    every = settings.train.evaluate_every or max(1, planned.steps // CURVE)
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
    outcomes: dict[str, Any] = {
        arm: [read_json(job.outcomes) for job in of] for arm, of in jobs.items()
    }
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

"""What an ablation will run: arms, steps of equal tokens, and the hours that they take."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ptm_plus.ablation.arms import NONE, Arm, Design, arms_of, placebos_of, settings_of
from ptm_plus.arrangement import own_tokenizer
from ptm_plus.errors import SettingsError
from ptm_plus.files import read_json, write_whole
from ptm_plus.plugins import requests_by_instance
from ptm_plus.progress import Silent, Watch
from ptm_plus.settings import RunSettings
from ptm_plus.settings_files import dump_toml
from ptm_plus.tryout import Tryout, try_out

CURVE = 8
"""Evaluations of a run whose settings ask for none: the curve that equal time is read off."""

_PLAN, _PLACEBOS, _TOKENIZER = "plan.json", "placebos", "tokenizer"
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
    _settle_tokenizer(request, watch)
    trials: dict[str, Tryout] = {}
    with watch.task("try the arms out") as task:
        for number, arm in enumerate(arms):
            task.update(number, len(arms), arm.name)
            settings = arm_settings(request, arm, request.settings.train.seed)
            timed = arm.placebo is None
            trials[arm.name] = try_out(settings, request.device, Silent(), timed=timed)
        task.update(len(arms), len(arms))
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the runs are processes of their own
    planned = [_planned(request, arm, trials) for arm in arms]
    planned = _within_hours(request, planned)
    rows = [{"name": one.arm.name, **_figures(one)} for one in planned]
    write_whole(kept, json.dumps({"key": request.key, "arms": rows}, indent=1))
    return planned


def total_hours(request: Request, planned: Sequence[PlannedArm]) -> float:
    """Return the hours that all runs take, as many at a time as there is room for."""
    return sum(one.hours for one in planned) * request.seeds / len(request.slots)


def _arms(request: Request, watch: Watch) -> list[Arm]:
    settings = request.settings
    if not settings.plugins:
        raise SettingsError("no plugin to ask about", "name some with --plugin")
    placebos = placebos_of(settings, watch)
    return arms_of(list(requests_by_instance(settings.plugins)), placebos, request.design)


def _settle_tokenizer(request: Request, watch: Watch) -> None:
    """Train one tokenizer for all arms, which read different text, where settings name none.

    A loss of words means another thing with another vocabulary.
    """
    folder = request.settings.output.absolute() / _TOKENIZER
    shutil.rmtree(folder, ignore_errors=True)
    trained = own_tokenizer(request.settings, watch)
    if trained is not None:
        trained.save_pretrained(folder)


def arm_settings(request: Request, arm: Arm, seed: int) -> RunSettings:
    """Return the settings of an arm's run; its placebo's files are written."""
    settings = settings_of(request.settings, arm, requests_by_instance(request.settings.plugins))
    folder = request.settings.output.absolute()
    threads = settings.train.threads or request.threads
    train = settings.train.model_copy(update={"seed": seed, "threads": threads})
    settings = settings.model_copy(
        update={"train": train, "output": folder / f"seed-{seed}" / arm.slug}
    )
    if (folder / _TOKENIZER).is_dir():
        own = settings.tokenizer.model_copy(update={"path": str(folder / _TOKENIZER)})
        settings = settings.model_copy(update={"tokenizer": own})
    if arm.placebo is not None:
        return arm.placebo.change(settings, folder / _PLACEBOS / f"seed-{seed}" / arm.slug, seed)
    return settings


def _planned(request: Request, arm: Arm, trials: Mapping[str, Tryout]) -> PlannedArm:
    """Return an arm with steps of as many tokens as the run without plugins has."""
    settings = arm_settings(request, arm, request.settings.train.seed)
    own, base = trials[arm.name], trials[NONE]
    steps = max(1, round(settings.train.steps * base.tokens_per_step / own.tokens_per_step))
    timed = own if arm.placebo is None else trials[arm.plugins[0]]
    fixed = (CURVE + 1) * timed.seconds_per_evaluation / 3600
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

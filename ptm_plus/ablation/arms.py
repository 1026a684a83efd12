"""The arms of an ablation: which plugins each run has, and which of them is a placebo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ptm_plus.components import Placebo
from ptm_plus.context import Context
from ptm_plus.inputs import given_inputs
from ptm_plus.plugins import load
from ptm_plus.progress import Watch
from ptm_plus.settings import RunSettings
from ptm_plus.stages import CORE, one_after_the_other

Design = Literal["quick", "full"]

NONE, ALL = "none", "all"
"""Names of the arms without plugins and with all of them."""

Placebos = Mapping[str, Sequence[Placebo]]
"""By instance."""


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes:
        name: its name.
        plugins: the plugins' instances.
        placebo: the placebo, where it is one; ``plugins`` then holds its plugin alone.
    """

    name: str
    plugins: tuple[str, ...]
    placebo: Placebo | None = None

    @property
    def slug(self) -> str:
        """Return its name as that of a folder."""
        return self.name.replace(", ", "+").replace(" ", "-").replace(":", ".")


def placebos_of(settings: RunSettings, watch: Watch) -> dict[str, list[Placebo]]:
    """Return every plugin's placebos, by instance; its own is the first."""
    plugins = load(settings.plugins, settings.plugin)
    found: dict[str, list[Placebo]] = {one.instance: [] for one in plugins.instances}
    context = Context(settings, given_inputs(settings), watch)
    for one in plugins.collect("ptm_placebos", context):
        found[one.instance].append(one.component)
    return found


def arms_of(instances: Sequence[str], placebos: Placebos, design: Design) -> list[Arm]:
    """Return the arms of a design, each plugin set once.

    ``quick``: none, each plugin alone, all, each one's own placebo. ``full``: also all but each,
    and every placebo.

    Args:
        instances: the plugins.
        placebos: by instance.
        design: which arms there are.
    """
    every = tuple(instances)
    arms = [Arm(NONE, ()), *(Arm(one, (one,)) for one in every)]
    if len(every) > 1:
        arms.append(Arm(ALL, every))
    if design == "full" and len(every) > 2:
        rests = ((one, tuple(other for other in every if other != one)) for one in every)
        arms += [Arm(f"all but {one}", rest) for one, rest in rests]
    for one in every:
        given = placebos.get(one, ())
        chosen = given if design == "full" else given[:1]
        arms += [Arm(f"{one}, {placebo.name}", (one,), placebo) for placebo in chosen]
    return arms


def settings_of(settings: RunSettings, arm: Arm, requests: Mapping[str, str]) -> RunSettings:
    """Return the settings of an arm before its placebo changes them.

    A plugin that keeps the encoder as it is trains in a stage after it; the steps of that stage
    come on top, so that the encoder gets as many as in every other arm.

    Args:
        settings: those of the run with all plugins.
        arm: the arm.
        requests: what is asked for after ``--plugin``, by instance.
    """
    changes: dict[str, Any] = {
        "plugins": tuple(requests[one] for one in arm.plugins),
        "plugin": {name: table for name, table in settings.plugin.items() if name in arm.plugins},
    }
    found = settings.model_copy(update=changes)
    plugins = load(found.plugins, found.plugin).instances
    stages = _stages_without(settings, arm) or one_after_the_other(plugins)
    whole = sum(one.share for one in stages)
    encoder = sum(one.share for one in stages if not one.plugins or CORE in one.plugins)
    steps = round(settings.train.steps * whole / encoder) if encoder else settings.train.steps
    train = settings.train.model_copy(update={"stages": stages, "steps": steps})
    return found.model_copy(update={"train": train})


def _stages_without(settings: RunSettings, arm: Arm) -> tuple[Any, ...]:
    """Return the given stages, without plugins that the arm does not have."""
    here = {CORE, *arm.plugins, *(one.partition(":")[0] for one in arm.plugins)}
    found = []
    for stage in settings.train.stages:
        left = tuple(name for name in stage.plugins if name in here)
        if left or not stage.plugins:
            found.append(stage.model_copy(update={"plugins": left}))
    return tuple(found)

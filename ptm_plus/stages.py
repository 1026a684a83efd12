"""Stages: parts of a run in which some plugins train, and the others stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from ptm_plus.components import Claim, Objective
from ptm_plus.compose import BACKBONE, Claimant, Contribution, check_owners
from ptm_plus.errors import SettingsError, nearest
from ptm_plus.settings import StageSettings, TrainSettings

CORE = "core"
"""The core's name among plugins: its own objectives."""

Objectives = Mapping[str, Sequence[Contribution[Objective]]]
"""By stream."""


@dataclass(frozen=True)
class Stage:
    """Neighbouring steps in which the same plugins train.

    What belongs to others is kept: their parts are frozen (what these write is still written), and
    their objectives and parameter rules are off.

    Attributes:
        name: its name.
        first: its first step.
        steps: how many it has.
        instances: who trains in it, ``core`` among them or not.
        objectives: their objectives by stream.
    """

    name: str
    first: int
    steps: int
    instances: frozenset[str]
    objectives: Objectives

    @property
    def loss_names(self) -> frozenset[str]:
        """Names of the objectives."""
        owners = (owner for of_stream in self.objectives.values() for owner in of_stream)
        return frozenset(owner.component.name for owner in owners)


def make_stages(
    settings: TrainSettings,
    plugins: Sequence[Claimant],
    objectives_of: Callable[[frozenset[str]], Objectives],
) -> tuple[Stage, ...]:
    """Return the stages of a run, in their order; one over the whole run where none is set.

    Args:
        settings: the run's.
        plugins: the plugins of the run.
        objectives_of: instances to their objectives by stream.

    Raises:
        SettingsError: a stage names a plugin that the run does not have, has no step or no
            objective; or a plugin stands in no stage.
        PluginError: plugins of one stage do not go together.
    """
    everyone = frozenset({CORE, *(one.instance for one in plugins)})
    given = settings.stages or (StageSettings(name="main"),)
    _check_names(given)
    chosen = [_instances(one, plugins) or everyone for one in given]
    left = sorted(everyone - {CORE} - frozenset().union(*chosen))
    if left:
        raise SettingsError(
            f"train.stages: plugin {left[0]!r} stands in no stage, so it would never train",
            f'add "{left[0]}" to the plugins of one, or leave out --plugin {left[0]}',
        )
    stages = []
    for one, first, steps, instances in zip(
        given, *_bounds(settings.steps, given), chosen, strict=True
    ):
        stage = Stage(one.name, first, steps, instances, objectives_of(instances))
        _check(stage, plugins, alone=len(given) == 1)
        stages.append(stage)
    return tuple(stages)


def one_after_the_other(plugins: Sequence[Claimant]) -> tuple[StageSettings, ...]:
    """Return stages in which whoever keeps the backbone trains after everybody else.

    Args:
        plugins: the plugins of the run.

    Returns:
        Two stages, or none where all can train together.
    """
    keep = Claim(resource=BACKBONE, mode="keep")
    keepers = tuple(one.instance for one in plugins if keep in one.info.claims)
    others = tuple(one.instance for one in plugins if one.instance not in keepers)
    if not keepers:
        return ()
    return (
        StageSettings(name=BACKBONE, plugins=(CORE, *others)),
        StageSettings(name="beside", plugins=keepers),
    )


def stage_at(stages: Sequence[Stage], step: int) -> Stage:
    """Return the stage of a step; the last one for what comes after."""
    return next((stage for stage in stages if step < stage.first + stage.steps), stages[-1])


def _check_names(given: Sequence[StageSettings]) -> None:
    names = [one.name for one in given]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"train.stages: two are called {name!r}", "give each its own name")


def _instances(stage: StageSettings, plugins: Sequence[Claimant]) -> frozenset[str]:
    """Return whom a stage names: instances, all instances of a plugin, or the core."""
    found: set[str] = set()
    for name in stage.plugins:
        own = {p.instance for p in plugins if name in (p.instance, p.info.name)}
        own |= {CORE} & {name}
        if not own:
            known = [CORE, *(p.instance for p in plugins)]
            raise SettingsError(
                f"train.stages: stage {stage.name!r} names the plugin {name!r}, which this run "
                f"does not have{nearest(name, known)}",
                f"it has: {', '.join(sorted(known))}",
            )
        found |= own
    return frozenset(found)


def _bounds(steps: int, given: Sequence[StageSettings]) -> tuple[list[int], list[int]]:
    """Return first step and number of steps of each stage, by its share."""
    ends = list(accumulate(one.share for one in given))
    bounds = [0, *(round(steps * end / ends[-1]) for end in ends)]
    lengths = [after - before for before, after in pairwise(bounds)]
    for one, length in zip(given, lengths, strict=True):
        if not length:
            raise SettingsError(
                f"train.stages: stage {one.name!r} has no step: its share of train.steps = {steps} "
                "is too small",
                "raise its share, or train.steps",
            )
    return bounds[:-1], lengths


def _check(stage: Stage, plugins: Sequence[Claimant], alone: bool) -> None:
    if not any(stage.objectives.values()):
        raise SettingsError(
            f"train.stages: stage {stage.name!r} has nothing to train: no stream serves an "
            f"objective of {', '.join(sorted(stage.instances))}",
            "name the plugins whose objectives are trained; the core's own masked LM is `core`",
        )
    claims = [
        (one.instance, claim)
        for one in plugins
        if one.instance in stage.instances
        for claim in one.info.claims
        if claim.resource == BACKBONE
    ]
    owners = {owner.instance for of in stage.objectives.values() for owner in of}
    if CORE in owners:
        claims.append((CORE, Claim(resource=BACKBONE)))
    check_owners(claims, _apart if alone else None)


def _apart(keeper: str, others: str) -> str:
    """Say how two plugins are trained in one run that do not go together in one stage."""
    return (
        f'train them one after the other: [[train.stages]] name = "first", plugins = ["{others}"] '
        f'and [[train.stages]] name = "second", plugins = ["{keeper}"]'
    )

"""The hooks of the domain plugin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import nn

from ptm_plus import (
    ContextView,
    Event,
    Exporter,
    GuardStop,
    Placebo,
    Probe,
    ProbeContext,
    RunSettings,
    Schedule,
    SettingsError,
    StepPlan,
    Stream,
    hookimpl,
    text_stream,
)
from ptm_plus_domain.guard import ForgettingGuard
from ptm_plus_domain.settings import DomainSettings

TEXT, GENERAL, TASK = "text", "general", "task"
NAMES = {TEXT: "domain", GENERAL: "general", TASK: "task"}
"""What the streams are called in figures."""

ACCOUNT = "before-and-after.json"


@dataclass
class Domain:
    """Replay (Ibrahim et al. 2024), task text (Gururangan et al. 2020), and a guard."""

    settings: DomainSettings
    instance: str
    guard: ForgettingGuard = field(init=False)

    def __post_init__(self) -> None:
        self.guard = ForgettingGuard(self.settings.guard.margin)

    @hookimpl
    def ptm_streams(self, context: ContextView) -> list[Stream]:
        """Return the streams of general text and of the task's."""
        chosen = self.settings
        self._check(context)
        own = context.settings.batch.weights.get(TEXT, 1.0)
        weights = {GENERAL: own * chosen.replay / (1 - chosen.replay), TASK: own}
        files = {GENERAL: chosen.general, TASK: chosen.task}
        return [
            text_stream(context.settings, name=name, files=given, weight=weights[name])
            for name, given in files.items()
            if given
        ]

    @hookimpl
    def ptm_schedule(self, context: ContextView) -> list[Schedule]:
        """Return the change to the task's text, and what the guard does to the rate."""
        made = []
        if self.settings.task:
            made.append(Schedule(name="task", change=self._text_or_task, resource="streams"))
        if self.settings.guard.action == "slow":
            made.append(Schedule(name="guard", change=self._slower, resource="learning rate"))
        return made

    @hookimpl
    def ptm_probes(self, context: ContextView) -> list[Probe]:
        """Return the losses before and after; those before are measured at step 0."""
        return [Probe(name=self.instance, run=self.measure, at_start=True)]

    @hookimpl
    def ptm_event(self, event: Event, context: ContextView) -> None:
        """Watch what is forgotten."""
        if event.kind != "evaluated":
            return
        found = event.figures[self.instance]
        self.guard.hear(event.step, {name: found[name] for name in NAMES.values() if name in found})
        action = self.settings.guard.action
        if action == "off" or event.step == context.settings.train.steps:
            return
        if self.guard.is_beyond:
            self._act(action, context)

    @hookimpl
    def ptm_export(self, context: ContextView) -> list[Exporter]:
        """Return the writer of the account of before and after."""
        return [Exporter(name="account", write=self._write)]

    @hookimpl
    def ptm_placebos(self, context: ContextView) -> list[Placebo]:
        """Return the run's own text in the place of the general and the task's."""
        words = "the run's own text instead of general or task text, no guard"
        return [Placebo(name="own-text", summary=words, change=self._own_text)]

    def _own_text(self, settings: RunSettings, folder: Path, seed: int) -> RunSettings:
        given = {"general": self.settings.general, "task": self.settings.task}
        own = {name: list(settings.data.text) for name, files in given.items() if files}
        return settings.with_plugin(self.instance, **own, guard={})

    def state_dict(self) -> dict[str, Any]:
        """Return what the guard knows."""
        return self.guard.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self.guard.load_state_dict(state)

    def measure(self, context: ProbeContext) -> dict[str, Any]:
        """Return the loss on held-out text, in nats, and how far it is from the start's.

        Args:
            context: the run in evaluation mode, with frozen masks.
        """
        found = {}
        for stream, name in NAMES.items():
            losses = [
                loss
                for key, loss in context.losses.items()
                if key.count("/") == 1 and key.startswith(f"{stream}/")
            ]
            if losses:
                found[name] = fmean(losses)
        changes = {
            f"{name}_change": loss - self.guard.start[name]
            for name, loss in found.items()
            if name in self.guard.start
        }
        return {**found, **changes}

    def _check(self, context: ContextView) -> None:
        chosen, where = self.settings, f"plugin.{self.instance}"
        if not chosen.general and (chosen.replay or chosen.guard.action != "off"):
            raise SettingsError(
                f"{where}.general names no text to replay and to watch",
                f'give {where}.general = ["en=general.txt"], text such as the model was trained on '
                f"before, or set {where}.replay = 0 and leave its guard off",
            )
        if not chosen.general and not chosen.task:
            raise SettingsError(
                f"{where} has nothing to do: neither general text nor the task's is given",
                f"give {where}.general or {where}.task, or leave the plugin out",
            )
        if chosen.guard.action != "off" and not context.settings.train.evaluate_every:
            raise SettingsError(
                f"{where}.guard.action is {chosen.guard.action!r}, but nothing is evaluated while "
                "the run trains",
                f"set train.evaluate_every, to {max(1, context.settings.train.steps // 20)} say",
            )

    def _text_or_task(self, plan: StepPlan) -> StepPlan:
        ends = plan.step >= plan.steps * (1 - self.settings.task_share)
        rests = TEXT if ends else TASK
        weights = {name: w for name, w in plan.stream_weights.items() if name != rests}
        return plan.changed(stream_weights=weights)

    def _slower(self, plan: StepPlan) -> StepPlan:
        cuts = self.guard.cuts_before(plan.step)
        return plan.changed(lr=plan.lr * self.settings.guard.factor**cuts)

    def _act(self, action: str, context: ContextView) -> None:
        guard, margin = self.guard, self.settings.guard.margin
        words = (
            f"general text is being forgotten: its loss is {guard.last['general']:.3f} after step "
            f"{guard.step}, {guard.risen:.3f} above that at the start; the margin is {margin:g}"
        )
        if action == "stop":
            raise GuardStop(
                words,
                "everything is saved beside the checkpoints before (ptm-plus export takes any); "
                f"raise plugin.{self.instance}.replay, lower train.lr, or allow more with "
                f"plugin.{self.instance}.guard.margin",
            )
        if not guard.is_rising:
            return
        guard.cuts.append(guard.step)
        share = self.settings.guard.factor ** len(guard.cuts)
        context.watch.note(f"{words}; the learning rate is lowered to {share:g} of its plan")

    def _write(self, folder: Path, parts: Mapping[str, nn.Module]) -> list[str]:
        found = self.guard.account()
        if not found["after"]:
            return []
        (folder / ACCOUNT).write_text(json.dumps(found, indent=1), encoding="utf-8")
        before, after = found["before"], found["after"]
        losses = ", ".join(
            f"{name} {before[name]:.3f} before and {after[name]:.3f} after"
            for name in after
            if name in before
        )
        return [f"{ACCOUNT}: loss on held-out text at step {found['step']}: {losses}"]

"""The hooks of the cross-lingual plugin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from ptm_plus import (
    ContextView,
    Event,
    Feature,
    Layout,
    MovingAverage,
    Objective,
    Part,
    Placebo,
    RunSettings,
    Stream,
    Visibility,
    hookimpl,
    mispaired,
)
from ptm_plus_cross_lingual.apart import Apart
from ptm_plus_cross_lingual.contrast import Contrast
from ptm_plus_cross_lingual.paraphrase import Paraphrase
from ptm_plus_cross_lingual.recovery import Recovery, recovery_columns
from ptm_plus_cross_lingual.settings import CrossLingualSettings
from ptm_plus_cross_lingual.switching import Switching


class Source(Protocol):
    """A stream of the plugin, with what lays it out and reads it."""

    def stream(self, settings: RunSettings) -> Stream:
        """Return the stream."""

    def layout(self) -> Layout:
        """Return its layout."""

    def features(self) -> list[Feature]:
        """Return its columns."""

    def inputs(self) -> list[Visibility]:
        """Return who sees whom in it."""


class Method(Protocol):
    """An objective of the plugin, with its parts."""

    def parts(self, context: ContextView) -> list[Part | MovingAverage]:
        """Return its parts."""

    def objective(self) -> Objective:
        """Return it."""


@dataclass
class CrossLingual:
    """Contrast (Chi et al. 2021) and Unicoder's objectives (Huang et al. 2019)."""

    settings: CrossLingualSettings
    instance: str
    contrast: Contrast | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        settings, instance = self.settings, self.instance
        self._sources: list[Source] = []
        self._methods: list[Method] = []
        apart, columns = f"{instance}-apart", None
        if settings.contrast.weight:
            self.contrast = Contrast(settings.contrast, instance, self._named("contrast"), apart)
            self._methods.append(self.contrast)
        if settings.recovery.weight:
            name = self._named("recovery")
            self._methods.append(Recovery(settings.recovery, instance, name, apart))
            columns = partial(recovery_columns, share=settings.recovery.share)
        if self._methods:
            self._sources.append(Apart(settings.stream_weight, instance, apart, columns))
        if settings.paraphrase.weight:
            paraphrase = Paraphrase(settings.paraphrase, instance, self._named("paraphrase"))
            self._sources.append(paraphrase)
            self._methods.append(paraphrase)
        if settings.switching.weight:
            switching = Switching(settings.switching, instance, self._named("switching"))
            self._sources.append(switching)
            self._methods.append(switching)

    @hookimpl
    def ptm_streams(self, context: ContextView) -> list[Stream]:
        """Return the streams."""
        return [one.stream(context.settings) for one in self._sources]

    @hookimpl
    def ptm_layouts(self, context: ContextView) -> list[Layout]:
        """Return the layouts."""
        return [one.layout() for one in self._sources]

    @hookimpl
    def ptm_features(self, context: ContextView) -> list[Feature]:
        """Return the columns."""
        return [made for one in self._sources for made in one.features()]

    @hookimpl
    def ptm_inputs(self, context: ContextView) -> list[Visibility]:
        """Return the visibility rules."""
        return [made for one in self._sources for made in one.inputs()]

    @hookimpl
    def ptm_parts(self, context: ContextView) -> list[Part | MovingAverage]:
        """Return heads, maps and the key encoder; none is left in an exported model."""
        return [made for one in self._methods for made in one.parts(context)]

    @hookimpl
    def ptm_objectives(self, context: ContextView) -> list[Objective]:
        """Return the objectives."""
        return [one.objective() for one in self._methods]

    @hookimpl
    def ptm_event(self, event: Event) -> None:
        """Put the keys of a step into the queue."""
        if self.contrast is not None and event.kind == "after_step":
            self.contrast.after_step(event.kept)

    @hookimpl
    def ptm_placebos(self, context: ContextView) -> list[Placebo]:
        """Return pairs that are no translations."""
        words = "second halves of other pairs"
        return [Placebo(name="mispaired", summary=words, change=mispaired)]

    def state_dict(self) -> dict[str, Any]:
        """Return the queue."""
        return {} if self.contrast is None else self.contrast.queue.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the queue back."""
        if self.contrast is not None:
            self.contrast.queue.load_state_dict(state)

    def _named(self, objective: str) -> str:
        """Return the name of an objective, the run's own where the plugin stands there once."""
        return objective if self.instance == "cross-lingual" else f"{objective}:{self.instance}"

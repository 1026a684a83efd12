"""A run: everything that settings, plugins and inputs resolve to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ptm_plus.components import (
    Exporter,
    ExternalTable,
    MovingAverage,
    Objective,
    ParameterRule,
    Part,
    Probe,
)
from ptm_plus.compose import Contribution
from ptm_plus.data import Collator, Cursors, Reader
from ptm_plus.encoder import Encoder, part_key
from ptm_plus.mixture import Planner
from ptm_plus.plugins import Plugins
from ptm_plus.prepared import Prepared
from ptm_plus.settings import RunSettings
from ptm_plus.stages import Stage
from ptm_plus.step import LossKey, Root


@dataclass
class Run:
    """A run, ready to train, to be evaluated or to be exported.

    Attributes:
        prepared: data side.
        collator: makes micro-batches.
        encoder: backbone and parts.
        root: encoder and objectives.
        planner: plan of any step.
        stages: who trains when.
        parts: declared parts with their owners.
        tables: tables that stay on disk.
        averages: declared moving averages.
        rules: parameter rules.
        probes: named evaluations.
        exporters: writers of plugin files.
        device: where the model lives.
        step: optimizer steps done.
    """

    prepared: Prepared
    collator: Collator
    encoder: Encoder
    root: Root
    planner: Planner
    stages: tuple[Stage, ...]
    parts: list[Contribution[Part]]
    tables: list[Contribution[ExternalTable]]
    averages: list[Contribution[MovingAverage]]
    rules: list[Contribution[ParameterRule]]
    probes: list[Contribution[Probe]]
    exporters: list[Contribution[Exporter]]
    device: torch.device
    step: int = 0

    @property
    def settings(self) -> RunSettings:
        """The resolved settings."""
        return self.prepared.settings

    @property
    def plugins(self) -> Plugins:
        """The plugins."""
        return self.prepared.plugins

    @property
    def output(self) -> Path:
        """The run folder."""
        return self.settings.output

    @property
    def objectives(self) -> Mapping[str, Sequence[Contribution[Objective]]]:
        """Objectives by stream, of all stages."""
        return self.root.objectives

    def loss_keys(self, stage: Stage | None = None) -> list[LossKey]:
        """Return every (stream, objective) of a stage, or of all, in a fixed order."""
        objectives = self.root.objectives if stage is None else stage.objectives
        return [
            (stream, owner.component.name)
            for stream in sorted(objectives)
            for owner in objectives[stream]
        ]

    def rules_in(self, stage: Stage) -> list[ParameterRule]:
        """Return the parameter rules of a stage: its plugins' own, and that others' parts rest."""
        own = [one.component for one in self.rules if one.instance in stage.instances]
        resting = {
            part_key(one.instance, one.component.name)
            for one in self.parts
            if one.instance not in stage.instances
        }
        return own + [
            ParameterRule(path=f"parts.{key}", frozen=True)
            for key in sorted(resting)
            if list(self.encoder.parts[key].parameters())
        ]

    def float_dtype(self) -> torch.dtype:
        """Return the dtype of the weights."""
        return next(self.encoder.parameters()).dtype

    def reader(self, cursors: Cursors | None = None) -> Reader:
        """Return a reader of the streams, from the start or from cursors."""
        return Reader(self.prepared.streams, self.settings, cursors)

"""A run: everything that settings, plugins and inputs resolve to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ptm_plus.components import (
    Exporter,
    ExternalTable,
    Objective,
    ParameterRule,
    Part,
    Probe,
)
from ptm_plus.compose import Contribution
from ptm_plus.data import Collator, HostBatch, Reader, Row
from ptm_plus.encoder import Encoder
from ptm_plus.mixture import Planner, StepPlan
from ptm_plus.plugins import Plugins
from ptm_plus.prepared import Prepared
from ptm_plus.settings import RunSettings
from ptm_plus.step import LossKey, Root

if TYPE_CHECKING:
    pass


@dataclass
class Run:
    """A run, ready to train, to be evaluated or to be exported.

    Attributes:
        prepared: data side.
        collator: makes micro-batches.
        encoder: backbone and parts.
        root: encoder and objectives.
        planner: plan of any step.
        parts: declared parts with their owners.
        tables: tables that stay on disk.
        rules: parameter rules.
        probes: named evaluations.
        exporters: writers of plugin files.
        device: where the model lives.
        step: optimizer steps done.
        history: first and last logged mean by objective name, and other figures of training.
    """

    prepared: Prepared
    collator: Collator
    encoder: Encoder
    root: Root
    planner: Planner
    parts: list[Contribution[Part]]
    tables: list[Contribution[ExternalTable]]
    rules: list[Contribution[ParameterRule]]
    probes: list[Contribution[Probe]]
    exporters: list[Contribution[Exporter]]
    device: torch.device
    step: int = 0
    history: dict[str, Any] = field(default_factory=dict)

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
        """Objectives by stream."""
        return self.root.objectives

    def loss_keys(self) -> list[LossKey]:
        """Return every (stream, objective), in a fixed order."""
        return [
            (stream, owner.component.name)
            for stream in sorted(self.root.objectives)
            for owner in self.root.objectives[stream]
        ]

    def float_dtype(self) -> torch.dtype:
        """Return the dtype of the weights."""
        return next(self.encoder.parameters()).dtype

    def host_batches(
        self, rows: Mapping[str, Sequence[Row]], plan: StepPlan, rank: int = 0, world: int = 1
    ) -> Iterator[HostBatch]:
        """Yield this process's micro-batches of a step.

        Args:
            rows: rows of the step by stream, all processes together.
            plan: the step's plan.
            rank: number of this process.
            world: number of processes.
        """
        size = self.settings.batch.micro_rows
        for stream in sorted(rows):
            own = rows[stream][rank::world]
            for first in range(0, len(own), size):
                yield self.collator.batch(own[first : first + size], rows[stream], plan.mask_rate)

    def reader(self, cursors: Any = None) -> Reader:
        """Return a reader of the streams, from the start or from cursors."""
        return Reader(self.prepared.streams, self.settings, cursors)

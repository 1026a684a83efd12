"""The hooks of the kg-fusion plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ptm_plus import (
    ContextView,
    Encode,
    Event,
    ExternalTable,
    Feature,
    MicroBatch,
    Objective,
    Outcome,
    ParameterRule,
    Part,
    Placebo,
    Probe,
    SettingsError,
    SpanUnits,
    Tap,
    UnitKind,
    hookimpl,
    loss_sum,
)
from ptm_plus_kg_fusion.entities import MODES, EntityColumns
from ptm_plus_kg_fusion.fusion import EntityHead, Fusion
from ptm_plus_kg_fusion.in_block import InBlockFusion, heads_of
from ptm_plus_kg_fusion.leaks import accuracy_by_mode, leaks
from ptm_plus_kg_fusion.placebos import placebos
from ptm_plus_kg_fusion.probes import entity_vectors
from ptm_plus_kg_fusion.settings import KgFusionSettings, fused_blocks
from ptm_plus_kg_fusion.tables import open_table
from ptm_plus_kg_fusion.taps import BesideTaps, InBlockTaps


@dataclass
class KgFusion:
    """Entity vectors fused into the encoder, with entity prediction (Zhang et al. 2019)."""

    settings: KgFusionSettings
    instance: str

    @hookimpl
    def ptm_masking(self, context: ContextView) -> list[UnitKind]:
        """Return mentions as units: masked whole or not at all."""
        return [
            UnitKind(
                name="entity",
                propose=SpanUnits("entity"),
                weight=self.settings.mention_weight,
                exclusive=True,
                mirror=self.settings.mirror,
                treatment=self.settings.treatment(),
            )
        ]

    @hookimpl
    def ptm_features(self, context: ContextView) -> list[Feature]:
        """Return the columns that carry entities."""
        table = open_table(context, self.settings.vectors)
        rows = np.append(table.rows(context.labels["entity"]), -1)  # the last serves label -1
        columns = EntityColumns(
            table, rows, self.settings.every_token, self.settings.label_all, self._fused(context)
        )
        return [Feature(name="entities", compute=columns, scope="step")]

    @hookimpl
    def ptm_parts(self, context: ContextView) -> list[Part | ExternalTable]:
        """Return the fusion, the entity head, and the table that stays on disk."""
        table = open_table(context, self.settings.vectors)
        hidden = context.model_config.hidden_size
        return [
            self._fusion(context, table.dimension),
            Part(name="head", build=partial(EntityHead, hidden, table.dimension)),
            ExternalTable(
                name="vectors", path=table.path, sha256=table.fingerprint, rows=len(table)
            ),
        ]

    @hookimpl
    def ptm_parameters(self, context: ContextView) -> list[ParameterRule]:
        """Return the learning rate of the parts."""
        names = ("fusion", "head")
        factor = self.settings.lr
        return [ParameterRule(path=f"parts.{self.instance}/{name}", lr=factor) for name in names]

    @hookimpl
    def ptm_objectives(self, context: ContextView) -> list[Objective]:
        """Return entity prediction (dEA)."""
        return [
            Objective(
                name=self._objective,
                count=self._count,
                compute=self._entity_loss,
                weight=self.settings.dea_weight,
                streams=(),
            )
        ]

    @hookimpl
    def ptm_probes(self, context: ContextView) -> list[Probe]:
        """Return the probes that zero the entity vectors, and that ask by mode."""
        zeroed = partial(entity_vectors, instance=self.instance)
        by_mode = partial(accuracy_by_mode, objective=self._objective)
        return [
            Probe(name=f"{self.instance}_vectors", run=zeroed),
            Probe(name=f"{self.instance}_modes", run=by_mode),
        ]

    @hookimpl
    def ptm_placebos(self, context: ContextView) -> list[Placebo]:
        """Return graphs and vectors that know nothing of their entities."""
        return placebos(context, self.settings.vectors)

    @hookimpl
    def ptm_event(self, event: Event, context: ContextView) -> None:
        """Warn of a leak after an evaluation."""
        if event.kind == "evaluated":
            for warning in leaks(event.figures.get(f"{self.instance}_modes", {})):
                context.watch.note(f"{self.instance}: {warning}")

    @property
    def _objective(self) -> str:
        return "dea" if self.instance == "kg-fusion" else f"dea:{self.instance}"

    def _fusion(self, context: ContextView, entity: int) -> Part:
        """Return the part that fuses vectors of a width into the model at hand."""
        config, settings = context.model_config, self.settings
        blocks = fused_blocks(settings, config.num_hidden_layers)
        build: Callable[[], nn.Module]
        taps: Callable[[nn.Module], list[Tap]]
        if settings.fusion == "beside":
            width = settings.width or config.hidden_size
            build = partial(Fusion, config.hidden_size, entity, width, len(blocks))
            taps = BesideTaps(self.instance, blocks)
        else:
            inner, dropout = config.intermediate_size, context.settings.model.dropout
            heads = settings.heads or heads_of(entity)
            if entity % heads:
                raise SettingsError(
                    f"plugin.{self.instance}.heads is {heads}, which does not divide the vectors' "
                    f"width, {entity}",
                    f"set it to {heads_of(entity)}, or leave it at 0",
                )
            build = partial(InBlockFusion, entity, inner, len(blocks), heads, dropout)
            taps = InBlockTaps(self.instance, blocks)
        return Part(name="fusion", build=build, export="needed", taps=taps, identity=True)

    def _fused(self, context: ContextView) -> NDArray[np.bool_]:
        """Return which entities are fused, by label; the last stands for none."""
        occurrences = np.append(context.occurrences["entity"], 0)
        most = self.settings.rare
        return occurrences <= most if most else np.ones(len(occurrences), dtype=np.bool_)

    def _count(self, columns: Mapping[str, NDArray[Any]]) -> float:
        return float(len(columns[f"{self.instance}.labels"]))

    def _entity_loss(
        self, batch: MicroBatch, encode: Encode, parts: Mapping[str, nn.Module]
    ) -> Outcome:
        states = encode(batch).top[batch.column(self.instance, "labelled")]
        labels = batch.column(self.instance, "labels")
        logits = parts["head"](states, batch.column(self.instance, "candidates"))
        right = logits.argmax(-1) == labels
        mode = batch.column(self.instance, "mode")
        metrics = {
            f"accuracy_{name}": ((right & (mode == number)).sum(), (mode == number).sum())
            for number, name in enumerate(MODES)
        }
        return Outcome(loss_sum(logits, labels), metrics)

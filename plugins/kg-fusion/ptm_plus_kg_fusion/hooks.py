"""The hooks of the kg-fusion plugin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ptm_plus import (
    ContextView,
    Encode,
    ExternalTable,
    Feature,
    MicroBatch,
    Objective,
    Outcome,
    ParameterRule,
    Part,
    PassContext,
    Probe,
    SpanUnits,
    Tap,
    UnitKind,
    hookimpl,
    loss_sum,
)
from ptm_plus_kg_fusion.entities import MODES, EntityColumns
from ptm_plus_kg_fusion.fusion import EntityHead, Fusion
from ptm_plus_kg_fusion.probes import entity_vectors
from ptm_plus_kg_fusion.settings import KgFusionSettings
from ptm_plus_kg_fusion.tables import open_table


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
        columns = EntityColumns(table, rows, self.settings.every_token, self.settings.label_all)
        return [Feature(name="entities", compute=columns, scope="step")]

    @hookimpl
    def ptm_parts(self, context: ContextView) -> list[Part | ExternalTable]:
        """Return the fusion, the entity head, and the table that stays on disk."""
        table = open_table(context, self.settings.vectors)
        hidden = context.model_config.hidden_size
        width = self.settings.width or hidden
        blocks = self.settings.blocks
        return [
            Part(
                name="fusion",
                build=partial(Fusion, hidden, table.dimension, width, len(blocks)),
                export="needed",
                taps=self._taps,
                identity=True,
            ),
            Part(name="head", build=partial(EntityHead, hidden, table.dimension)),
            ExternalTable(
                name="vectors", path=table.path, sha256=table.fingerprint, rows=len(table.labels)
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
        name = "dea" if self.instance == "kg-fusion" else f"dea:{self.instance}"
        return [
            Objective(
                name=name,
                count=self._count,
                compute=self._entity_loss,
                weight=self.settings.dea_weight,
                streams=(),
            )
        ]

    @hookimpl
    def ptm_probes(self, context: ContextView) -> list[Probe]:
        """Return the probe that zeroes the entity vectors."""
        run = partial(entity_vectors, instance=self.instance)
        return [Probe(name=f"{self.instance}_vectors", run=run)]

    def _taps(self, module: nn.Module) -> list[Tap]:
        return [
            Tap(
                site="block_in",
                run=partial(self._fuse, module, place),
                blocks=(block,),
                writes=True,
            )
            for place, block in enumerate(self.settings.blocks)
        ]

    def _fuse(
        self, module: nn.Module, place: int, context: PassContext, block: int, hidden: Tensor
    ) -> Tensor:
        batch = context.batch
        vectors = batch.column(self.instance, "vectors")[batch.column(self.instance, "owner")]
        fused: Tensor = module(place, hidden, batch.column(self.instance, "positions"), vectors)
        return fused

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

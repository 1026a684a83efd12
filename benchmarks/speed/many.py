"""A plugin that brings as many streams as one likes, and to each step a little of everything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field

from ptm_plus import (
    EmbeddingDelta,
    Feature,
    PluginInfo,
    Section,
    UnitKind,
    Units,
    hookimpl,
    text_stream,
)


class ManySettings(Section):
    """``[plugin.many]``."""

    streams: int = Field(0, ge=0, description="Streams beside the run's own, of the same text.")


def pairs_of_tokens(view, draws):
    """Propose every second token and the one behind it."""
    inner = np.flatnonzero((view.words[:-1] >= 0) & (view.words[1:] >= 0))[::2]
    return Units(start=inner, length=np.full(len(inner), 2))


def nothing(batch, parts):
    """Add zeros."""
    return torch.zeros(1, 1, device=batch.ids.device)


@dataclass
class Many:
    """Streams, a kind of unit, a column, and something added to the embeddings."""

    settings: ManySettings
    instance: str

    @hookimpl
    def ptm_streams(self, context):
        """Return so many streams."""
        files = context.settings.data.text
        names = [f"{self.instance}-{number}" for number in range(self.settings.streams)]
        return [text_stream(context.settings, name=name, files=files) for name in names]

    @hookimpl
    def ptm_masking(self, context):
        """Return a kind of unit."""
        return [UnitKind(name=self.instance, propose=pairs_of_tokens)]

    @hookimpl
    def ptm_features(self, context):
        """Return a column."""
        return [Feature(name="length", compute=lambda given: {"length": given.view.lengths})]

    @hookimpl
    def ptm_inputs(self, context):
        """Return what is added."""
        return [EmbeddingDelta(name="nothing", delta=nothing)]


plugin = PluginInfo(
    name="many", summary="streams, units, columns and inputs", hooks=Many, settings=ManySettings
)

"""The hooks of the tlm plugin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ptm_plus import (
    ContextView,
    EmbeddingDelta,
    Emphasis,
    Layout,
    MicroBatch,
    Objective,
    Part,
    Placebo,
    Probe,
    ProbeContext,
    Stream,
    hookimpl,
    masked_lm,
    mispaired,
    paired,
    pairs_stream,
    predicted_sequences,
    template,
)
from ptm_plus_tlm.focus import one_half
from ptm_plus_tlm.frames import frame_of, separator_id
from ptm_plus_tlm.layout import pair_layout
from ptm_plus_tlm.settings import TlmSettings

STREAM = "pairs"


@dataclass
class Tlm:
    """Translation language modelling (Conneau and Lample 2019, section 3.3)."""

    settings: TlmSettings
    instance: str

    @hookimpl
    def ptm_streams(self, context: ContextView) -> list[Stream]:
        """Return the stream of pairs."""
        return [
            pairs_stream(
                context.settings,
                name=STREAM,
                layout=self.instance,
                objectives=(self.instance,),
                weight=self.settings.stream_weight,
            )
        ]

    @hookimpl
    def ptm_layouts(self, context: ContextView) -> list[Layout]:
        """Return the pair layout, in the frame that the settings name."""
        chosen = self.settings
        separator = None
        if chosen.layout == "document":
            separator = separator_id(context.tokenizer, chosen.separator)
        frame = frame_of(chosen.layout, chosen.positions, template(context.tokenizer), separator)
        return [
            Layout(
                name=self.instance,
                lay_out=partial(pair_layout, frame=frame, swap=chosen.swap),
                fingerprint=f"tlm-2-{frame}-{chosen.swap}",
            )
        ]

    @hookimpl
    def ptm_masking(self, context: ContextView) -> list[Emphasis]:
        """Return the emphasis on one half of each pair, if it is asked for."""
        if self.settings.focus == 1:
            return []
        weigh = partial(one_half, focus=self.settings.focus)
        return [Emphasis(name="half", weigh=weigh, streams=(STREAM,))]

    @hookimpl
    def ptm_objectives(self, context: ContextView) -> list[Objective]:
        """Return masked language modelling over the whole pair."""
        return [masked_lm(self.instance, self.settings.weight)]

    @hookimpl
    def ptm_parts(self, context: ContextView) -> list[Part]:
        """Return the table of language vectors, if it is asked for."""
        if not self.settings.language_embeddings:
            return []
        size = (len(context.labels["language"]), context.model_config.hidden_size)
        build = partial(_zeros, size)
        return [
            Part(name="languages", build=build, export="needed", identity=True, rows="language")
        ]

    @hookimpl
    def ptm_inputs(self, context: ContextView) -> list[EmbeddingDelta]:
        """Return the addition of language vectors to word embeddings."""
        if not self.settings.language_embeddings:
            return []
        return [EmbeddingDelta(name="languages", delta=language_vectors)]

    @hookimpl
    def ptm_probes(self, context: ContextView) -> list[Probe]:
        """Return the probe that hides the other half."""
        return [Probe(name=f"{self.instance}_other_half", run=other_half)]

    @hookimpl
    def ptm_placebos(self, context: ContextView) -> list[Placebo]:
        """Return pairs that are no translations."""
        words = "second halves of other pairs"
        return [Placebo(name="mispaired", summary=words, change=mispaired)]


def _zeros(size: tuple[int, int]) -> nn.Embedding:
    table = nn.Embedding(*size)
    nn.init.zeros_(table.weight)
    return table


def language_vectors(batch: MicroBatch, parts: Mapping[str, nn.Module]) -> Tensor:
    """Return ``[T, d]`` language vectors; zeros at special tokens."""
    vectors: Tensor = parts["languages"](batch.languages.clamp(min=0))
    return vectors * (batch.languages >= 0)[:, None]


def own_half(query: Tensor, key: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
    """Let a token see its own half and special tokens, which see special tokens only."""
    segments, special = columns["segments"], columns["languages"] < 0
    return (segments[query] == segments[key]) | special[key]


def other_half(context: ProbeContext) -> dict[str, Any]:
    """Return how much the masked loss on held-out pairs rises when the other half is hidden."""
    owners, whole, hidden = [], [], []
    for host in context.held_out(STREAM):
        batch = context.on_device(host)
        owners.append(predicted_sequences(host))
        whole.append(context.scores(batch)[0])
        hidden.append(context.scores(batch, rules=[own_half])[0])
    losses = {"loss": whole, "loss_hidden": hidden}
    means = {name: float(torch.cat(values).mean()) for name, values in losses.items() if values}
    return {**means, "rise": asdict(paired(owners, whole, hidden))}

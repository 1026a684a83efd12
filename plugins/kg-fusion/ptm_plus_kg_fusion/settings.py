"""Settings of the kg-fusion plugin."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ptm_plus import Section, SettingsError, Treatment

Shares = tuple[float, float, float]

PRESETS: dict[str, tuple[Shares, Shares]] = {
    "balanced": ((0.3, 0.6, 0.1), (0.8, 0.15, 0.05)),
    "ernie-thu": ((0.8, 0.15, 0.05), (0.8, 0.15, 0.05)),
    "knowbert": ((0.1, 0.8, 0.1), (1.0, 0.0, 0.0)),
}
"""Chances (keep, mask, random) of an entity whose mention is masked, and of one that is not."""


class TrainedVectors(Section):
    """Training of entity vectors, when none are given with ``--vectors``."""

    model: str = Field("TransE", description="PyKEEN model.")
    dimension: int = Field(100, ge=2, description="Width of a vector.")
    epochs: int | None = Field(None, ge=1, description="Passes over the triples; by their number.")
    batch_size: int | None = Field(None, ge=1, description="Triples a step; by their number.")
    learning_rate: float = Field(0.01, gt=0, description="Adam's learning rate.")
    negatives: int = Field(
        128, ge=1, description="Entities drawn for each step; its triples are ranked against them."
    )
    seed: int = Field(0, ge=0, description="Seed of the vectors' training.")


class KgFusionSettings(Section):
    """``[plugin.kg-fusion]``."""

    vectors: TrainedVectors = Field(default_factory=TrainedVectors)
    fusion: Literal["beside", "in-block"] = Field(
        "beside",
        description="Before a block, with a residual of its own, or in its feed-forward.",
    )
    blocks: tuple[int, ...] = Field(
        (), description="Fused blocks; default: the first, in-block all behind 5 of 12."
    )
    width: int = Field(0, ge=0, description="Inner width of fusion beside; 0 takes the model's.")
    heads: int = Field(
        0, ge=0, description="Heads among entities, in-block; 0 takes up to 4 that fit the vectors."
    )
    rare: int = Field(
        0, ge=0, description="Fuse only entities that the text mentions at most so often; 0 all."
    )
    every_token: bool = Field(
        False, description="Fuse at every token of a mention instead of the first (ERNIE-THU)."
    )
    mention_weight: float = Field(
        1.0, gt=0, description="Chance of a mention's token to be masked, against other words'."
    )
    modes: str = Field("balanced", description=f"One of {', '.join(PRESETS)}.")
    mirror: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="Chance that a mention is masked in both halves of a pair at once."
    )
    label_all: bool = Field(
        False, description="Predict every aligned entity (ERNIE-THU), not only corrupted ones."
    )
    dea_weight: float = Field(0.1, ge=0, description="Factor on the entity-prediction loss.")
    lr: float = Field(1.0, gt=0, description="Factor on the learning rate of the plugin's parts.")

    @model_validator(mode="after")
    def _known_preset(self) -> KgFusionSettings:
        if self.modes not in PRESETS:
            raise ValueError(f"modes: {self.modes!r} is none of {', '.join(PRESETS)}")
        return self

    def treatment(self) -> Treatment:
        """Return what happens to entities, by whether their mention is masked."""
        hit, missed = PRESETS[self.modes]
        return Treatment(hit=hit, missed=missed)


def fused_blocks(settings: KgFusionSettings, blocks: int) -> tuple[int, ...]:
    """Return the fused blocks of a model, ascending.

    By default the first, and in-block all but the first five of twelve, as in ERNIE-THU.

    Raises:
        SettingsError: the model has no such block.
    """
    chosen = settings.blocks
    if not chosen:
        first = min(blocks - 1, round(blocks * 5 / 12))
        return (0,) if settings.fusion == "beside" else tuple(range(first, blocks))
    for block in chosen:
        if not -blocks <= block < blocks:
            raise SettingsError(
                f"kg-fusion fuses block {block}, but the model has {blocks} blocks",
                f"choose blocks from 0 to {blocks - 1}",
            )
    return tuple(sorted({block % blocks for block in chosen}))

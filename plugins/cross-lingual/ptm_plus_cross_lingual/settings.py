"""Settings of the cross-lingual plugin."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ptm_plus import Section, SettingsError


class ContrastSettings(Section):
    """Contrast of translations (InfoXLM's XlCo)."""

    weight: float = Field(1.0, ge=0, description="Factor on the loss; 0 leaves the objective out.")
    block: int = Field(
        0, ge=0, description="Block behind which sentences are compared; 0 takes two thirds."
    )
    state: Literal["first", "mean"] = Field(
        "mean", description="A sentence's state: the mean of its words', or its first token's."
    )
    similarity: Literal["dot", "cosine"] = Field("cosine", description="How states are compared.")
    temperature: float = Field(
        0.07, gt=0, description="Divisor of similarities; for dot products, 0.25 (InfoXLM)."
    )
    momentum: float = Field(
        0.999, ge=0, lt=1, description="How slowly the key encoder follows: m of each step."
    )
    queue: int = Field(16384, ge=1, description="Keys that are kept as negatives.")


class RecoverySettings(Section):
    """Cross-lingual word recovery (Unicoder)."""

    weight: float = Field(0.0, ge=0, description="Factor on the loss; 0 leaves the objective out.")
    share: float = Field(1.0, gt=0, le=1, description="Share of the words that is predicted.")


class ParaphraseSettings(Section):
    """Cross-lingual paraphrase classification (Unicoder)."""

    weight: float = Field(0.0, ge=0, description="Factor on the loss; 0 leaves the objective out.")
    stream_weight: float = Field(1.0, gt=0, description="Rows against the other streams'.")
    pool: int = Field(2048, ge=2, description="Pairs among which the closest sentence is sought.")


class SwitchingSettings(Section):
    """Masked language modelling on switched documents (Unicoder)."""

    weight: float = Field(0.0, ge=0, description="Factor on the loss; 0 leaves the objective out.")
    stream_weight: float = Field(1.0, gt=0, description="Rows against the other streams'.")
    sentences: int = Field(8, ge=2, le=100, description="Pairs that make up a document.")


class CrossLingualSettings(Section):
    """``[plugin.cross-lingual]``."""

    stream_weight: float = Field(
        1.0, gt=0, description="Rows of pairs for contrast and recovery against other streams'."
    )
    contrast: ContrastSettings = Field(default_factory=ContrastSettings)
    recovery: RecoverySettings = Field(default_factory=RecoverySettings)
    paraphrase: ParaphraseSettings = Field(default_factory=ParaphraseSettings)
    switching: SwitchingSettings = Field(default_factory=SwitchingSettings)

    @model_validator(mode="after")
    def _something(self) -> CrossLingualSettings:
        if not any(one.weight for one in (self.contrast, self.recovery, self.paraphrase)) and (
            not self.switching.weight
        ):
            raise ValueError("every weight is 0: give contrast, recovery, … one, or leave it out")
        return self


def compared_block(settings: ContrastSettings, blocks: int) -> int:
    """Return the number, from 0, of the block whose output is compared: InfoXLM's 8th of 12.

    Raises:
        SettingsError: the model has no such block.
    """
    if settings.block > blocks:
        raise SettingsError(
            f"plugin.cross-lingual.contrast.block is {settings.block}, but the model has {blocks} "
            "blocks",
            f"choose one from 1 to {blocks}, or 0 for two thirds of them",
        )
    return (settings.block or max(1, round(blocks * 2 / 3))) - 1

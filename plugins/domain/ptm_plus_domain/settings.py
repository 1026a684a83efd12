"""Settings of the domain plugin."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ptm_plus import Section


class GuardSettings(Section):
    """What to do when general text is forgotten."""

    action: Literal["off", "stop", "slow"] = Field(
        "off", description="Stop the run, or lower its rate, when general text is forgotten."
    )
    margin: float = Field(
        0.1, ge=0, description="How far the loss on general text may rise above its start, in nats."
    )
    factor: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="On the learning rate, at each evaluation beyond the margin and still rising.",
    )


class DomainSettings(Section):
    """``[plugin.domain]``."""

    general: tuple[str, ...] = Field(
        (), description="General text, as after --text: replayed, and watched for forgetting."
    )
    replay: float = Field(
        0.1, ge=0, lt=1, description="Rows of general text, as a share of it and the run's text."
    )
    task: tuple[str, ...] = Field(
        (), description="Text of the task, without labels, in place of the run's text at the end."
    )
    task_share: float = Field(
        0.2, gt=0, lt=1, description="Last part of the run that reads the task's text."
    )
    guard: GuardSettings = Field(default_factory=GuardSettings)

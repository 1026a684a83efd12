"""The guard against forgetting: what was known at the start, and what is done when it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any


@dataclass
class ForgettingGuard:
    """Compares losses with those at the start.

    Attributes:
        margin: how far the loss on general text may rise, in nats.
        start: losses before the first step, by name; empty until they are heard.
        before: losses at the evaluation before the last; empty at the first.
        last: losses at the last evaluation.
        step: its step.
        cuts: steps from which the learning rate is lowered once more.
    """

    margin: float
    start: dict[str, float] = field(default_factory=dict)
    before: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    step: int = 0
    cuts: list[int] = field(default_factory=list)

    def hear(self, step: int, losses: Mapping[str, float]) -> None:
        """Take in the losses of an evaluation; the first are the start."""
        self.start = self.start or dict(losses)
        self.before, self.last, self.step = self.last, dict(losses), step

    @property
    def risen(self) -> float:
        """How far the loss on general text lies above its start, in nats."""
        return self.last.get("general", 0.0) - self.start.get("general", 0.0)

    @property
    def is_beyond(self) -> bool:
        """Whether more is forgotten than the margin allows; a loss that is no number is beyond."""
        return not self.risen <= self.margin

    @property
    def is_rising(self) -> bool:
        """Whether the loss on general text did not fall since the evaluation before."""
        return not self.last.get("general", 0.0) < self.before.get("general", inf)

    def cuts_before(self, step: int) -> int:
        """Return how often the rate was lowered for a step."""
        return sum(cut <= step for cut in self.cuts)

    def account(self) -> dict[str, Any]:
        """Return losses before and after, as plain JSON."""
        return {
            "step": self.step,
            "before": dict(self.start),
            "after": dict(self.last),
            "rate_lowered_at": list(self.cuts),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {
            "start": self.start,
            "before": self.before,
            "last": self.last,
            "step": self.step,
            "cuts": self.cuts,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self.start = dict(state["start"])
        self.before, self.last = dict(state["before"]), dict(state["last"])
        self.step, self.cuts = int(state["step"]), list(state["cuts"])

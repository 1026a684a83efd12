"""Runs every probe of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ptm_plus.optimizer import set_mode
from ptm_plus.probes import ProbeContext, core_probes
from ptm_plus.processes import at_hand
from ptm_plus.run import Run


def evaluate(run: Run, *, at_start: bool = False) -> dict[str, Any]:
    """Return the figures of all probes by name; leaves the model in evaluation mode.

    Args:
        run: the run.
        at_start: run only the probes that ask for the time before the first step.
    """
    set_mode(run.encoder, training=False)
    context = ProbeContext(run)
    probes = core_probes(run, at_start=at_start)
    for owner in run.probes:
        if owner.component.at_start or not at_start:
            probes[owner.component.name] = owner.component.run

    def measured() -> dict[str, Any]:
        return {name: dict(probe(context)) for name, probe in probes.items()}

    with torch.no_grad():
        return at_hand(run.root, measured)


def held_out_loss(figures: Mapping[str, Any]) -> float | None:
    """Return the mean held-out loss over streams and objectives, or ``None`` without any."""
    losses = [
        value
        for name, value in figures.get("held_out", {}).items()
        if name.count("/") == 1  # stream/objective; metrics have a third part
    ]
    return sum(losses) / len(losses) if losses else None

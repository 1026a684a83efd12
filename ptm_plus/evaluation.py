"""Runs every probe of a run."""

from __future__ import annotations

from typing import Any

import torch

from ptm_plus.optimizer import set_mode
from ptm_plus.probes import ProbeContext, core_probes
from ptm_plus.run import Run


def evaluate(run: Run) -> dict[str, Any]:
    """Return the figures of all probes by name; leaves the model in evaluation mode."""
    set_mode(run.encoder, training=False)
    context = ProbeContext(run)
    with torch.no_grad():
        figures: dict[str, Any] = {
            name: probe(context) for name, probe in core_probes(run.prepared.sets).items()
        }
        for owner in run.probes:
            figures[owner.component.name] = dict(owner.component.run(context))
    return figures

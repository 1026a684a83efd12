"""Muon for the matrices of blocks and parts, beside another optimizer for everything else."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Muon, Optimizer

from ptm_plus.encoder import Encoder


def muon_matrices(encoder: Encoder) -> frozenset[str]:
    """Return the names of parameters that Muon is for.

    These are the weights of linear maps inside the encoder's blocks and in parts: they take states
    to states. Embeddings and the masked-LM head are not (Jordan et al. 2024, *Muon: An optimizer
    for hidden layers in neural networks*).

    Args:
        encoder: backbone and parts.
    """
    card = encoder.card
    inside = (f"backbone.{card.base}.{card.blocks}.", "parts.")
    tables = {one.weight for one in encoder.modules() if isinstance(one, nn.Embedding)}
    return frozenset(
        f"{path}.weight"
        for path, module in encoder.named_modules()
        if isinstance(module, nn.Linear)
        and path.startswith(inside)
        and module.weight not in tables  # a head over its own table
    )


class SkippingMuon(Muon):
    """torch's Muon, which leaves everything as it is where ``found_inf`` is 1, as AdamW does."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Do one step."""
        found_inf = getattr(self, "found_inf", None)
        if found_inf is None:
            super().step()
            return
        trained = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        buffers = [
            self.state[p].setdefault("momentum_buffer", torch.zeros_like(p)) for p in trained
        ]
        now = [*trained, *buffers]
        before = [one.clone() for one in now]
        super().step()
        for one, was in zip(now, before, strict=True):  # on the device: nobody waits to know
            torch.where(found_inf > 0, was, one, out=one)


class Together(Optimizer):
    """Several optimizers behind the face of one: groups, state and ``found_inf`` are shared.

    Args:
        *optimizers: each with parameters of its own.
    """

    def __init__(self, *optimizers: Optimizer) -> None:
        super().__init__([group for one in optimizers for group in one.param_groups], {})
        self._optimizers = optimizers
        for one in optimizers:
            one.state = self.state

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Let each do one step."""
        for one in self._optimizers:
            one.found_inf = getattr(self, "found_inf", None)
            one.step()

"""StableAdamW: AdamW that makes a tensor's step smaller where its second moment lags behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed
from torch.optim import AdamW
from torch.optim.adamw import adamw

from ptm_plus.processes import is_sharded

_PIECE = 1 << 18
"""Numbers that a CPU works on at a time: what is made of them on the way stays in its cache (12 ms
for 11 M parameters where whole tensors take 45)."""


class StableAdamW(AdamW):
    """AdamW with update clipping (Wortsman et al. 2023, arXiv 2304.13013, algorithm 2).

    With g the gradient of a tensor and v̂ its second moment, both at this step and v̂ corrected for
    its start at zero, the tensor's rate is lr / max(1, RMS), RMS² = mean(g² / max(v̂, ε²)); weight
    decay goes by that rate too. A gradient that grows faster than v̂ follows would otherwise make a
    step that is too large. No limit on the gradient's norm is needed beside it.

    The update is AdamW's fused kernel, tensor by tensor; state and ``found_inf`` are AdamW's too.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Do one step."""
        for group in self.param_groups:
            parameters = [one for one in group["params"] if one.grad is not None]
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter].update(_moments(parameter))
            if parameters:
                self._update(parameters, group)

    def _update(self, parameters: Sequence[Tensor], group: dict[str, Any]) -> None:
        """Update the tensors of a group: all sharded, or all whole."""
        states = [self.state[one] for one in parameters]
        values, gradients, means, squares = (
            [_local(one) for one in tensors]
            for tensors in (
                parameters,
                [one.grad for one in parameters],
                [one["exp_avg"] for one in states],
                [one["exp_avg_sq"] for one in states],
            )
        )
        steps = [one["step"] for one in states]
        beta1, beta2 = group["betas"]
        corrections = 1 - beta2 ** (torch.stack(steps).double() + 1)
        of_all = zip(parameters, gradients, squares, corrections.unbind(), strict=True)
        mean_ratios = torch.stack(
            [excess(g, v, c, beta2, group["eps"]) / p.numel() for p, g, v, c in of_all]
        )
        if is_sharded(parameters[0]):
            distributed.all_reduce(mean_ratios, group=parameters[0].device_mesh.get_group())
        rates = group["lr"] / mean_ratios.sqrt().clamp(min=1)
        if rates.is_cuda:
            rates = rates.float()  # as the kernel reads it
        each = zip(values, gradients, means, squares, steps, rates.unbind(), strict=True)
        for value, gradient, mean, square, done, rate in each:
            adamw(
                [value],
                [gradient],
                [mean],
                [square],
                max_exp_avg_sqs=[],
                state_steps=[done],
                fused=True,
                found_inf=getattr(self, "found_inf", None),
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=rate,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )


def excess(
    gradient: Tensor, square: Tensor, correction: Tensor, beta2: float, eps: float
) -> Tensor:
    """Return the sum of g² / max(v̂, ε²), with v̂ as it is after the step.

    Args:
        gradient: g.
        square: its second moment before the step, as the optimizer keeps it.
        correction: what makes v̂ of it after the step, 1 - β₂ᵗ.
        beta2: β₂.
        eps: ε.
    """
    size = max(1, gradient.numel()) if gradient.is_cuda else _PIECE
    sums = []
    for g, before in zip(
        gradient.reshape(-1).split(size), square.reshape(-1).split(size), strict=True
    ):
        power = g * g
        after = before.lerp(power, 1 - beta2).div_(correction).clamp_min_(eps**2)
        sums.append(power.div_(after).sum())
    return torch.stack(sums).sum()


def _moments(parameter: Tensor) -> dict[str, Tensor]:
    """Return the state that AdamW's fused kernel begins with."""
    return {
        "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
        "exp_avg": torch.zeros_like(parameter),
        "exp_avg_sq": torch.zeros_like(parameter),
    }


def _local(tensor: Tensor) -> Tensor:
    """Return this process's piece of a tensor."""
    return tensor.to_local() if is_sharded(tensor) else tensor

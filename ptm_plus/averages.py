"""Moving averages of weights: a second set of values for parameters of the encoder."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ptm_plus.components import MovingAverage
from ptm_plus.compose import Contribution, below
from ptm_plus.errors import PluginError, nearest


class Average(nn.Module):
    """What one :class:`~ptm_plus.components.MovingAverage` holds: buffers, so never trained.

    Args:
        encoder: whose parameters are followed.
        owner: the component and its plugin.

    Raises:
        PluginError: a path matches no parameter.
    """

    def __init__(self, encoder: nn.Module, owner: Contribution[MovingAverage]) -> None:
        super().__init__()
        self.owner = owner
        known = dict(encoder.named_parameters())
        for path in owner.component.of:
            if not any(below(name, path) for name in known):
                raise PluginError(
                    f"plugin {owner.instance!r}: moving average {owner.component.name!r} follows "
                    f"{path!r}, which the model does not have{nearest(path, known)}"
                )
        self._followed = [
            name for name in known if any(below(name, path) for path in owner.component.of)
        ]
        for name in self._followed:
            self.register_buffer(_key(name), known[name].detach().clone())

    def named(self) -> dict[str, Tensor]:
        """Return the averaged values by the parameters' names in the encoder."""
        return {name: self.get_buffer(_key(name)) for name in self._followed}

    @torch.no_grad()
    def start(self, encoder: nn.Module) -> None:
        """Take the values of what is followed, as they are now."""
        for own, followed in self._pairs(encoder):
            own.copy_(followed)

    @torch.no_grad()
    def follow(self, encoder: nn.Module, step: int, left_out: Tensor) -> None:
        """Move towards what is followed; nothing waits for the device.

        Args:
            encoder: whose parameters are followed.
            step: the step that was done, from 0 within the stage.
            left_out: scalar, 1 where the step's update was left out, otherwise 0.
        """
        pairs = list(self._pairs(encoder))
        share = (1 - left_out.double()) * (1 - self.owner.component.momentum(step))
        for dtype in {own.dtype for own, _ in pairs}:
            own, followed = zip(*(pair for pair in pairs if pair[0].dtype == dtype), strict=True)
            torch._foreach_lerp_(own, followed, share.to(dtype))

    def _pairs(self, encoder: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        for name in self._followed:
            yield self.get_buffer(_key(name)), encoder.get_parameter(name).detach()


def _key(name: str) -> str:
    return name.replace(".", ":")  # a buffer's name has no dot

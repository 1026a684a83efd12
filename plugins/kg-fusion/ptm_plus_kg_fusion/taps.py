"""Where the fusion modules meet the encoder: taps over the columns of a micro-batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from ptm_plus import MicroBatch, PassContext, Tap
from ptm_plus_kg_fusion.in_block import FusedBlock

ATTENDED, PASSED_ON = "attended", "passed on"
"""What a fused block leaves behind: e~ and e', under its own number."""


def vectors_of(batch: MicroBatch, instance: str) -> Tensor:
    """Return ``[P, e]`` the vector of each token that carries one."""
    return batch.column(instance, "vectors")[batch.column(instance, "owner")]


@dataclass(frozen=True)
class BesideTaps:
    """Fusion at the input of blocks.

    Attributes:
        instance: the plugin's.
        blocks: the fused blocks.
    """

    instance: str
    blocks: tuple[int, ...]

    def __call__(self, module: nn.Module) -> list[Tap]:
        """Return the taps of the built module."""
        return [
            Tap(
                site="block_in",
                run=partial(self._fuse, module, place),
                blocks=(block,),
                writes=True,
            )
            for place, block in enumerate(self.blocks)
        ]

    def _fuse(
        self, module: nn.Module, place: int, context: PassContext, block: int, hidden: Tensor
    ) -> Tensor:
        positions = context.batch.column(self.instance, "positions")
        fused: Tensor = module(place, hidden, positions, vectors_of(context.batch, self.instance))
        return fused


@dataclass(frozen=True)
class InBlockTaps:
    """Fusion inside the feed-forward of blocks.

    What goes from block to block is kept under the block's number, never in one place: blocks that
    are recomputed in the backward pass must find what they found before.

    Attributes:
        instance: the plugin's.
        blocks: the fused blocks, ascending.
    """

    instance: str
    blocks: tuple[int, ...]

    def __call__(self, module: nn.Module) -> list[Tap]:
        """Return the taps of the built module."""
        taps = []
        for block, before, own in zip(self.blocks, (-1, *self.blocks), module.blocks, strict=False):
            into = partial(self._into, own, before)
            taps.append(Tap(site="ffn_pre", run=into, blocks=(block,), writes=True))
            if own.out is not None:
                taps.append(Tap(site="ffn_hidden", run=partial(self._out, own), blocks=(block,)))
        return taps

    def _into(
        self, own: FusedBlock, before: int, context: PassContext, block: int, hidden: Tensor
    ) -> Tensor:
        column = partial(context.batch.column, self.instance)
        if before < 0:
            entities = vectors_of(context.batch, self.instance)
        else:
            entities = context.states[PASSED_ON, before]
        attended = own.attended(entities, column("table"), column("place"))
        context.states[ATTENDED, block] = attended
        return own.added(hidden, column("positions"), attended)

    def _out(self, own: FusedBlock, context: PassContext, block: int, hidden: Tensor) -> None:
        positions = context.batch.column(self.instance, "positions")
        attended = context.states[ATTENDED, block]
        context.states[PASSED_ON, block] = own.passed_on(hidden, positions, attended)

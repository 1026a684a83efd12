"""Attention over flat, packed rows: one function registered with transformers, one for parts.

Sequences of equal length are neighbours (``MicroBatch.blocks``), so each run is one dense call
without padding or mask. On CUDA in half precision and without a visibility rule or window the
whole row is one variable-length call. Shapes: H heads, D head width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ptm_plus.microbatch import Block, MicroBatch

NAME = "ptm_plus"

Rule = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]


@dataclass
class Packing:
    """How the tokens of a pass may see each other.

    Attributes:
        batch: the micro-batch.
        rules: visibility rules, combined by AND.
    """

    batch: MicroBatch
    rules: Sequence[Rule] = ()
    _masks: dict[tuple[int, int], Tensor | None] = field(default_factory=dict)

    def mask(self, number: int, block: Block, window: int) -> Tensor | None:
        """Return the bool mask ``[n, 1, L, L]`` of a block, or ``None`` when all is visible.

        Args:
            number: index of the block.
            block: the block.
            window: sees at most this many tokens to each side; 0 for no limit.
        """
        limited = 0 < window < block.length - 1
        key = (number, window if limited else 0)
        if key not in self._masks:
            self._masks[key] = self._build(block, window if limited else 0)
        return self._masks[key]

    def _build(self, block: Block, window: int) -> Tensor | None:
        if not window and not self.rules:
            return None
        device = self.batch.ids.device
        first = block.start + block.length * torch.arange(block.count, device=device)
        token = first[:, None] + torch.arange(block.length, device=device)
        query, key = token[:, :, None], token[:, None, :]
        shape = (block.count, block.length, block.length)
        visible = torch.ones(shape, dtype=torch.bool, device=device)
        if window:
            visible = visible & ((query - key).abs() <= window)
        columns = visible_columns(self.batch)
        for rule in self.rules:
            visible = visible & rule(query, key, columns)
        return visible[:, None]


def visible_columns(batch: MicroBatch) -> dict[str, Tensor]:
    """Return the ``[T]`` columns that visibility rules may read."""
    core = {
        "sequence": batch.sequence,
        "segments": batch.segments,
        "positions": batch.positions,
        "languages": batch.languages,
    }
    return {**core, **batch.columns}


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    ptm_packing: Packing | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within sequences; called by transformers for every block.

    Args:
        module: the attention module.
        query: ``[1, H, T, D]``.
        key: ``[1, H, T, D]``.
        value: ``[1, H, T, D]``.
        attention_mask: always ``None`` for a registered function.
        scaling: factor on the scores.
        dropout: attention dropout.
        sliding_window: transformers' window, one more than the tokens seen to each side.
        ptm_packing: how tokens may see each other.

    Returns:
        ``[1, T, H, D]`` and no weights.
    """
    if ptm_packing is None:
        raise RuntimeError("ptm_plus attention was called outside of an encode pass")
    window = sliding_window - 1 if sliding_window else 0
    if _has_variable_length(query) and not ptm_packing.rules:
        return _variable_length(query, key, value, ptm_packing.batch, scaling, window), None
    rows = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
    outputs = []
    for number, block in enumerate(ptm_packing.batch.blocks):
        end = block.start + block.count * block.length
        q, k, v = (
            row[block.start : end].unflatten(0, (block.count, block.length)).transpose(1, 2)
            for row in rows
        )
        mask = ptm_packing.mask(number, block, window)
        mixed = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling
        )
        outputs.append(mixed.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)[None], None


def _has_variable_length(query: Tensor) -> bool:
    """Return whether torch's variable-length kernel takes such a query."""
    half = query.dtype in (torch.bfloat16, torch.float16)
    return query.is_cuda and half and query.shape[-1] % 8 == 0


def _variable_length(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    batch: MicroBatch,
    scaling: float | None,
    window: int,
) -> Tensor:
    """Attend with torch's variable-length kernel (CUDA, half precision, no attention dropout)."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
    bounds = batch.offsets.to(torch.int32)
    longest = max(block.length for block in batch.blocks)
    sides = (window, window) if window else (-1, -1)
    mixed = varlen_attn(q, k, v, bounds, bounds, longest, longest, scale=scaling, window_size=sides)
    assert isinstance(mixed, Tensor)
    return mixed[None]


def register() -> None:
    """Make transformers know the attention function under ``ptm_plus``."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)


def attend_within(query: Tensor, key: Tensor, value: Tensor, batch: MicroBatch) -> Tensor:
    """Attend from every token to all of its own sequence, for parts; waits for no device.

    Args:
        query: ``[T, H, D]``, any head width.
        key: ``[T, H, D]``.
        value: ``[T, H, D]``.
        batch: the micro-batch that the tokens are of.

    Returns:
        ``[T, H, D]``.
    """
    q, k, v = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
    mixed, _ = packed_attention(_NO_MODULE, q, k, v, None, ptm_packing=Packing(batch))
    return mixed[0]


_NO_MODULE = nn.Identity()


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_sequence: Tensor,
    key_sequence: Tensor,
    rule: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Attend from some tokens to others of the same sequence, for parts with attention.

    Rows of different sequences never see each other; a query whose sequence has no key gets zeros.

    Args:
        query: ``[Q, H, D]``, any head width.
        key: ``[N, H, D]``.
        value: ``[N, H, D]``.
        query_sequence: ``[Q]`` sequence of each query, not decreasing.
        key_sequence: ``[N]`` sequence of each key, not decreasing.
        rule: further restricts which key (index into N) a query (index into Q) sees.

    Returns:
        ``[Q, H, D]``.
    """
    if not len(query) or not len(key):
        return query.new_zeros(query.shape)
    sequences = int(max(query_sequence[-1], key_sequence[-1])) + 1
    q_index, q_mask = _padded_index(query_sequence, sequences)
    k_index, k_mask = _padded_index(key_sequence, sequences)
    allowed = q_mask[:, :, None] & k_mask[:, None, :]
    if rule is not None:
        allowed = allowed & rule(q_index[:, :, None], k_index[:, None, :])
    bias = torch.zeros(allowed.shape, dtype=query.dtype, device=query.device)
    bias = bias.masked_fill(~allowed, torch.finfo(query.dtype).min)
    v = (value[k_index] * k_mask[:, :, None, None]).transpose(1, 2)
    mixed = scaled_dot_product_attention(
        query[q_index].transpose(1, 2), key[k_index].transpose(1, 2), v, attn_mask=bias[:, None]
    )
    seen = allowed.any(-1)[:, None, :, None]
    return (mixed * seen).transpose(1, 2)[q_mask]


def _padded_index(sequence: Tensor, sequences: int) -> tuple[Tensor, Tensor]:
    """Return ``[S, L]`` indexes of each sequence's rows, and which of them are real."""
    counts = torch.bincount(sequence, minlength=sequences)
    first = counts.cumsum(0) - counts
    place = torch.arange(int(counts.max()), device=sequence.device)
    mask = place[None] < counts[:, None]
    return (first[:, None] + place[None]).clamp(max=len(sequence) - 1), mask

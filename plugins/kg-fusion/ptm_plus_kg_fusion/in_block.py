"""Fusion inside the blocks: the information fusion of ERNIE (Zhang et al. 2019, section 3.3).

A stream of entities runs beside the tokens. In a fused block i, with w the tokens' states and e the
entities' after attention (each entity is aligned to one token)::

    e~ = e                              in the first fused block, else
    e~ = LN(MHA(e) W + b + e)           entities of one sequence attend to each other
    h  = gelu(W_t w + b_t + W_e e~)     the block's own feed-forward, with the entity's term
    w' = LN(W_3 h + b_3 + w)            the block's own output, here BERT's
    e' = LN(W_4 h + b_4 + e~)

W_t, W_3 and their norm are the backbone's. With W_e at zero, its start, the tokens' path is the
backbone, bit for bit. In gated feed-forwards (ModernBERT) the entity's term goes to the half that
the activation is applied to, and h is what the output projection reads.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention


class EntityAttention(nn.Module):
    """Self-attention among the entities of each sequence, with residual and norm.

    Args:
        width: width of an entity.
        heads: number of heads; they divide the width.
        dropout: chance to drop an output.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, entities: Tensor, table: Tensor, place: Tensor) -> Tensor:
        """Return ``[P, width]`` attended entities.

        Args:
            entities: ``[P, width]``.
            table: ``[S, L]`` the entities of each sequence that has any, -1 behind the last.
            place: ``[P]`` where each of them stands in the flattened table.
        """
        rows = table.clamp(min=0)
        query, key, value = (
            layer(entities)[rows].unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        seen = (table >= 0)[:, None, None]
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=seen)
        mixed = mixed.transpose(1, 2).flatten(2).flatten(0, 1)[place]
        attended: Tensor = self.norm(self.dropout(self.out(mixed)) + entities)
        return attended


class FusedBlock(nn.Module):
    """What the plugin adds to one block.

    Args:
        width: width of an entity.
        inner: width of the block's feed-forward.
        heads: heads of the entities' attention; 0 for none.
        passes_on: whether a later block reads the entities.
        dropout: chance to drop an output.
    """

    def __init__(self, width: int, inner: int, heads: int, passes_on: bool, dropout: float) -> None:
        super().__init__()
        self.attention = EntityAttention(width, heads, dropout) if heads else None
        self.into = nn.Linear(width, inner, bias=False)
        self.out = nn.Linear(inner, width) if passes_on else None
        self.norm = nn.LayerNorm(width) if passes_on else None
        self.dropout = nn.Dropout(dropout)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
        nn.init.zeros_(self.into.weight)

    def attended(self, entities: Tensor, table: Tensor, place: Tensor) -> Tensor:
        """Return ``[P, width]`` e~; for the arguments see :class:`EntityAttention`."""
        if self.attention is None or not len(entities):
            return entities
        attended: Tensor = self.attention(entities, table, place)
        return attended

    def added(self, before: Tensor, positions: Tensor, attended: Tensor) -> Tensor:
        """Return the feed-forward's pre-activation with the entities' term.

        Args:
            before: ``[T, inner]`` W_t w + b_t, or ``[T, 2 inner]`` with a gate behind it.
            positions: ``[P]`` tokens that carry an entity, each once.
            attended: ``[P, width]`` e~.
        """
        term = self.into(attended).to(before.dtype)
        return before.index_add(0, positions, pad(term, (0, before.shape[-1] - term.shape[-1])))

    def passed_on(self, hidden: Tensor, positions: Tensor, attended: Tensor) -> Tensor:
        """Return ``[P, width]`` e'.

        Args:
            hidden: ``[T, inner]`` h.
            positions: ``[P]`` tokens that carry an entity.
            attended: ``[P, width]`` e~.
        """
        assert self.out is not None
        assert self.norm is not None
        passed: Tensor = self.norm(self.dropout(self.out(hidden[positions])) + attended)
        return passed


class InBlockFusion(nn.Module):
    """The fused blocks, the first without attention among entities.

    Args:
        entity: width of entity vectors.
        inner: width of the blocks' feed-forward.
        blocks: number of fused blocks.
        heads: heads of the entities' attention.
        dropout: chance to drop an output.
    """

    def __init__(self, entity: int, inner: int, blocks: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            FusedBlock(entity, inner, heads if place else 0, place < blocks - 1, dropout)
            for place in range(blocks)
        )


def heads_of(width: int, most: int = 4) -> int:
    """Return the most heads, up to four as in the paper's model, that divide a width."""
    return max(heads for heads in range(1, most + 1) if width % heads == 0)

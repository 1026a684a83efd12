"""Settings of the k-adapter plugin."""

from __future__ import annotations

from pydantic import Field

from ptm_plus import Section


class KAdapterSettings(Section):
    """``[plugin.k-adapter]``."""

    relations: tuple[str, ...] = Field(
        (), description="Sentences with two mentions and their relation (JSON lines)."
    )
    dependencies: tuple[str, ...] = Field(
        (), description="Sentences with the head of every word (CoNLL-U, or JSON lines)."
    )
    blocks: tuple[int, ...] = Field(
        (),
        description="Where states are read: 0 after the embeddings, k after block k; "
        "default: first, middle, last.",
    )
    size: int = Field(0, ge=0, description="Inner width; 0 takes the model's, at most 768.")
    layers: int = Field(2, ge=1, description="Transformer layers of each adapter layer.")
    heads: int = Field(0, ge=0, description="Attention heads; 0 takes as many as are 64 wide.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout inside the adapter.")
    stream_weight: float = Field(1.0, gt=0, description="Rows against the other streams.")
    lr: float = Field(1.0, gt=0, description="Factor on the learning rate of the adapter.")

    def places(self, blocks: int) -> tuple[int, ...]:
        """Return where states are read, ascending.

        Args:
            blocks: number of the encoder's blocks.

        Raises:
            ValueError: a place is beyond the last block.
        """
        places = self.blocks or (0, blocks // 2, blocks)
        for place in places:
            if not 0 <= place <= blocks:
                raise ValueError(f"blocks: {place} is not from 0 to {blocks}")
        return tuple(sorted(set(places)))

"""Family cards: where a transformers encoder keeps what parts and objectives ask for.

Parts and objectives name a *site*; the card of the model's family maps it to a module. State-dict
keys never change: sites are reached by forward hooks (measured with transformers 5.23: wrapping a
block renames checkpoint keys, hooks do not).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from ptm_plus.errors import SettingsError, nearest

Moment = Literal["input", "output"]


@dataclass(frozen=True)
class FamilyCard:
    """One model family.

    Attributes:
        name: transformers model type.
        base: attribute of the masked-LM model that holds the encoder.
        embeddings: path of the embeddings module below the encoder.
        blocks: path of the list of blocks below the encoder.
        sites: site name to (path below a block, input or output of that module).
        head: masked-LM model and states ``[K, d]`` to logits ``[K, V]``.
        position_offset: configuration to the first position id.
        has_types: whether the encoder takes token type ids.
        takes_positions: whether the encoder takes position ids.
        tail: path below a block to the module from which on tokens do not meet any more; empty
            where there is none. What goes in there may be some tokens' states only.
        tail_returns: whether the block needs that module's output at all tokens again.
    """

    name: str
    base: str
    embeddings: str
    blocks: str
    sites: dict[str, tuple[str, Moment]]
    head: Callable[[Any, Tensor], Tensor]
    position_offset: Callable[[Any], int] = lambda config: 0
    has_types: bool = True
    takes_positions: bool = True
    tail: str = ""
    tail_returns: bool = False

    def encoder(self, model: nn.Module) -> nn.Module:
        """Return the encoder below the masked-LM head."""
        return model.get_submodule(self.base)

    def block_list(self, model: nn.Module) -> nn.ModuleList:
        """Return the list of blocks."""
        blocks = self.encoder(model).get_submodule(self.blocks)
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    def types(self, config: Any) -> int:
        """Return the number of token types; 1 when there is nothing to tell apart."""
        return int(getattr(config, "type_vocab_size", 1)) if self.has_types else 1

    def longest(self, config: Any) -> int:
        """Return the longest sequence that the position table serves."""
        return int(config.max_position_embeddings) - self.position_offset(config)


_BERT_SITES: dict[str, tuple[str, Moment]] = {
    "block_in": ("", "input"),
    "attn_out": ("attention", "output"),
    "ffn_pre": ("intermediate.dense", "output"),
    "ffn_hidden": ("intermediate", "output"),
    "block_out": ("", "output"),
}
_BERT_TAIL = "attention.output"
_MODERNBERT_SITES: dict[str, tuple[str, Moment]] = {
    "block_in": ("", "input"),
    "attn_out": ("attn", "output"),
    "ffn_pre": ("mlp.Wi", "output"),
    "ffn_hidden": ("mlp.Wo", "input"),
    "block_out": ("", "output"),
}


def _after_padding(config: Any) -> int:
    return int(config.pad_token_id) + 1


def _bert_like(name: str, base: str) -> FamilyCard:
    return FamilyCard(
        name=name,
        base=base,
        embeddings="embeddings",
        blocks="encoder.layer",
        sites=_BERT_SITES,
        tail=_BERT_TAIL,
        head=lambda model, hidden: model.cls(hidden),
    )


def _roberta_like(name: str) -> FamilyCard:
    return FamilyCard(
        name=name,
        base="roberta",
        embeddings="embeddings",
        blocks="encoder.layer",
        sites=_BERT_SITES,
        tail=_BERT_TAIL,
        head=lambda model, hidden: model.lm_head(hidden),
        position_offset=_after_padding,
    )


CARDS: dict[str, FamilyCard] = {
    "bert": _bert_like("bert", "bert"),
    "ernie": _bert_like("ernie", "ernie"),
    "roberta": _roberta_like("roberta"),
    "xlm-roberta": _roberta_like("xlm-roberta"),
    "camembert": _roberta_like("camembert"),
    "electra": FamilyCard(
        name="electra",
        base="electra",
        embeddings="embeddings",
        blocks="encoder.layer",
        sites=_BERT_SITES,
        tail=_BERT_TAIL,
        head=lambda model, hidden: model.generator_lm_head(model.generator_predictions(hidden)),
    ),
    "modernbert": FamilyCard(
        name="modernbert",
        base="model",
        embeddings="embeddings",
        blocks="layers",
        sites=_MODERNBERT_SITES,
        head=lambda model, hidden: model.decoder(model.head(hidden)),
        has_types=False,
        tail="mlp",
        tail_returns=True,
    ),
}


def card_of(model_type: str) -> FamilyCard:
    """Return the card of a transformers model type.

    Raises:
        SettingsError: there is no card for it.
    """
    if model_type not in CARDS:
        raise SettingsError(
            f"model type {model_type!r} has no family card{nearest(model_type, CARDS)}",
            f"families with a card: {', '.join(sorted(CARDS))}",
        )
    return CARDS[model_type]

"""The backbone: loaded from a checkpoint or built from a configuration."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedTokenizerBase

from ptm_plus import attention
from ptm_plus.components import ControlToken
from ptm_plus.errors import SettingsError
from ptm_plus.families import FamilyCard, card_of
from ptm_plus.pretrained import FIRST_ATTENTION, load_config, load_model
from ptm_plus.settings import ModelSettings

_SMALL: dict[str, Any] = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
}
_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
)
_BROKEN = (TypeError, ValueError, RuntimeError, SafetensorError, StrictDataclassError)
"""What transformers raises for files and values that are wrong."""


def check_model(settings: ModelSettings, longest: int) -> None:
    """Check a model without its tokenizer, before anything is prepared for it.

    Args:
        settings: the model section.
        longest: longest sequence that it must serve.

    Raises:
        SettingsError: the checkpoint cannot be read, the family is unknown, a key is wrong, or the
            model's position table is too short.
    """
    if settings.path:
        config = load_config(settings)
        check_length(card_of(config.model_type), config, longest)
        return
    card_of(settings.family)
    _check_keys(settings)


def build_config(settings: ModelSettings, tokenizer: PreTrainedTokenizerBase, longest: int) -> Any:
    """Return the backbone's configuration, loaded or made for the tokenizer.

    Args:
        settings: the model section.
        tokenizer: gives the vocabulary's size and special ids for a new model.
        longest: longest sequence that a new model's position table must serve.

    Raises:
        SettingsError: the checkpoint cannot be read, or a value is wrong.
    """
    config = load_config(settings) if settings.path else _new_config(settings, tokenizer, longest)
    for name in _DROPOUTS:
        if hasattr(config, name):
            setattr(config, name, settings.dropout)
    return config


def build_backbone(
    settings: ModelSettings, config: Any, tokens: list[ControlToken], tokenizer: Any, precision: str
) -> nn.Module:
    """Return the masked-LM model, ready for packed attention.

    New rows of the vocabulary start as their control token says; embeddings never shrink.

    Args:
        settings: the model section.
        config: from :func:`build_config`.
        tokens: control tokens, already in the tokenizer.
        tokenizer: the run's tokenizer.
        precision: ``fp64`` for tests; otherwise the weights are fp32.
    """
    if settings.path:
        model = load_model(settings, config)
    else:
        model = AutoModelForMaskedLM.from_config(
            config, trust_remote_code=False, attn_implementation=FIRST_ATTENTION
        )
    model = model.to(torch.float64 if precision == "fp64" else torch.float32)
    _extend_vocabulary(model, tokenizer, tokens)
    attention.register()
    model.set_attn_implementation(attention.NAME)
    backbone: nn.Module = model
    return backbone


def _new_config(settings: ModelSettings, tokenizer: PreTrainedTokenizerBase, longest: int) -> Any:
    card = card_of(settings.family)
    ids = {
        name: getattr(tokenizer, name)
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
        if getattr(tokenizer, name, None) is not None
    }
    for name, other in (("bos_token_id", "cls_token_id"), ("eos_token_id", "sep_token_id")):
        if other in ids:
            ids.setdefault(name, ids[other])  # never the family's own number: it may be no row
    values = {**_SMALL, "vocab_size": len(tokenizer), **ids, **settings.config}
    try:
        config = AutoConfig.for_model(settings.family, **values)
        if "max_position_embeddings" not in settings.config:
            config.max_position_embeddings = longest + card.position_offset(config)
    except _BROKEN as error:
        raise SettingsError(f"model.config: {error}", "see the family's configuration") from error
    return config


def _check_keys(settings: ModelSettings) -> None:
    """Refuse keys that look misspelt: transformers keeps any other key without a word."""
    known = set(AutoConfig.for_model(settings.family).to_dict())
    for key in settings.config.keys() - known:  # some families read more than they list
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
        if close:
            raise SettingsError(
                f"model.config.{key}: family {settings.family!r} has no such value; did you mean "
                f"{close[0]!r}?",
                "see the family's configuration",
            )


def _extend_vocabulary(model: Any, tokenizer: Any, tokens: list[ControlToken]) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        output_biases(model)
    weight = model.get_input_embeddings().weight
    with torch.no_grad():
        for token in tokens:
            row = tokenizer.convert_tokens_to_ids(token.text)
            if row >= rows:  # a marker that the checkpoint already has is never restarted
                weight[row] = _start(weight[:rows], tokenizer, token, row)


def output_biases(model: Any) -> list[torch.Tensor]:
    """Bring the output's biases to the length of its weights, in place, and return them.

    A head of untied weights has one beside the output layer's, which resizing forgets: what is then
    saved cannot be loaded again (transformers 5.23).
    """
    output = model.get_output_embeddings()
    own = getattr(output, "bias", None)
    biases = [] if own is None else [own]
    head = next((one for one in model.modules() if output in one.children()), None)
    beside = getattr(head, "bias", None)
    if head is not None and isinstance(beside, torch.nn.Parameter) and beside is not own:
        longer = beside.new_zeros(output.weight.shape[0])
        longer[: len(beside)] = beside.detach()
        head.bias = torch.nn.Parameter(longer)
        biases.append(head.bias)
    return biases


def _start(weight: torch.Tensor, tokenizer: Any, token: ControlToken, row: int) -> torch.Tensor:
    if token.start == "mean":
        return weight.mean(0)
    if token.start == "random":
        return around_mean(weight, row)
    return weight[tokenizer.convert_tokens_to_ids(token.start)].clone()


def around_mean(weight: torch.Tensor, row: int) -> torch.Tensor:
    """Return a new row, drawn around the mean of others with their spread; the row seeds it."""
    mean, spread = weight.mean(0), weight.std(0)
    generator = torch.Generator().manual_seed(row)
    return mean + torch.randn(mean.shape, generator=generator, dtype=mean.dtype) * spread


def check_length(card: FamilyCard, config: Any, longest: int) -> None:
    """Check that the position table serves the longest sequence.

    Raises:
        SettingsError: it does not.
    """
    if card.takes_positions and longest > card.longest(config):
        raise SettingsError(
            f"prepare.max_length is {longest}; the model serves {card.longest(config)} positions",
            f"set prepare.max_length to at most {card.longest(config)}",
        )

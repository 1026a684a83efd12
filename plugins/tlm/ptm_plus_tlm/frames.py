"""Frames: the special tokens, token types and positions around and between the halves of a pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ptm_plus import SettingsError, Template, nearest
from ptm_plus_tlm.settings import LayoutName, Positions

Types = tuple[int, int, int, int, int]

_ONE_TYPE: Types = (0, 0, 0, 0, 0)
_TWO_TYPES: Types = (0, 0, 0, 1, 1)


@dataclass(frozen=True)
class Frame:
    """``prefix x middle y suffix``.

    Attributes:
        prefix: ids before the first half.
        middle: ids between the halves.
        suffix: ids after the second half.
        types: token types of the five runs.
        restart: positions of the second half start from 0 again. A ``middle`` of several tokens
            closes the first half and opens the second: its last token is then at 0, as in XLM.
    """

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    types: Types = _ONE_TYPE
    restart: bool = False


def frame_of(
    layout: LayoutName, positions: Positions, template: Template, separator: int | None = None
) -> Frame:
    """Return the frame of a layout, with the ids of a tokenizer.

    ``xlm`` is ``</s> x </s> </s> y </s>`` (Conneau and Lample 2019), ``roberta`` is
    ``<s> x </s></s> y </s>``, ``infoxlm`` is ``<s> x </s> y </s>`` (Chi et al. 2021), ``bert`` is
    ``[CLS] x [SEP] y [SEP]`` with token types, ``document`` is a single text with a separator of
    its own between the halves (EuroBERT), ``auto`` what the tokenizer itself makes of two texts.

    Args:
        layout: which one.
        positions: those of the second half; ``auto`` restarts where each half stands between
            separators of its own, as XLM was trained, and goes on elsewhere.
        template: special tokens of the tokenizer.
        separator: id of the separator of ``document``.

    Raises:
        SettingsError: the tokenizer gives no token types and the layout needs them.
    """
    start, end = (template.cls,), (template.sep,)
    if layout == "bert" and not template.two_types:
        raise SettingsError(
            "layout 'bert' needs two token types, and this tokenizer's model has one",
            "set plugin.tlm.layout='auto', 'infoxlm' (the same tokens without types) or 'roberta'",
        )
    marks: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] = {
        "auto": (template.pair_prefix, template.middle, template.pair_suffix),
        "xlm": (end, end + end, end),
        "roberta": (start, end + end, end),
        "infoxlm": (start, end, end),
        "bert": (start, end, end),
        "document": (template.prefix, () if separator is None else (separator,), template.suffix),
    }[layout]
    types = {"auto": template.types, "bert": _TWO_TYPES}.get(layout, _ONE_TYPE)
    own_separators = marks == (end, end + end, end)
    restart = own_separators if positions == "auto" else positions == "restart"
    return Frame(*marks, types=types, restart=restart)


def separator_id(tokenizer: Any, token: str) -> int:
    """Return the id of the separator of the layout ``document``.

    Raises:
        SettingsError: the tokenizer has no such token.
    """
    known: dict[str, int] = tokenizer.get_vocab()
    if token not in known:
        end = tokenizer.sep_token or tokenizer.eos_token
        raise SettingsError(
            f"layout 'document' puts {token!r} between the halves, and the tokenizer has no such "
            f"token{nearest(token, tokenizer.all_special_tokens)}",
            f"name one of its tokens, plugin.tlm.separator={end!r} say, or take another layout",
        )
    return known[token]

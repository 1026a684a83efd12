"""Settings of the tlm plugin."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ptm_plus import Section

LayoutName = Literal["auto", "xlm", "roberta", "infoxlm", "bert", "document"]
Positions = Literal["auto", "restart", "continue"]


class TlmSettings(Section):
    """``[plugin.tlm]``."""

    weight: float = Field(1.0, ge=0, description="Factor on the loss.")
    stream_weight: float = Field(1.0, gt=0, description="Rows against the other streams.")
    layout: LayoutName = Field(
        "auto",
        description="Special tokens around the halves: the tokenizer's own, or those of a method.",
    )
    separator: str = Field(
        "<|parallel_sep|>", min_length=1, description="Token between the halves of `document`."
    )
    positions: Positions = Field(
        "auto",
        description="Positions of the second half: from 0 again (as XLM), or going on (as others).",
    )
    swap: bool = Field(True, description="Draw at each access which half comes first.")
    focus: float = Field(
        1.0,
        ge=1,
        le=1000,
        description="Chance of a word of one half, drawn at each access, against the other's.",
    )
    language_embeddings: bool = Field(
        False, description="Add a language vector to every token; it is lost in a plain export."
    )

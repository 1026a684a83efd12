"""Settings of the tlm plugin."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ptm_plus import Section


class TlmSettings(Section):
    """``[plugin.tlm]``."""

    weight: float = Field(1.0, ge=0, description="Factor on the loss.")
    stream_weight: float = Field(1.0, gt=0, description="Rows against the other streams.")
    positions: Literal["restart", "continue"] = Field(
        "restart", description="Positions of the second half: from 0 again (XLM), or going on."
    )
    swap: bool = Field(True, description="Draw at each access which half comes first.")
    language_embeddings: bool = Field(
        False, description="Add a language vector to every token; it is lost in a plain export."
    )

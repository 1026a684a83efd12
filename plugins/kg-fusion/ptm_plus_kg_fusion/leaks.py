"""Entities that can be told although neither their name nor their vector is there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ptm_plus import ProbeContext
from ptm_plus_kg_fusion.entities import MODES

LEAST = 0.1
"""Below this accuracy nothing has been learned that could leak."""

ASKED = 20
"""With fewer questions in a mode nothing can be said."""


def accuracy_by_mode(context: ProbeContext, *, objective: str) -> dict[str, Any]:
    """Return accuracy and number of questions of entity prediction, by stream and mode."""
    figures: dict[str, Any] = {}
    for stream in context.streams:
        found = context.metrics(stream, objective)
        for mode in MODES:
            right, asked = found.get(f"accuracy_{mode}", (0.0, 0.0))
            if asked:
                one = {"accuracy": right / asked, "asked": int(asked)}
                figures.setdefault(stream, {})[mode] = one
    return figures


def leaks(figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[str]:
    """Yield a warning for each stream in which masking takes nothing away.

    With name and vector hidden (mode ``both``), an entity must be harder to tell, by two standard
    errors, than with both of them there (``neither``) or, where too few of those are asked for,
    with the name (``entity``).

    Args:
        figures: what :func:`accuracy_by_mode` returns.
    """
    for stream, modes in figures.items():
        enough = {mode: one for mode, one in modes.items() if one["asked"] >= ASKED}
        easier = "neither" if "neither" in enough else "entity"
        if not {easier, "both"} <= set(enough) or enough["both"]["accuracy"] < LEAST:
            continue
        easy, both = enough[easier], enough["both"]
        if both["accuracy"] >= easy["accuracy"] - 2 * _error(easy, both):
            yield (
                f"{stream}: entities are told as well with name and vector hidden "
                f"({both['accuracy']:.0%} of {both['asked']}) as in mode {easier!r} "
                f"({easy['accuracy']:.0%} of {easy['asked']}): something gives them away; look at "
                "the masks (ptm-plus preview), at mentions that were not linked, and at texts that "
                "repeat"
            )


def _error(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Return the standard error of the difference of two shares, both at their common mean."""
    asked = first["asked"] + second["asked"]
    mean = sum(one["accuracy"] * one["asked"] for one in (first, second)) / asked
    return math.sqrt(mean * (1 - mean) * (1 / first["asked"] + 1 / second["asked"]))

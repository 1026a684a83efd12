"""Where the time of a step went, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType

from ptm_plus.cli.rendering import columns, named_rows, percent


def profile_table(document: Mapping[str, Any]) -> RenderableType:
    """Return the ranges of a profiled step, the longest first."""
    ranges = document["ranges"]
    kinds = ["forward", "backward"]
    if any(one["device"] for one in ranges):
        kinds.append("device")
    total = sum(one["forward"] + one["backward"] for one in ranges)
    rows = [
        (
            one["range"],
            *(f"{one[kind]:.2f}" if one[kind] >= 0.005 else "–" for kind in kinds),
            percent((one["forward"] + one["backward"]) / total),
        )
        for one in ranges
    ]
    headings = ("range", *(f"{kind} ms" for kind in kinds), "share")
    about = [
        ("steps", f"{document['steps']}, {document['milliseconds']:.1f} ms each"),
        ("speed", f"{document['tokens_per_second']:,.0f} tokens/s, slowed down by the profiler"),
        ("trace", f"{document['trace']} (open in Perfetto or chrome://tracing)"),
    ]
    return Group(named_rows("profile", about), columns(headings, rows, right=headings[1:]))

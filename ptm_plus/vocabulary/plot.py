"""A report of tokenizers as a picture: bars by language."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptm_plus.bar_chart import Panel, write_bars

_PANELS = (
    ("pieces per word", "fertility", "{:.2f}"),
    ("words split", "continued_share", "{:.0%}"),
    ("unknown tokens", "unknown_rate", "{:.2%}"),
    ("characters per token", "characters_per_token", "{:.2f}"),
)


def write_plot(report: Mapping[str, Any], path: Path) -> None:
    """Write a report of one or two tokenizers as an SVG file.

    Raises:
        EnvironmentProblem: it cannot be written.
    """
    several = report["tokenizers"]
    languages = list(several[0]["languages"])
    panels = [
        Panel(
            heading,
            [[one["languages"][name][key] or 0.0 for name in languages] for one in several],
            pattern,
        )
        for heading, key, pattern in _PANELS
    ]
    names = [f"{one['name']} ({one['vocabulary']:,} entries)" for one in several]
    write_bars(path, names, languages, panels)

"""A report as a picture: bars by language, in SVG, which needs no library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from ptm_plus.errors import EnvironmentProblem

_PANELS = (
    ("pieces per word", "fertility", "{:.2f}"),
    ("words split", "continued_share", "{:.0%}"),
    ("unknown tokens", "unknown_rate", "{:.2%}"),
    ("characters per token", "characters_per_token", "{:.2f}"),
)
_COLOURS = ("#3b6ea5", "#d98324")
_BAR, _GAP, _TOP, _LEFT, _WIDTH, _FIGURES = 14, 10, 76, 70, 170, 56


def write_plot(report: Mapping[str, Any], path: Path) -> None:
    """Write a report of one or two tokenizers as an SVG file.

    Raises:
        EnvironmentProblem: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*_picture(report["tokenizers"]), ""]), encoding="utf-8")
    except OSError as error:
        raise EnvironmentProblem(
            f"{path}: cannot be written: {error.strerror or error}", "name another file"
        ) from error


def _picture(several: list[Mapping[str, Any]]) -> Iterator[str]:
    languages = list(several[0]["languages"])
    step = _BAR * len(several) + _GAP
    width = _LEFT + len(_PANELS) * (_WIDTH + _FIGURES)
    height = _TOP + step * len(languages) + _GAP
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
    )
    yield f'<rect width="{width}" height="{height}" fill="white"/>'
    for number, one in enumerate(several):
        y = 10 + 18 * number
        yield f'<rect x="10" y="{y}" width="12" height="12" fill="{_COLOURS[number]}"/>'
        yield _text(28, y + 10, f"{one['name']} ({one['vocabulary']:,} entries)")
    for row, language in enumerate(languages):
        yield _text(10, _TOP + row * step + step / 2, language)
    for number, (heading, key, pattern) in enumerate(_PANELS):
        left = _LEFT + number * (_WIDTH + _FIGURES)
        yield _text(left, _TOP - 10, heading, weight="bold")
        values = [[one["languages"][name][key] or 0.0 for name in languages] for one in several]
        largest = max((value for column in values for value in column), default=0.0) or 1.0
        for which, column in enumerate(values):
            for row, value in enumerate(column):
                y = _TOP + row * step + which * _BAR
                length = _WIDTH * value / largest
                yield (
                    f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{_BAR - 2}" '
                    f'fill="{_COLOURS[which]}"/>'
                )
                yield _text(left + length + 4, y + 10, pattern.format(value), size=10)
    yield "</svg>"


def _text(x: float, y: float, text: str, size: int = 12, weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )

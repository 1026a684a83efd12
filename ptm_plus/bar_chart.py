"""Figures as a picture: horizontal bars in SVG, which needs no library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from ptm_plus.errors import EnvironmentProblem, SettingsError

_COLOURS = ("#3b6ea5", "#d98324")
_BAR, _GAP, _TOP, _WIDTH, _FIGURES, _LETTER = 14, 10, 76, 170, 56, 7


@dataclass(frozen=True)
class Panel:
    """One column of bars.

    Attributes:
        heading: what the bars measure.
        values: by series, the value of each row; none below 0.
        pattern: how a value is written beside its bar.
    """

    heading: str
    values: Sequence[Sequence[float]]
    pattern: str = "{:,.0f}"


def check_suffix(path: Path | None) -> None:
    """Check the name of a picture.

    Raises:
        SettingsError: it does not end in .svg.
    """
    if path is not None and path.suffix != ".svg":
        raise SettingsError(f"--plot {path}: must end in .svg", "name an .svg file")


def write_bars(
    path: Path, series: Sequence[str], rows: Sequence[str], panels: Sequence[Panel]
) -> None:
    """Write an SVG file.

    Args:
        path: the file.
        series: what is told apart by colour, one or two.
        rows: names of the rows.
        panels: columns of bars over these rows.

    Raises:
        EnvironmentProblem: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*_picture(series, rows, panels), ""]), encoding="utf-8")
    except OSError as error:
        raise EnvironmentProblem(
            f"{path}: cannot be written: {error.strerror or error}", "name another file"
        ) from error


def _picture(series: Sequence[str], rows: Sequence[str], panels: Sequence[Panel]) -> Iterator[str]:
    step = _BAR * len(series) + _GAP
    margin = 26 + _LETTER * max(map(len, rows), default=0)
    width = max(margin + len(panels) * (_WIDTH + _FIGURES), 40 + _LETTER * max(map(len, series)))
    height = _TOP + step * len(rows) + _GAP
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
    )
    yield f'<rect width="{width}" height="{height}" fill="white"/>'
    for number, name in enumerate(series):
        y = 10 + 18 * number
        yield f'<rect x="10" y="{y}" width="12" height="12" fill="{_COLOURS[number]}"/>'
        yield _text(28, y + 10, name)
    for row, name in enumerate(rows):
        yield _text(10, _TOP + row * step + step / 2, name)
    for number, panel in enumerate(panels):
        yield from _bars(panel, margin + number * (_WIDTH + _FIGURES), step)
    yield "</svg>"


def _bars(panel: Panel, left: float, step: int) -> Iterator[str]:
    yield _text(left, _TOP - 10, panel.heading, weight="bold")
    largest = max((value for column in panel.values for value in column), default=0.0) or 1.0
    for which, column in enumerate(panel.values):
        for row, value in enumerate(column):
            y = _TOP + row * step + which * _BAR
            length = _WIDTH * value / largest
            yield (
                f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{_BAR - 2}" '
                f'fill="{_COLOURS[which]}"/>'
            )
            yield _text(left + length + 4, y + 10, panel.pattern.format(value), size=10)


def _text(x: float, y: float, text: str, size: int = 12, weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )

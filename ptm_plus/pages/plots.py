"""Plots as SVG, by matplotlib, to stand in a page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ptm_plus.errors import EnvironmentProblem

Points = Sequence[tuple[float, float]]

_WIDTH, _ROW = 9.0, 0.28
_COLOURS = {"better": "#2a8a3e", "worse": "#c2352b", "none": "#777777"}


@dataclass(frozen=True)
class Interval:
    """A row of a forest plot.

    Attributes:
        label: what it is.
        mean: the estimate.
        low: lower end of its interval.
        high: upper end.
        effect: ``better``, ``worse`` or ``none``; its colour.
    """

    label: str
    mean: float
    low: float
    high: float
    effect: str


def need_matplotlib() -> None:
    """Check that plots can be made.

    Raises:
        EnvironmentProblem: matplotlib is missing.
    """
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        raise EnvironmentProblem(
            "plots need matplotlib, which is not installed", 'pip install "ptm-plus[report]"'
        )


def lines(series: Mapping[str, Points], x: str, y: str) -> str:
    """Return curves.

    Args:
        series: points by name, in order of x.
        x: what is on the horizontal axis.
        y: what is on the vertical axis.
    """
    with _figure(3.4) as (axes, finish):
        for number, (name, points) in enumerate(series.items()):
            style = ("-", "--", ":", "-.")[number // 10 % 4]
            marker = "o" if len(points) < 20 else None
            axes.plot(*zip(*points, strict=True), style, label=name, marker=marker, markersize=3)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(alpha=0.3)
        if len(series) > 1:
            axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        return finish()


def forest(rows: Sequence[Interval], x: str) -> str:
    """Return differences with their intervals, a row each, around a line at zero.

    Args:
        rows: from top to bottom.
        x: what is on the horizontal axis.
    """
    with _figure(0.9 + _ROW * len(rows)) as (axes, finish):
        for place, row in enumerate(rows):
            colour = _COLOURS[row.effect]
            axes.plot([row.low, row.high], [place, place], color=colour, linewidth=2)
            axes.plot([row.mean], [place], "o", color=colour, markersize=5)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(x)
        axes.grid(axis="x", alpha=0.3)
        return finish()


def bars(rows: Sequence[str], series: Mapping[str, Sequence[float]], x: str) -> str:
    """Return horizontal bars, those of a row beside each other.

    Args:
        rows: names, from top to bottom.
        series: by name, the value of each row.
        x: what the bars measure.
    """
    height = 0.8 / max(1, len(series))
    with _figure(0.9 + _ROW * len(rows) * max(1, len(series)) * 0.8) as (axes, finish):
        for number, (name, values) in enumerate(series.items()):
            places = [row + (number - (len(series) - 1) / 2) * height for row in range(len(rows))]
            axes.barh(places, values, height=height * 0.9, label=name)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(x)
        axes.grid(axis="x", alpha=0.3)
        if len(series) > 1:
            axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        return finish()


@contextmanager
def _figure(height: float) -> Iterator[tuple[Any, Any]]:
    """Yield axes and what makes an SVG of them; the same drawing gives the same bytes."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {"svg.fonttype": "none", "svg.hashsalt": "ptm-plus", "font.family": "sans-serif"}
    with mpl.rc_context({**settings, "font.size": 9, "axes.spines.top": False}):
        figure = Figure(figsize=(_WIDTH, height))
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.spines["right"].set_visible(False)

        def finish() -> str:
            stream = io.StringIO()
            figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
            return stream.getvalue()[stream.getvalue().index("<svg") :]

        yield axes, finish

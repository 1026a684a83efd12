"""The plan of an ablation, and what it found, as tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from ptm_plus.cli.rendering import columns, duration, named_rows, quantity, size

if TYPE_CHECKING:
    from ptm_plus.ablation.planning import PlannedArm, Request

_EFFECTS = {"better": "green", "worse": "red", "none": "dim"}


def plan_document(request: Request, planned: Sequence[PlannedArm]) -> dict[str, Any]:
    """Return a plan as plain values."""
    from ptm_plus.ablation.planning import total_hours

    return {
        "design": request.design,
        "seeds": request.seeds,
        "runs": len(planned) * request.seeds,
        "at_a_time": len(request.slots),
        "hours": total_hours(request, planned),
        "arms": [
            {
                "name": one.arm.name,
                "plugins": list(one.arm.plugins),
                "placebo": one.arm.placebo.summary if one.arm.placebo else None,
                "steps": one.steps,
                "tokens": round(one.tokens),
                "hours_each": one.hours,
            }
            for one in planned
        ],
    }


def plan_table(plan: Mapping[str, Any]) -> Group:
    """Return a plan for a console."""
    rows = [
        (
            one["name"],
            one["placebo"] or ", ".join(one["plugins"]) or "no plugin",
            f"{one['steps']:,}",
            quantity(one["tokens"]),
            duration(3600 * one["hours_each"]),
        )
        for one in plan["arms"]
    ]
    headings = ("arm", "what it is", "steps", "tokens", "a run")
    table = columns(headings, rows, right=headings[2:], title=f"{plan['design']} design")
    return Group(table, Text(plan_words(plan)))


def plan_words(plan: Mapping[str, Any]) -> str:
    """Return how much a plan takes, in a line."""
    return (
        f"{plan['runs']} runs ({len(plan['arms'])} arms, {plan['seeds']} seeds), "
        f"{plan['at_a_time']} at a time: some {duration(3600 * plan['hours'])} of training, "
        "measuring on top"
    )


def ablation_tables(document: Mapping[str, Any], folder: Path) -> Group:
    """Return what an ablation found for a console."""
    parts: list[RenderableType] = [_means(document), _cost(document), _differences(document)]
    blind = [one for one in document["resolution"] if not one["would_be_seen"]]
    if blind:
        rows = [(one["placebo"], f"too wide to tell on {one['measure']}") for one in blind]
        parts.append(named_rows("half of the plugin's effect would not have been seen", rows))
    verdicts = [(one["plugin"], one["words"]) for one in document["verdicts"]]
    parts.append(named_rows("verdict", verdicts))
    parts.append(named_rows("", [("all figures", str(folder / "ablation.json"))]))
    return Group(*parts)


def _means(document: Mapping[str, Any]) -> RenderableType:
    measures = document["measures"]
    rows = []
    for arm in document["arms"]:
        cells = [_mean(one, arm["name"]) for one in measures]
        rows.append((arm["name"], *cells))
    headings = ("arm", *(f"{one['name']} ({one['unit']})" for one in measures))
    title = f"mean over {len(document['seeds'])} seeds (least – most)"
    return columns(headings, rows, right=headings[1:], title=title)


def _mean(measure: Mapping[str, Any], arm: str) -> str:
    values = measure["seeds"][arm]
    pattern = "{:.1f}" if measure["unit"] == "points" else "{:.3f}"
    mean = pattern.format(statistics.mean(values))
    if len(values) == 1:
        return mean
    return f"{mean} ({pattern.format(min(values))} – {pattern.format(max(values))})"


def _cost(document: Mapping[str, Any]) -> RenderableType:
    rows = [
        (
            one["name"],
            one["placebo"] or "",
            quantity(statistics.mean(one["tokens"])),
            f"{one['tokens_per_second']:,.0f}",
            f"{one['relative']['speed']:.0%}",
            size(one["peak_memory"]),
        )
        for one in document["arms"]
    ]
    headings = ("arm", "placebo", "tokens", "tokens/s", "of none", "memory")
    return columns(headings, rows, right=headings[2:], title="cost")


def _differences(document: Mapping[str, Any]) -> RenderableType:
    rows = []
    for one in document["comparisons"]:
        pattern = "{:+.1f}" if one["unit"] == "points" else "{:+.3f}"
        low, high = (pattern.format(value) for value in one["interval"])
        rows.append(
            (
                one["measure"],
                f"{one['arm']} − {one['against']}",
                pattern.format(one["difference"]),
                f"{low} to {high}",
                f"{one['corrected_p']:.3f}",
                Text(one["effect"], style=_EFFECTS[one["effect"]]),
            )
        )
    headings = ("measure", "difference", "mean", "95 %", "p", "effect")
    count = len(document["comparisons"])
    title = f"paired over seeds and items; p corrected for {count} comparisons (Holm)"
    return columns(headings, rows, right=("mean", "95 %", "p"), title=title)

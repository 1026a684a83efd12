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

_OVER_NONE = ("plugin", "placebo", "all")
"""Roles of comparisons with the run without plugins."""


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
    """Return what an ablation found for a console: of each measure with an effect, a table."""
    moved = {one["measure"] for one in document["comparisons"] if one["effect"] != "none"}
    measures = [one for one in document["measures"] if one["name"] in moved]
    still = [one["name"] for one in document["measures"] if one["name"] not in moved]
    parts: list[RenderableType] = [_cost(document), *(_measure(document, one) for one in measures)]
    seeds, count = len(document["seeds"]), len(document["comparisons"])
    how = f"95 % intervals, paired over {seeds} seeds and items; effects by p corrected for {count}"
    parts.append(named_rows("", [("differences", f"{how} comparisons (Holm)")]))
    if still:
        parts.append(named_rows("", [("no effect in", "; ".join(still))]))
    blind = [one for one in document["resolution"] if not one["would_be_seen"]]
    if blind:
        rows = [(one["placebo"], f"too wide to tell on {one['measure']}") for one in blind]
        parts.append(named_rows("half of the plugin's effect would not have been seen", rows))
    verdicts = [(one["plugin"], one["words"]) for one in document["verdicts"]]
    parts.append(named_rows("verdict", verdicts))
    files = [
        ("all figures", str(folder / "ablation.json")),
        ("as a page", f"ptm-plus report {folder}"),
    ]
    parts.append(named_rows("", files))
    return Group(*parts)


def _measure(document: Mapping[str, Any], measure: Mapping[str, Any]) -> RenderableType:
    """Show the means of a measure by arm, what each gains over none, and what it lacks."""
    own = [one for one in document["comparisons"] if one["measure"] == measure["name"]]
    gains = {one["arm"]: one for one in own if one["role"] in _OVER_NONE}
    lacks = {one["against"]: one for one in own if one["role"] not in _OVER_NONE}
    rows = [
        (
            arm["name"],
            _mean(measure, arm["name"]),
            _difference(gains.get(arm["name"])),
            _difference(lacks.get(arm["name"])),
        )
        for arm in document["arms"]
    ]
    headings = ("arm", "mean (least – most)", "over none", "plugin, or all, over it")
    better = "more" if measure["higher_is_better"] else "less"
    title = f"{measure['name']}, {measure['unit']}, {better} is better"
    return columns(headings, rows, right=headings[1:], title=title)


def _difference(found: Mapping[str, Any] | None) -> Text:
    if found is None:
        return Text("")
    pattern = "{:+.1f}" if found["unit"] == "points" else "{:+.3f}"
    mean, low, high = (pattern.format(one) for one in (found["difference"], *found["interval"]))
    effect = found["effect"]
    said = "" if effect == "none" else f" {effect}"
    return Text(f"{mean} ({low} to {high}){said}", style=_EFFECTS[effect])


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

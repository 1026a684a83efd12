"""From scores by arm and seed to a table that says what is a difference and what is none."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ptm_plus.measures.tasks import interval

BASE = "no plugin"

Seeds = Sequence[Mapping[str, float]]
"""The measures of an arm, seed by seed."""

Titles = Mapping[str, str]
"""The measures that are told of, and how they are called."""


def macro_f1(predicted: Sequence[str], true: Sequence[str]) -> float:
    """Return the mean F1 over the classes that occur in ``true``."""
    values = []
    for name in sorted(set(true)):
        both = sum(p == t == name for p, t in zip(predicted, true, strict=True))
        values.append(2 * both / (list(predicted).count(name) + list(true).count(name)))
    return statistics.mean(values)


def verdict(differences: Sequence[float]) -> str:
    """Say in words what paired differences show: a gain, a loss, or none."""
    found = interval(differences)
    if found is None:
        return "one seed: not said"
    if found[0] <= 0 <= found[1]:
        return "none"
    return "higher" if found[0] > 0 else "lower"


def compared(own: Seeds, base: Seeds, titles: Titles) -> dict[str, dict[str, Any]]:
    """Return by measure how far an arm is from another, seed by seed."""
    found = {}
    for measure in titles:
        apart = [one[measure] - other[measure] for one, other in zip(own, base, strict=True)]
        found[measure] = {
            "difference": statistics.mean(apart),
            "interval": interval(apart),
            "verdict": verdict(apart),
        }
    return found


def summary(
    scores: Mapping[str, Seeds], titles: Titles, base: str = BASE
) -> dict[str, dict[str, Any]]:
    """Return mean, spread, and difference to an arm, by arm and measure.

    Args:
        scores: of the same seeds, in the same order, for every arm.
        titles: the measures.
        base: the arm that the others are compared with.
    """
    found: dict[str, dict[str, Any]] = {}
    for arm, seeds in scores.items():
        against = {} if arm == base else compared(seeds, scores[base], titles)
        found[arm] = {}
        for measure in titles:
            values = [seed[measure] for seed in seeds]
            found[arm][measure] = {
                "mean": statistics.mean(values),
                "lowest": min(values),
                "highest": max(values),
                "deviation": statistics.stdev(values) if len(values) > 1 else None,
                **against.get(measure, {}),
            }
    return found


def told(found: Mapping[str, Mapping[str, Any]], titles: Titles) -> str:
    """Return what ``compared`` found, in words."""
    parts = (
        f"{title} {_apart(found[measure])}, difference: {found[measure]['verdict']}"
        for measure, title in titles.items()
    )
    return "; ".join(parts)


def table(found: Mapping[str, Mapping[str, Any]], tokens: Mapping[str, int], titles: Titles) -> str:
    """Return the table of a summary.

    Args:
        found: what ``summary`` returned.
        tokens: that each arm was pre-trained on.
        titles: the measures.
    """
    lines = ["| | tokens | measure | mean (lowest to highest) | against no plugin | difference |"]
    lines.append("|---|--:|---|---|---|---|")
    for arm, measures in found.items():
        for measure, title in titles.items():
            one = measures[measure]
            mean = f"{one['mean']:.3f} ({one['lowest']:.3f} to {one['highest']:.3f})"
            lines.append(
                f"| {arm} | {tokens[arm]:,} | {title} | {mean} | {_apart(one)} "
                f"| {one.get('verdict', '–')} |"
            )
    lines.append("")
    lines.append(
        "Difference: paired over seeds, with its 95 % t interval; one whose interval holds zero is "
        "inside the spread, and there is none to report."
    )
    return "\n".join(lines)


def _apart(one: Mapping[str, Any]) -> str:
    if "difference" not in one:
        return "–"
    between = one["interval"]
    found = f" ({between[0]:+.3f} to {between[1]:+.3f})" if between else ""
    return f"{one['difference']:+.3f}{found}"

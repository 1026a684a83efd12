"""What a run would have reached in the time of another, read off the curve of its evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

Curve = list[tuple[float, float]]
"""Seconds in steps, and a figure."""

_WORDS = "words/"


def curves_of(records: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """Return the figures of a run's evaluations over its time.

    Args:
        records: of its log.

    Returns:
        By name, as ``outcomes`` has them: ``mentions/GROUP`` and ``retrieval``, in points, and
        ``words/FILE`` of ``evaluate.text``, in nats.
    """
    logged = [(one["step"], one["seconds"]) for one in records if one.get("kind") == "step"]
    steps, seconds = zip((0, 0.0), *logged, strict=True)
    found: dict[str, Curve] = {}
    for record in records:
        if record.get("kind") == "evaluation":
            time = float(np.interp(record["step"], steps, seconds))
            for name, value in _figures(record):
                found.setdefault(name, []).append((time, value))
    return found


def unit_of(figure: str) -> Literal["points", "nats"]:
    """Return what a figure is told in."""
    return "nats" if figure.startswith(_WORDS) else "points"


def _figures(record: Mapping[str, Any]) -> list[tuple[str, float]]:
    mentions = record.get("masked_mentions") or {}
    figures = [(f"mentions/{name}", 100 * one["accuracy"]) for name, one in mentions.items()]
    if record.get("translation_retrieval"):
        figures.append(("retrieval", 100 * record["translation_retrieval"]["accuracy"]))
    texts = record.get("held_out_text") or {}
    figures += [(f"{_WORDS}{name}", one["loss"]) for name, one in texts.items()]
    return [(name, value) for name, value in figures if value == value]


def at(curve: Curve, seconds: float) -> float:
    """Return a curve's figure at a time, between its evaluations on a line."""
    times, values = zip(*curve, strict=True)
    return float(np.interp(seconds, times, values))


def at_equal_time(curves: Mapping[str, Sequence[Mapping[str, Curve]]]) -> dict[str, dict[str, Any]]:
    """Return every figure of every arm at the time that the quickest run of each seed took.

    Args:
        curves: by arm, seed by seed.

    Returns:
        By figure: ``seconds`` and ``means`` by arm, over seeds.
    """
    arms = list(curves)
    shared = set.intersection(*(set(seed) for seeds in curves.values() for seed in seeds))
    found = {}
    for name in sorted(shared):
        numbers = range(len(curves[arms[0]]))
        limits = [min(curves[arm][n][name][-1][0] for arm in arms) for n in numbers]
        means = {
            arm: float(np.mean([at(curves[arm][n][name], limits[n]) for n in numbers]))
            for arm in arms
        }
        found[name] = {"seconds": float(np.mean(limits)), "means": means}
    return found


def mean_curves(curves: Mapping[str, Sequence[Mapping[str, Curve]]]) -> dict[str, dict[str, Curve]]:
    """Return the curves of each figure by arm, as means over seeds.

    Args:
        curves: by arm, seed by seed.
    """
    names = {name for seeds in curves.values() for seed in seeds for name in seed}
    found: dict[str, dict[str, Curve]] = {}
    for name in sorted(names):
        for arm, seeds in curves.items():
            given = [seed[name] for seed in seeds if name in seed]
            if len({len(one) for one in given}) == 1:
                points = np.mean(np.array(given), axis=0)
                found.setdefault(name, {})[arm] = [(x, y) for x, y in points.tolist()]
    return found

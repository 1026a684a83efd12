"""From outcomes to differences with intervals, and from these to a verdict in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptm_plus.ablation.arms import ALL, NONE, Arm
from ptm_plus.ablation.outcomes import OVER_OBJECTS
from ptm_plus.ablation.resampling import LEVEL, Difference, holm, paired_difference

Role = Literal["plugin", "knowledge", "placebo", "all", "within all"]
Outcomes = Mapping[str, Sequence[Mapping[str, Any]]]
"""What every arm got right, seed by seed, as ``outcomes.outcomes`` returns it."""

ROLES: Mapping[Role, str] = {
    "plugin": "plugin alone against none",
    "knowledge": "plugin against its placebo",
    "placebo": "placebo against none",
    "all": "all plugins against none",
    "within all": "all plugins against all but one",
}

RARE = 20
"""Mentions in the training text up to which an entity is rare."""

_FEWEST = 30
"""Questions below which a band of frequency is not told of."""


@dataclass(frozen=True)
class Table:
    """One measure of every arm, on the items that all of them answered under the same seed.

    Attributes:
        name: of the measure.
        unit: ``points`` or ``nats``.
        higher: whether more is better.
        values: ``[seeds, items]`` by arm; points in hundreds; NaN where a seed has no such item.
        clusters: ``[items]`` what belongs together.
    """

    name: str
    unit: str
    higher: bool
    values: Mapping[str, NDArray[np.float64]]
    clusters: list[str]


@dataclass(frozen=True)
class Pair:
    """Two arms that are compared.

    Attributes:
        own: the arm in question.
        other: what it is compared with.
        role: what the difference says.
        plugin: whose effect it is; empty for that of all.
    """

    own: str
    other: str
    role: Role
    plugin: str = ""


def pairs_of(arms: Sequence[Arm]) -> list[Pair]:
    """Return which arms are compared with which."""
    found = []
    for arm in arms:
        if arm.placebo is not None:
            (plugin,) = arm.plugins
            found.append(Pair(plugin, arm.name, "knowledge", plugin))
            found.append(Pair(arm.name, NONE, "placebo", plugin))
        elif arm.name == ALL:
            found.append(Pair(ALL, NONE, "all"))
        elif len(arm.plugins) == 1:
            found.append(Pair(arm.name, NONE, "plugin", arm.name))
        elif arm.plugins:
            found.append(Pair(ALL, arm.name, "within all", arm.name.removeprefix("all but ")))
    return sorted(found, key=lambda one: list(ROLES).index(one.role))


def tables_of(outcomes: Outcomes) -> list[Table]:
    """Return one table for each measure that every arm has, questions by frequency among them."""
    first = next(iter(outcomes.values()))[0]["measures"]
    shared = [
        name
        for name in first
        if all(name in seed["measures"] for seeds in outcomes.values() for seed in seeds)
    ]
    found = []
    for name in shared:
        table = _table(name, name, outcomes, None)
        if table is not None:
            found.append(table)
    mentioned = _mentioned(outcomes)
    bands = {
        "never": {one for one, count in mentioned.items() if not count},
        "rare": {one for one, count in mentioned.items() if 0 < count <= RARE},
        "frequent": {one for one, count in mentioned.items() if count > RARE},
    }
    groups = [one for one in shared if one.startswith("mentions/") and OVER_OBJECTS not in one]
    for name in groups:
        parts = {band: _table(f"{name}, {band}", name, outcomes, of) for band, of in bands.items()}
        told = {band: one for band, one in parts.items() if one and len(one.clusters) >= _FEWEST}
        found += list(told.values()) if len(told) > 1 else []
    return found


def _mentioned(outcomes: Outcomes) -> dict[str, int]:
    """Return how often the text mentions each entity that is asked for; not all runs link it."""
    counts: dict[str, int] = {}
    for seeds in outcomes.values():
        for seed in seeds:
            for entity, count in seed["mentioned"].items():
                counts[entity] = max(count, counts.get(entity, 0))
    return counts


def _table(title: str, name: str, outcomes: Outcomes, asked: set[str] | None) -> Table | None:
    """Return the table of a measure; of the questions about some entities alone."""
    of_arms = {arm: [seed["measures"][name] for seed in seeds] for arm, seeds in outcomes.items()}
    first = next(iter(of_arms.values()))
    shared = [
        set.intersection(*(set(seeds[number]["items"]) for seeds in of_arms.values()))
        for number in range(len(first))
    ]
    clusters = {
        item: cluster
        for number, seed in enumerate(first)
        for item, (cluster, _) in seed["items"].items()
        if item in shared[number] and (asked is None or item.partition(" ")[2] in asked)
    }
    if not clusters:
        return None
    unit, scale = first[0]["unit"], 100.0 if first[0]["unit"] == "points" else 1.0

    def row(seed: Mapping[str, Any], there: set[str]) -> list[float]:
        found = seed["items"]
        return [scale * found[one][1] if one in there else np.nan for one in clusters]

    values = {
        arm: np.array([row(seed, there) for seed, there in zip(seeds, shared, strict=True)])
        for arm, seeds in of_arms.items()
    }
    return Table(title, unit, first[0]["higher"], values, list(clusters.values()))


# ---------------------------------------------------------------------------------------------
# Differences


def compare(tables: Sequence[Table], pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Return every comparison of every measure, its p value corrected for their number.

    Returns:
        ``measure``, ``unit``, ``arm``, ``against``, ``role``, ``plugin``, ``difference``,
        ``interval`` (95 %), ``corrected_interval`` (at 5 % over the number of comparisons),
        ``p``, ``corrected_p`` and ``effect``: ``better``, ``worse`` or ``none``.
    """
    made: list[tuple[Table, Pair, Difference]] = [
        (table, pair, paired_difference(table.values[pair.own], table.values[pair.other], clusters))
        for table in tables
        for clusters in [table.clusters]
        for pair in pairs
    ]
    corrected = holm([one.p for _, _, one in made])
    level = 1 - (1 - LEVEL) / max(1, len(made))
    return [
        {
            "measure": table.name,
            "unit": table.unit,
            "arm": pair.own,
            "against": pair.other,
            "role": pair.role,
            "plugin": pair.plugin,
            "difference": found.mean,
            "interval": found.interval(),
            "corrected_interval": found.interval(level),
            "p": found.p,
            "corrected_p": p,
            "effect": _effect(found.mean, p, table.higher),
        }
        for (table, pair, found), p in zip(made, corrected, strict=True)
    ]


def _effect(difference: float, p: float, higher: bool) -> str:
    if p >= 1 - LEVEL:
        return "none"
    return "better" if (difference > 0) == higher else "worse"


# ---------------------------------------------------------------------------------------------
# Words


def verdicts(
    comparisons: Sequence[Mapping[str, Any]], costs: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, str]]:
    """Return, for each plugin, what the numbers say.

    Args:
        comparisons: from ``compare``.
        costs: by plugin, ``speed`` and ``memory`` relative to the run without plugins.
    """
    plugins = dict.fromkeys(one["plugin"] for one in comparisons if one["role"] == "plugin")
    return [{"plugin": one, "words": _verdict(one, comparisons, costs)} for one in plugins]


def _verdict(
    plugin: str,
    comparisons: Sequence[Mapping[str, Any]],
    costs: Mapping[str, Mapping[str, Any]],
) -> str:
    own = [one for one in comparisons if one["plugin"] == plugin]
    said, without = [], []
    for found in (one for one in own if one["role"] == "plugin"):
        of_measure = [one for one in own if one["measure"] == found["measure"]]
        words = _on_measure(found, [one for one in of_measure if one["role"] == "knowledge"])
        if words:
            said.append(words)
        else:
            width = (found["interval"][1] - found["interval"][0]) / 2
            without.append(f"{found['measure']} (±{width:.2g})")
    if without:
        said.append(f"no effect on {', '.join(without)}")
    return "; ".join([*said, *_cost(plugin, costs)])


def _on_measure(found: Mapping[str, Any], placebos: Sequence[Mapping[str, Any]]) -> str:
    """Say what a plugin does to a measure; nothing where it does nothing."""
    where = found["measure"]
    better = [one for one in placebos if one["effect"] == "better"]
    least = min(better, key=lambda one: abs(one["difference"]), default=None)
    known = least is not None and len(better) == len(placebos)  # better than every one of them
    if found["effect"] == "worse":
        return f"{_amount(found)} on {where}: worse than no plugin"
    if found["effect"] == "none":
        if least is None or not known:
            return ""
        return f"nothing over no plugin on {where}, though {_amount(least)} over its placebo"
    if least is not None and known:
        return f"{_amount(least)} over its placebo on {where}, {_amount(found)} over no plugin"
    if not placebos:
        return f"{_amount(found)} over no plugin on {where} (no placebo to tell why)"
    return f"{_amount(found)} over no plugin on {where}, but not over its placebo: not by knowledge"


def _amount(one: Mapping[str, Any]) -> str:
    low, high = one["interval"]
    return f"{one['difference']:+.2f} ± {(high - low) / 2:.2f} {one['unit']}"


def _cost(plugin: str, costs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    cost = costs.get(plugin)
    if cost:
        slower = 1 - cost["speed"]
        yield f"costs {max(0.0, slower):.0%} of the speed" if slower > 0.005 else "no slower"
        if cost["memory"] > 1.005:
            yield f"{cost['memory'] - 1:.0%} more memory"


def resolution(comparisons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each placebo without effect, whether half the plugin's would have been seen.

    Args:
        comparisons: from ``compare``.
    """
    real = {(one["measure"], one["plugin"]): one for one in comparisons if one["role"] == "plugin"}
    found = []
    for one in comparisons:
        plugin = real.get((one["measure"], one["plugin"]))
        if one["role"] != "placebo" or plugin is None or plugin["effect"] != "better":
            continue
        low, high = one["corrected_interval"]
        found.append(
            {
                "measure": one["measure"],
                "placebo": one["arm"],
                "effect": one["effect"],
                "half_width": (high - low) / 2,
                "half_of_the_plugins": abs(plugin["difference"]) / 2,
                "would_be_seen": (high - low) / 2 < abs(plugin["difference"]) / 2,
            }
        )
    return found

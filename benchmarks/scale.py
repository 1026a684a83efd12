"""How costs grow: with tokens, vocabulary, languages, streams, plugins and entities.

    python -m benchmarks.scale --json scale.json
    python -m benchmarks.scale --quick --axes tokens vocabulary

Along each axis, runs of growing size are composed and stepped, each in a process of its own, on one
thread: CPU seconds to prepare the text and to launch on what is prepared, milliseconds of a step,
what of these is neither forward nor backward nor optimizer, and the largest process. Of each a
straight line is fitted, and the power e of cost ~ size^e: 1 is linear, 0 is flat.

With more tokens a step should cost the same and preparing be linear; with more vocabulary, a step
grows with the head; languages, streams and plugins should add a little each, and tables of entities
nothing (``python -m benchmarks.entity_table`` measures these, and is called for that axis).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import entity_table
from benchmarks.speed.growth import growth
from benchmarks.speed.reporting import machine, markdown, options, report
from benchmarks.speed.sizes import AXES, cost
from benchmarks.speed.spent import spent

ENTITIES = "entities"
GIVEN = "tokens"
"""Of the costs the one that is no cost: how much text there was."""


def measured(axis: str, sizes: Sequence[int]) -> list[dict[str, float]]:
    """Return the costs of each size."""
    if axis == ENTITIES:
        return _tables(sizes)
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            arguments = ["benchmarks.scale", "--one", axis, str(size), scratch]
            found.append(json.loads(spent("-m", *arguments).output.splitlines()[-1]))
        said = ", ".join(f"{name} {value:,.2f}" for name, value in found[-1].items())
        print(f"{axis} {size:,}: {said}", file=sys.stderr, flush=True)
    return found


def _tables(sizes: Sequence[int]) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "tables.json"
        arguments = ["--sizes", *map(str, sizes), "--json", str(file)]
        spent("-m", "benchmarks.entity_table", *arguments)
        tables = json.loads(file.read_text(encoding="utf-8"))["tables"]
    return [
        {
            "milliseconds a step": one["milliseconds_a_step"],
            "of these the columns": one["milliseconds_of_columns"],
            "MiB private": one["private_mib"][-1],
        }
        for one in tables
    ]


def fitted(sizes: Sequence[int], costs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return costs by name, with how they grow."""
    names = [name for name in costs[0] if name != GIVEN]
    found: dict[str, Any] = {}
    for name in names:
        values = [one[name] for one in costs]
        found[name] = {"values": values, **asdict(growth(sizes, values))}
    return found


def table(axis: str, sizes: Sequence[int], found: Mapping[str, Any]) -> str:
    """Return the table of an axis."""
    rows = [
        [
            name,
            *(f"{value:,.2f}" for value in one["values"]),
            f"{one['fixed']:,.2f}",
            f"{one['per_unit']:.3g}",
            "–" if one["exponent"] is None else f"{one['exponent']:.2f}",
        ]
        for name, one in found.items()
    ]
    return markdown([axis, *(f"{size:,}" for size in sizes), "fixed", "each more", "power"], rows)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = options(__doc__)
    every = {**{name: sizes for name, (_, sizes) in AXES.items()}, ENTITIES: entity_table.SIZES}
    parser.add_argument("--axes", nargs="+", choices=list(every), default=list(every))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        axis, size, folder = given.one
        print(json.dumps(cost(axis, int(size), Path(folder))))
        return
    document: dict[str, Any] = {"machine": machine(), "axes": {}}
    for axis in given.axes:
        sizes = every[axis][:3] if given.quick else every[axis]
        costs = fitted(sizes, measured(axis, sizes))
        document["axes"][axis] = {"sizes": list(sizes), "costs": costs}
    tables = (table(axis, one["sizes"], one["costs"]) for axis, one in document["axes"].items())
    report(document, tables, given.json)


if __name__ == "__main__":
    main()

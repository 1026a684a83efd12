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
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import entity_table
from benchmarks.speed.growth import growth
from benchmarks.speed.machine import machine
from benchmarks.speed.sizes import AXES, cost

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
            found.append(json.loads(_module(*arguments).splitlines()[-1]))
        said = ", ".join(f"{name} {value:,.2f}" for name, value in found[-1].items())
        print(f"{axis} {size:,}: {said}", file=sys.stderr, flush=True)
    return found


def _tables(sizes: Sequence[int]) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "tables.json"
        arguments = ["--sizes", *map(str, sizes), "--json", str(file)]
        _module("benchmarks.entity_table", *arguments)
        tables = json.loads(file.read_text(encoding="utf-8"))["tables"]
    return [
        {
            "milliseconds a step": one["milliseconds_a_step"],
            "of these the columns": one["milliseconds_of_columns"],
            "MiB private": one["private_mib"][-1],
        }
        for one in tables
    ]


def _module(name: str, *arguments: str) -> str:
    """Run a module; one that fails ends the benchmark with what it said."""
    done = subprocess.run(
        [sys.executable, "-m", name, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name} {' '.join(arguments)} failed:\n{done.stderr[-4000:]}")
    return done.stdout


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
    lines = [
        f"| {axis} | {' | '.join(f'{size:,}' for size in sizes)} | fixed | each more | power |"
    ]
    lines.append(f"|---|{'--:|' * (len(sizes) + 3)}")
    for name, one in found.items():
        values = " | ".join(f"{value:,.2f}" for value in one["values"])
        power = "–" if one["exponent"] is None else f"{one['exponent']:.2f}"
        lines.append(
            f"| {name} | {values} | {one['fixed']:,.2f} | {one['per_unit']:.3g} | {power} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    every = {**{name: sizes for name, (_, sizes) in AXES.items()}, ENTITIES: entity_table.SIZES}
    parser.add_argument("--axes", nargs="+", choices=list(every), default=list(every))
    parser.add_argument("--quick", action="store_true", help="the three smallest sizes of each")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        axis, size, folder = given.one
        print(json.dumps(cost(axis, int(size), Path(folder))))
        return
    document: dict[str, Any] = {"machine": machine(), "axes": {}}
    for axis in given.axes:
        sizes = every[axis][:3] if given.quick else every[axis]
        found = fitted(sizes, measured(axis, sizes))
        document["axes"][axis] = {"sizes": list(sizes), "costs": found}
        print(f"\n{table(axis, sizes, found)}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(document, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

"""What every benchmark of speed prints and keeps: its tables, and the machine that they are of."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def options(told: str | None) -> argparse.ArgumentParser:
    """Return a parser of what every benchmark of speed takes.

    Args:
        told: what ``--help`` says.
    """
    parser = argparse.ArgumentParser(
        description=told,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a small version, in minutes")
    parser.add_argument("--json", type=Path, help="keeps the figures")
    return parser


def machine() -> dict[str, Any]:
    """Return what figures depend on, beside the work: processor, cores, and what else runs."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": [round(one, 2) for one in os.getloadavg()],
    }


def report(document: Mapping[str, Any], tables: Iterable[str], path: Path | None) -> None:
    """Print the tables of a document under a line on its machine, and keep it.

    Args:
        document: has a ``machine``.
        tables: Markdown.
        path: of the JSON; ``None`` for none.
    """
    on = document["machine"]
    load = ", ".join(f"{one:g}" for one in on["load"])
    print(f"{on['processor']}, {on['cores']} cores, load {load} at the beginning")
    for one in tables:
        print(f"\n{one}")
    if path:
        path.write_text(json.dumps(document, indent=1), encoding="utf-8")


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first column says what the others are of."""
    lines = [headings, ["---", *["--:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def ranged(values: Sequence[float]) -> dict[str, float]:
    """Return the median of repeated measurements, and how far they lie apart."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def spread(values: Mapping[str, float], digits: int = 0) -> str:
    """Tell what :func:`ranged` found, without a range where there is none."""
    middle, low, high = (f"{values[name]:,.{digits}f}" for name in ("median", "lowest", "highest"))
    return middle if low == high else f"{middle} ({low} to {high})"


def _processor() -> str:
    """Return the processor's name; its kind where the system does not tell."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine()

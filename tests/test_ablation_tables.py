"""What ``ablate`` shows at its end, against a document made by hand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from ptm_plus.cli.ablation_tables import ablation_tables


def arm(name: str, placebo: str | None = None) -> dict[str, Any]:
    cost = {"tokens": [1000], "tokens_per_second": 50.0, "peak_memory": 2**20}
    return {"name": name, "placebo": placebo, **cost, "relative": {"speed": 0.5, "memory": 1.0}}


def comparison(
    measure: str, pair: tuple[str, str], role: str, difference: float, effect: str
) -> dict[str, Any]:
    return {
        "measure": measure,
        "unit": "points",
        "arm": pair[0],
        "against": pair[1],
        "role": role,
        "difference": difference,
        "interval": [difference - 1, difference + 2],
        "effect": effect,
    }


def document() -> dict[str, Any]:
    pairs = {
        ("x", "none"): "plugin",
        ("x", "x, shuffled"): "knowledge",
        ("x, shuffled", "none"): "placebo",
        ("all", "none"): "all",
        ("all", "all but x"): "within all",
    }
    found = []
    for measure, effect in (("facts, rare", "better"), ("retrieval", "none")):
        for number, (pair, role) in enumerate(pairs.items()):
            told = effect if role != "placebo" else "none"
            found.append(comparison(measure, pair, role, 10.0 * (number + 1), told))
    names = ["none", "x", "all", "x, shuffled", "all but x"]
    means = {name: [10.0, 20.0] for name in names}
    measure = {"unit": "points", "higher_is_better": True, "seeds": means}
    return {
        "seeds": [0, 1],
        "arms": [arm(name, "objects permuted" if "," in name else None) for name in names],
        "measures": [{"name": name, **measure} for name in ("facts, rare", "retrieval")],
        "comparisons": found,
        "resolution": [],
        "verdicts": [{"plugin": "x", "words": "it helps"}],
    }


def lines() -> list[str]:
    screen = Console(file=io.StringIO(), width=140, color_system=None)
    screen.print(ablation_tables(document(), Path("runs/a")))
    assert isinstance(screen.file, io.StringIO)
    return [" ".join(line.split()) for line in screen.file.getvalue().splitlines()]


def test_every_difference_stands_in_the_row_that_it_is_about() -> None:
    found = lines()
    mean = "15.0 (10.0 – 20.0)"
    table = found[found.index("facts, rare, points, more is better") :]
    rows = [row for row in table if mean in row]
    assert rows == [
        f"none {mean}",
        f"x {mean} +10.0 (+9.0 to +12.0) better",
        f"all {mean} +40.0 (+39.0 to +42.0) better",
        f"x, shuffled {mean} +30.0 (+29.0 to +32.0) +20.0 (+19.0 to +22.0) better",
        f"all but x {mean} +50.0 (+49.0 to +52.0) better",
    ]


def test_a_measure_that_nothing_moves_is_named_in_a_line() -> None:
    found = lines()
    assert "no effect in retrieval" in found
    assert not any(line.startswith("retrieval,") for line in found)
    assert "x it helps" in found
    assert "as a page ptm-plus report runs/a" in found
    assert any("p corrected for 10 comparisons" in line for line in found)

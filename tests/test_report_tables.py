"""The closing table against a report made by hand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from ptm_plus.cli.report_tables import export_tables, report_tables


def shown(renderable: Any) -> list[list[str]]:
    screen = Console(file=io.StringIO(), width=140, color_system=None)
    screen.print(renderable)
    assert isinstance(screen.file, io.StringIO)
    return [line.split() for line in screen.file.getvalue().splitlines() if line.strip()]


def report() -> dict[str, Any]:
    nothing = {"with_plugins": None, "without_plugins": None, "shuffled_graph": None}
    fact = {**nothing, "with_plugins": 0.5, "over_objects": {"with_plugins": 0.25}, "questions": 8}
    return {
        "seconds": 61.0,
        "steps": 1500,
        "tokens": 2_500_000,
        "speed": {"tokens_per_second": 12345.6},
        "objectives": {
            "mlm": {"first": 6.0, "last": 2.0, "streams": {"text": {"first": 6.0, "last": 2.0}}},
        },
        "strata": {"text": {"en": {"rows": 3, "planned_rows": 3.2, "tokens": 90, "epochs": 0.1}}},
        "probes": {
            "in_text_facts": nothing,
            "graph_only_facts": fact,
            "translation_retrieval": {"with_plugins": 0.125, "questions": 80},
        },
        "evaluation": {
            "held_out": {"text/mlm": 2.5},
            "hidden": {"rise": {"mean": 0.5, "error": 0.125, "count": 1200}},
        },
        "plugins": [{"name": "tlm", "version": "1.0", "distribution": "d"}],
        "files": ["a", "b"],
    }


def test_the_table_has_what_was_measured_and_nothing_else() -> None:
    lines = shown(report_tables(report(), Path("runs/a")))
    assert ["mlm", "text", "6.000", "2.000", "2.500"] in lines
    assert ["facts", "only", "in", "the", "graph", "accuracy", "0.500"] in lines
    assert ["facts", "only", "in", "the", "graph", "mean", "over", "objects", "0.250"] in lines
    assert ["translation", "retrieval", "accuracy", "0.125"] in lines
    assert ["hidden.rise", "0.5", "±", "0.125", "(1,200", "sequences)"] in lines
    assert ["trained", "1,500", "steps,", "2.5", "M", "tokens"] in lines
    words = [word for line in lines for word in line]
    assert "shuffled" not in words  # a column that nobody measured
    assert "without" not in words


def test_rows_stand_beside_the_plan_where_there_are_several_strata() -> None:
    one = {"planned_rows": 10.25, "tokens": 1000}
    text = {f"l{n:02}": {**one, "rows": 40 - n, "epochs": n / 2} for n in range(15)}
    pairs = {"en-fr": {**one, "rows": 7, "epochs": 0.25}}
    lines = shown(report_tables({**report(), "strata": {"text": text, "pairs": pairs}}, Path("a")))
    assert ["read", "from", "stratum", "rows", "planned", "tokens", "epochs"] in lines
    assert ["text", "l00", "40", "10.2", "1", "k", "0.0"] in lines
    assert ["l11", "29", "10.2", "1", "k", "5.5"] in lines
    assert ["3", "more", "81", "30.8", "3", "k", "6.0", "–", "7.0"] in lines
    assert ["pairs", "en-fr", "7", "10.2", "1", "k", "0.2"] in lines
    assert not any("stratum" in line for line in shown(report_tables(report(), Path("a"))))


def test_the_run_without_plugins_stands_beside() -> None:
    baseline = {"mlm": {"streams": {"text": {"first": 6.0, "last": 1.75}}}}
    lines = shown(report_tables({**report(), "baseline": {"objectives": baseline}}, Path("a")))
    assert ["mlm", "text", "6.000", "2.000", "2.500", "1.750"] in lines


def test_an_export_says_what_was_left_out_and_proved() -> None:
    part = {"plugin": "p", "part": "fusion", "export": "needed", "parameters": 5376}
    losses = {"with_part": {"text/mlm": 2.0}, "without_part": {"text/mlm": 2.5}}
    document = {
        "target": "out",
        "checkpoint": "step-000000002",
        "left_out": [part | losses],
        "verified": {"model": "BertForMaskedLM", "logits": 24, "max_difference": 0.0},
        "files": ["config.json"],
    }
    lines = [" ".join(line) for line in shown(export_tables(document))]
    assert "p fusion needed 5,376 text/mlm 2, without it 2.5" in lines
    assert any("24 logits differ by at most 0" in line for line in lines)
    lines = [" ".join(line) for line in shown(export_tables({**document, "verified": None}))]
    assert any("--verify" in line for line in lines)

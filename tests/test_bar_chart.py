"""Bars as SVG: what is drawn is what was given."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from cli_files import document, run

from ptm_plus.bar_chart import Panel, write_bars
from ptm_plus.errors import EnvironmentProblem

SVG = "{http://www.w3.org/2000/svg}"


def drawn(path: Path) -> tuple[list[float], list[str]]:
    """Return the lengths of the bars and the texts of a picture."""
    root = ET.parse(path).getroot()
    bars = [float(one.attrib["width"]) for one in root.iter(f"{SVG}rect") if "x" in one.attrib]
    return bars, [one.text or "" for one in root.iter(f"{SVG}text")]


def test_bars_are_as_long_as_their_values(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.svg"
    panels = [
        Panel("n", [[1, 4, 0], [2, 2, 2]]),
        Panel("share", [[0.5, 1, 0], [0, 0, 0]], "{:.0%}"),
    ]
    write_bars(path, ["<old>", "new"], ["a", "b", "c"], panels)
    bars, texts = drawn(path)
    assert bars[:2] == [12, 12]  # of the legend
    assert bars[2:8] == pytest.approx([42.5, 170, 0, 85, 85, 85])
    assert bars[8:] == pytest.approx([85, 170, 0, 0, 0, 0])
    assert texts[:5] == ["<old>", "new", "a", "b", "c"]
    assert texts[-6:] == ["50%", "100%", "0%", "0%", "0%", "0%"]


def test_a_file_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        write_bars(tmp_path / "file" / "a.svg", ["a"], ["b"], [Panel("c", [[1]])])


def test_kg_check_draws_how_often_entities_are_linked(tmp_path: Path) -> None:
    graph, text, plot = (tmp_path / name for name in ("graph.tsv", "text.jsonl", "plot.svg"))
    graph.write_text("Q1\tP1\tQ2\nQ1\tP1\tQ3\n", encoding="utf-8")
    mentions = [{"start": at, "end": at + 1, "id": "Q1"} for at in range(5)]
    mentions.append({"start": 5, "end": 6, "id": "Q2"})
    row = {"text": "abcdefg", "lang": "en", "mentions": mentions}
    text.write_text(json.dumps(row) + "\n", encoding="utf-8")
    found = document("kg", "check", "--kg", graph, "--text", text, "--plot", plot)
    assert found["frequency"] == {"0": 1, "1": 1, "2": 0, "4": 1}
    _, texts = drawn(plot)
    assert texts[1:5] == ["0×", "1×", "2–3×", "4–7×"]
    assert texts[-4:] == ["1", "1", "0", "1"]
    wrong = run("kg", "check", "--kg", graph, "--text", text, "--plot", tmp_path / "plot.png")
    assert wrong.exit_code == 2
    assert "must end in .svg" in wrong.stderr

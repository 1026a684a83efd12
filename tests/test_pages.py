"""Pages: complete, self-contained, and safe with whatever text they hold."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from cli_files import run
from test_ablation import ARMS
from test_ablation import table as measured

from ptm_plus.ablation.comparisons import compare, pairs_of, resolution, verdicts
from ptm_plus.pages.ablation_page import ablation_page
from ptm_plus.pages.page import folded, page, table, words
from ptm_plus.pages.plots import Interval, bars, forest, lines
from ptm_plus.pages.run_page import run_page

HOSTILE = "<script>alert(1)</script>&\"'"

pytestmark = pytest.mark.report


EMPTY = {"meta", "br", "use", "path", "image"}


class Reader(HTMLParser):
    """Checks that what is opened is closed, and keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    assert "script" not in reader.tags
    # Names of formats are no addresses; nothing else may lead out of the page.
    found = set(re.findall(r"(?:src|href)=\"([^\"]+)\"", text))
    assert not [one for one in found if not one.startswith("#")]
    return reader


def test_a_table_escapes_heads_and_keeps_words_on_the_left() -> None:
    text = page(HOSTILE, "", [*table((HOSTILE, "n"), [(words(HOSTILE), "1")]), *folded("a", ["b"])])
    reader = read(text)
    assert "".join(reader.text).count(HOSTILE) == 4  # title twice, head, cell
    assert '<th class="words">' in text


def test_plots_hold_what_they_are_given_and_are_reproducible() -> None:
    curve = lines({"a": [(1, 2.0), (2, 1.0)], "b": [(1, 3.0), (2, 2.5)]}, "step", "loss")
    assert {"a", "b", "step", "loss"} <= {one.strip() for one in read(curve).text}
    assert curve == lines({"a": [(1, 2.0), (2, 1.0)], "b": [(1, 3.0), (2, 2.5)]}, "step", "loss")
    found = forest([Interval("x − y", 1.0, 0.5, 1.5, "better")], "points")
    assert {"x − y", "points"} <= {one.strip() for one in read(found).text}
    assert "#2a8a3e" in found
    assert {"de", "planned"} <= {
        one.strip()
        for one in read(bars(["de", "fr"], {"planned": [1, 2], "read": [2, 1]}, "rows")).text
    }


def report() -> dict[str, Any]:
    strata = {HOSTILE: {"rows": 3, "planned_rows": 2.5, "tokens": 10, "epochs": 0.5}}
    strata |= {"fr": dict(strata[HOSTILE])}
    return {
        "seconds": 12.5,
        "steps": 10,
        "tokens": 1234,
        "speed": {"tokens_per_second": 99.0},
        "memory": {"device": "cpu", "peak_bytes": 2**28},
        "objectives": {"mlm": {"streams": {"text": {"first": 9.0, "last": 8.0}}}},
        "strata": {"text": strata},
        "probes": {"in_text_facts": {"with_plugins": 0.25, "questions": 8, "over_objects": {}}},
        "evaluation": {
            "held_out": {"text/mlm": 7.5},
            "masked_mentions": {"rare": {"accuracy": 0.125, "questions": 16}},
            "kg_modes": {"text": {"both": {"accuracy": 0.5, "asked": 4}}},
        },
        "plugins": [{"name": HOSTILE, "distribution": "x", "version": "1"}],
        "accounts": {
            "text": {
                "rows": 5,
                "used": 4,
                "refused": {HOSTILE: 1},
                "sequences": 4,
                "tokens": 40,
                "unknown": 1,
                "truncated_tokens": 2,
                "spans": {
                    "given": {"found": 3, "kept": 2, "cut": 1, "kinds": {"entity": 2}, "counts": {}}
                },
            }
        },
        "files": ["a.json"],
    }


def preview() -> dict[str, Any]:
    token = {"text": HOSTILE, "glued": False, "special": False, "kind": None, "replaced": None}
    masked = {**token, "text": "town", "kind": "word", "replaced": "random", "input": "river"}
    span = {"start": 0, "end": 2, "id": "Q1"}
    sequence = {"tokens": [token, masked], "mentions": [span], "stratum": "en"}
    return {"streams": {"text": {"sequences": [sequence]}}}


RECORDS = [
    {"kind": "started", "versions": {"torch": "2.13.0"}},
    {"kind": "step", "step": 5, "losses": {"text/mlm": 9.0}, "seconds": 1},
    {"kind": "step", "step": 10, "losses": {"text/mlm": 8.0}, "seconds": 2},
    {"kind": "evaluation", "step": 5, "held_out": {"text/mlm": 7.9}},
    {"kind": "evaluation", "step": 10, "held_out": {"text/mlm": 7.5}},
]


def test_a_runs_page_holds_its_figures() -> None:
    text = run_page("Run a", report(), RECORDS, {"data": {"text": [HOSTILE]}}, preview())
    said = " ".join("".join(read(text).text).split())
    for figure in ("1,234", "256 MiB", "0.125", "rare", "text, both", "Q1", "torch", "2.13.0"):
        assert figure in said
    assert "town→river" in said
    assert said.count(HOSTILE) >= 4


def test_a_page_without_its_data_says_so() -> None:
    text = run_page("Run a", report(), RECORDS, {}, None)
    assert "not at hand any more" in "".join(read(text).text)


def document() -> dict[str, Any]:
    tables = [measured("facts", {"none": 40, "kg": 60, "kg, other": 40})]
    comparisons = compare(tables, pairs_of(ARMS))
    costs = {"kg": {"speed": 0.9, "memory": 1.2}}
    arms = [
        {
            "name": one.name,
            "plugins": list(one.plugins),
            "placebo": one.placebo.summary if one.placebo else None,
            "steps": 10,
            "tokens": [1000, 1001, 1002],
            "tokens_per_second": 50.0,
            "peak_memory": 2**28,
            "relative": {"speed": 0.9, "memory": 1.2},
        }
        for one in ARMS
    ]
    return {
        "design": "quick",
        "seeds": [0, 1, 2],
        "plugins": ["kg"],
        "settings": {"a": 1},
        "arms": arms,
        "measures": [
            {
                "name": one.name,
                "unit": one.unit,
                "higher_is_better": one.higher,
                "items": 100,
                "clusters": 100,
                "seeds": {arm: values.mean(axis=1).tolist() for arm, values in one.values.items()},
            }
            for one in tables
        ],
        "comparisons": comparisons,
        "resolution": resolution(comparisons),
        "equal_time": {"mentions/all": {"seconds": 3.0, "means": {"none": 1.0, "kg": 2.0}}},
        "verdicts": verdicts(comparisons, costs),
    }


def test_an_ablations_page_holds_verdicts_and_intervals() -> None:
    found = document()
    curves = {"mentions/all": {"none": [(1.0, 2.0), (2.0, 3.0)], "kg": [(1.0, 3.0), (2.0, 4.0)]}}
    said = " ".join("".join(read(ablation_page(found, curves)).text).split())
    assert found["verdicts"][0]["words"] in said
    assert "kg − kg, other" in said
    assert "costs 10% of the speed" in said
    assert "20% more memory" in said
    for one in found["comparisons"]:
        assert f"{one['interval'][0]:+.3f} to {one['interval'][1]:+.3f}" in said


def test_a_folder_that_is_neither_is_refused(tmp_path: Path) -> None:
    done = run("report", tmp_path)
    assert done.exit_code == 4
    assert "neither a finished run nor an ablation" in done.stderr

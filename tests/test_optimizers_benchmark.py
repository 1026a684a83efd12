"""The benchmark of optimizers: what arms differ in, and what is told of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # behind what is installed: only the benchmarks come from there

from benchmarks import optimizers  # noqa: E402
from benchmarks.optimizers import ARMS, BASE, MODEL, Options, arms_for, corpus_of  # noqa: E402
from benchmarks.speed.sides import Measured, Work  # noqa: E402
from ptm_plus.settings import RunSettings  # noqa: E402


def options(**values: Any) -> Options:
    given = {"text": "", "tokenizer": "", "model": MODEL, "vocabulary": 60, "steps": 2, "lr": 0.1}
    return Options(**{**given, "device": "cpu", **values})


def test_every_arm_is_other_settings() -> None:
    resolved = [RunSettings.model_validate(changed) for changed in ARMS.values()]
    assert resolved[0] == RunSettings()
    assert len({one.model_dump_json() for one in resolved}) == len(ARMS)
    assert {one.train.optimizer for one in resolved} == {"adamw", "stable-adamw", "muon"}
    assert {one.masking.ends for one in resolved} == {(0.15, 0.15), (0.3, 0.3), (0.3, 0.15)}


def test_muon_needs_a_gpu_or_its_name() -> None:
    assert set(ARMS) - set(arms_for(None, gpu=False)) == {"muon"}
    assert arms_for(None, gpu=True) == list(ARMS)
    assert arms_for(["muon", "adamw, wsd"], gpu=False) == [BASE, "adamw, wsd", "muon"]


def test_differences_are_paired_and_those_inside_the_spread_are_none() -> None:
    losses = {BASE: (5.0, 6.0, 7.0), "adamw, wsd": (4.9, 5.9, 6.9), "muon": (4.0, 6.0, 8.1)}
    seeds = [
        {arm: {"loss": of[n], "tokens": 900, "cpu": 2.0 + n} for arm, of in losses.items()}
        for n in range(3)
    ]
    found = optimizers.document(options(), seeds)
    assert found["summary"]["adamw, wsd"]["difference"] == pytest.approx(-0.1)
    assert [found["summary"][arm].get("verdict") for arm in losses] == [None, "lower", "none"]
    json.dumps(found)
    told = optimizers.table(found).splitlines()
    assert told[2] == f"| {BASE} | 6.0000 (5.0000 to 7.0000) | – | – | 3.0 |"
    assert told[3].startswith("| adamw, wsd | 5.9000 (4.9000 to 6.9000) | -0.1000 (-0.1000 to")
    assert "| none | 3.0 |" in told[4]
    assert "900 tokens each, 3 seeds" in told[-1]


def test_given_text_is_read_line_by_line(tmp_path: Path) -> None:
    rows = [{"text": f"one {n}\n\ntwo {n}"} for n in range(300)]
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    corpus = corpus_of(options(text=str(text), tokenizer="words"), tmp_path / "corpus")
    lines = corpus.lines.read_text().splitlines()
    assert lines == [line for n in range(32) for line in (f"one {n}", f"two {n}")]
    assert len(corpus.held_out.read_text().splitlines()) == 400
    assert corpus.tokenizer == Path("words")


def test_what_an_arm_is_trained_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def ours(work: Any, folder: Path, steps: int, skipped: int, settings: Any) -> Any:
        seen.append((steps, settings))
        (folder / "run").mkdir(parents=True)
        (folder / "run" / "report.json").write_text('{"tokens": 7}')
        return Measured(7, 1.0, 2.0, folder)

    monkeypatch.setattr(optimizers, "ours", ours)
    monkeypatch.setattr(optimizers, "held_out_loss", lambda *_: 3.0)
    work = Work(corpus_of(options(), tmp_path / "corpus"), MODEL, 256, 1024, 16)
    found = optimizers.of_seed(work, options(), ["adamw, wsd", "mask rate 0.30"], tmp_path)
    assert found["adamw, wsd"] == {"loss": 3.0, "tokens": 7, "cpu": 1.0, "wall": 2.0}
    assert seen == [
        (2, {"train": {"lr": 0.1, "decay": "wsd"}}),
        (2, {"masking": {"rate": 0.3}, "train": {"lr": 0.1}}),
    ]
    optimizers.of_seed(work, options(), ["adamw, wsd"], tmp_path)
    assert len(seen) == 2  # what is finished is not done again

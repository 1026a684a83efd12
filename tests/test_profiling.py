"""Where the time of a step goes: every range is named, and nothing is booked twice."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cli_files import document, run, write_files
from tiny import BOTH, relative_difference, step_gradients, tiny_run
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from ptm_plus.processes import make_accelerator
from ptm_plus.profiling import booked, profiled, ranges_of
from ptm_plus.progress import Silent
from ptm_plus.train import Trainer


def trainer_of(*given: Any, **values: Any) -> Trainer:
    trainer = Trainer(tiny_run(*given, **values), Silent(), make_accelerator("fp32", "cpu"))
    trainer.start()
    return trainer


def event(name: str, own: float, parent: Any = None, sequence: int = -1) -> Any:
    return SimpleNamespace(
        name=name,
        cpu_parent=parent,
        sequence_nr=sequence,
        self_cpu_time_total=own * 1000,
        self_device_time_total=0.0,
    )


def test_time_is_booked_on_the_innermost_range_and_backward_on_that_of_forward() -> None:
    step = event("ptm-plus: step", 1)
    outer = event("ptm-plus: feed-forward", 2, step)
    inner = event("ptm-plus: attention", 4, outer)
    product = event("aten::linear", 8, inner, sequence=5)
    addition = event("aten::add", 16, outer, sequence=6)
    back = event("autograd::engine::evaluate_function: MmBackward0", 32, step, sequence=5)
    inside = event("aten::mm", 64, back, sequence=9)
    sums = event("autograd::engine::evaluate_function: torch::autograd::AccumulateGrad", 128, step)
    elsewhere = event("aten::empty", 256)
    events = [step, outer, inner, product, addition, back, inside, sums, elsewhere]
    found = {name: (one.forward, one.backward) for name, one in booked(events).items()}
    assert found == {
        "rest": (1, 0),
        "feed-forward": (2 + 16, 0),
        "attention": (4 + 8, 32 + 64),
        "gradient sums": (0, 128),
    }


def test_what_torch_records_is_booked_as_that() -> None:
    heavy, light = nn.Linear(600, 600), nn.Linear(6, 600)
    states = torch.randn(600, 6)
    with (
        profile(activities=[ProfilerActivity.CPU]) as profiler,
        record_function("ptm-plus: step"),
    ):
        with record_function("ptm-plus: light"):
            states = light(states)
        with record_function("ptm-plus: heavy"):
            states = heavy(states)
        states.sum().backward()
    found = booked(profiler.events())
    assert found["heavy"].backward > found["light"].backward > 0
    assert found["heavy"].forward > 0


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_every_plugin_and_objective_has_its_line(family: str, tmp_path: Path) -> None:
    trainer = trainer_of(family, (*BOTH, "ernie-masking"))
    found = profiled(trainer, tmp_path, steps=2)
    ranges = {one["range"]: one for one in found["ranges"]}
    assert {
        *("attention", "feed-forward", "embeddings", "head", "optimizer", "gradient sums", "rest"),
        *("data: rows", "data: sequences", "data: masks", "counts", "data: kg-fusion"),
        *("objective mlm (core)", "objective tlm (tlm)", "part kg-fusion/fusion"),
    } <= ranges.keys()
    for name in ("attention", "feed-forward", "head"):
        assert ranges[name]["forward"] > 0
        assert ranges[name]["backward"] > 0
    total = sum(one["forward"] + one["backward"] for one in found["ranges"])
    assert total == pytest.approx(found["milliseconds"], rel=0.35)
    with gzip.open(found["trace"]) as file:
        assert json.load(file)["traceEvents"]


def test_nothing_of_it_stays_behind_and_no_gradient_changes() -> None:
    expected = step_gradients(tiny_run("bert", BOTH))
    run_ = tiny_run("bert", BOTH)
    trainer = Trainer(run_, Silent(), make_accelerator("fp32", "cpu"))
    before = dict(run_.root.objectives), run_.collator.features, trainer.stepper._update
    with ranges_of(trainer):
        pass
    assert (dict(run_.root.objectives), run_.collator.features) == before[:2]
    assert trainer.stepper._update == before[2]
    assert "logits" not in vars(run_.encoder)
    assert relative_difference(step_gradients(run_), expected) == 0


def test_the_command_prints_it_and_writes_no_run(tmp_path: Path) -> None:
    files = write_files(tmp_path)
    found = document("train", files.settings, "--profile", "-q")
    assert found["ranges"][0]["forward"] >= 0
    assert Path(found["trace"]).is_file()
    assert [one.name for one in (tmp_path / "run").iterdir()] == ["profile"]
    shown = run("train", files.settings, "--profile", "-q")
    assert shown.exit_code == 0, shown.output
    assert "feed-forward" in shown.stdout

"""Stages: who trains when, and that everything else stays as it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from many import run_program
from safetensors.torch import save_file
from tiny import Recorder, home_made, tiny_run
from torch import nn

from ptm_plus import (
    Claim,
    Objective,
    Outcome,
    ParameterRule,
    Part,
    PluginError,
    PluginInfo,
    SettingsError,
    hookimpl,
)
from ptm_plus.processes import make_accelerator
from ptm_plus.progress import Silent
from ptm_plus.selfcheck import self_check
from ptm_plus.settings import TrainSettings
from ptm_plus.stages import CORE, make_stages, one_after_the_other, stage_at
from ptm_plus.train import Trainer

KEEP = Claim(resource="backbone", mode="keep")
STAGES = [
    {"name": "first", "plugins": ["core"], "share": 2.0},
    {"name": "second", "plugins": ["side"]},
]


class Side:
    """A plugin that trains a linear map beside a frozen backbone."""

    name = "side"
    claims = (KEEP,)

    def __init__(self):
        self.told = []

    @hookimpl
    def ptm_parts(self, context):
        return [Part(name="map", build=lambda: nn.Linear(32, 1))]

    @hookimpl
    def ptm_objectives(self, context):
        count = lambda columns: float(len(columns["predicted"]))  # noqa: E731
        return [Objective(name="side", count=count, compute=self.compute, streams=("text",))]

    def compute(self, batch, encode, parts):
        found = parts["map"](encode(batch).top[batch.predicted])[:, 0]
        return Outcome((found - batch.labels / 300).pow(2).sum(), {})

    @hookimpl
    def ptm_parameters(self, context):
        return [ParameterRule(path="backbone", frozen=True)]

    @hookimpl
    def ptm_event(self, event, context):
        self.told.append((event.kind, event.step, event.stage))


def staged_run(monkeypatch, side=None, stages=STAGES, plugins=(), **values):
    with home_made(monkeypatch, side or Side()) as names:
        return tiny_run("bert", (*names, *plugins), **{"train.stages": stages, **values})


def trainer_of(run, watch=None):
    return Trainer(run, watch or Silent(), make_accelerator("fp32", "cpu"))


def weights(run):
    return {name: p.detach().clone() for name, p in run.encoder.named_parameters()}


def changed(before, run):
    return {
        name.partition(".")[0]
        for name, p in run.encoder.named_parameters()
        if not torch.equal(p, before[name])
    }


# ---------------------------------------------------------------------------------------------
# Settings to stages


@dataclass
class Plugin:
    instance: str
    info: PluginInfo = field(default_factory=lambda: PluginInfo(name="x", hooks=Side))


def plugin(instance: str, *claims: Claim) -> Plugin:
    name = instance.partition(":")[0]
    return Plugin(instance, PluginInfo(name=name, hooks=Side, claims=claims))


def everything(instances):
    """Everybody has an objective of the same name on the stream ``text``."""
    owner = lambda one: SimpleNamespace(instance=one, component=SimpleNamespace(name=one))  # noqa: E731
    return {"text": [owner(one) for one in sorted(instances)]}


def stages_of(given: list[dict[str, Any]], *plugins: Plugin, steps: int = 9):
    settings = TrainSettings.model_validate({"steps": steps, "stages": given})
    return make_stages(settings, plugins, everything)


def test_without_stages_there_is_one_with_everybody():
    (only,) = stages_of([], plugin("a"), plugin("b"))
    assert (only.name, only.first, only.steps) == ("main", 0, 9)
    assert only.instances == {CORE, "a", "b"}


def test_steps_are_shared_out_and_none_is_lost():
    given = [{"name": n, "share": s} for n, s in (("a", 1.0), ("b", 1.0), ("c", 0.5))]
    for steps in range(5, 60):
        stages = stages_of(given, steps=steps)
        assert [one.first for one in stages[1:]] == [one.first + one.steps for one in stages[:-1]]
        assert sum(one.steps for one in stages) == steps
        for one, share in zip(stages, (0.4, 0.4, 0.2), strict=True):
            assert abs(one.steps - share * steps) <= 1
        found = [stage_at(stages, step).name for step in range(steps)]
        assert found == [one.name for one in stages for _ in range(one.steps)]


def test_a_plugin_s_name_means_all_its_instances():
    first, second = stages_of(
        [{"name": "a", "plugins": ["core"]}, {"name": "b", "plugins": ["x"]}],
        plugin("x:one"),
        plugin("x:two"),
    )
    assert first.instances == {"core"}
    assert second.instances == {"x:one", "x:two"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"name": "a", "plugins": ["core", "sied"]}], "'sied', which .* did you mean 'side'"),
        ([{"name": "a", "plugins": ["core"]}], "plugin 'side' stands in no stage"),
        ([{"name": "a"}, {"name": "a"}], "two are called 'a'"),
        ([{"name": "a"}, {"name": "b", "share": 0.001}], "stage 'b' has no step"),
    ],
)
def test_stages_that_make_no_sense_are_refused(given, message):
    with pytest.raises(SettingsError, match=message):
        stages_of(given, plugin("side"))


def test_a_stage_without_objective_is_refused(monkeypatch):
    stages = [{"name": "a", "plugins": ["core"]}, {"name": "b", "plugins": ["side"]}]
    with pytest.raises(SettingsError, match="stage 'b' has nothing to train"):
        staged_run(monkeypatch, Mute(), stages)


class Mute:
    """A plugin without objectives."""

    name = "side"

    @hookimpl
    def ptm_parts(self, context):
        return []


def test_who_keeps_the_backbone_does_not_train_with_who_changes_it():
    with pytest.raises(
        PluginError, match="'side' needs 'backbone' unchanged, and 'core'"
    ) as caught:
        stages_of([], plugin("side", KEEP))
    assert '[[train.stages]] name = "first", plugins = ["core"]' in str(caught.value)
    share = Claim(resource="backbone")
    with pytest.raises(PluginError, match="'side' needs 'backbone' unchanged, and 'b' claims it"):
        stages_of(
            [{"name": "a", "plugins": ["b", "side"]}], plugin("side", KEEP), plugin("b", share)
        )
    stages_of([{"name": "a", "plugins": ["k"]}], plugin("k:one", KEEP), plugin("k:two", KEEP))


def test_keepers_come_after_everybody_else():
    assert one_after_the_other([plugin("a"), plugin("b", Claim(resource="backbone"))]) == ()
    first, second = one_after_the_other([plugin("a"), plugin("k:x", KEEP), plugin("k:y", KEEP)])
    assert (first.plugins, second.plugins) == (("core", "a"), ("k:x", "k:y"))


# ---------------------------------------------------------------------------------------------
# Runs


def test_in_a_stage_only_its_plugins_train(monkeypatch, tmp_path):
    side, watch = Side(), Recorder()
    run = staged_run(monkeypatch, side, output=tmp_path)
    trainer = trainer_of(run, watch)
    before = weights(run)
    for step in range(4):
        trainer.step(run.planner.plan(step))
    assert changed(before, run) == {"backbone"}
    first = trainer.stepper.optimizer
    between = weights(run)
    for step in range(4, 6):
        trainer.step(run.planner.plan(step))
    assert changed(between, run) == {"parts"}
    assert trainer.stepper.optimizer is not first
    assert len(trainer.stepper.optimizer.state) == 2  # weight and bias of the map
    assert not run.encoder.backbone.training


def test_a_run_in_stages_from_start_to_end(monkeypatch, tmp_path):
    side, watch = Side(), Recorder()
    run = staged_run(monkeypatch, side, output=tmp_path)
    trainer = trainer_of(run, watch)
    trainer.fit()
    assert [
        (set(one), stage) for one, stage in zip(watch.losses(), stages_in(watch), strict=True)
    ] == [
        *[({"text/mlm", "halves/mlm"} & set(watch.losses()[n]), "first") for n in range(4)],
        *[({"text/side"}, "second")] * 2,
    ]
    starts = [told for told in side.told if told[0] in ("train_start", "stage_start")]
    assert starts == [
        ("train_start", 0, "first"),
        ("stage_start", 0, "first"),
        ("stage_start", 4, "second"),
    ]


@pytest.mark.kg_fusion
@pytest.mark.tlm
def test_a_plugin_s_stream_rests_while_it_does_not_train():
    """kg-fusion's objective serves every stream, but tlm's pairs wait for tlm."""
    first = {"name": "first", "plugins": ["core", "kg-fusion"]}
    second = {"name": "second", "plugins": ["kg-fusion", "tlm"]}
    run = tiny_run("bert", ("kg-fusion", "tlm"), **{"train.stages": [first, second]})
    serving = [
        {
            stream: {one.component.name for one in owners}
            for stream, owners in stage.objectives.items()
        }
        for stage in run.stages
    ]
    assert serving == [
        {"text": {"mlm", "dea"}, "pairs": set()},
        {"text": {"dea"}, "pairs": {"tlm", "dea"}},
    ]
    for step, streams in ((0, {"text"}), (run.settings.train.steps - 1, {"text", "pairs"})):
        rows = run.reader().step_rows(run.planner.plan(step))
        assert {name for name, of_stream in rows.items() if len(of_stream)} == streams


def stages_in(watch):
    return [values["stage"] for kind, values in watch.seen if kind == "step"]


def test_rates_begin_anew_in_every_stage(monkeypatch, tmp_path):
    run = staged_run(monkeypatch, output=tmp_path, **{"train.warmup": 0.5, "train.steps": 12})
    plans = [run.planner.plan(step) for step in range(12)]
    assert [plan.lr for plan in plans[8:]] == [0.5, 1.0, 1.0, 0.5]
    assert [plan.lr for plan in plans[:4]] == [0.25, 0.5, 0.75, 1.0]
    assert [(plan.stage_step, plan.stage_steps) for plan in plans[7:9]] == [(7, 8), (0, 4)]
    assert set(plans[0].objective_weights) == {"mlm"}
    assert set(plans[8].objective_weights) == {"side"}
    assert set(plans[8].stream_weights) == {"text"}


@pytest.mark.parametrize("stop", [1, 3, 4, 5])
def test_a_resumed_run_is_the_run_that_never_stopped(monkeypatch, tmp_path, stop):
    """Before the boundary, at it, and after it; the optimizer of a stage is that of a stage."""
    values = {"train.checkpoint_every": 1, "train.keep": 9}
    whole = staged_run(monkeypatch, output=tmp_path / "whole", **values)
    trainer_of(whole).fit()
    broken = staged_run(monkeypatch, output=tmp_path / "broken", **values)
    trainer = trainer_of(broken)
    for step in range(stop):
        trainer.step(broken.planner.plan(step))
    trainer.save()
    trainer.writer.finish()
    resumed = staged_run(monkeypatch, output=tmp_path / "broken", **values)
    again = trainer_of(resumed)
    again.resume(verify=6 - stop)
    again.fit()
    assert changed(weights(whole), resumed) == set()


def test_an_objective_without_anything_to_train_is_refused(monkeypatch, tmp_path):
    class Holds(Side):
        claims = ()

    run = staged_run(monkeypatch, Holds(), [], output=tmp_path)
    with pytest.raises(PluginError, match="objective 'mlm' of plugin 'core' has nothing to train"):
        self_check(run)
    self_check(staged_run(monkeypatch, Holds(), output=tmp_path / "apart"))


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_cross_a_boundary_as_one_does(monkeypatch, tmp_path, parallel):
    run = staged_run(monkeypatch, output=tmp_path / "one")
    trainer = trainer_of(run)
    for step in range(6):
        trainer.step(run.planner.plan(step))
    save_file(weights(run), tmp_path / "weights")
    run_program(
        f"""
import os, pathlib
import pytest
from safetensors.torch import load_file
from test_stages import staged_run, trainer_of, weights
from ptm_plus.processes import whole
patch = pytest.MonkeyPatch()
values = {{"output": pathlib.Path({str(tmp_path)!r}) / "two", "train.parallel": {parallel!r}}}
run = staged_run(patch, **values)
trainer = trainer_of(run)
for step in range(6):
    trainer.step(run.planner.plan(step))
expected = load_file({str(tmp_path / "weights")!r})
for name, parameter in run.encoder.named_parameters():
    assert torch.allclose(whole(parameter), expected[name], rtol=1e-9, atol=1e-12), name
""",
        2,
    )

"""The whole plugin in runs: splits, processes, resuming, neighbours, export."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from many import run_program
from safetensors.torch import load_file
from tiny import FAMILIES, Recorder, perturb, tiny_run, tiny_settings

from ptm_plus import Refused, SettingsError
from ptm_plus.arrangement import arrange
from ptm_plus.cli.plan_costs import model_figures
from ptm_plus.evaluation import evaluate
from ptm_plus.exporting.export import export
from ptm_plus.processes import make_accelerator
from ptm_plus.progress import Silent
from ptm_plus.selfcheck import self_check
from ptm_plus.settings_files import dump_toml
from ptm_plus.train import Trainer
from ptm_plus.trained_run import measure_run
from ptm_plus_cross_lingual.settings import ContrastSettings, compared_block

pytestmark = pytest.mark.cross_lingual

NAME = "cross-lingual"
EVERYTHING = {
    "contrast": {"weight": 1.0, "queue": 30, "momentum": 0.9},
    "recovery": {"weight": 1.0},
    "paraphrase": {"weight": 1.0},
    "switching": {"weight": 1.0},
}
OFF = {"contrast": {"weight": 0.0}}
ALONE = {
    "contrast": ({}, [("apart", "contrast"), ("apart", "mlm")]),
    "recovery": (
        {**OFF, "recovery": {"weight": 1.0}},
        [("apart", "mlm"), ("apart", "recovery")],
    ),
    "paraphrase": ({**OFF, "paraphrase": {"weight": 1.0}}, [("paraphrases", "paraphrase")]),
    "switching": ({**OFF, "switching": {"weight": 1.0}}, [("switched", "switching")]),
}


def trainer_of(run, watch=None):
    return Trainer(run, watch or Recorder(), make_accelerator("fp32", "cpu"))


def everything(*sets, plugins=(NAME,), family="bert", **values):
    return tiny_run(family, plugins, sets=sets, plugin={NAME: EVERYTHING}, **values)


def queue_of(run, instance=NAME):
    plugin = next(p for p in run.plugins.instances if p.instance == instance)
    return plugin.implementation.contrast.queue


@pytest.mark.parametrize("name", ALONE)
def test_each_objective_stands_alone(name):
    settings, expected = ALONE[name]
    run = tiny_run("bert", (NAME,), plugin={NAME: settings})
    own = [(f"{NAME}-{stream}", objective) for stream, objective in expected]
    assert set(run.loss_keys()) == {*own, ("text", "mlm")}
    self_check(run)
    assert bool(run.averages) == (name == "contrast")
    trainer = trainer_of(run)
    trainer.fit()
    assert all(np.isfinite(value) for value in trainer.progress.last.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_all_of_it_beside_tlm_and_kg_fusion(family):
    run = everything(plugins=(NAME, "kg-fusion", "tlm"), family=family)
    self_check(run)
    trainer = trainer_of(run)
    trainer.fit()
    assert {"contrast", "recovery", "paraphrase", "switching", "tlm", "dea", "mlm"} <= {
        key.partition("/")[2] for key in trainer.progress.last
    }


def steps_of(run, steps=4):
    """Train a few steps with weights away from their start; return all that is left."""
    perturb(run)
    watch = Recorder()
    trainer = trainer_of(run, watch)
    trainer._tell("train_start")
    for step in range(steps):
        trainer.step(run.planner.plan(step))
        trainer.after_step()
    queue = queue_of(run).state_dict()
    return {
        **{name: value.clone() for name, value in run.encoder.state_dict().items()},
        **{f"loss {key}": torch.tensor(v) for key, v in watch.losses()[-1].items()},
        **{name: queue[name] for name in ("keys", "pairs", "centre")},
    }


@pytest.mark.parametrize("micro_rows", [1, 2])
def test_steps_do_not_depend_on_the_split(micro_rows):
    whole = steps_of(everything())
    split = steps_of(everything(f"batch.micro_rows={micro_rows}"))
    assert bool((whole["pairs"] >= 0).all())  # it went round
    assert torch.equal(whole["pairs"], split["pairs"])
    for name, value in whole.items():
        torch.testing.assert_close(split[name], value, rtol=1e-6, atol=1e-8, msg=name)


PROGRAM = """
import os, sys
sys.path.insert(0, {here!r})
from safetensors.torch import save_file
import test_cross_lingual as t

left = t.steps_of(t.everything(output={out!r} + "/run"))
save_file({{name: value.clone() for name, value in left.items()}},
          {out!r} + "/" + os.environ.get("RANK", "0"))
"""


def test_two_processes_do_the_steps_of_one(tmp_path):
    whole = steps_of(everything())
    run_program(PROGRAM.format(here=str(Path(__file__).parent), out=str(tmp_path)), 2)
    found = [load_file(tmp_path / rank) for rank in "01"]
    for name, value in whole.items():
        if name in found[0]:
            torch.testing.assert_close(found[0][name], value, rtol=1e-6, atol=1e-8, msg=name)
        if not name.startswith("loss"):
            assert torch.equal(found[0][name], found[1][name]), name


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(tmp_path, dropout):
    values = {"model.dropout": dropout}
    unbroken = everything(output=tmp_path / "a", **values)
    trainer_of(unbroken).fit()
    first = everything(output=tmp_path / "b", **values)
    trainer = trainer_of(first)
    for step in range(3):
        trainer.step(first.planner.plan(step))
        trainer.after_step()
    trainer.save()
    trainer.writer.finish()
    second = everything(output=tmp_path / "b", **values)
    again = trainer_of(second)
    again.resume()
    again.fit()
    expected = unbroken.encoder.state_dict()
    assert [name for name in expected if f"{NAME}/keys" in name]
    for name, value in second.encoder.state_dict().items():
        assert torch.equal(value, expected[name]), name
    states = [queue_of(one).state_dict() for one in (unbroken, second)]
    for name in ("keys", "pairs", "centre"):
        assert torch.equal(states[0][name], states[1][name])
    assert states[0]["place"] == states[1]["place"]


def test_evaluations_and_checks_put_nothing_into_the_queue():
    run = everything()
    self_check(run)
    evaluate(run)
    assert bool((queue_of(run).state_dict()["pairs"] < 0).all())
    trainer = trainer_of(run)
    for step in range(2):  # the first gives the mean of keys, none of them yet
        trainer.step(run.planner.plan(step))
        trainer.after_step()
    before = queue_of(run).state_dict()["pairs"].clone()
    evaluate(run)
    assert torch.equal(queue_of(run).state_dict()["pairs"], before)
    reader = run.reader()
    rows = [reader.step_rows(run.planner.plan(step)) for step in range(2)][1][f"{NAME}-apart"]
    numbers = sorted(number for row in rows for number in row.numbers.tolist())
    assert sorted(before[before >= 0].tolist()) == sorted([*numbers, *numbers])[-30:]


def test_two_instances_keep_their_own():
    tables = {
        f"{NAME}:low": {"contrast": {"weight": 1.0, "block": 1, "queue": 50}},
        f"{NAME}:mean": {"contrast": {"weight": 1.0, "state": "mean", "queue": 60}},
    }
    run = tiny_run("bert", tuple(tables), plugin=tables)
    self_check(run)
    trainer = trainer_of(run)
    trainer.fit()
    assert {f"{one}-apart/contrast:{one}" for one in tables} <= set(trainer.progress.last)
    sizes = [queue_of(run, instance).size for instance in tables]
    assert sizes == [50, 60]
    keys = [queue_of(run, one).state_dict()["keys"][:4] for one in tables]
    assert not torch.allclose(*keys)


@pytest.mark.tlm
def test_no_sentence_of_a_pair_that_one_stream_holds_out_is_trained_on():
    run = everything(plugins=("tlm", NAME), **{"data.held_out": 0.2})
    streams = {one.component.name: one.component for one in arrange(run.settings, Silent()).streams}
    sides = {"training": {}, "held_out": {}}
    for name in ("pairs", f"{NAME}-apart", f"{NAME}-paraphrases", f"{NAME}-switched"):
        rows = [row for row in streams[name].examples() if not isinstance(row, Refused)]
        data = run.prepared.streams[name]
        for side, found in sides.items():
            used = [rows[n] for n in set(data.store.example[getattr(data, side)].tolist())]
            found[name] = {
                text
                for example in used
                for field in example.fields.values()
                for text in field.split("\n")
            }
    for name, texts in sides["held_out"].items():
        assert texts
        assert not texts & set.union(*sides["training"].values()), name
    assert sides["held_out"]["pairs"] == sides["held_out"][f"{NAME}-apart"]
    assert sides["held_out"]["pairs"] == sides["held_out"][f"{NAME}-switched"]


def test_a_run_that_stands_still_is_evaluated_with_its_queue(tmp_path):
    settings = tiny_settings("bert", (NAME,), plugin={NAME: EVERYTHING}, output=tmp_path)
    (tmp_path / "settings.toml").write_text(dump_toml(settings), encoding="utf-8")
    trainer = trainer_of(everything(output=tmp_path))
    trainer.fit()
    then = evaluate(trainer.run)
    found = measure_run(tmp_path, "cpu", allow_code=False, watch=Silent())
    assert found["held_out"] == pytest.approx(then["held_out"], rel=1e-4)
    assert found["held_out"][f"{NAME}-apart/contrast"] > 0.1


def test_the_export_is_a_plain_model(tmp_path):
    settings = tiny_settings("bert", (NAME,), output=tmp_path / "run", plugin={NAME: EVERYTHING})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.toml").write_text(dump_toml(settings), encoding="utf-8")
    run = everything(output=tmp_path / "run")
    trainer_of(run).fit()
    export(tmp_path / "run", tmp_path / "out")  # which proves it in a process of its own
    program = (
        "import json, sys, torch\n"
        "from transformers import AutoModelForMaskedLM\n"
        f"model = AutoModelForMaskedLM.from_pretrained({str(tmp_path / 'out')!r})\n"
        "print(json.dumps({n: float(p.double().sum()) for n, p in model.named_parameters()}))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    trained = dict(run.encoder.backbone.named_parameters())
    assert found.keys() == trained.keys()
    for name, value in trained.items():
        assert found[name] == pytest.approx(float(value.float().double().sum().detach()), abs=1e-4)


def test_paraphrases_are_learned():
    sets = ["train.steps=200", "train.lr=0.003"]
    run = tiny_run("bert", (NAME,), plugin={NAME: ALONE["paraphrase"][0]}, sets=sets)
    watch = Recorder()
    trainer = trainer_of(run, watch)
    for step in range(200):
        trainer.step(run.planner.plan(step))
        trainer.log()
    losses = [one[f"{NAME}-paraphrases/paraphrase"] for one in watch.losses()]
    assert np.mean(losses[-15:]) < 0.66 < 0.69 < np.mean(losses[:15])


def test_the_plan_shows_the_second_encoder():
    run = everything()
    (found,) = (one for one in model_figures(run)["parts"] if one["name"] == "keys")
    projection = run.encoder.parts_of(NAME)["projection"]
    size = sum(p.numel() for m in (run.encoder.backbone, projection) for p in m.parameters())
    assert (found["trained"], found["frozen"], found["export"]) == (0, size, "train-only")


def test_settings_that_cannot_be():
    with pytest.raises(SettingsError, match="every weight is 0"):
        tiny_run("bert", (NAME,), plugin={NAME: OFF})
    with pytest.raises(SettingsError, match=r"contrast.block is 4, but the model has 3 blocks"):
        tiny_run("bert", (NAME,), plugin={NAME: {"contrast": {"block": 4}}})
    assert compared_block(ContrastSettings(), 12) == 7
    assert compared_block(ContrastSettings(block=12), 12) == 11
    assert compared_block(ContrastSettings(), 1) == 0

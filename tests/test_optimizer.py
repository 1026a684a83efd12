"""Parameter rules: whole paths, frozen modules, rows, rates, decay."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tiny import step_gradients, tiny_run
from torch import nn

from ptm_plus.components import ParameterRule
from ptm_plus.errors import PluginError
from ptm_plus.optimizer import (
    MOMENTS,
    apply_rules,
    build_optimizer,
    keep_rows,
    set_mode,
    set_rate,
)
from ptm_plus.processes import make_accelerator
from ptm_plus.settings import TrainSettings
from ptm_plus.train import Trainer

LAYER = "backbone.bert.encoder.layer"


class Twelve(nn.Module):
    """Twelve numbered layers, with a layer 1 and a layer 11, and a part."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.ModuleDict(
            {"layer": nn.ModuleList(nn.Linear(3, 3) for _ in range(12)), "norm": nn.LayerNorm(3)}
        )
        self.parts = nn.ModuleDict({"a/x": nn.Linear(3, 3), "a/xy": nn.Linear(3, 3)})
        self.card = SimpleNamespace(base="layer", blocks="0")  # as far as Muon asks


def rules_for(model, *rules):
    return apply_rules(model, [ParameterRule(**rule) for rule in rules])


def frozen(model):
    return {name for name, p in model.named_parameters() if not p.requires_grad}


def test_paths_are_whole():
    model = Twelve()
    rules_for(model, {"path": "backbone.layer.1", "frozen": True}, {"path": "parts.a/x", "lr": 2.0})
    assert frozen(model) == {"backbone.layer.1.weight", "backbone.layer.1.bias"}
    chosen = rules_for(Twelve(), {"path": "parts.a/x", "lr": 2.0})
    assert [name for name, rule in chosen.items() if rule.lr == 2.0] == [
        "parts.a/x.weight",
        "parts.a/x.bias",
    ]


def test_the_longest_path_wins_and_the_rest_is_inherited():
    model = Twelve()
    chosen = rules_for(
        model,
        {"path": "backbone.layer.3.bias", "frozen": False},
        {"path": "backbone.layer", "frozen": True, "decay": 0.5},
        {"path": "backbone", "lr": 0.1, "decay": 0.0},
    )
    assert "backbone.layer.3.bias" not in frozen(model)
    assert len(frozen(model)) == 23
    rule = chosen["backbone.layer.3.bias"]
    assert (rule.frozen, rule.lr, rule.decay) == (False, 0.1, 0.5)
    assert (chosen["backbone.norm.weight"].lr, chosen["backbone.norm.weight"].decay) == (0.1, 0.0)
    assert chosen["parts.a/x.weight"].lr is None


def test_a_path_that_matches_nothing_is_refused():
    with pytest.raises(PluginError, match=r"names 'backbone.layers.1', .*did you mean"):
        rules_for(Twelve(), {"path": "backbone.layers.1", "frozen": True})


OPTIMIZERS = ("adamw", "stable-adamw", "muon")


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_groups_have_their_rate_and_decay_and_frozen_parameters_no_slot(kind):
    model = Twelve()
    rules = rules_for(
        model,
        {"path": "backbone.layer.0", "frozen": True},
        {"path": "parts.a/x", "lr": 3.0, "decay": 2.0},
    )
    settings = TrainSettings(lr=0.01, weight_decay=0.1, optimizer=kind)
    optimizer = build_optimizer(model, rules, settings)
    found = {
        name: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for name, parameter in model.named_parameters()
        if any(parameter is one for one in group["params"])
    }
    assert found.keys() == dict(model.named_parameters()).keys() - frozen(model)
    assert found["parts.a/x.weight"] == pytest.approx((0.03, 0.2))
    assert found["parts.a/x.bias"] == pytest.approx((0.03, 0.0))
    assert found["backbone.layer.1.weight"] == pytest.approx((0.01, 0.1))
    assert found["backbone.layer.1.bias"] == (0.01, 0.0)
    assert found["backbone.norm.weight"] == (0.01, 0.0)
    set_rate(optimizer, 0.01, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.005, 0.015}


def test_only_new_rows_are_trained():
    model = nn.Module()
    model.backbone = nn.Embedding(6, 2)
    rules = apply_rules(model, [ParameterRule(path="backbone", rows_from=4)])
    model.backbone(torch.arange(6)).sum().backward()
    keep_rows(model, rules)
    assert model.backbone.weight.grad.tolist() == [[0, 0]] * 4 + [[1, 1]] * 2


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("part", [nn.Embedding(6, 2), nn.Linear(2, 6, bias=False)], ids=type)
def test_rows_outside_stay_bit_identical_through_updates(kind, part):
    """Neither decay nor momentum may move the old rows; Muon's steps go by whole matrices."""
    model = nn.Module()
    model.parts = nn.ModuleDict({"a/x": part})
    model.card = SimpleNamespace(base="bert", blocks="encoder.layer")
    rules = apply_rules(model, [ParameterRule(path="parts.a/x", rows_from=4)])
    settings = TrainSettings(lr=0.1, weight_decay=0.5, optimizer=kind)
    optimizer = build_optimizer(model, rules, settings)
    assert [group["keeps"] for group in optimizer.param_groups] == [MOMENTS]
    before = part.weight.detach().clone()
    for _ in range(3):
        part.weight.square().sum().backward()
        keep_rows(model, rules)
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(part.weight[:4], before[:4])
    assert not torch.equal(part.weight[4:], before[4:])


# ---------------------------------------------------------------------------------------------
# In a run


def frozen_run(*paths, **values):
    from ptm_plus.compose import Contribution

    run = tiny_run("bert", **values)
    run.rules += [Contribution("core", ParameterRule(path=p, frozen=True)) for p in paths]
    return run


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_frozen_modules_stay_bit_identical_in_evaluation_mode_without_a_slot(kind):
    values = {"model.dropout": 0.2, "train.optimizer": kind}
    run = frozen_run(f"{LAYER}.1", "backbone.bert.embeddings", **values)
    trainer = Trainer(run, watch_nothing(), make_accelerator("fp32", "cpu"))
    before = {name: p.detach().clone() for name, p in run.encoder.named_parameters()}
    for step in range(3):
        trainer.step(run.planner.plan(step))
    inside = (f"{LAYER}.1.", "backbone.bert.embeddings.")
    for name, parameter in run.encoder.named_parameters():
        fixed = name.startswith(inside)
        assert torch.equal(parameter, before[name]) == fixed, name
        assert (parameter in trainer.stepper.optimizer.state) != fixed
    encoder = run.encoder.backbone.bert
    assert not encoder.encoder.layer[1].training
    assert not any(module.training for module in encoder.encoder.layer[1].modules())
    assert not encoder.embeddings.training
    assert encoder.encoder.layer[0].training
    assert encoder.encoder.layer[0].output.dropout.training


def watch_nothing():
    from ptm_plus.progress import Silent

    return Silent()


def test_evaluation_mode_is_for_all_modules():
    run = frozen_run(f"{LAYER}.1")
    apply_rules(run.encoder, [one.component for one in run.rules])
    set_mode(run.encoder, training=False)
    assert not any(module.training for module in run.encoder.modules())
    set_mode(run.encoder, training=True)
    assert run.encoder.training


def test_freezing_a_layer_leaves_the_other_gradients_as_they_are():
    free, held = step_gradients(tiny_run("bert")), step_gradients(frozen_run(f"{LAYER}.2"))
    for name, gradient in held.items():
        if name.startswith(f"{LAYER}.2."):
            assert not gradient.any()
        else:
            torch.testing.assert_close(gradient, free[name], atol=1e-15, rtol=1e-12)

"""The self-check passes what is right, finds planted faults, and leaves no trace."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from tiny import BOTH, FAMILIES, home_made, tiny_run
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from ptm_plus import (
    EmbeddingDelta,
    Feature,
    GuardStop,
    Objective,
    Outcome,
    Part,
    Tap,
    Visibility,
    attend,
    hookimpl,
)
from ptm_plus.selfcheck import self_check
from ptm_plus.trials import make_trial


@dataclass
class Planted:
    """A plugin made of the given components."""

    name: str = "planted"
    parts: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    objectives: list[Any] = field(default_factory=list)
    features: list[Any] = field(default_factory=list)

    @hookimpl
    def ptm_parts(self, context):
        return self.parts

    @hookimpl
    def ptm_inputs(self, context):
        return self.inputs

    @hookimpl
    def ptm_objectives(self, context):
        return self.objectives

    @hookimpl
    def ptm_features(self, context):
        return self.features


def run_with(monkeypatch, *planted: Planted, family: str = "bert", others=(), **values):
    with home_made(monkeypatch, *planted) as names:
        return tiny_run(family, (*names, *others), **values)


def linear() -> nn.Module:
    module = nn.Linear(32, 32)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    return module


def tapped(run, *, name="part", identity=True, build=linear, block=1) -> Part:
    def taps(module):
        return [Tap(site="block_out", run=partial(run, module), blocks=(block,), writes=True)]

    return Part(name=name, build=build, taps=taps, identity=identity)


def adds(module, context, block, hidden):
    return hidden + module(hidden)


def leaks(module, context, block, hidden):
    """Attend over the whole row, whatever the sequences are."""
    row = module(hidden)[None, None]
    return hidden + scaled_dot_product_attention(hidden[None, None], hidden[None, None], row)[0, 0]


def attends(module, context, block, hidden):
    sequence = context.batch.sequence
    heads = hidden[:, None]
    return hidden + attend(heads, heads, module(hidden)[:, None], sequence, sequence)[:, 0]


def does_nothing(module, context, block, hidden):
    return hidden


# ---------------------------------------------------------------------------------------------
# What is right passes


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_both_plugins_pass_on_every_family(family, precision):
    plugin = {"tlm": {"language_embeddings": True}}
    self_check(tiny_run(family, BOTH, plugin=plugin, **{"train.precision": precision}))


def test_a_part_that_attends_through_attend_passes(monkeypatch):
    self_check(run_with(monkeypatch, Planted(parts=[tapped(attends)])))


def test_everything_is_left_as_it_was():
    run = tiny_run("bert", BOTH)
    run.encoder.train()
    run.encoder.parts.eval()
    weights = {name: value.clone() for name, value in run.root.state_dict().items()}
    modes = [module.training for module in run.root.modules()]
    random = torch.get_rng_state()
    self_check(run)
    assert all(torch.equal(weights[name], v) for name, v in run.root.state_dict().items())
    assert [module.training for module in run.root.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in run.root.parameters())
    assert run.encoder.backbone.config._attn_implementation == "ptm_plus"


# ---------------------------------------------------------------------------------------------
# Planted faults


def test_a_part_that_attends_over_the_whole_row_is_named(monkeypatch):
    planted = Planted(parts=[tapped(leaks)])
    run = run_with(monkeypatch, planted, others=BOTH)
    with pytest.raises(GuardStop, match="plugin 'planted' let packed sequences") as error:
        self_check(run)
    assert error.value.exit_code == 6
    assert "kg-fusion" not in error.value.message


def test_weights_are_put_back_after_a_fault(monkeypatch):
    run = run_with(monkeypatch, Planted(parts=[tapped(leaks)]))
    with pytest.raises(GuardStop):
        self_check(run)
    assert not any(p.abs().sum() for p in run.encoder.parts.parameters())


def test_a_part_that_does_nothing_is_named(monkeypatch):
    run = run_with(monkeypatch, Planted(parts=[tapped(does_nothing)]))
    with pytest.raises(GuardStop, match=r"part 'part' of plugin 'planted' .* changes no state"):
        self_check(run)


def test_a_part_that_only_reads_need_not_change_anything(monkeypatch):
    def taps(module):
        return [Tap(site="block_out", run=lambda *_: None, blocks=(0,))]

    self_check(run_with(monkeypatch, Planted(parts=[Part(name="p", build=linear, taps=taps)])))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_that_leaks_is_named(family, monkeypatch):
    """Attention that ignores the packing sees the whole row."""

    def whole_row(module, query, key, value, mask, *, scaling=None, **_):
        mixed = scaled_dot_product_attention(query, key, value, scale=scaling)
        return mixed.transpose(1, 2), None

    run = tiny_run(family)
    from transformers import AttentionInterface

    from ptm_plus import attention

    AttentionInterface.register(attention.NAME, whole_row)
    try:
        with pytest.raises(GuardStop, match=f"model family '{family}' does not compute packed"):
            self_check(run)
    finally:
        attention.register()


def test_a_part_that_is_not_the_identity_is_named(monkeypatch):
    run = run_with(monkeypatch, Planted(parts=[tapped(adds, build=lambda: nn.Linear(32, 32))]))
    with pytest.raises(GuardStop, match="plugin 'planted' declares its parts the identity"):
        self_check(run)


def test_a_delta_that_is_not_the_identity_is_named(monkeypatch):
    part = Part(name="shift", build=lambda: nn.Linear(1, 32), identity=True)
    delta = EmbeddingDelta(
        name="shift",
        delta=lambda batch, parts: parts["shift"](batch.positions[:, None].double()),
    )
    run = run_with(monkeypatch, Planted(parts=[part], inputs=[delta]))
    with pytest.raises(GuardStop, match="plugin 'planted' declares its parts the identity"):
        self_check(run)


def test_a_rule_that_blinds_a_token_is_named(monkeypatch):
    rule = Visibility(name="others", rule=lambda q, k, columns: q != k, streams=("text",))
    run = run_with(monkeypatch, Planted(inputs=[rule]))
    with pytest.raises(GuardStop, match="visibility rule 'others' of plugin 'planted'"):
        self_check(run)


def test_a_rule_that_looks_to_the_left_passes(monkeypatch):
    rule = Visibility(name="left", rule=lambda q, k, columns: k <= q)
    self_check(run_with(monkeypatch, Planted(inputs=[rule])))


def objective(count, total) -> Objective:
    def compute(batch, encode, parts):
        return Outcome(total(encode(batch).top, batch))

    return Objective(name="own", count=count, compute=compute, streams=())


def tokens_predicted(columns):
    return float(len(columns["predicted"]))


def test_a_sum_that_is_a_mean_is_named(monkeypatch):
    own = objective(tokens_predicted, lambda states, batch: states.square().mean())
    run = run_with(monkeypatch, Planted(objectives=[own]))
    with pytest.raises(GuardStop, match=r"objective 'own' of plugin 'planted' .* its sum is"):
        self_check(run)


def test_a_count_that_does_not_add_up_is_named(monkeypatch):
    own = objective(lambda columns: 1.0, lambda states, batch: states.square().sum())
    run = run_with(monkeypatch, Planted(objectives=[own]))
    with pytest.raises(GuardStop, match=r"objective 'own' of plugin 'planted' .* its count is"):
        self_check(run)


def test_a_gradient_that_depends_on_the_batch_is_found(monkeypatch):
    """The value adds up, but its gradient is scaled by the micro-batch's size."""

    def total(states, batch):
        value = states.square().sum()
        return value.detach() + (value - value.detach()) * len(batch)

    run = run_with(monkeypatch, Planted(objectives=[objective(tokens_predicted, total)]))
    with pytest.raises(GuardStop, match=r"gradient of stream '.*' depends on how"):
        self_check(run)


def test_what_is_declared_to_look_at_its_micro_batch_is_not_compared(monkeypatch):
    feature = Feature(name="size", compute=lambda given: {}, scope="micro")
    own = objective(tokens_predicted, lambda states, batch: states.square().mean())
    self_check(run_with(monkeypatch, Planted(objectives=[own], features=[feature])))


def test_losses_that_are_not_numbers_are_found(monkeypatch):
    own = objective(tokens_predicted, lambda states, batch: states.sum() * float("nan"))
    run = run_with(monkeypatch, Planted(objectives=[own]))
    with pytest.raises(GuardStop, match="objective 'own'"):
        self_check(run)


@pytest.mark.parametrize("ends", [(0.1, 0.8), (0.8, 0.1)])
def test_trials_are_masked_at_the_larger_end_of_the_rate(ends):
    run = tiny_run("bert", sets=[f"masking.rate={ends[0]}", f"masking.final_rate={ends[1]}"])
    batch = make_trial(run, run.prepared.streams["text"]).together
    assert batch.plan.predicted.sum() / (batch.view.words >= 0).sum() == pytest.approx(0.8, abs=0.1)

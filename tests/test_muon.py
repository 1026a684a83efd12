"""Muon: which parameters are its own, what it does to them, and two optimizers as one."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_run
from torch import nn
from torch.optim import SGD, AdamW

from ptm_plus.errors import SettingsError
from ptm_plus.muon import SkippingMuon, Together, muon_matrices
from ptm_plus.optimizer import MOMENTS, MOMENTUM, apply_rules, build_optimizer
from ptm_plus.settings import TrainSettings
from ptm_plus.stepper import Stepper

LR = 0.01


@pytest.mark.parametrize(
    ("family", "blocks"),
    [
        ("bert", "bert.encoder.layer"),
        ("roberta", "roberta.encoder.layer"),
        ("modernbert", "model.layers"),
    ],
)
def test_its_matrices_are_those_of_linear_maps_in_the_blocks(family, blocks):
    encoder = tiny_run(family).encoder
    inside = {
        name
        for name, parameter in encoder.named_parameters()
        if name.startswith(f"backbone.{blocks}.") and parameter.ndim == 2
    }
    assert muon_matrices(encoder) == inside
    assert inside
    outside = {n for n, p in encoder.named_parameters() if p.ndim == 2} - inside
    heads = ("backbone.cls", "backbone.lm_head", "backbone.head")
    assert any("embeddings" in name for name in outside)
    assert any(name.startswith(heads) for name in outside)


@pytest.mark.kg_fusion
@pytest.mark.tlm
def test_maps_of_parts_are_its_own_and_their_tables_are_not():
    encoder = tiny_run(
        "bert", ("kg-fusion", "tlm"), plugin={"tlm": {"language_embeddings": True}}
    ).encoder
    parts = {name for name in muon_matrices(encoder) if name.startswith("parts.")}
    two = {n for n, p in encoder.parts.named_parameters(prefix="parts") if p.ndim == 2}
    assert parts == {name for name in two if "kg-fusion" in name}
    assert two - parts == {name for name in two if "tlm" in name} != set()


def test_a_head_over_a_table_of_its_own_is_a_table():
    part = nn.ModuleDict({"out": nn.Linear(3, 5), "words": nn.Embedding(5, 3)})
    part["out"].weight = part["words"].weight
    encoder = nn.Module()
    encoder.card = SimpleNamespace(base="bert", blocks="encoder.layer")
    encoder.parts = nn.ModuleDict({"a/x": part, "a/y": nn.Linear(3, 3)})
    assert muon_matrices(encoder) == {"parts.a/y.weight"}


def matrix(rows, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(6, 6), (8, 3), (3, 8)])
def test_a_step_turns_along_the_polar_factor_and_is_as_large_as_adamw_s(shape):
    """Δ = -lr · 0.2 √max(shape) · U S V', S near 1 as five quintic steps leave it."""
    start, gradient = matrix(*shape), matrix(*shape, seed=1)
    parameter = nn.Parameter(start.clone())
    parameter.grad = gradient.clone()
    group = {"params": [parameter], "lr": LR, "weight_decay": 0.5}
    optimizer = SkippingMuon([group], adjust_lr_fn="match_rms_adamw")
    optimizer.step()
    moved = (start * (1 - LR * 0.5) - parameter.detach()) / LR
    left, _, right = torch.linalg.svd(gradient, full_matrices=False)
    turned = left.T @ moved @ right.T / (0.2 * math.sqrt(max(shape)))
    values = turned.diagonal()
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    assert float((turned - torch.diag(values)).abs().max()) < 0.05
    assert 0.1 < float(moved.square().mean().sqrt()) < 0.3  # AdamW's steps are about 0.2 lr


def test_momentum_is_nesterov_s():
    """The buffer is a mean of gradients; the gradient that is turned looks ahead along it."""
    parameter = nn.Parameter(matrix(4, 4))
    optimizer = SkippingMuon([{"params": [parameter], "lr": LR, "weight_decay": 0.0}])
    buffer = torch.zeros(4, 4, dtype=torch.float64)
    for seed in (1, 2):
        gradient, before = matrix(4, 4, seed), parameter.detach().clone()
        parameter.grad = gradient.clone()
        optimizer.step()
        buffer = 0.95 * buffer + 0.05 * gradient
        ahead = 0.05 * gradient + 0.95 * buffer
        left, _, right = torch.linalg.svd(ahead)
        turned = left.T @ (before - parameter.detach()) @ right.T / LR
        assert float((turned - torch.diag(turned.diagonal())).abs().max()) < 0.05
    kept = optimizer.state[parameter]["momentum_buffer"]
    torch.testing.assert_close(kept, buffer, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("steps", [0, 2])
def test_a_gradient_that_is_not_finite_changes_nothing(steps):
    found = []
    for bad in (False, True):
        parameter = nn.Parameter(matrix(3, 4))
        optimizer = SkippingMuon([{"params": [parameter], "lr": LR}])
        for number in range(steps + 1):
            if bad and number == steps:
                optimizer.found_inf = torch.ones(())
                before = parameter.detach().clone()
                parameter.grad = torch.full((3, 4), math.nan, dtype=torch.float64)
                optimizer.step()
                assert torch.equal(parameter, before)
            optimizer.found_inf = torch.zeros(())
            parameter.grad = matrix(3, 4, seed=number + 1)
            optimizer.step()
        found.append(parameter.detach())
    assert torch.equal(*found)


def test_two_optimizers_are_one_to_whoever_asks():
    one, two = (nn.Parameter(torch.ones(2)) for _ in range(2))
    parts = [SGD([one], lr=1.0, fused=True), AdamW([two], lr=0.5, weight_decay=0.0, fused=True)]
    both = Together(*parts)
    for group in both.param_groups:
        group["lr"] *= 0.5
    one.grad, two.grad = torch.full((2,), 0.4), torch.full((2,), 0.4)
    both.found_inf = torch.zeros(())
    both.step()
    assert one.tolist() == pytest.approx([0.8, 0.8])
    assert two.tolist() == pytest.approx([0.75, 0.75])
    assert both.state[two]["step"] == parts[1].state[two]["step"] == 1
    both.state.clear()
    both.step()
    assert both.state[two]["step"] == 1
    both.zero_grad()
    assert one.grad is two.grad is None


def test_a_run_gives_muon_its_matrices_and_adamw_everything_else():
    run = tiny_run("bert", sets=["train.optimizer=muon", "train.weight_decay=0.5"])
    rules = apply_rules(run.encoder, [])
    optimizer = build_optimizer(run.encoder, rules, run.settings.train)
    kept = {one: group for group in optimizer.param_groups for one in group["params"]}
    names = muon_matrices(run.encoder)
    for name, parameter in run.encoder.named_parameters():
        group = kept[parameter]
        assert group["keeps"] == (MOMENTUM if name in names else MOMENTS)
        assert group.get("adjust_lr_fn") == ("match_rms_adamw" if name in names else None)
        assert group["weight_decay"] == (0.5 if parameter.ndim > 1 else 0.0)
    assert isinstance(optimizer, Together)


def test_a_model_without_anything_else_needs_no_second_optimizer():
    model = nn.Module()
    model.card = SimpleNamespace(base="bert", blocks="encoder.layer")
    model.parts = nn.ModuleDict({"a/x": nn.Linear(2, 2, bias=False)})
    settings = TrainSettings(optimizer="muon")
    optimizer = build_optimizer(model, apply_rules(model, []), settings)
    assert type(optimizer) is SkippingMuon


def test_sharded_models_are_refused():
    run = tiny_run("bert", sets=["train.optimizer=muon", "train.parallel=fsdp"])
    with pytest.raises(SettingsError, match="needs whole matrices") as error:
        Stepper(run, SimpleNamespace(size=2))
    assert 'train.parallel = "ddp"' in error.value.hint

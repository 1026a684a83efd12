"""StableAdamW against the algorithm of its paper, number by number."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from many import run_program
from torch import nn
from torch.optim import AdamW

from ptm_plus import stable_adamw as module
from ptm_plus.stable_adamw import StableAdamW

LR, BETAS, EPS, DECAY = 0.05, (0.9, 0.95), 1e-8, 0.3

NUMBERS = st.floats(-100, 100, allow_subnormal=False)
COURSES = st.integers(1, 5).flatmap(
    lambda size: st.lists(st.lists(NUMBERS, min_size=size, max_size=size), min_size=1, max_size=7)
)


def by_hand(start, gradients, lr=LR):
    """Algorithm 2 of Wortsman et al. 2023: one tensor, as lists; v, u are corrected moments."""
    theta, (beta1, beta2) = list(start), BETAS
    v, u = [0.0] * len(theta), [0.0] * len(theta)
    for t, g in enumerate(gradients, start=1):
        one = beta1 * (1 - beta1 ** (t - 1)) / (1 - beta1**t)
        two = beta2 * (1 - beta2 ** (t - 1)) / (1 - beta2**t)
        v = [one * a + (1 - one) * b for a, b in zip(v, g, strict=True)]
        u = [two * a + (1 - two) * b * b for a, b in zip(u, g, strict=True)]
        ratios = [b * b / max(a, EPS**2) for a, b in zip(u, g, strict=True)]
        eta = lr / max(1.0, math.sqrt(sum(ratios) / len(ratios)))
        theta = [
            x - eta * DECAY * x - eta * a / (math.sqrt(b) + EPS)
            for x, a, b in zip(theta, v, u, strict=True)
        ]
    return theta


def tensor(values):
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def optimizer_of(*parameters, kind=StableAdamW, **values):
    given = {"lr": LR, "betas": BETAS, "eps": EPS, "weight_decay": DECAY, **values}
    return kind(parameters, fused=True, **given)


def train(optimizer, course):
    """Take a step for each entry: gradients by parameter; ``None`` for those without one."""
    for gradients in course:
        for parameter, gradient in gradients:
            given = None if gradient is None else torch.tensor(gradient, dtype=torch.float64)
            parameter.grad = None if given is None else given.reshape(parameter.shape)
        optimizer.step()


@given(COURSES)
@settings(max_examples=60, deadline=None)
def test_it_is_the_algorithm_of_the_paper(course):
    start = [0.5 - place for place in range(len(course[0]))]
    parameter = tensor(start)
    train(optimizer_of(parameter), [[(parameter, one)] for one in course])
    assert parameter.tolist() == pytest.approx(by_hand(start, course), rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("piece", [3, 1 << 18])
def test_every_tensor_has_its_own_rate_and_its_own_steps(monkeypatch, piece):
    monkeypatch.setattr(module, "_PIECE", piece)
    first, second = tensor([1.0, -2.0, 3.0, 0.5]), tensor([[0.25], [4.0]])
    jump = [[0.1, 0.2, -0.1, 0.3], [0.1, 0.1, 0.1, 0.1], [90.0, 0.1, -50.0, 0.0]]
    calm = [[0.4, -0.3], [0.3, -0.4]]
    course = [
        [(first, jump[0]), (second, None)],
        [(first, jump[1]), (second, calm[0])],
        [(first, jump[2]), (second, calm[1])],
    ]
    train(optimizer_of(first, second), course)
    assert first.tolist() == pytest.approx(by_hand([1.0, -2.0, 3.0, 0.5], jump), rel=1e-12)
    assert second.flatten().tolist() == pytest.approx(by_hand([0.25, 4.0], calm), rel=1e-12)


def test_where_the_second_moment_follows_it_is_adamw():
    """Gradients of one size: RMS is 1, so nothing is clipped; and shrinking ones, RMS below 1."""
    course = [[0.5, -0.5, 0.5], [0.5, 0.5, -0.5], [0.2, -0.1, 0.0]]
    found = []
    for kind in (StableAdamW, AdamW):
        parameter = tensor([1.0, 2.0, 3.0])
        train(optimizer_of(parameter, kind=kind), [[(parameter, one)] for one in course])
        found.append(parameter.tolist())
    assert found[0] == pytest.approx(found[1], rel=1e-14)


@pytest.mark.parametrize("steps", [0, 2])
def test_a_gradient_that_is_not_finite_changes_nothing(steps):
    parameter = tensor([1.0, 2.0])
    optimizer = optimizer_of(parameter)
    course = [[(parameter, [0.3, -0.7])], [(parameter, [0.1, 0.9])]]
    train(optimizer, course[:steps])
    before = parameter.detach().clone()
    optimizer.found_inf = torch.ones(())
    train(optimizer, [[(parameter, [math.inf, math.nan])]])
    assert torch.equal(parameter, before)
    optimizer.found_inf = torch.zeros(())
    train(optimizer, course)
    whole = [g for step in (*course[:steps], *course) for _, g in step]
    assert parameter.tolist() == pytest.approx(by_hand([1.0, 2.0], whole), rel=1e-12)


SHARDED = """
import json
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from ptm_plus.stable_adamw import StableAdamW

torch.distributed.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))
torch.manual_seed(0)
for size in (5, 1):  # rows: three and two; one and none
    start = torch.randn(size, 3, dtype=torch.float64)
    gradients = [scale * torch.randn_like(start) for scale in (1, 1, 50)]
    found = []
    for spread in (lambda t: t, lambda t: distribute_tensor(t, mesh, [Shard(0)])):
        parameter = torch.nn.Parameter(spread(start.clone()))
        optimizer = StableAdamW([parameter], lr=0.1, weight_decay=0.3, fused=True)
        for gradient in gradients:
            parameter.grad = spread(gradient.clone())
            optimizer.step()
        state = optimizer.state[parameter]["exp_avg"]
        found.append([getattr(t, "full_tensor", lambda t=t: t)() for t in (parameter.data, state)])
    for whole, sharded in zip(*found):
        torch.testing.assert_close(sharded, whole, rtol=1e-13, atol=1e-14)
"""


def test_the_mean_is_over_all_processes_where_a_tensor_is_sharded():
    run_program(SHARDED, 2)

"""The span-boundary objective against a loop and a straight-line float64 computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from building import random_sequences
from test_masking import VOCABULARY, maker_of
from tiny import tiny_run

from ptm_plus import Draws, FeatureInput, UnitKind
from ptm_plus.masking import plan_masks, word_kind
from ptm_plus.microbatch import to_device
from ptm_plus.step import Passes
from ptm_plus_ernie_masking.boundary import PLACES, Boundary, boundary_columns
from ptm_plus_ernie_masking.units import WordRuns, geometric_lengths


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    maker = maker_of(tmp_path_factory.mktemp("sbo"), random_sequences(300, 8), "text")
    view = maker.view(np.arange(300), np.zeros(300, dtype=np.int64))
    span = UnitKind(name="span", propose=WordRuns("x", geometric_lengths(0.2, 10)), weight=3.0)
    draws = {name: Draws(0, name, "text") for name in ("span", "word")}
    plan = plan_masks(view, [span, word_kind("word")], 0.4, draws, VOCABULARY)
    return FeatureInput(view, plan, draws["span"], {})


def test_columns_are_those_of_a_loop(given):
    view, plan = given.view, given.plan
    number = plan.kinds.index("span")
    expected = []
    for first, end in zip(view.offsets[:-1].tolist(), view.offsets[1:].tolist(), strict=True):
        token = first
        while token < end:
            stop = token
            while stop < end and plan.predicted[stop] and plan.kind[stop] == number:
                stop += 1
            if stop > token and token - 1 >= first and stop < end:
                expected += [
                    (token - 1, stop, at - token, view.ids[at])
                    for at in range(token, stop)
                    if at - token < PLACES
                ]
            token = max(stop, token + 1)
    found = boundary_columns(given)
    rows = zip(
        *(found[name].tolist() for name in ("left", "right", "place", "labels")), strict=True
    )
    assert list(rows) == expected
    assert len(expected) > 300


def test_without_spans_there_is_nothing(given):
    plan = plan_masks(given.view, [word_kind("word")], 0.4, {"word": given.draws}, VOCABULARY)
    found = boundary_columns(FeatureInput(given.view, plan, given.draws, {}))
    assert {len(column) for column in found.values()} == {0}


def layer_norm(vector, weight, bias):
    mean = sum(vector) / len(vector)
    variance = sum((x - mean) ** 2 for x in vector) / len(vector)
    return [
        (x - mean) / math.sqrt(variance + 1e-5) * w + b
        for x, w, b in zip(vector, weight, bias, strict=True)
    ]


def linear(vector, layer):
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    return [
        sum(w * x for w, x in zip(row, vector, strict=True)) + b
        for row, b in zip(weight, bias, strict=True)
    ]


def gelu(vector):
    return [x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in vector]


def test_the_layers_are_those_of_the_paper():
    """y = LN(GELU(W2 LN(GELU(W1 [x_left; x_right; p])))), in Python's floats."""
    torch.manual_seed(0)
    module = Boundary(6, 5).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    left, right = torch.randn(4, 6).double(), torch.randn(4, 6).double()
    place = torch.tensor([0, 3, 1, 29])
    found = module(left, right, place)
    for row in range(4):
        p = module.place.weight[place[row]].tolist()
        h = gelu(linear([*left[row].tolist(), *right[row].tolist(), *p], module.first))
        h = layer_norm(h, module.first_norm.weight.tolist(), module.first_norm.bias.tolist())
        y = gelu(linear(h, module.second))
        y = layer_norm(y, module.second_norm.weight.tolist(), module.second_norm.bias.tolist())
        assert found[row].tolist() == pytest.approx(y, rel=1e-10, abs=1e-12)


@pytest.mark.ernie_masking
@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "modernbert"])
def test_the_loss_is_the_cross_entropy_under_the_word_vectors(family):
    kinds = ('plugin.ernie-masking.kinds=["span"]', "plugin.ernie-masking.weights.span=4")
    run = tiny_run(family, ("ernie-masking",), sets=kinds)
    assert ("text", "sbo") in run.loss_keys()
    rows = run.reader().step_rows(run.planner.plan(0))["text"]
    host = run.collator.batch(rows, rows, 0.3)
    batch = to_device(host, run.device, torch.float64)
    run.encoder.eval()
    passes = Passes(run.encoder)
    owner = next(o for o in run.objectives["text"] if o.component.name == "sbo")
    outcome = owner.component.compute(batch, passes, run.encoder.parts_of("ernie-masking"))
    column = {name: host.columns[f"ernie-masking.{name}"] for name in ("left", "right", "place")}
    labels = host.columns["ernie-masking.labels"]
    assert run.root.count(host)["text", "sbo"] == len(labels) > 5
    top = passes(batch).top
    module = run.encoder.parts_of("ernie-masking")["boundary"]
    decoder = run.encoder.backbone.get_output_embeddings()
    total = 0.0
    for at, label in enumerate(labels.tolist()):
        left, right = (top[int(column[name][at])][None] for name in ("left", "right"))
        vector = module(left, right, torch.tensor([int(column["place"][at])]))[0]
        logits = decoder.weight @ vector + (0 if decoder.bias is None else decoder.bias)
        total -= float(torch.log_softmax(logits, 0)[label].detach())
    assert float(outcome.sum.detach()) == pytest.approx(total, rel=1e-10)

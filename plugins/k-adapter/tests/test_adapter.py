"""The side network and its heads against the equations, written straight down in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ptm_plus_k_adapter.adapter import Adapter
from ptm_plus_k_adapter.heads import PointerHead, RelationHead

EXACT = {"atol": 1e-10, "rtol": 1e-10}
LENGTHS = (3, 5, 1)


def random(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module


def within(query, key, value):
    """Attention within each sequence, as a mask over everything."""
    owner = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    q, k, v = (t.transpose(0, 1) for t in (query, key, value))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    scores = scores.masked_fill(owner[:, None] != owner, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(0, 1)


# ---------------------------------------------------------------------------------------------
# The reference: no module is called; sequences and heads one by one


def affine(x, layer):
    return x @ layer.weight.T + layer.bias


def norm(x, layer):
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
    return scaled * layer.weight + layer.bias


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def transformer_by_hand(x, layer):
    width = x.shape[1] // layer.heads
    mixed = []
    for head in range(layer.heads):
        part = slice(head * width, (head + 1) * width)
        q, k, v = (affine(x, one)[:, part] for one in (layer.query, layer.key, layer.value))
        scores = torch.exp(q @ k.T / math.sqrt(width))
        mixed.append(scores / scores.sum(1, keepdim=True) @ v)
    x = norm(affine(torch.cat(mixed, 1), layer.mixed) + x, layer.mixed_norm)
    return norm(affine(gelu(affine(x, layer.inner)), layer.out) + x, layer.out_norm)


def adapter_by_hand(adapter, read, last):
    """x_k = states_k + out_{k-1}; out_k = up(layers(down(x_k))) + x_k; join([last; out])."""
    results = []
    ends = np.cumsum(LENGTHS).tolist()
    for first, end in zip([0, *ends], ends, strict=False):
        before = torch.zeros_like(last[first:end])
        for layer, states in zip(adapter.places, read, strict=True):
            x = states[first:end] + before
            inner = affine(x, layer.down)
            for one in layer.layers:
                inner = transformer_by_hand(inner, one)
            before = affine(inner, layer.up) + x
        results.append(affine(torch.cat((last[first:end], before), 1), adapter.join))
    return torch.cat(results)


def test_the_adapter_and_its_gradients_are_those_of_the_equations():
    adapter = random(Adapter(hidden=6, places=3, size=4, layers=2, heads=2, dropout=0.0))
    torch.manual_seed(1)
    read = [torch.randn(sum(LENGTHS), 6).double() for _ in range(3)]
    found = adapter(read, read[-1], within)
    expected = adapter_by_hand(adapter, read, read[-1])
    torch.testing.assert_close(found, expected, **EXACT)
    behind = torch.randn_like(found)
    parameters = list(adapter.parameters())
    ours, theirs = (torch.autograd.grad(one, parameters, behind) for one in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


def test_at_its_start_an_adapter_layer_is_nearly_the_identity():
    adapter = Adapter(hidden=32, places=1, size=16, layers=2, heads=2, dropout=0.0)
    states = torch.randn(9, 32)
    after = adapter.places[0](states, within)
    assert (after - states).abs().max() < 0.01
    assert not torch.equal(after, states)


def test_with_nothing_projected_up_an_adapter_layer_is_the_identity():
    layer = random(Adapter(hidden=6, places=1, size=4, layers=2, heads=2, dropout=0.0)).places[0]
    torch.nn.init.zeros_(layer.up.weight)
    torch.nn.init.zeros_(layer.up.bias)
    states = torch.randn(9, 6).double()
    assert torch.equal(layer(states, within), states)


def test_relations_are_classified_from_both_markers():
    head = random(RelationHead(hidden=4, relations=("a", "b", "c"), dropout=0.5))
    one, other = torch.randn(5, 4).double(), torch.randn(5, 4).double()
    expected = affine(affine(torch.cat((one, other), 1), head.dense), head.out)
    torch.testing.assert_close(head(one, other), expected, **EXACT)


def test_every_word_is_scored_against_every_other_of_its_sentence():
    head = random(PointerHead(hidden=4))
    states = torch.randn(9, 4).double()
    table = torch.tensor([[0, 1, 2, 4], [5, 6, -1, -1]])
    asked = torch.tensor([1, 3, 5])  # the second and fourth of the first, the second of the second
    found = head(states, table, asked)
    for row, (word, words) in enumerate(((1, [0, 1, 2, 4]), (4, [0, 1, 2, 4]), (6, [5, 6]))):
        query = affine(states[word][None], head.query)[0]
        for place, other in enumerate(words):
            key = affine(states[other][None], head.key)[0]
            expected = (query @ key / 2).item()
            assert found[row, place].item() == pytest.approx(expected, rel=1e-10)
        assert (found[row, len(words) :] < -1e300).all()

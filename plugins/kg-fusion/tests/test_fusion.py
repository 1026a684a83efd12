"""The modules against loops written by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ptm_plus_kg_fusion.fusion import EntityHead, Fusion

pytestmark = pytest.mark.kg_fusion

EXACT = {"atol": 1e-12, "rtol": 1e-12}


def random_module(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def normed(values, weight, bias, eps=1e-5):
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / len(values)
    return [
        (v - mean) / math.sqrt(variance + eps) * w + b
        for v, w, b in zip(values, weight, bias, strict=True)
    ]


def gelu(x):
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def times(matrix, vector):
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def test_fusion_is_the_formula_of_its_docstring():
    """h + W_o gelu(W_t LN(h) + W_e e + b) + b_o at the given tokens, nothing elsewhere."""
    fusion = random_module(Fusion(hidden=4, entity=3, width=5, blocks=2))
    hidden, vectors = torch.randn(6, 4).double(), torch.randn(3, 3).double()
    positions = torch.tensor([4, 0, 2])
    for place in range(2):
        w = {name: getattr(fusion, name)[place] for name in ("norm", "token", "entity", "out")}
        expected = hidden.tolist()
        for number, token in enumerate(positions.tolist()):
            state = normed(
                hidden[token].tolist(), w["norm"].weight.tolist(), w["norm"].bias.tolist()
            )
            of_token = times(w["token"].weight.tolist(), state)
            of_entity = times(w["entity"].weight.tolist(), vectors[number].tolist())
            inner = [
                gelu(a + b + c)
                for a, b, c in zip(of_token, of_entity, w["token"].bias.tolist(), strict=True)
            ]
            added = times(w["out"].weight.tolist(), inner)
            expected[token] = [
                h + a + b
                for h, a, b in zip(expected[token], added, w["out"].bias.tolist(), strict=True)
            ]
        found = fusion(place, hidden, positions, vectors)
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), **EXACT)
        assert torch.equal(found[[1, 3, 5]], hidden[[1, 3, 5]])


def test_fusion_starts_as_the_identity_bit_for_bit():
    fusion = Fusion(hidden=8, entity=4, width=8, blocks=1)
    hidden, vectors = torch.randn(5, 8), torch.randn(2, 4)
    assert torch.equal(fusion(0, hidden, torch.tensor([1, 3]), vectors), hidden)


def test_at_its_start_only_the_output_of_fusion_has_a_gradient():
    fusion = Fusion(hidden=8, entity=4, width=8, blocks=1)
    hidden = torch.randn(5, 8)
    fusion(0, hidden, torch.tensor([1, 3]), torch.randn(2, 4)).sum().backward()
    assert fusion.out[0].weight.grad.abs().sum() > 0
    assert fusion.token[0].weight.grad.abs().sum() == 0


def test_no_mention_at_all_changes_nothing():
    fusion = random_module(Fusion(hidden=4, entity=3, width=5, blocks=1))
    hidden = torch.randn(6, 4).double()
    nothing = torch.zeros(0, dtype=torch.long)
    assert torch.equal(fusion(0, hidden, nothing, torch.zeros(0, 3).double()), hidden)


def test_the_head_is_the_formula_of_its_docstring():
    """LN(gelu(W h + b)) · candidate · exp(scale) / sqrt(width)."""
    head = random_module(EntityHead(hidden=4, entity=3))
    states, candidates = torch.randn(2, 4).double(), torch.randn(5, 3).double()
    expected = []
    for state in states.tolist():
        dense = times(head.dense.weight.tolist(), state)
        inner = [gelu(a + b) for a, b in zip(dense, head.dense.bias.tolist(), strict=True)]
        projected = normed(inner, head.norm.weight.tolist(), head.norm.bias.tolist())
        factor = math.exp(float(head.scale.detach())) / math.sqrt(3)
        expected.append([factor * one for one in times(candidates.tolist(), projected)])
    found = head(states, candidates)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), **EXACT)

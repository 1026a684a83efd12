"""The masked-LM objective's figures."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ptm_plus.objectives import _accuracies


def batch(labels: torch.Tensor, kinds: tuple[str, ...], kind: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(labels=labels, kinds=kinds, kind=kind)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_accuracy_is_that_of_the_highest_logit(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = torch.randn(500, 3).to(dtype)  # in bf16, some of these are equal
    labels, kind = torch.randint(0, 3, (500,)), torch.randint(0, 2, (500,))
    found = _accuracies(logits, batch(labels, ("word", "entity"), kind))
    right = [int(row.argmax()) == int(label) for row, label in zip(logits, labels, strict=True)]
    assert found["accuracy"] == (sum(right), 500)
    for number, name in enumerate(("word", "entity")):
        own = [one for one, of in zip(right, kind, strict=True) if of == number]
        assert found[f"accuracy_{name}"] == (sum(own), len(own))


def test_logits_that_are_no_numbers_are_never_right() -> None:
    logits = torch.full((4, 3), float("nan"))
    found = _accuracies(logits, batch(torch.tensor([0, 1, 2, 0]), ("word",), torch.zeros(4)))
    assert found["accuracy"] == (0, 4)

"""Updates of a model of which a step touches few entities: the others stay as they are.

Adam reads and writes the whole table of entities and its two moments, and a constraint the table
once more, whatever the batch names. Here vectors of entities are updated where they have a gradient
by Adagrad (Duchi et al. 2011), as is usual for graphs of millions of entities (PyTorch-BigGraph,
DGL-KE): it keeps one sum a value, and needs no momentum that would move what was not touched.
"""

from __future__ import annotations

from typing import Any

import torch
from pykeen.nn import Embedding
from torch import Tensor, nn
from torch.sparse import check_sparse_tensor_invariants

SHARE = 0.25
"""A step that may touch a larger share of the entities updates them all; it costs less then."""

FACTOR = 10.0
"""Adagrad's steps shrink from the first on: at ten times the rate it is level with Adam."""


def few_are_touched(model: Any, batch_size: int, negatives: int) -> bool:
    """Tell whether the entities of a step are few, and rows of plain tables."""
    few = 2 * batch_size + negatives < SHARE * model.num_entities
    return few and all(type(one) is Embedding for one in model.entity_representations)


class AllRows:
    """Updates all of a model by Adam.

    Args:
        model: a PyKEEN model.
        learning_rate: its rate.
    """

    def __init__(self, model: Any, learning_rate: float) -> None:
        self._model = model
        self._adam = torch.optim.Adam(model.get_grad_params(), lr=learning_rate)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._adam.zero_grad()

    def step(self) -> None:
        """Update by the gradients, and put the constraints back in force."""
        self._adam.step()
        self._model.post_parameter_update()


class TouchedRows:
    """Updates the entities that a step touched by Adagrad, and everything else of a model by Adam.

    Args:
        model: a PyKEEN model; its tables of entities get sparse gradients from now on.
        learning_rate: Adam's; Adagrad's is ``FACTOR`` times as high.
    """

    def __init__(self, model: Any, learning_rate: float) -> None:
        self._model = model
        self._tables = [(one, _sparse_table(one)) for one in model.entity_representations]
        own = {id(table.weight) for _, table in self._tables}
        others = [one for one in model.get_grad_params() if id(one) not in own]
        self._dense = torch.optim.Adam(others, lr=learning_rate)
        weights = [table.weight for _, table in self._tables]
        self._sparse = torch.optim.Adagrad(weights, lr=FACTOR * learning_rate)
        whole = {*model.modules()} - {model, *model.entity_representations}
        self._whole = [one for one in whole if hasattr(one, "post_parameter_update")]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._model.zero_grad()

    def step(self) -> None:
        """Update by the gradients, and put the constraints back in force."""
        for _, table in self._tables:
            if table.weight.grad is not None:
                table.weight.grad = table.weight.grad.coalesce()
        self._dense.step()
        with check_sparse_tensor_invariants(False):  # said openly, else torch warns
            self._sparse.step()
        for representation, table in self._tables:
            if representation.constrainer is not None and table.weight.grad is not None:
                _constrain(representation, table.weight, table.weight.grad.indices()[0])
        for module in self._whole:
            module.post_parameter_update()


def _sparse_table(representation: Embedding) -> nn.Embedding:
    (table,) = (one for one in representation.modules() if isinstance(one, nn.Embedding))
    table.sparse = True
    return table


@torch.no_grad()
def _constrain(representation: Embedding, weight: Tensor, rows: Tensor) -> None:
    """Apply a table's constraint, which is one on each row, to some of them."""
    shape = (len(rows), *representation.shape)
    if representation.is_complex:
        found = torch.view_as_complex(weight[rows].view(*shape, 2))
        weight[rows] = torch.view_as_real(representation.constrainer(found)).flatten(1)
    else:
        weight[rows] = representation.constrainer(weight[rows].view(shape)).flatten(1)

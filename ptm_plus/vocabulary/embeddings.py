"""Rows for new entries in a model: embeddings, output weights, biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ptm_plus.model import around_mean, output_biases


def grow(model: Any, starts: Mapping[int, Sequence[int]]) -> dict[str, int]:
    """Give new entries rows that start from those of old ones, in place.

    Rows that are there already, such as padding behind the vocabulary, are used first; there are
    never fewer than before. Output weights that are tied stay tied; untied ones, and the output
    bias, start in the same way as the embeddings.

    Args:
        model: a masked-LM model.
        starts: new id to the ids whose mean its row starts as; a new one of an earlier place may be
            among them. Without any, the row is drawn around the mean of all old rows.

    Returns:
        Number of rows before and after.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    needed = max(starts, default=-1) + 1
    if needed > rows:
        model.resize_token_embeddings(needed, mean_resizing=False)
    old = min(starts, default=rows)
    embeddings, output = model.get_input_embeddings(), model.get_output_embeddings()
    tables = [embeddings.weight]
    if output is not None and output.weight.data_ptr() != embeddings.weight.data_ptr():
        tables.append(output.weight)
    biases = [] if output is None else output_biases(model)
    with torch.no_grad():
        for table in [*tables, *(bias.unsqueeze(1) for bias in biases)]:
            _start(table, starts, old)
    return {"rows_before": rows, "rows": model.get_input_embeddings().weight.shape[0]}


def _start(table: torch.Tensor, starts: Mapping[int, Sequence[int]], old: int) -> None:
    known = table[:old].clone()
    for row, ids in starts.items():
        wide = table[list(ids)].double().mean(0) if ids else around_mean(known, row)
        table[row] = wide.to(table.dtype)

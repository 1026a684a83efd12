"""A run's label lists, kept in its folder: what is new is appended, so rows keep their labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ptm_plus.errors import DataError
from ptm_plus.files import read_json, write_whole
from ptm_plus.processes import whole
from ptm_plus.run_folder import LABELS

if TYPE_CHECKING:
    from ptm_plus.run import Run

Labels = Mapping[str, Sequence[str]]
"""Labels by span kind, in the order of their rows."""


def read_label_lists(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the label lists of a run folder; empty where it has none.

    Raises:
        DataError: the file is broken.
    """
    path = folder / LABELS
    if not path.is_file():
        return {}
    found = read_json(path)
    if not all(isinstance(labels, list) for labels in found.values()):
        raise DataError("not lists of labels", path=path)
    return {kind: tuple(map(str, labels)) for kind, labels in found.items()}


def write_label_lists(folder: Path, labels: Labels) -> None:
    """Write the label lists of a run into its folder, whole or not at all."""
    lists = {kind: list(one) for kind, one in labels.items()}
    write_whole(folder / LABELS, json.dumps(lists, ensure_ascii=False))


def appended(kept: Labels, found: Labels) -> dict[str, tuple[str, ...]]:
    """Return lists that begin as they were and end with what is new."""
    return {
        kind: (*kept.get(kind, ()), *(one for one in labels if one not in known))
        for kind, labels in {**kept, **found}.items()
        for known in [frozenset(kept.get(kind, ()))]
    }


def label_kind(run: Run, name: str) -> str:
    """Return the kind of label whose rows a part's tensor has; empty where it has none.

    Args:
        run: the run.
        name: the tensor, as in ``parts.safetensors``.
    """
    for owner in run.parts:
        if name.startswith(f"{owner.instance}/{owner.component.name}."):
            return owner.component.rows
    return ""


def with_new_rows(run: Run, name: str, found: Tensor, start: Tensor) -> Tensor:
    """Return a part's saved tensor with rows for the labels that came later.

    Args:
        run: the run, with its label lists appended to those of the saved one.
        name: the tensor, as in ``parts.safetensors``.
        found: as it was saved.
        start: as the run made it; its last rows stay.

    Returns:
        ``found`` itself, where it fits already, or does not fit for another reason.
    """
    known = len(run.prepared.kept_labels.get(label_kind(run, name), ()))
    grown = found.ndim > 0 and found.shape[1:] == start.shape[1:] and len(found) < len(start)
    if not grown or len(found) > known:
        return found
    result = whole(start).clone()
    result[: len(found)] = found.to(result)
    return result


def by_label(found: Tensor, then: Sequence[str], start: Tensor, now: Sequence[str]) -> Tensor:
    """Return a table of another run in the order of this run's labels.

    Args:
        found: its rows, one for each of ``then`` from the first on.
        then: its labels.
        start: rows of this run; they stay where a label is new.
        now: this run's labels.
    """
    row = {label: number for number, label in enumerate(then[: len(found)])}
    result = start.detach().clone()
    places = [place for place, label in enumerate(now) if label in row]
    rows = [row[now[place]] for place in places]
    result[torch.tensor(places, dtype=torch.long)] = found[rows].to(result)
    return result

"""Starting a run from another one's weights, and saying whether they fit.

Nothing but weights is taken over: step, optimizer and data start anew. To go on with a run is
``resume``, a word of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ptm_plus.checkpoint import (
    MODEL,
    PARTS,
    STATE,
    named_tensors,
    read_state,
    read_tensors,
    whole_checkpoint,
)
from ptm_plus.errors import DataError
from ptm_plus.evaluation import held_out_loss
from ptm_plus.label_lists import Labels, by_label, label_kind, read_label_lists
from ptm_plus.optimizer import set_mode
from ptm_plus.prepare.tokenization import fingerprint
from ptm_plus.probes import ProbeContext
from ptm_plus.processes import at_hand
from ptm_plus.progress import Watch
from ptm_plus.run import Run
from ptm_plus.run_folder import home_of, source_tokenizer


@dataclass(frozen=True)
class Matched:
    """How the tensors of two runs go together, by name.

    Attributes:
        loaded: in both, of one shape.
        missing: in the source alone: this run has no place for them.
        new: in this run alone: they keep their own start.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    new: tuple[str, ...]


def start_from(run: Run, source: Path, watch: Watch) -> dict[str, Matched]:
    """Load the weights of another run and compare the held-out loss before and after.

    Args:
        run: the run, before its first step.
        source: run folder (its newest whole checkpoint is taken) or checkpoint.
        watch: told what was loaded, what is missing and new, and the losses.

    Raises:
        DataError: there is no whole checkpoint, its tokenizer is another one, a tensor has
            another shape, or none fits.
    """
    folder, _ = whole_checkpoint(source, (MODEL, PARTS, STATE))
    _check_tokenizer(run, folder)
    before = _held_out(run)
    labels = read_label_lists(home_of(folder))
    matched = {
        name: _load(run, labels, dict(named_tensors(module)), folder / name)
        for module, name in ((run.encoder.backbone, MODEL), (run.encoder.parts, PARTS))
    }
    if not matched[MODEL].loaded:
        raise DataError(
            "no tensor of its model fits this run", "is it another family?", path=folder
        )
    for average in run.encoder.averages.values():
        average.start(run.encoder)
    for name, found in matched.items():
        watch.note(_told(name.partition(".")[0], found))
    after = _held_out(run)
    watch.figures(
        "initialised",
        {"from": str(folder), "held_out_before": before, "held_out_after": after},
    )
    watch.note(f"started from {folder}: held-out loss {after:.3f}, {before:.3f} before")
    if not after < before:
        watch.note(
            "the loaded weights are no better than new ones on this run's held-out text: are the "
            "model's settings, the text and its language those that they were trained for?"
        )
    return matched


def _check_tokenizer(run: Run, folder: Path) -> None:
    then = read_state(folder).identity.get("tokenizer", {}).get("hash")
    now = fingerprint(run.prepared.tokenizer)
    if then != now:
        raise DataError(
            f"its weights belong to another tokenizer ({then} there, {now} here)",
            f"use its own: --set tokenizer.path={source_tokenizer(str(folder)) or 'FOLDER'}",
            path=folder,
        )


def _load(run: Run, labels: Labels, own: Mapping[str, Tensor], path: Path) -> Matched:
    found = read_tensors(path)
    if path.name == PARTS:
        found |= dict(_rows_by_label(run, labels, own, found))
    loaded = sorted(own.keys() & found.keys())
    shapes = [key for key in loaded if own[key].shape != found[key].shape]
    if shapes:
        there, here = (tuple(tensors[shapes[0]].shape) for tensors in (found, own))
        raise DataError(
            f"{len(shapes)} tensors have other shapes: {shapes[0]} is {there} there, {here} here",
            "give this run the same model.family and model.config",
            path=path,
        )
    with torch.no_grad():
        for key in loaded:
            own[key].copy_(found[key])
    return Matched(
        tuple(loaded),
        tuple(sorted(found.keys() - own.keys())),
        tuple(sorted(own.keys() - found.keys())),
    )


def _rows_by_label(
    run: Run, labels: Labels, own: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tables whose rows are labels, in the order of this run's labels."""
    for key in own.keys() & found.keys():
        then, now = (of.get(label_kind(run, key)) for of in (labels, run.prepared.labels))
        if then and now and found[key].shape[1:] == own[key].shape[1:]:
            yield key, by_label(found[key], then, own[key], now)


def _told(what: str, found: Matched) -> str:
    words = [f"{what}: {len(found.loaded)} tensors loaded"]
    for name, keys in (("missing here", found.missing), ("new here", found.new)):
        more = ", …" if len(keys) > 3 else ""
        words.append(f"{len(keys)} {name}" + (f" ({', '.join(keys[:3])}{more})" if keys else ""))
    return ", ".join(words)


def _held_out(run: Run) -> float:
    set_mode(run.encoder, training=False)
    with torch.no_grad():
        losses = at_hand(run.root, lambda: ProbeContext(run).losses)
    found = held_out_loss({"held_out": losses})
    return float("nan") if found is None else found

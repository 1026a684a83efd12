"""Figures of a plan: rows and epochs, mask budget, parameters, operations, memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ptm_plus.cli.preview import first_rows
from ptm_plus.encoder import part_key
from ptm_plus.sampling import epoch_warnings, expected, make_planner, too_often

if TYPE_CHECKING:
    from torch import nn

    from ptm_plus.data import Collator
    from ptm_plus.prepared import Prepared
    from ptm_plus.run import Run
    from ptm_plus.stages import Stage

_SAMPLED_ROWS = 16

BYTES = {"weights": 4, "gradients": 4, "adam": 8, "muon": 4}
"""Bytes per parameter: fp32 weights; for trained ones gradients and AdamW's two moments, or Muon's
momentum."""

FORWARD_AND_BACKWARD = 6
"""Operations per parameter and token: 2 forward, 4 backward (Kaplan et al. 2020, section 2.1)."""


def data_figures(prepared: Prepared, run: Run | None) -> dict[str, Any]:
    """Return what the run takes of its streams.

    Returns:
        ``streams``, with objectives and, per stratum, tokens, share of the run's rows, epochs, the
        step at which it was read once, and row fill; ``mixture``, what becomes of strata that were
        read whole, with warnings.
    """
    planner = make_planner(prepared, {}) if run is None else run.planner
    found, batch = expected(planner, prepared), prepared.settings.batch
    streams = [
        {
            "stream": name,
            "objectives": _objectives(prepared, run, name),
            "share": sum(found[name, stratum].share for stratum in data.tokens),
            "held_out_sequences": len(data.held_out),
            "strata": [
                {
                    "stratum": stratum,
                    "tokens": tokens,
                    "share": found[name, stratum].share,
                    "rows": len(data.rows(stratum, 0)),
                    "fill": data.rows(stratum, 0).fill,
                    "epochs": found[name, stratum].epochs,
                    "used_up": found[name, stratum].used_up,
                    "too_often": too_often(found[name, stratum].epochs, batch.max_epochs),
                }
                for stratum, tokens in sorted(data.tokens.items(), key=lambda one: -one[1])
            ],
        }
        for name, data in sorted(prepared.streams.items())
    ]
    mixture = {
        "exhausted": batch.exhausted,
        "max_epochs": batch.max_epochs,
        "alpha": dict(prepared.stream_alpha),
        "joins": {name: dict(joins) for name, joins in batch.joins.items()},
        "warnings": epoch_warnings(found, batch),
    }
    return {"streams": streams, "mixture": mixture}


def _objectives(prepared: Prepared, run: Run | None, stream: str) -> list[dict[str, Any]]:
    if run is None:
        names = prepared.stream_objectives[stream]
        return [{"name": name, "weight": None, "owner": ""} for name in names]
    weights = run.planner.objective_weights
    return [
        {
            "name": one.component.name,
            "owner": one.instance,
            "weight": weights.get(one.component.name),
        }
        for one in run.objectives[stream]
    ]


def mask_figures(prepared: Prepared, collator: Collator) -> list[dict[str, Any]]:
    """Return, per stream and unit kind, its share of the token budget and of predicted tokens.

    Measured on the first rows of the first epoch; where the mask rate changes over the run, at the
    first one and at the last.
    """
    figures = []
    for name, data in sorted(prepared.streams.items()):
        view = collator.view(first_rows(data, 0, _SAMPLED_ROWS))
        maskable = max(1, int((view.words >= 0).sum()))
        for rate in dict.fromkeys(prepared.settings.masking.ends):
            plan = collator.masks(view, rate)
            predicted = np.bincount(plan.kind[plan.predicted], minlength=len(plan.kinds))
            figures += [
                {
                    "stream": name,
                    "rate": rate,
                    "kind": kind,
                    "budget": plan.budget[kind] / maskable,
                    "predicted": int(predicted[number]) / maskable,
                }
                for number, kind in enumerate(plan.kinds)
            ]
    return figures


def model_figures(run: Run) -> dict[str, Any]:
    """Return parameters, operations per token and memory, per owner and in all.

    They are those of the stage that trains most.
    """
    largest = max(run.stages, key=lambda stage: _trained_in(run, stage))
    _trained_in(run, largest)
    parts = [_part(run, owner) for owner in run.parts]
    averages = [_average(run, owner) for owner in run.averages]
    trained, frozen = _counts(run.encoder.backbone)
    backbone = {"trained": trained, "frozen": frozen}
    return {
        "backbone": {"class": type(run.encoder.backbone).__name__, **backbone},
        "parts": [*parts, *averages],
        "tables": [
            {
                "plugin": one.instance,
                "name": one.component.name,
                "rows": one.component.rows,
                "path": str(one.component.path),
            }
            for one in run.tables
        ],
        "operations_per_token": operations(run, parts),
        "memory": memory([backbone, *parts, *averages], _by_muon(run)),
    }


def stage_figures(run: Run) -> list[dict[str, Any]]:
    """Return, per stage, its steps, who trains in it, in what, and how many parameters."""
    return [
        {
            "name": stage.name,
            "first": stage.first,
            "steps": stage.steps,
            "plugins": sorted(stage.instances),
            "losses": ["/".join(key) for key in run.loss_keys(stage)],
            "trained": _trained_in(run, stage),
        }
        for stage in run.stages
    ]


def _trained_in(run: Run, stage: Stage) -> int:
    """Freeze what a stage freezes and return the number of parameters that it trains."""
    from ptm_plus.optimizer import apply_rules

    apply_rules(run.encoder, run.rules_in(stage), run.encoder.fixed)
    return _counts(run.encoder)[0]


def _part(run: Run, owner: Any) -> dict[str, Any]:
    module = run.encoder.parts_of(owner.instance)[owner.component.name]
    trained, frozen = _counts(module)
    return {
        "plugin": owner.instance,
        "name": owner.component.name,
        "trained": trained,
        "frozen": frozen,
        "export": owner.component.export,
    }


def _average(run: Run, owner: Any) -> dict[str, Any]:
    """Return the figures of a moving average; its passes are counted nowhere, as others' are."""
    values = run.encoder.averages[part_key(owner.instance, owner.component.name)].buffers()
    return {
        "plugin": owner.instance,
        "name": owner.component.name,
        "trained": 0,
        "frozen": sum(value.numel() for value in values),
        "export": "train-only",
    }


def _counts(module: nn.Module) -> tuple[int, int]:
    """Return the number of trained and of frozen parameters."""
    sizes = [(one.numel(), one.requires_grad) for one in module.parameters()]
    return sum(n for n, grad in sizes if grad), sum(n for n, grad in sizes if not grad)


def operations(run: Run, parts: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return operations per token of training: 6 per parameter of blocks and parts, and the head.

    The head (transform and projection to the vocabulary) runs at predicted tokens only; where their
    share changes over the run, it is the mean. Attention scores, quadratic in the sequence's
    length, are left out.
    """
    backbone: Any = run.encoder.backbone
    card = run.encoder.card
    again = 2 if run.settings.model.gradient_checkpointing else 0
    blocks = sum(_counts(card.block_list(backbone)))
    body = sum(_counts(card.encoder(backbone)))
    output = backbone.get_output_embeddings()
    tied = output.weight is backbone.get_input_embeddings().weight
    head = sum(_counts(backbone)) - body + (output.weight.numel() if tied else 0)
    rate = sum(run.settings.masking.ends) / 2
    figures = {
        "blocks": float((FORWARD_AND_BACKWARD + again) * blocks),
        "head": FORWARD_AND_BACKWARD * rate * head,
        "parts": float(FORWARD_AND_BACKWARD * sum(p["trained"] + p["frozen"] for p in parts)),
    }
    return {**figures, "total": sum(figures.values())}


def _by_muon(run: Run) -> int:
    """Return how many of the parameters that are trained are Muon's."""
    from ptm_plus.muon import muon_matrices

    if run.settings.train.optimizer != "muon":
        return 0
    names = muon_matrices(run.encoder)
    named = run.encoder.named_parameters()
    return sum(one.numel() for name, one in named if name in names and one.requires_grad)


def memory(owners: Iterable[Mapping[str, Any]], by_muon: int = 0) -> dict[str, int]:
    """Return bytes for weights, gradients and optimizer; activations come on top.

    Args:
        owners: with their numbers of trained and frozen parameters.
        by_muon: how many of the trained ones Muon moves.
    """
    owners = list(owners)
    trained = sum(one["trained"] for one in owners)
    whole = trained + sum(one["frozen"] for one in owners)
    figures = {
        "weights": BYTES["weights"] * whole,
        "gradients": BYTES["gradients"] * trained,
        "optimizer": BYTES["adam"] * (trained - by_muon) + BYTES["muon"] * by_muon,
    }
    return {**figures, "total": sum(figures.values())}

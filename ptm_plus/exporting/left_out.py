"""What a plain model does not have of the trained run, and the proof of what each part declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ptm_plus.components import Visibility
from ptm_plus.errors import PluginError
from ptm_plus.probes import ProbeContext
from ptm_plus.progress import Watch
from ptm_plus.run import Run

LIMIT = 1e-4
"""Logits that differ by less (in fp32) are equal."""


@dataclass(frozen=True)
class LeftOut:
    """A part that the plain model does not have.

    Attributes:
        plugin: instance.
        part: its name.
        export: export class.
        parameters: number of its parameters.
        with_part: held-out loss by ``stream/objective``, measured for needed parts.
        without_part: the same with the plugin's parts silenced.
    """

    plugin: str
    part: str
    export: str
    parameters: int
    with_part: Mapping[str, float] | None = None
    without_part: Mapping[str, float] | None = None


def not_provable(run: Run) -> list[str]:
    """Return plugins whose part is missed in a plain model, or that hide tokens."""
    needed = {one.instance for one in run.parts if one.component.export == "needed"}
    hiding = {c.instance for c in run.encoder.inputs if isinstance(c.component, Visibility)}
    return sorted(needed | hiding)


def measured_parts(run: Run, watch: Watch) -> list[LeftOut]:
    """Return all parts; for needed ones the held-out loss with and without their plugin's parts."""
    needed = sorted({one.instance for one in run.parts if one.component.export == "needed"})
    losses: dict[str, Mapping[str, float]] = {}
    if needed:
        with watch.task("held-out loss without parts") as task:
            for number, instance in enumerate(["", *needed]):
                with run.encoder.without([instance] if instance else []):
                    losses[instance] = _held_out(run)
                task.update(number + 1, len(needed) + 1)
    return [
        LeftOut(
            owner.instance,
            owner.component.name,
            owner.component.export,
            sum(
                p.numel()
                for p in run.encoder.parts_of(owner.instance)[owner.component.name].parameters()
            ),
            losses[""] if owner.component.export == "needed" else None,
            losses[owner.instance] if owner.component.export == "needed" else None,
        )
        for owner in run.parts
    ]


def _held_out(run: Run) -> dict[str, float]:
    names = {"/".join(key) for key in run.loss_keys()}
    with torch.no_grad():
        figures = ProbeContext(run).losses
    return {name: value for name, value in figures.items() if name in names}


def fold_parts(run: Run) -> None:
    """Fold foldable parts into the backbone.

    Raises:
        PluginError: nobody folds a part that is declared foldable.
    """
    for instance in sorted({o.instance for o in run.parts if o.component.export == "foldable"}):
        folds = [e.component.fold for e in run.exporters if e.instance == instance]
        if not any(folds):
            raise PluginError(
                f"plugin {instance!r} declares a part foldable, but has no exporter that folds it",
                "return Exporter(name=…, fold=…) from ptm_export",
            )
        with torch.no_grad():
            for fold in filter(None, folds):
                fold(run.encoder.backbone, run.encoder.parts_of(instance))


def check_classes(run: Run, before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
    """Check that dropping and folding kept the logits.

    Args:
        run: the run.
        before: the trained model's logits, without what cannot be proved.
        after: the plain model's.

    Raises:
        PluginError: they did not.
    """
    pairs = zip(before, after, strict=True)
    difference = max(float((old - new).abs().max()) for old, new in pairs)
    if difference < LIMIT:
        return
    others = sorted({one.instance for one in run.parts} - set(not_provable(run)))
    raise PluginError(
        f"the plain model's logits differ by {difference:.2g} from the trained model's: a part of "
        f"{', '.join(map(repr, others))} is not {' or '.join(_claims(run, others))} as it declares",
        "declare the part export='needed'",
    )


def _claims(run: Run, instances: Sequence[str]) -> list[str]:
    return sorted({o.component.export for o in run.parts if o.instance in instances})

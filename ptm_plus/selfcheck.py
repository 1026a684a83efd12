"""What is checked of every run before its first step, on a few of its own sequences.

Parts are moved away from their start for the check (most begin as the identity and would hide a
fault) and put back exactly; random states, modes and gradients are left as they were.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ptm_plus.attention import NAME, visible_columns
from ptm_plus.components import EmbeddingDelta, Objective, Part, Visibility
from ptm_plus.compose import Contribution
from ptm_plus.data import HostBatch
from ptm_plus.encoder import part_key
from ptm_plus.errors import GuardStop, PluginError
from ptm_plus.microbatch import MicroBatch, to_device
from ptm_plus.optimizer import apply_rules
from ptm_plus.run import Run
from ptm_plus.stages import Stage
from ptm_plus.step import LossKey, Passes
from ptm_plus.trials import (
    Trial,
    changed,
    larger_batches,
    left_as_it_was,
    make_trial,
    perturbed,
)


@dataclass(frozen=True)
class _Tolerance:
    """What rounding may do, relative to the largest value or to the norm."""

    states: float
    sums: float
    gradients: float


_EXACT = _Tolerance(1e-9, 1e-9, 1e-9)
_SINGLE = _Tolerance(1e-4, 1e-4, 1e-3)


def self_check(run: Run) -> None:
    """Check packing, parts and visibility rules of a run at its start.

    On a few sequences of every stream, in evaluation mode and without autocast:

    1. the plain backbone computes packed what it computes with transformers' own attention for
       each sequence alone;
    2. so do backbone, parts and inputs together, and every objective's count, sum and gradient;
    3. every part that writes changes something;
    4. a part that is declared the identity changes nothing at its start, bit for bit;
    5. visibility rules let every token see itself;
    6. every objective has something to train in each of its stages.

    Args:
        run: the composed run, before its first step.

    Raises:
        GuardStop: names what failed, the stream, and the plugin where it can be told.
        PluginError: everything that an objective would train is frozen.
    """
    trials = [make_trial(run, data) for data in run.prepared.streams.values()]
    with left_as_it_was(run):
        for trial in trials:
            _check_rules(run, trial)
            _check_backbone(run, trial)
        _check_identity(run, trials)
        with perturbed(run.encoder.parts):
            for trial in trials:
                _check_states(run, trial)
                _check_losses(run, trial)
            _check_parts(run, trials)
        _check_stages(run, trials)


# ---------------------------------------------------------------------------------------------
# The checks


def _check_rules(run: Run, trial: Trial) -> None:
    batch = _on_device(run, trial.together)
    token = torch.arange(len(batch), device=run.device)
    columns = visible_columns(batch)
    for owner in run.encoder.inputs:
        rule = owner.component
        if not isinstance(rule, Visibility) or trial.stream not in (rule.streams or [trial.stream]):
            continue
        blind = int((~rule.rule(token, token, columns)).sum())
        if blind:
            raise GuardStop(
                f"self-check: visibility rule {rule.name!r} of plugin {owner.instance!r} keeps "
                f"{blind} of {len(batch)} tokens of stream {trial.stream!r} from seeing themselves",
                "a rule must be true where q == k",
            )


def _check_backbone(run: Run, trial: Trial) -> None:
    with torch.no_grad(), run.encoder.without(_everyone(run)):
        packed = run.encoder.encode(_on_device(run, trial.together)).top
        alone = _by_transformers(run, [_on_device(run, one) for one in trial.alone])
    error = trial.error(packed, alone)
    if not error <= _tolerance(run).states:
        raise GuardStop(
            f"self-check: model family {run.encoder.card.name!r} does not compute packed what "
            f"transformers computes for each sequence alone: states of stream {trial.stream!r} "
            f"differ by {error:.1e} of their largest value",
            "this family cannot be trained on packed rows; choose another one",
        )


def _check_identity(run: Run, trials: Sequence[Trial]) -> None:
    for instance in _declared_identity(run):
        for trial in trials:
            batch = _on_device(run, trial.together)
            with torch.no_grad():
                whole = run.encoder.encode(batch).top
                with run.encoder.without([instance]):
                    bare = run.encoder.encode(batch).top
            if not torch.equal(whole, bare):
                raise GuardStop(
                    f"self-check: plugin {instance!r} declares its parts the identity at their "
                    f"start, but they change the states of stream {trial.stream!r}",
                    "start what the part adds at zero, or do not declare identity=True",
                )


def _check_states(run: Run, trial: Trial) -> None:
    if run.collator.split_dependent(trial.stream):
        return  # declared, and printed by `plan`
    error = _states_error(run, trial, silent=())
    if error <= _tolerance(run).states:
        return
    everyone = _everyone(run)
    guilty = [
        one
        for one in everyone
        if not _states_error(run, trial, set(everyone) - {one}) <= _tolerance(run).states
    ]
    raise GuardStop(
        f"self-check: {_plugins(guilty or everyone)} let packed sequences of stream "
        f"{trial.stream!r} see each other (or depend on the micro-batch): states differ by "
        f"{error:.1e} of their largest value from those of each sequence alone",
        "parts that attend call ptm_plus.attend with each token's sequence",
    )


def _states_error(run: Run, trial: Trial, silent: Iterable[str]) -> float:
    with torch.no_grad(), run.encoder.without(silent):
        packed = run.encoder.encode(_on_device(run, trial.together)).top
        alone = [run.encoder.encode(_on_device(run, one)).top for one in trial.alone]
    return trial.error(packed, alone)


def _check_losses(run: Run, trial: Trial) -> None:
    """Compare counts, sums and gradients; the gradient buffers end up holding the difference."""
    if run.collator.split_dependent(trial.stream):
        return
    keys = [key for key in run.loss_keys() if key[0] == trial.stream]
    counts = run.root.count(trial.together)
    weights = run.planner.objective_weights
    loss, sums, _ = run.root.losses(_on_device(run, trial.together), counts, weights)
    _backward(loss)
    norm = _gradient_norm(run.encoder)
    apart: dict[LossKey, float] = dict.fromkeys(keys, 0.0)
    found: dict[LossKey, float] = dict.fromkeys(keys, 0.0)
    for batch in trial.alone:
        share, own, _ = run.root.losses(_on_device(run, batch), counts, weights)
        _backward(-share)
        for key, count in run.root.count(batch).items():
            apart[key] += count
            found[key] += float(own.get(key, 0.0))
    left = _gradient_norm(run.encoder)
    run.encoder.zero_grad(set_to_none=True)
    for key in keys:
        _compare_loss(run, key, (counts[key], apart[key]), (float(sums.get(key, 0)), found[key]))
    if not left <= _tolerance(run).gradients * norm:
        raise GuardStop(
            f"self-check: the gradient of stream {trial.stream!r} depends on how its sequences "
            f"are split into micro-batches (relative difference {left / max(norm, 1e-30):.1e})",
            "a loss must be a sum over what its count counts, and see one sequence at a time",
        )


def _backward(loss: Tensor) -> None:
    if loss.requires_grad:
        loss.backward()


def _compare_loss(
    run: Run, key: LossKey, counts: tuple[float, float], sums: tuple[float, float]
) -> None:
    error = abs(sums[0] - sums[1]) / max(abs(sums[0]), 1.0)
    if counts[0] == counts[1] and error <= _tolerance(run).sums:
        return
    stream, name = key
    owner = next(o.instance for o in run.objectives[stream] if o.component.name == name)
    what = "count" if counts[0] != counts[1] else "sum"
    found = "{:g} and {:g}".format(*(counts if what == "count" else sums))
    raise GuardStop(
        f"self-check: objective {name!r} of plugin {owner!r} depends on how stream {stream!r} is "
        f"split: its {what} is {found}, together and one by one",
        "count and sum over sequences; what needs the whole step reads features of scope 'step'",
    )


def _check_parts(run: Run, trials: Sequence[Trial]) -> None:
    for owner in run.parts:
        module = run.encoder.parts[part_key(owner.instance, owner.component.name)]
        if not _writes(owner.component, module):
            continue
        some = (_on_device(run, trial.together) for trial in trials)
        more = (_on_device(run, batch) for batch in larger_batches(run))
        if not any(
            _acts(run, owner.instance, module, batch) for batch in itertools.chain(some, more)
        ):
            raise GuardStop(
                f"self-check: part {owner.component.name!r} of plugin {owner.instance!r} has taps "
                "that write, but changes no state of any sequence that was tried",
                "its taps must return the changed states, at blocks and columns that occur",
            )


def _check_stages(run: Run, trials: Sequence[Trial]) -> None:
    """Nothing but parameters that a rule froze can keep a loss from having a gradient."""
    for stage in run.stages:
        apply_rules(run.encoder, run.rules_in(stage), run.encoder.fixed)
        for trial in trials if run.rules_in(stage) else ():
            counts = run.root.count(trial.together)
            batch = _on_device(run, trial.together)
            for owner in stage.objectives.get(trial.stream, ()):
                name = owner.component.name
                if counts[trial.stream, name] and not _trains(run, owner, batch):
                    raise PluginError(
                        f"objective {name!r} of plugin {owner.instance!r} has nothing to train in "
                        f"stage {stage.name!r}: {_freezing(run, stage)} freeze all of it",
                        "leave that plugin out of the stage, or train one after the other in "
                        "stages of their own ([[train.stages]], docs/settings.md)",
                    )
    apply_rules(run.encoder, (), run.encoder.fixed)


def _trains(run: Run, owner: Contribution[Objective], batch: MicroBatch) -> bool:
    parts = run.encoder.parts_of(owner.instance)
    outcome = owner.component.compute(batch, Passes(run.encoder, owner.instance), parts)
    return outcome.sum.requires_grad


def _freezing(run: Run, stage: Stage) -> str:
    names = {one.instance for one in run.rules if one.component.frozen}
    return _plugins(sorted(names & stage.instances)) if names & stage.instances else "its rules"


def _acts(run: Run, instance: str, module: nn.Module, batch: MicroBatch) -> bool:
    """Tell whether zeroing a part (or silencing its plugin, if it has no weight) changes states."""
    with torch.no_grad():
        whole = run.encoder.encode(batch).top
        if any(True for _ in module.parameters()):
            with changed(module, torch.zeros_like):
                other = run.encoder.encode(batch).top
        else:
            with run.encoder.without([instance]):
                other = run.encoder.encode(batch).top
    return not torch.equal(whole, other)


def _on_device(run: Run, batch: HostBatch) -> MicroBatch:
    return to_device(batch, run.device, run.float_dtype())


# ---------------------------------------------------------------------------------------------
# Who and how much


def _tolerance(run: Run) -> _Tolerance:
    return _EXACT if run.float_dtype() == torch.float64 else _SINGLE


def _everyone(run: Run) -> list[str]:
    return [one.instance for one in run.plugins.instances]


def _plugins(names: Sequence[str]) -> str:
    return ("plugin " if len(names) == 1 else "plugins ") + ", ".join(map(repr, names))


def _writes(part: Part, module: nn.Module) -> bool:
    return part.taps is not None and any(tap.writes for tap in part.taps(module))


def _declared_identity(run: Run) -> list[str]:
    """Return plugins whose every part is the identity and that do not replace or hide anything."""
    parts: dict[str, list[Contribution[Part]]] = {}
    for owner in run.parts:
        parts.setdefault(owner.instance, []).append(owner)
    kinds = {
        instance: {type(c.component) for c in run.encoder.inputs if c.instance == instance}
        for instance in parts
    }
    return [
        instance
        for instance, own in sorted(parts.items())
        if kinds[instance] <= {EmbeddingDelta}
        and any(one.component.identity for one in own)
        # a part that neither is the identity nor has taps may still be what a delta adds
        and all(
            one.component.identity or not (one.component.taps or kinds[instance]) for one in own
        )
    ]


def _by_transformers(run: Run, batches: Sequence[MicroBatch]) -> list[Tensor]:
    """Return the states of single sequences by transformers' own attention."""
    encoder = run.encoder
    encoder.backbone.set_attn_implementation("sdpa")
    try:
        return [
            encoder.card.encoder(encoder.backbone)(input_ids=b.ids[None], **encoder.places(b))[0][0]
            for b in batches
        ]
    finally:
        encoder.backbone.set_attn_implementation(NAME)


def _gradient_norm(module: nn.Module) -> float:
    norms = [p.grad.norm() for p in module.parameters() if p.grad is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0

"""The optimizer over named parameters, with rules for freezing, rates and decay."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW, Optimizer

from ptm_plus.components import ParameterRule
from ptm_plus.compose import below
from ptm_plus.encoder import Encoder
from ptm_plus.errors import PluginError, nearest
from ptm_plus.muon import SkippingMuon, Together, muon_matrices
from ptm_plus.processes import is_sharded, local_rows, whole
from ptm_plus.settings import TrainSettings
from ptm_plus.stable_adamw import StableAdamW

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
MOMENTUM = ("momentum_buffer",)
"""What AdamW and Muon keep of a parameter."""

_Groups = dict[tuple[float, float, bool], list[nn.Parameter]]
"""By factor on the rate, decay, and whether they are sharded."""


def apply_rules(
    encoder: Encoder, rules: Iterable[ParameterRule], fixed: Container[str] = ()
) -> dict[str, ParameterRule]:
    """Freeze what rules freeze, and nothing else, and return each parameter's rule.

    Whole module paths are matched, the longest path wins; a frozen module has no gradient and is
    kept in evaluation mode.

    Args:
        encoder: backbone and parts; paths start with ``backbone.`` or ``parts.``.
        rules: composed rules.
        fixed: names of parameters that are never trained, whatever the rules say.

    Raises:
        PluginError: a rule's path matches no parameter.
    """
    ordered = sorted(rules, key=lambda rule: len(rule.path))
    names = [name for name, _ in encoder.named_parameters()]
    for rule in ordered:
        if not any(below(name, rule.path) for name in names):
            raise PluginError(
                f"a parameter rule names {rule.path!r}, which the model does not "
                f"have{nearest(rule.path, names)}"
            )
    chosen: dict[str, ParameterRule] = {}
    for name, parameter in encoder.named_parameters():
        merged = ParameterRule(path=name)
        for rule in ordered:
            if below(name, rule.path):
                merged = _merge(merged, rule)
        chosen[name] = merged
        parameter.requires_grad_(not merged.frozen and name not in fixed)
    return chosen


def _merge(first: ParameterRule, second: ParameterRule) -> ParameterRule:
    values = {
        key: getattr(second, key) if getattr(second, key) is not None else getattr(first, key)
        for key in ("frozen", "lr", "decay", "rows_from")
    }
    return ParameterRule(path=first.path, **values)


def keep_rows(encoder: Encoder, rules: Mapping[str, ParameterRule]) -> None:
    """Take the gradient from rows that a rule keeps as they are."""
    for name, parameter in encoder.named_parameters():
        first = rules[name].rows_from
        if first is not None and parameter.grad is not None:
            start, gradient = local_rows(parameter.grad)
            gradient[: max(0, first - start)] = 0


def limit_norm(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    """Scale gradients so that their norm is at most a limit (0 for none); return the norm before.

    Args:
        parameters: those with a gradient; some may be sharded over processes.
        limit: largest norm.
    """
    kinds = [[p for p in parameters if is_sharded(p) is sharded] for sharded in (True, False)]
    norms = [
        whole(get_total_norm([p.grad for p in kind if p.grad is not None]))
        for kind in kinds
        if kind
    ]
    if not norms:
        return torch.zeros(())
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    for kind in kinds if limit else ():
        clip_grads_with_norm_(kind, limit, norm)
    return norm


def set_mode(encoder: Encoder, training: bool) -> None:
    """Set training mode, but keep modules without any trainable parameter in evaluation mode."""
    encoder.train(training)
    if not training:
        return
    for module in encoder.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def build_optimizer(
    encoder: Encoder, rules: Mapping[str, ParameterRule], settings: TrainSettings
) -> Optimizer:
    """Return the optimizer; norms and biases do not decay, frozen parameters have no slot.

    A group has, beside what torch reads, its ``factor`` on the rate, and in ``keeps`` the names of
    the state of each of its parameters.

    Args:
        encoder: backbone and parts.
        rules: rule by parameter name, from :func:`apply_rules`.
        settings: which optimizer, rates and decay.
    """
    matrices = muon_matrices(encoder) if settings.optimizer == "muon" else frozenset()
    moments: _Groups = {}
    momentum: _Groups = {}
    for name, parameter in encoder.named_parameters():
        if not parameter.requires_grad:
            continue
        rule = rules[name]
        decay = settings.weight_decay * (1.0 if rule.decay is None else rule.decay)
        if rule.rows_from is not None:
            decay = 0.0  # it would move the rows that are not trained
        factor = 1.0 if rule.lr is None else rule.lr
        key = (factor, decay if parameter.ndim > 1 else 0.0, is_sharded(parameter))
        # Of some rows alone, the steps would be too large: Muon's go by the shape of the whole.
        groups = momentum if name in matrices and rule.rows_from is None else moments
        groups.setdefault(key, []).append(parameter)
    adam = StableAdamW if settings.optimizer == "stable-adamw" else AdamW
    made = []
    if moments or not momentum:
        of_adam = _as_groups(moments, settings.lr, MOMENTS)
        made.append(adam(of_adam, betas=settings.betas, eps=1e-8, fused=True))
    if momentum:
        of_muon = _as_groups(momentum, settings.lr, MOMENTUM)
        # Steps as large as AdamW's, so that one rate serves both (Liu et al. 2025, *Muon is
        # Scalable for LLM Training*).
        made.append(SkippingMuon(of_muon, adjust_lr_fn="match_rms_adamw"))
    return made[0] if len(made) == 1 else Together(*made)


def _as_groups(groups: _Groups, rate: float, keeps: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return groups as torch's optimizers take them."""
    return [
        {
            "params": parameters,
            "lr": rate * factor,
            "factor": factor,
            "weight_decay": decay,
            "keeps": keeps,
        }
        for (factor, decay, _), parameters in sorted(groups.items(), key=lambda one: one[0])
    ]


def set_rate(optimizer: Optimizer, peak: float, factor: float) -> None:
    """Set the learning rate of every group: peak times the plan's times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = peak * factor * group["factor"]

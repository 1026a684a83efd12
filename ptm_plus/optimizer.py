"""AdamW over named parameters, with rules for freezing, rates and decay."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW

from ptm_plus.components import ParameterRule
from ptm_plus.compose import below
from ptm_plus.encoder import Encoder
from ptm_plus.errors import PluginError, nearest
from ptm_plus.processes import is_sharded, local_rows, whole
from ptm_plus.settings import TrainSettings


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
) -> AdamW:
    """Return fused AdamW; norms and biases do not decay, frozen parameters have no slot.

    Args:
        encoder: backbone and parts.
        rules: rule by parameter name, from :func:`apply_rules`.
        settings: rates and decay.
    """
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in encoder.named_parameters():
        if not parameter.requires_grad:
            continue
        rule = rules[name]
        decay = settings.weight_decay * (1.0 if rule.decay is None else rule.decay)
        if rule.rows_from is not None:
            decay = 0.0  # it would move the rows that are not trained
        factor = 1.0 if rule.lr is None else rule.lr
        key = (factor, decay if parameter.ndim > 1 else 0.0, is_sharded(parameter))
        groups.setdefault(key, []).append(parameter)
    return AdamW(
        [
            {
                "params": parameters,
                "lr": settings.lr * factor,
                "factor": factor,
                "weight_decay": decay,
            }
            for (factor, decay, _), parameters in sorted(groups.items(), key=lambda one: one[0])
        ],
        betas=settings.betas,
        eps=1e-8,
        fused=True,
    )


def set_rate(optimizer: AdamW, peak: float, factor: float) -> None:
    """Set the learning rate of every group: peak times the plan's times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = peak * factor * group["factor"]

"""Which rule each component type composes by (the rules themselves are in ``compose.py``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import reduce
from typing import Any

from ptm_plus import components as c
from ptm_plus.compose import Contribution, Order, both, chain, commuting, separate, union, unique
from ptm_plus.errors import PluginError


def settle(contributions: Iterable[Contribution[Any]], order: Order) -> list[Contribution[Any]]:
    """Apply the written rule of each component type.

    Args:
        contributions: what one hook's implementations (and the core) returned, of any types.
        order: the declared order.

    Returns:
        What is used, type by type in order of the types' names.

    Raises:
        PluginError: two plugins answer in a way that does not compose.
    """
    by_type: dict[type[Any], list[Contribution[Any]]] = {}
    for one in contributions:
        kind = next(kind for kind in type(one.component).__mro__ if kind in _RULES)
        by_type.setdefault(kind, []).append(one)
    result = []
    for kind in sorted(by_type, key=lambda kind: kind.__name__):
        result += _RULES[kind](by_type[kind], order)
    return result


def _control_tokens(
    contributions: Sequence[Contribution[c.ControlToken]], order: Order
) -> list[Contribution[c.ControlToken]]:
    """Equal tokens are one; in order of their text, so that the vocabulary is the same."""
    kept = {one.component: one for one in reversed(commuting(contributions))}
    owners = unique(kept.values(), lambda one: one.component.text, "starts of a control token")
    return sorted(owners.values(), key=lambda one: one.component.text)


def _objectives(
    contributions: Sequence[Contribution[c.Objective]], order: Order
) -> list[Contribution[c.Objective]]:
    over = [one for one in contributions if one.component.takes_over]
    unique(over, lambda one: one.component.takes_over, "objectives that take over")
    return union(contributions, "objectives")


def _parameters(
    contributions: Sequence[Contribution[c.ParameterRule]], order: Order
) -> list[Contribution[c.ParameterRule]]:
    said: dict[tuple[str, str], Contribution[c.ParameterRule]] = {}
    for one in commuting(contributions):
        for name in ("frozen", "lr", "decay", "rows_from"):
            value = getattr(one.component, name)
            if value is None:
                continue
            other = said.setdefault((one.component.path, name), one)
            if getattr(other.component, name) != value:
                raise PluginError(
                    f"two parameter rules for {one.component.path!r} with different {name} "
                    f"({getattr(other.component, name)}, {value}): "
                    f"{both(other.instance, one.instance)}",
                    separate(other.instance, one.instance),
                )
    return commuting(contributions)


def _unit_kinds(
    contributions: Sequence[Contribution[c.UnitKind]], order: Order
) -> list[Contribution[c.UnitKind]]:
    """Kinds of one name with the same units are one; each may say what others leave open."""
    by_name: dict[str, list[Contribution[c.UnitKind]]] = {}
    for one in commuting(contributions):
        by_name.setdefault(one.component.name, []).append(one)
    merged = [reduce(_one_kind, same) for same in by_name.values()]
    return commuting(merged)


def _one_kind(
    first: Contribution[c.UnitKind], second: Contribution[c.UnitKind]
) -> Contribution[c.UnitKind]:
    kinds = (first.component, second.component)
    said: dict[str, Any] = {}
    for field in fields(c.UnitKind):
        mine, theirs = (getattr(kind, field.name) for kind in kinds)
        said[field.name] = theirs if mine == field.default else mine
        if theirs not in (said[field.name], field.default):
            raise PluginError(
                f"two unit kinds for {first.component.name!r} with different {field.name} "
                f"({mine}, {theirs}): {both(first.instance, second.instance)}",
                separate(first.instance, second.instance),
            )
    return Contribution(first.instance, c.UnitKind(**said))


def _schedules(
    contributions: Sequence[Contribution[c.Schedule]], order: Order
) -> list[Contribution[c.Schedule]]:
    _own_names("schedules")(contributions, order)
    return chain(contributions, lambda one: [one.resource], "schedules", order)


def _rewriters(
    contributions: Sequence[Contribution[c.Rewriter]], order: Order
) -> list[Contribution[c.Rewriter]]:
    union(contributions, "rewriters")
    return chain(contributions, lambda one: one.streams, "rewriters", order)


_Rule = Callable[[Sequence[Contribution[Any]], Order], list[Contribution[Any]]]


def _run_names(what: str) -> _Rule:
    """Names are unique in the run."""
    return lambda contributions, order: union(contributions, what)


def _own_names(what: str) -> _Rule:
    """Names are unique within each plugin instance."""
    return lambda contributions, order: union(
        contributions, what, key=lambda one: f"{one.instance}.{one.component.name}"
    )


_RULES: Mapping[type[Any], _Rule] = {
    c.ControlToken: _control_tokens,
    c.Stream: _run_names("streams"),
    c.Annotator: _run_names("annotators"),
    c.Rewriter: _rewriters,
    c.Layout: _run_names("layouts"),
    c.UnitKind: _unit_kinds,
    c.Emphasis: _own_names("emphases"),
    c.Feature: _own_names("features"),
    c.EmbeddingDelta: _own_names("embedding deltas"),
    c.EmbeddingReplacement: _own_names("embedding replacements"),
    c.Visibility: _own_names("visibility rules"),
    c.Part: _own_names("parts"),
    c.ExternalTable: _own_names("external tables"),
    c.MovingAverage: _own_names("moving averages"),
    c.Objective: _objectives,
    c.ParameterRule: _parameters,
    c.Schedule: _schedules,
    c.Probe: _run_names("probes"),
    c.Exporter: _own_names("exporters"),
    c.Placebo: _own_names("placebos"),
}

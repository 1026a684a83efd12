"""How the answers of several plugins become one: the written rule of each kind of component.

    union      all are kept; one name twice is refused
    chain      one after another; two plugins on one resource need a declared order
    unique     one owner per resource; two are refused
    commuting  sums and ANDs: all are kept, in order of instance name

No rule looks at the order of ``--plugin``. ``rules.py`` says which rule each component type has.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from ptm_plus import components as c
from ptm_plus.errors import PluginError, nearest

C = TypeVar("C")


@dataclass(frozen=True)
class Contribution(Generic[C]):
    """A component, and the plugin instance that returned it (``core`` for the core's own)."""

    instance: str
    component: C


class Claimant(Protocol):
    """A plugin of the run, as far as composing looks at it."""

    @property
    def info(self) -> c.PluginInfo:
        """Its static data."""

    @property
    def instance(self) -> str:
        """Its instance name."""


# ---------------------------------------------------------------------------------------------
# Declared order


class Order:
    """Which instance comes before which, by the ``before`` and ``after`` of their PluginInfo.

    A name there means every instance of that plugin, or one instance (``k-adapter:fac``). Names
    that are not in the run are ignored.

    Raises:
        PluginError: the declarations form a circle.
    """

    def __init__(self, plugins: Iterable[Claimant] = ()) -> None:
        self._later: dict[str, set[str]] = {}
        plugins = list(plugins)
        for plugin in plugins:
            self._later.setdefault(plugin.instance, set()).update(
                _named(plugin.info.before, plugins, plugin.instance)
            )
            for earlier in _named(plugin.info.after, plugins, plugin.instance):
                self._later.setdefault(earlier, set()).add(plugin.instance)
        self.sorted(self._later)

    def precedes(self, first: str, second: str) -> bool:
        """Say whether ``first`` is declared, directly or through others, to come earlier."""
        seen, waiting = set[str](), [first]
        while waiting:
            for later in self._later.get(waiting.pop(), ()):
                if later == second:
                    return True
                if later not in seen:
                    seen.add(later)
                    waiting.append(later)
        return False

    def sorted(self, instances: Iterable[str]) -> list[str]:
        """Return distinct instances in declared order, by name where nothing is declared."""
        names = set(instances)
        blocked = {name: sum(self.precedes(other, name) for other in names) for name in names}
        ready = sorted(name for name, count in blocked.items() if not count)
        result = []
        while ready:
            name = heapq.heappop(ready)
            result.append(name)
            for other in names:
                if self.precedes(name, other):
                    blocked[other] -= 1
                    if not blocked[other]:
                        heapq.heappush(ready, other)
        if len(result) < len(names):
            circle = ", ".join(sorted(n for n in names if self.precedes(n, n)))
            raise PluginError(
                f"the declared orders of plugins form a circle: {circle}",
                "remove one of their before=(…) or after=(…)",
            )
        return result


def _named(names: Sequence[str], plugins: Iterable[Claimant], own: str) -> set[str]:
    return {p.instance for p in plugins if {p.instance, p.info.name} & set(names)} - {own}


# ---------------------------------------------------------------------------------------------
# Rules


def name_of(contribution: Contribution[Any]) -> Hashable:
    """Return the name of a contribution's component."""
    name: str = contribution.component.name
    return name


def commuting(contributions: Iterable[Contribution[C]]) -> list[Contribution[C]]:
    """Return contributions by instance name; those of one instance as they came."""
    return sorted(contributions, key=lambda one: one.instance)


def union(
    contributions: Iterable[Contribution[C]],
    what: str,
    key: Callable[[Contribution[C]], Hashable] = name_of,
) -> list[Contribution[C]]:
    """Return all contributions by instance name; a name may be taken once.

    Args:
        contributions: what hooks returned.
        what: kind of component, in the plural, for messages.
        key: what must not occur twice; the component's name by default.

    Raises:
        PluginError: two contributions have the same key.
    """
    contributions = commuting(contributions)
    unique(contributions, key, what)
    return contributions


def unique(
    contributions: Iterable[Contribution[C]],
    resource_of: Callable[[Contribution[C]], Hashable],
    what: str,
    mend: str = "",
) -> dict[Hashable, Contribution[C]]:
    """Return the one owner of each resource.

    Args:
        contributions: what hooks returned.
        resource_of: what a contribution owns.
        what: kind of component, in the plural, for messages.
        mend: what to do about two owners, such as the setting that chooses.

    Raises:
        PluginError: two contributions own the same resource.
    """
    owners: dict[Hashable, Contribution[C]] = {}
    for one in commuting(contributions):
        other = owners.setdefault(resource := resource_of(one), one)
        if other is not one:
            raise PluginError(
                f"two {what} for {resource!r}: {both(other.instance, one.instance)}",
                mend or separate(other.instance, one.instance),
            )
    return owners


def chain(
    contributions: Iterable[Contribution[C]],
    resources_of: Callable[[C], Iterable[Hashable]],
    what: str,
    order: Order,
) -> list[Contribution[C]]:
    """Return contributions in the order in which they are applied.

    Members of one instance keep the order of its list. Instances that share a resource need a
    declared order; where they share none, the order is that of their names.

    Args:
        contributions: what hooks returned.
        resources_of: what a component acts on (streams, or block and site).
        what: kind of component, in the plural, for messages.
        order: the declared order.

    Raises:
        PluginError: two instances act on one resource and no order is declared.
    """
    contributions = commuting(contributions)
    users: dict[Hashable, list[str]] = {}
    for one in contributions:
        for resource in resources_of(one.component):
            for other in users.setdefault(resource, []):
                _check_declared(other, one.instance, f"{what} on {resource!r}", order)
            users[resource].append(one.instance)
    rank = {name: at for at, name in enumerate(order.sorted(o.instance for o in contributions))}
    return sorted(contributions, key=lambda one: rank[one.instance])


def _check_declared(first: str, second: str, what: str, order: Order) -> None:
    if first == second or order.precedes(first, second) or order.precedes(second, first):
        return
    raise PluginError(
        f"{what}: {both(first, second)} act one after another, and no order is declared",
        f'add after=("{first}",) to the PluginInfo of {second!r}, or before=("{first}",)',
    )


# ---------------------------------------------------------------------------------------------
# Claims and needs


BACKBONE = "backbone"
"""The resource that is claimed stage by stage; every other claim holds for the whole run."""


def check_claims(plugins: Iterable[Claimant], provided: Collection[str]) -> None:
    """Check that claims on shared resources go together, those on the backbone left aside.

    Args:
        plugins: the plugins of the run.
        provided: resources that the core provides.

    Raises:
        PluginError: a resource is owned by one and claimed by another, or required and provided
            by nobody (neither the core nor a plugin that shares it).
    """
    claims = [
        (p.instance, one) for p in plugins for one in p.info.claims if one.resource != BACKBONE
    ]
    check_owners(claims)
    shared = {claim.resource for _, claim in claims if claim.mode == "share"} | set(provided)
    for instance, claim in sorted(claims, key=lambda one: one[0]):
        if claim.mode == "require" and claim.resource not in shared:
            raise PluginError(
                f"plugin {instance!r} requires {claim.resource!r}, which nothing in this run "
                f"provides{nearest(claim.resource, shared)}",
                "add the plugin or the input that provides it",
            )


def check_owners(
    claims: Iterable[tuple[str, c.Claim]], mend: Callable[[str, str], str] | None = None
) -> None:
    """Check that what one instance owns, or needs unchanged, is not claimed by another.

    Args:
        claims: instances and their claims.
        mend: what to do about the instance that is in the way, and the other one.

    Raises:
        PluginError: two claims do not go together.
    """
    claims = sorted(claims, key=lambda one: one[0])
    for holder, held in claims:
        for other, claim in claims:
            if other == holder or claim.resource != held.resource or not _excludes(held, claim):
                continue
            wanted = "for itself" if held.mode == "own" else "unchanged"
            raise PluginError(
                f"plugin {holder!r} needs {held.resource!r} {wanted}, and {other!r} claims it "
                f"too ({claim.mode})",
                (mend or separate)(holder, other),
            )


def _excludes(held: c.Claim, other: c.Claim) -> bool:
    return held.mode == "own" or (held.mode == "keep" and other.mode in ("share", "own"))


_FLAGS = {"text": "--text FILE", "pairs": "--pairs FILE", "graph": "--kg FILE"}
"""Flags that provide what plugins need."""


def check_needs(plugins: Iterable[Claimant], provided: Collection[str]) -> None:
    """Check that everything that plugins need is there.

    Args:
        plugins: the plugins of the run.
        provided: what the run has: inputs (``text``, ``pairs``, ``graph``) and span kinds
            (``spans:entity``).

    Raises:
        PluginError: something is missing.
    """
    for plugin in sorted(plugins, key=lambda one: one.instance):
        for need in plugin.info.needs:
            if need not in provided:
                raise PluginError(
                    f"plugin {plugin.instance!r} needs {need!r}, which this run does not have"
                    f"{nearest(need, provided)}",
                    f"give {_FLAGS[need]}"
                    if need in _FLAGS
                    else f"it has: {', '.join(sorted(provided)) or 'nothing'}",
                )


def below(name: str, path: str) -> bool:
    """Tell whether a parameter is meant by a whole module path."""
    return name == path or name.startswith(path + ".")


# ---------------------------------------------------------------------------------------------
# Words for messages


def both(first: str, second: str) -> str:
    """Name two plugin instances."""
    return f"plugin {first!r}, twice" if first == second else f"plugins {first!r} and {second!r}"


def separate(first: str, second: str) -> str:
    """Say how to keep two plugin instances apart."""
    if first == second:
        return "the plugin is at fault: report it to its author"
    return f"leave out --plugin {first} or --plugin {second}, or have one of them use another name"

"""Loads the plugins that a run asks for, checks them, and calls their hooks.

A run that was asked for a plugin never trains without it: whatever is wrong stops the launch with
the plugin, its distribution, its version, the cause and the mend. Steps of :func:`load`: names,
unknown and double ones, guarded import, contract version, settings, hooks and arguments, declared
order, owners of shared resources.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pluggy
from pydantic import BaseModel

from ptm_plus import hookspecs
from ptm_plus.components import Event, PluginInfo
from ptm_plus.compose import BACKBONE, Contribution, Order, check_owners
from ptm_plus.context import Context
from ptm_plus.contract import HOOKS, check_contract, check_implementation
from ptm_plus.discovery import (
    NAME,
    Found,
    Request,
    discover,
    find,
    load_object,
    read_file,
    read_info,
)
from ptm_plus.errors import PluginError, PtmPlusError, SettingsError, nearest
from ptm_plus.settings_checks import dotted, validated

_RESERVED = "core"


@dataclass(frozen=True)
class LoadedPlugin:
    """A plugin instance of the run.

    Attributes:
        info: the plugin's static data.
        instance: ``name`` or ``name:instance``.
        settings: its settings, or ``None`` when it takes none.
        distribution: name of its distribution, or the file's path.
        version: version of its distribution, or a hash of the file.
        implementation: the object with the hooks.
    """

    info: PluginInfo
    instance: str
    settings: BaseModel | None
    distribution: str
    version: str
    implementation: Any

    @property
    def label(self) -> str:
        """The instance for messages, with distribution and version."""
        return f"plugin {self.instance!r} ({self.distribution} {self.version})"


class Plugins:
    """The plugins of a run, by instance name: ``--plugin a --plugin b`` and ``b a`` are equal.

    Args:
        instances: loaded plugins, in any order.

    Raises:
        PluginError: a hook is not of the contract, the declared orders form a circle, or two
            plugins claim what one of them must own.
    """

    def __init__(self, instances: Iterable[LoadedPlugin] = ()) -> None:
        self.instances = tuple(sorted(instances, key=lambda one: one.instance))
        self.order = Order(self.instances)
        check_owners(
            (one.instance, claim)
            for one in self.instances
            for claim in one.info.claims
            if claim.resource != BACKBONE
        )
        self._by_name = {one.instance: one for one in self.instances}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        for one in self.instances:
            check_implementation(one.implementation, one.label)
            self._manager.register(one.implementation, one.instance)
        self._manager.check_pending()
        self._calls = {hook: self._implementations(hook) for hook in HOOKS}

    @classmethod
    def empty(cls) -> Plugins:
        """Return no plugins: the baseline."""
        return cls()

    def collect(self, hook: str, context: Context) -> list[Contribution[Any]]:
        """Call one contribution hook of every plugin.

        Args:
            hook: name of the hook.
            context: what is known of the run.

        Returns:
            The components by instance name; those of one instance in the order of its list.

        Raises:
            PluginError: an implementation fails or returns something else than its hook may.
            PtmPlusError: an implementation found a mistake of the user (bad data, say).
        """
        result = []
        for plugin, implementation in self._calls[hook]:
            view = context.view(plugin.instance, hook)
            answer = _call(plugin, hook, implementation, {"context": view})
            result += [
                Contribution(plugin.instance, component)
                for component in _components(plugin, hook, answer)
            ]
        return result

    def event(self, event: Event, context: Context) -> None:
        """Tell every plugin that listens what happened, by instance name.

        Raises:
            PluginError: an implementation fails.
        """
        for plugin, implementation in self._calls["ptm_event"]:
            view = context.view(plugin.instance, "ptm_event")
            _call(plugin, "ptm_event", implementation, {"event": event, "context": view})

    def ordered(self, contributions: Iterable[Contribution[Any]]) -> list[Contribution[Any]]:
        """Return contributions in declared order, by instance name where none is declared."""
        contributions = list(contributions)
        names = self.order.sorted(one.instance for one in contributions)
        return sorted(contributions, key=lambda one: names.index(one.instance))

    def _implementations(self, hook: str) -> list[tuple[LoadedPlugin, pluggy.HookImpl]]:
        # pluggy's own call drops the plugin's name when an implementation fails, and calls the
        # last registered first; so its registry is used, and the calling is done here.
        registered = getattr(self._manager.hook, hook).get_hookimpls()
        return [
            (self._by_name[one.plugin_name], one)
            for one in sorted(registered, key=lambda one: str(one.plugin_name))
        ]


def _call(
    plugin: LoadedPlugin, hook: str, implementation: pluggy.HookImpl, given: Mapping[str, Any]
) -> Any:
    try:
        answer: Any = implementation.function(*(given[name] for name in implementation.argnames))
        # A generator runs only when it is read; what it raises belongs to the hook as well.
        return list(answer) if isinstance(answer, Iterator) else answer
    except PtmPlusError as error:
        error.add_note(f"raised by {hook} of {plugin.label}")
        raise
    except Exception as error:
        error.add_note(f"raised by {hook} of {plugin.label}")
        raise PluginError(
            f"{plugin.label}: {hook} failed: {type(error).__name__}: {error}",
            "report it to the plugin's author; --verbose shows the traceback",
        ) from error


def _components(plugin: LoadedPlugin, hook: str, answer: Any) -> Sequence[Any]:
    allowed = HOOKS[hook].returns
    words = " or ".join(kind.__name__ for kind in allowed)
    if not isinstance(answer, list | tuple):
        raise PluginError(
            f"{plugin.label}: {hook} returned {type(answer).__name__}, not a list of {words}",
            "return a list, an empty one for nothing",
        )
    for component in answer:
        if not isinstance(component, allowed):
            raise PluginError(
                f"{plugin.label}: {hook} returned a list with {type(component).__name__} in it",
                f"it may hold: {words}",
            )
    return answer


# ---------------------------------------------------------------------------------------------
# Loading


@dataclass(frozen=True)
class _Known:
    """A plugin whose static data is read."""

    found: Found
    info: PluginInfo
    instance: str


def load(requests: Sequence[str], tables: Mapping[str, Mapping[str, Any]]) -> Plugins:
    """Load the plugins that were asked for.

    Args:
        requests: ``name``, ``name:instance``, or the path of a Python file (``./file.py``, also
            with ``:instance``) that holds ``plugin = PluginInfo(…)``.
        tables: settings by instance name. Tables of installed plugins that were not asked for are
            left alone, so that one settings file serves runs with and without a plugin.

    Raises:
        PluginError: a plugin is unknown, installed twice, asked for twice, broken, written for
            another contract, or in conflict with another.
        SettingsError: its settings are wrong, or a table belongs to no plugin.
    """
    installed = discover()
    known = [_known(request, installed) for request in requests]
    for instance, count in Counter(one.instance for one in known).items():
        if count > 1:
            raise PluginError(
                f"plugin {instance!r} is asked for {count} times",
                f"give them instance names: --plugin {instance}:a --plugin {instance}:b",
            )
    _check_tables(tables, known, installed)
    return Plugins(_instantiate(one, tables.get(one.instance, {})) for one in known)


def requests_by_instance(requests: Sequence[str]) -> dict[str, str]:
    """Return what was asked for by the name that the plugin has in the run.

    Raises:
        PluginError: a plugin is unknown or its static data cannot be read.
    """
    installed = discover()
    return {_known(request, installed).instance: request for request in requests}


def _known(text: str, installed: Sequence[Found]) -> _Known:
    request = Request.parse(text)
    return _read(request, None if request.is_file else find(request.name, installed))


def _read(request: Request, found: Found | None) -> _Known:
    if found is None:
        found, info = read_file(Path(request.name))
    else:
        info = read_info(found)
    if not NAME.fullmatch(info.name) or info.name == _RESERVED:
        raise PluginError(
            f"{found.label}: {info.name!r} cannot be the name of a plugin",
            f"use letters, digits, '.', '-' and '_', and not {_RESERVED!r}",
        )
    check_contract(info.contract, found.label)
    instance = f"{info.name}:{request.suffix}" if request.suffix else info.name
    return _Known(found, info, instance)


def _check_tables(
    tables: Mapping[str, Any], known: Sequence[_Known], installed: Sequence[Found]
) -> None:
    asked = {one.instance for one in known}
    plugins = {one.info.name for one in known}
    others = {one.name for one in installed} - plugins
    for table in sorted(set(tables) - asked):
        if table.partition(":")[0] in others:
            continue
        raise SettingsError(
            f"{dotted(('plugin', table))}: no plugin of this run has that name"
            f"{nearest(table, asked | others)}",
            f"plugins of this run: {', '.join(sorted(asked)) or 'none'}",
        )


def _instantiate(known: _Known, table: Mapping[str, Any]) -> LoadedPlugin:
    found, info = known.found, known.info
    settings = _settings(known, table)
    hooks = _resolved(info.hooks, found)
    return LoadedPlugin(
        info=info,
        instance=known.instance,
        settings=settings,
        distribution=found.distribution,
        version=found.version,
        implementation=_made(hooks, known, settings),
    )


def _settings(known: _Known, table: Mapping[str, Any]) -> BaseModel | None:
    parts = ("plugin", known.instance)
    if known.info.settings is None:
        if table:
            raise SettingsError(
                f"{dotted((*parts, min(table)))}: this plugin has no settings", "remove the table"
            )
        return None
    model = _resolved(known.info.settings, known.found)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise PluginError(
            f"{known.found.label}: its settings are no pydantic model",
            "derive them from ptm_plus.Section",
        )
    return validated(model, table, parts)


def _made(hooks: Callable[..., Any], known: _Known, settings: BaseModel | None) -> Any:
    try:
        return hooks(settings=settings, instance=known.instance)
    except PtmPlusError as error:
        error.add_note(f"raised while {known.found.label} was made")
        raise
    except Exception as error:
        raise PluginError(
            f"{known.found.label}: cannot be made: {type(error).__name__}: {error}",
            "its hooks must be a class that takes settings=… and instance=…",
        ) from error


def _resolved(target: str | type[Any], found: Found) -> Any:
    return load_object(target, found) if isinstance(target, str) else target

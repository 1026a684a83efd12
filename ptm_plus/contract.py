"""The contract as a table, and whether a plugin keeps to it.

``hookspecs.py`` documents the hooks; a test keeps this table in step with it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from ptm_plus import components as c
from ptm_plus.errors import PluginError, nearest
from ptm_plus.hookspecs import CONTRACT, PROJECT

Phase = Literal["settings", "streams", "tokenizer", "labels", "modules", "run"]

PHASES: tuple[Phase, ...] = ("settings", "streams", "tokenizer", "labels", "modules", "run")
"""What is known of a run, in the order in which it becomes known; prepare ends before labels."""


@dataclass(frozen=True)
class Hook:
    """One hook of the contract.

    Attributes:
        phase: the last phase that its ``context`` may read.
        returns: component types that its list may hold; empty for ``ptm_event``.
        arguments: names that an implementation may ask for.
    """

    phase: Phase
    returns: tuple[type[Any], ...]
    arguments: tuple[str, ...] = ("context",)


HOOKS: Mapping[str, Hook] = MappingProxyType(
    {
        "ptm_streams": Hook("settings", (c.Stream,)),
        "ptm_special_tokens": Hook("tokenizer", (c.ControlToken,)),
        "ptm_annotators": Hook("streams", (c.Annotator,)),
        "ptm_rewriters": Hook("settings", (c.Rewriter,)),
        "ptm_layouts": Hook("tokenizer", (c.Layout,)),
        "ptm_masking": Hook("tokenizer", (c.UnitKind, c.Emphasis)),
        "ptm_features": Hook("labels", (c.Feature,)),
        "ptm_inputs": Hook("labels", (c.EmbeddingDelta, c.EmbeddingReplacement, c.Visibility)),
        "ptm_parts": Hook("labels", (c.Part, c.ExternalTable, c.MovingAverage)),
        "ptm_objectives": Hook("labels", (c.Objective,)),
        "ptm_parameters": Hook("modules", (c.ParameterRule,)),
        "ptm_schedule": Hook("modules", (c.Schedule,)),
        "ptm_probes": Hook("modules", (c.Probe,)),
        "ptm_export": Hook("modules", (c.Exporter,)),
        "ptm_placebos": Hook("settings", (c.Placebo,)),
        "ptm_event": Hook("run", (), ("event", "context")),
    }
)
"""Every hook, in the order in which a run calls them."""


def check_contract(wanted: str, label: str) -> None:
    """Check the range of contract versions that a plugin was written for.

    Args:
        wanted: range such as ``">=1,<2"``.
        label: the plugin, with its distribution, for the message.

    Raises:
        PluginError: the range cannot be read, or does not hold this contract's version.
    """
    try:
        allowed = SpecifierSet(wanted)
    except InvalidSpecifier as error:
        raise PluginError(
            f"{label}: contract range {wanted!r} cannot be read",
            'write a range such as contract=">=1,<2" in its PluginInfo',
        ) from error
    if not wanted.strip():
        raise PluginError(
            f"{label}: contract range is empty", 'write contract=">=1,<2" in its PluginInfo'
        )
    if CONTRACT not in allowed:
        raise PluginError(
            f"{label}: written for contract {wanted}, and this ptm-plus has contract {CONTRACT}",
            _whom_to_upgrade(allowed),
        )


def _whom_to_upgrade(allowed: SpecifierSet) -> str:
    here = Version(CONTRACT)
    newer = any(
        one.operator in (">", ">=", "==", "~=") and Version(one.version.removesuffix(".*")) > here
        for one in allowed
    )
    return "install a newer ptm-plus" if newer else "install a newer version of the plugin"


def check_implementation(implementation: object, label: str) -> None:
    """Check the hooks of a plugin's object before anything is registered.

    Args:
        implementation: what the plugin's class made.
        label: the plugin, with its distribution, for messages.

    Raises:
        PluginError: no hook at all, an unknown hook or argument, a hook without ``@hookimpl``,
            options of ``@hookimpl`` that have no meaning here, or arguments that cannot be passed.
    """
    methods = list(_methods(implementation, label))
    if not methods:
        raise PluginError(
            f"{label}: {type(implementation).__name__} implements no hook",
            "mark its ptm_… methods with @hookimpl",
        )
    for hook, method in methods:
        if hook not in HOOKS:
            raise PluginError(
                f"{label}: unknown hook {hook!r}{nearest(hook, HOOKS)}",
                f"hooks of contract {CONTRACT}: {', '.join(HOOKS)}",
            )
        _check_arguments(hook, method, label)


def _methods(implementation: object, label: str) -> Iterator[tuple[str, Any]]:
    """Yield hook name and bound method of everything marked with ``@hookimpl``."""
    for name in dir(type(implementation)):
        raw = inspect.getattr_static(implementation, name)
        options = getattr(getattr(raw, "__func__", raw), f"{PROJECT}_impl", None)
        if options is None and name.startswith("ptm_"):
            raise PluginError(
                f"{label}: {name} has no @hookimpl, so it would never be called",
                "write @hookimpl above it, or give it a name that does not begin with ptm_",
            )
        if options is not None:
            chosen = sorted(key for key, value in options.items() if value and key != "specname")
            if chosen:
                raise PluginError(
                    f"{label}: @hookimpl({chosen[0]}=…) of {name} has no meaning here",
                    "order plugins by before=(…) and after=(…) in the PluginInfo",
                )
            yield options["specname"] or name, getattr(implementation, name)


def _check_arguments(hook: str, method: Any, label: str) -> None:
    known = HOOKS[hook].arguments
    for name, parameter in inspect.signature(method).parameters.items():
        if parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            raise PluginError(
                f"{label}: argument {str(parameter)!r} of {hook} cannot be passed",
                f"write plain arguments: def {hook}(self, {', '.join(known)})",
            )
        if name not in known:
            raise PluginError(
                f"{label}: unknown argument {name!r} of {hook}{nearest(name, known)}",
                f"it may have: {', '.join(known)}",
            )

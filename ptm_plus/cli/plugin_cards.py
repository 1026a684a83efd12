"""What can be said about installed plugins without importing what they import.

A plugin's static data and its settings model are light by contract; its hooks are not, so their
names are read from the source, which is parsed and never run.
"""

from __future__ import annotations

import ast
import importlib.util
import types
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ptm_plus.components import PluginInfo
from ptm_plus.contract import HOOKS
from ptm_plus.discovery import Found, Request, discover, find, load_object, read_file, read_info
from ptm_plus.errors import PluginError, PtmPlusError

Card = dict[str, Any]
"""What is known of a plugin, as plain values."""


def all_cards() -> list[Card]:
    """Return a short card of every installed plugin; what is wrong with one is on its card."""
    found = discover()
    count = Counter(one.name for one in found)
    return [_short(one, count[one.name]) for one in found]


def full_card(text: str) -> Card:
    """Return everything about one plugin.

    Args:
        text: its name, or the path of a Python file.

    Raises:
        PluginError: it is unknown, installed twice, or its static data cannot be read.
    """
    request = Request.parse(text)
    if request.is_file:
        found, info = read_file(Path(request.name))
    else:
        found = _any_of(request.name)
        info = read_info(found)
    card = _of(found) | {
        "summary": info.summary,
        "contract": info.contract,
        "needs": list(info.needs),
        "claims": [{"resource": one.resource, "mode": one.mode} for one in info.claims],
        "before": list(info.before),
        "after": list(info.after),
        "hooks": [],
        "settings": [],
    }
    try:
        card["hooks"] = [{"name": name, "summary": _about(name)} for name in _hooks(info)]
        card["settings"] = _settings(info, found)
    except PtmPlusError as error:
        card["problem"], card["mend"] = error.message, error.hint
    return card


def hooks_of(implementation: object) -> list[str]:
    """Return the hooks that a loaded plugin implements, in the order of the contract."""
    return [name for name in HOOKS if hasattr(implementation, name)]


def _any_of(name: str) -> Found:
    """Find a plugin by name, also one whose extra is missing: it can still be described."""
    named = [one for one in discover() if one.name == name]
    if len(named) == 1:
        return named[0]
    return find(name, named or discover())


def _of(found: Found) -> Card:
    problem = f"needs {', '.join(found.missing)}" if found.missing else ""
    return {
        "name": found.name,
        "distribution": found.distribution,
        "version": found.version,
        "missing": list(found.missing),
        "problem": problem,
        "mend": found.install if problem else "",
    }


def _short(found: Found, same_name: int) -> Card:
    card = _of(found) | {"summary": ""}
    if same_name > 1:
        card["problem"] = f"{same_name} distributions install a plugin of this name"
        card["mend"] = f"pip uninstall {found.distribution}"
    try:
        card["summary"] = read_info(found).summary
    except PluginError as error:
        card["problem"], card["mend"] = error.message, error.hint
    return card


# ---------------------------------------------------------------------------------------------
# Hooks


def _about(hook: str) -> str:
    from ptm_plus import hookspecs

    text = getattr(hookspecs, hook).__doc__ or ""
    return text.strip().splitlines()[0].rstrip(".") if text.strip() else ""


def _hooks(info: PluginInfo) -> list[str]:
    """Name the hooks of a plugin's class and of its bases, as far as source can be read."""
    if not isinstance(info.hooks, str):
        return hooks_of(info.hooks)
    module, _, name = info.hooks.partition(":")
    methods = set(_methods(module, name))
    return [hook for hook in HOOKS if hook in methods]


def _methods(module: str, name: str) -> Iterator[str]:
    source = _source(module)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name == name.partition(".")[0]:
            yield from (item.name for item in node.body if isinstance(item, ast.FunctionDef))
            for base in node.bases:
                if isinstance(base, ast.Name):
                    yield from _methods(module, base.id)


def _source(module: str) -> str:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    loader = None if spec is None else spec.loader
    source = loader.get_source(module) if hasattr(loader, "get_source") else None  # type: ignore[union-attr]
    if source is None:
        raise PluginError(f"its hooks, {module}, have no source to read", "reinstall the plugin")
    return source


# ---------------------------------------------------------------------------------------------
# Settings


def _settings(info: PluginInfo, found: Found) -> list[dict[str, str]]:
    if info.settings is None:
        return []
    model = load_object(info.settings, found) if isinstance(info.settings, str) else info.settings
    return list(settings_rows(model))


def settings_rows(model: type[BaseModel], prefix: str = "") -> Iterator[dict[str, str]]:
    """Yield key, type, default and help of every setting; sections are spelt out with dots."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from settings_rows(kind, f"{prefix}{name}.")
            continue
        yield {
            "key": f"{prefix}{name}",
            "type": type_words(kind),
            "default": _default(field),
            "help": field.description or "",
        }


def type_words(kind: Any) -> str:
    """Return a type as a user reads it: ``0.5``-like things are numbers, choices are listed."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return type_words(arguments[0])
    if origin is typing.Literal:
        return " | ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_words(one) for one in arguments if one is not type(None))
    if origin in (tuple, list):
        inner = sorted({type_words(one) for one in arguments if one is not ...})
        return f"list of {', '.join(inner)}"
    if origin is dict:
        return "table"
    names = {str: "text", int: "number", float: "number", bool: "true | false", Path: "path"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(str, value))}]"
    return {None: "–", "": '""'}.get(value, str(value)) if not isinstance(value, dict) else "{}"

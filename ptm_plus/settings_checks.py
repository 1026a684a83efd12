"""Checking settings against their models, with errors that name key, value and origin."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ptm_plus.errors import SettingsError

M = TypeVar("M", bound=BaseModel)

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_EXPECTED = "Input should be "


def dotted(parts: Sequence[str | int]) -> str:
    """Join the parts of a key, quoting those that TOML wants quoted; numbers are list indexes."""
    words = [
        f"[{part}]"
        if isinstance(part, int)
        else f".{part}"
        if _BARE_KEY.fullmatch(part)
        else f".{_quoted(part)}"
        for part in parts
    ]
    return "".join(words).removeprefix(".")


def _quoted(part: str) -> str:
    # A TOML string is a JSON string, except that it must also escape the delete character.
    return json.dumps(part, ensure_ascii=False).replace("\x7f", "\\u007f")


def validated(
    model: type[M],
    values: Mapping[str, Any],
    parts: tuple[str, ...] = (),
    origins: Mapping[str, str] | None = None,
) -> M:
    """Return a settings model filled with values.

    Args:
        model: a pydantic model.
        values: the table.
        parts: where the table stands, such as ``("plugin", "kg-fusion")``; for messages.
        origins: where values come from, by dotted key; for messages.

    Raises:
        SettingsError: a key is unknown, or a value is not what it must be; one line for each.
    """
    check_keys(model, values, parts)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        lines = [_line(fault, parts, origins or {}) for fault in faults]
        raise SettingsError("\n".join(lines), _hint(faults[0], parts)) from error


def check_keys(
    model: type[BaseModel],
    values: Mapping[str, Any],
    parts: tuple[str, ...] = (),
    origin: str = "",
) -> None:
    """Refuse keys that a model does not have, whatever it says about extra ones itself.

    Raises:
        SettingsError: a key is unknown; the message has the nearest valid one.
    """
    for unknown in _unknown(model, values, parts):
        known = list(_names(model, parts))
        section = dotted(unknown[:-1])
        source = f" ({origin})" if origin else ""
        keys = [name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == section]
        raise SettingsError(
            f"unknown key {dotted(unknown)!r}{source}{_closest(unknown[-1], section, known)}",
            f"keys of {section or 'the top level'}: {', '.join(keys)}",
        )


def _closest(key: str, section: str, known: Sequence[str]) -> str:
    """Name the key that is written most alike, in whatever section; at a tie, in the same one."""

    def likeness(name: str) -> float:
        where, _, last = name.rpartition(".")
        return difflib.SequenceMatcher(None, key, last).ratio() + 0.1 * (where == section)

    best = max(known, key=likeness, default="")
    return f"; did you mean {best!r}?" if best and likeness(best) >= 0.6 else ""


def _unknown(
    model: type[BaseModel], values: Mapping[str, Any], parts: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    if model.model_config.get("extra") == "allow":
        return
    for key, value in values.items():
        if key not in model.model_fields:
            yield (*parts, key)
        elif (section := _section(model, key)) and isinstance(value, Mapping):
            yield from _unknown(section, value, (*parts, key))


def _names(model: type[BaseModel], parts: tuple[str, ...]) -> Iterator[str]:
    for key in model.model_fields:
        yield dotted((*parts, key))
        if section := _section(model, key):
            yield from _names(section, (*parts, key))


def _section(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    kind = model.model_fields[key].annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _line(fault: Any, parts: tuple[str, ...], origins: Mapping[str, str]) -> str:
    key = dotted((*parts, *fault["loc"]))
    if fault["type"] == "missing":
        return f"{key}: missing"
    found = f"{key}: found {fault['input']!r}"
    if origin := origins.get(key):
        found += f" ({origin})"
    message: str = fault["msg"]
    if message.startswith(_EXPECTED):
        return f"{found}, expected {message.removeprefix(_EXPECTED)}"
    return f"{found}: {message.removeprefix('Value error, ')}"


def _hint(fault: Any, parts: tuple[str, ...]) -> str:
    key = dotted((*parts, *fault["loc"]))
    if fault["type"] in ("tuple_type", "list_type"):
        return f"write a list: {key}=['…']"
    if fault["type"] == "string_type":
        return f"put the value in quotes: {key}='…'"
    return ""

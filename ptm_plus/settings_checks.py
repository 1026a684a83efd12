"""Checking settings against their models, with errors that name key, value and origin."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ptm_plus.errors import SettingsError, shown

M = TypeVar("M", bound=BaseModel)

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_EXPECTED = "Input should be "
_HALF = re.compile("[\ud800-\udfff]")
_DEEPEST = 32
_MOST_FAULTS = 10
_LONGEST_TYPO = 100
_PLAINER = "write a shorter or a plainer value"


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


def check_values(values: Mapping[str, Any], origin: str) -> None:
    """Refuse what could not be written into the resolved file and read again.

    Args:
        values: one layer of settings.
        origin: where it comes from.

    Raises:
        SettingsError: a value is nested too deeply, a number has more than 64 bits, or a text holds
            a NUL or half a character.
    """
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), values)]
    while waiting:
        parts, value = waiting.pop()
        problem = _unwritable(value) or ("nested too deeply" if len(parts) > _DEEPEST else "")
        if problem:
            key = _cut(dotted(parts[:_DEEPEST]))
            raise SettingsError(f"{key}: found {shown(value)} ({origin}): {problem}", _PLAINER)
        if isinstance(value, Mapping):
            waiting += [((*parts, key), entry) for key, entry in value.items()]
            waiting += [((*parts, key), key) for key in value if _unwritable(key)]
        elif isinstance(value, list | tuple):
            waiting += [((*parts, at), entry) for at, entry in enumerate(value)]


def _unwritable(value: Any) -> str:
    """Say why a value cannot be written down; empty if it can."""
    if isinstance(value, str):
        if "\0" in value:
            return "a text with a NUL character"
        return "" if value.isascii() or not _HALF.search(value) else "not UTF-8"
    too_long = isinstance(value, int) and value.bit_length() > 63
    return "a number of more than 64 bits" if too_long else ""


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
        lines = [_line(fault, parts, origins or {}) for fault in faults[:_MOST_FAULTS]]
        lines += [f"and {len(faults) - len(lines)} more"] if len(faults) > len(lines) else []
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
            f"unknown key {shown(dotted(unknown), 120)}{source}"
            f"{_closest(unknown[-1], section, known)}",
            f"keys of {section or 'the top level'}: {', '.join(keys)}",
        )


def _closest(key: str, section: str, known: Sequence[str]) -> str:
    """Name the key that is written most alike, in whatever section; at a tie, in the same one."""

    def likeness(name: str) -> float:
        where, _, last = name.rpartition(".")
        return difflib.SequenceMatcher(None, key, last).ratio() + 0.1 * (where == section)

    if len(key) > _LONGEST_TYPO:
        return ""
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
    place = (*parts, *fault["loc"])
    key = _cut(dotted(place))
    if fault["type"] == "missing":
        return f"{key}: missing"
    found = f"{key}: found {shown(fault['input'])}"
    if origin := _origin(place, origins):
        found += f" ({origin})"
    message: str = fault["msg"].removeprefix("Value error, ")
    if message.startswith(_EXPECTED):
        return f"{found}, expected {message.removeprefix(_EXPECTED)}"
    return f"{found}: {message}"


def _origin(place: tuple[str | int, ...], origins: Mapping[str, str]) -> str:
    """Return where a value comes from: its own origin, its list's, or that of what is in it."""
    for length in range(len(place), 0, -1):
        if origin := origins.get(dotted(place[:length])):
            return origin
    inside = f"{dotted(place)}."
    return next((origin for key, origin in origins.items() if key.startswith(inside)), "")


def _cut(key: str) -> str:
    return key if len(key) <= 120 else f"{key[:117]}..."


def _hint(fault: Any, parts: tuple[str, ...]) -> str:
    key = _cut(dotted((*parts, *fault["loc"])))
    if fault["type"] in ("tuple_type", "list_type"):
        return f"write a list: {key}=['…']"
    if fault["type"] == "string_type":
        return f"put the value in quotes: {key}='…'"
    return ""

"""Settings from a file, flags and ``--set``, with the origin of every value.

A value's way: default < settings file (TOML) < command-line flag < ``--set section.key=value``.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from ptm_plus.errors import SettingsError, shown
from ptm_plus.settings import RunSettings
from ptm_plus.settings_checks import check_keys, check_values, dotted, validated

_TOML_PLACE = re.compile(r" \(at line (\d+), column (\d+)\)$")


@dataclass(frozen=True)
class Resolved:
    """The settings of a run and where they come from.

    Attributes:
        settings: every value.
        origins: by dotted key: ``default``, the settings file, ``command line`` or ``--set``.
        file: the settings file as ``origins`` has it; empty for none.
    """

    settings: RunSettings
    origins: Mapping[str, str]
    file: str = ""


def resolve(
    file: Path | None = None, flags: Mapping[str, Any] | None = None, sets: Sequence[str] = ()
) -> Resolved:
    """Resolve the settings of a run.

    Args:
        file: settings file in TOML, or ``None``.
        flags: values of command-line flags by dotted key; ``None`` values were not given.
        sets: ``section.key=value`` each; a value that is not TOML is taken as a string.

    Raises:
        SettingsError: the file cannot be read, a key is unknown, or a value is not what it must be.
    """
    layers = [] if file is None else [(str(file), read_toml(file))]
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    layers += [("command line", _nested(parse_key(key), value)) for key, value in given.items()]
    layers += [("--set", parse_set(text)) for text in sets]
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        check_values(layer, origin)
        check_keys(RunSettings, layer, origin=origin)
        values = merged(values, layer)
        origins |= {key: origin for key, _ in leaves(layer)}
    settings = validated(RunSettings, values, origins=origins)
    keys = [key for key, _ in leaves(settings.model_dump())]
    origins = {key: origins.get(key, "default") for key in keys}
    return Resolved(settings, origins, "" if file is None else str(file))


def dump_toml(settings: RunSettings) -> str:
    """Return the resolved settings as a TOML file that resolves to the same settings."""
    return tomli_w.dumps(plain_settings(settings))


def plain_settings(settings: RunSettings) -> dict[str, Any]:
    """Return the resolved settings as TOML and JSON hold them."""
    plain: dict[str, Any] = _plain(settings.model_dump())
    return plain


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the settings file, for editors."""
    return RunSettings.model_json_schema()


# ---------------------------------------------------------------------------------------------
# Reading


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        SettingsError: it is missing, not UTF-8, or not TOML; with the line.
    """
    try:
        return _loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(
            f"{path}: settings file cannot be read: {error.strerror}", "check the path"
        ) from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise SettingsError(f"{path}:{line}: not UTF-8", "save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        place = _TOML_PLACE.search(str(error))
        where = f"{path}:{place[1]}" if place else f"{path}"
        column = f" (column {place[2]})" if place else ""
        raise SettingsError(
            f"{where}: {_TOML_PLACE.sub('', str(error))}{column}",
            'this is not TOML: strings stand in quotes, tables in brackets: key = "value"',
        ) from error


def parse_set(text: str) -> dict[str, Any]:
    """Turn ``section.key=value`` into a nested table.

    Raises:
        SettingsError: there is no ``=``, or the key is not a dotted key.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise SettingsError(f"--set {shown(text)}: no '=' in it", "write --set section.key=value")
    return _nested(parse_key(key), _parse_value(value))


def parse_key(text: str) -> list[str]:
    """Split a dotted key as TOML does: ``plugin."k-adapter:fac".size`` has three parts.

    Raises:
        SettingsError: it is not a dotted key.
    """
    try:
        table: Any = _loads(f"{text} = 0")
    except tomllib.TOMLDecodeError:
        table = {}
    parts: list[str] = []
    # A second line or a comment would make another table than one key in the other.
    while isinstance(table, dict) and len(table) == 1 and "\n" not in text:
        ((part, table),) = table.items()
        parts.append(part)
    if table != 0:
        raise SettingsError(
            f"{shown(text)} is not a dotted key",
            'put parts with other characters than letters, digits, - and _ in quotes: plugin."a:b"',
        )
    return parts


def _loads(text: str) -> dict[str, Any]:
    """Parse TOML; what the parser raises besides its own error becomes that error."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError as error:
        raise tomllib.TOMLDecodeError("Nested too deeply") from error
    except ValueError as error:  # a number of too many digits
        raise tomllib.TOMLDecodeError(str(error)) from error


def _parse_value(text: str) -> Any:
    try:
        table = _loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = table.pop("value")
    # What looks like a date is meant as a name; a second line would be a second key.
    is_date = isinstance(value, datetime.date | datetime.time)
    return text if table or is_date else value


def _nested(parts: Sequence[str], value: Any) -> dict[str, Any]:
    for part in reversed(parts):
        value = {part: value}
    table: dict[str, Any] = value
    return table


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested tables with the values of others laid over them."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merged(old, value)
        result[key] = value
    return result


def leaves(table: Mapping[str, Any], parts: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield every value of nested tables with its dotted key."""
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*parts, key))
        else:
            yield dotted((*parts, key)), value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value

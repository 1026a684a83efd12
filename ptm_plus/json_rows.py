"""Rows in JSON: one object per line, nothing in it lost or beyond what can be written again."""

from __future__ import annotations

import json
from typing import Any

from ptm_plus.errors import DataError, shown
from ptm_plus.files import Pathish

_HINT = "a .jsonl file has one object per line"

_DEEPEST = 200
"""Levels of lists and objects. How many Python itself reads and writes depends on its version."""


def json_row(line: str, path: Pathish, number: int) -> dict[str, Any]:
    """Return the object that a line holds.

    Raises:
        DataError: it is not JSON, no object, has a key twice, or half a character.
    """
    try:
        row = _DECODER.decode(line)
        if line.count("[") + line.count("{") > _DEEPEST:
            _refuse_depth(row)
        if "\\u" in line:
            _refuse_half_characters(row)
    except json.JSONDecodeError as error:
        near = line[max(0, error.pos - 15) : error.pos + 15]
        raise DataError(
            f"broken JSON: {error}, at {near!r}", _HINT, path=path, line=number
        ) from error
    except RecursionError as error:
        raise DataError(
            "JSON that is nested too deeply", "write it flat", path=path, line=number
        ) from error
    except UnicodeEncodeError as error:
        raise DataError(
            f"half a character: \\u{ord(error.object[error.start]):04x} without its other half",
            "the text was cut inside a character; write it again from its source",
            path=path,
            line=number,
        ) from error
    except ValueError as error:
        raise DataError(f"broken JSON: {error}", _HINT, path=path, line=number) from error
    if not isinstance(row, dict):
        raise DataError(
            f"a JSON {type(row).__name__} instead of an object",
            f'{_HINT}, such as {{"text": "…"}}',
            path=path,
            line=number,
        )
    return row


def _refuse_depth(row: Any) -> None:
    level = [row]
    for _ in range(_DEEPEST):
        level = [
            child
            for value in level
            if isinstance(value, (dict, list))
            for child in (value.values() if isinstance(value, dict) else value)
        ]
    if any(isinstance(value, (dict, list)) for value in level):
        raise RecursionError


def _refuse_half_characters(row: Any) -> None:
    """JSON can spell half of a surrogate pair, which is no character and fits no encoding."""
    json.dumps(row, ensure_ascii=False).encode()


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its keys and values; of two values for one key, none could be chosen."""
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(twice)} occurs twice")
    return table


_DECODER = json.JSONDecoder(object_pairs_hook=_table)

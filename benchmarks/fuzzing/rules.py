"""What a check says when a reader broke a rule."""

from __future__ import annotations

from typing import Any


class Violation(Exception):
    """A reader broke a rule."""


def require(condition: bool, broken: str) -> None:
    """Raise a violation unless a rule holds."""
    if not condition:
        raise Violation(broken)


def encodes(text: str) -> bool:
    """Tell whether a text can be written down: it has no half characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object, for ``object_pairs_hook``, of keys that occur once."""
    require(len({key for key, _ in pairs}) == len(pairs), "takes one of two values of a key")
    return dict(pairs)

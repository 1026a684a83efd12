"""How a check says that a plugin fails it, or that it says nothing of this plugin."""

from __future__ import annotations

from collections.abc import Sequence


class NotApplicable(Exception):
    """The check says nothing of this plugin, or not on this machine."""


def expect(holds: bool, words: str) -> None:
    """Fail the check with a message unless something holds.

    Raises:
        AssertionError: it does not.
    """
    if not holds:
        raise AssertionError(words)


def several(names: Sequence[str], most: int = 5) -> str:
    """Return some names in one line."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

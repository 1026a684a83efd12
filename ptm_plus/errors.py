"""Errors that a user can mend.

    PtmPlusError                 exit code
    ├── SettingsError            2   a flag, a key or a value is wrong
    ├── PluginError              3   a plugin is missing, broken, or in conflict
    ├── DataError                4   a file, a row or a graph is wrong
    ├── EnvironmentProblem       5   device, memory, disk, a missing extra
    ├── GuardStop                6   training stopped itself (non-finite loss, failed self-check)
    └── StopRequested           75   stopped on request; the run can be resumed

Every error carries one sentence that says what was found, and a hint that says how to mend it.
The command line prints both without a traceback and leaves with ``exit_code``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from os import PathLike


class PtmPlusError(Exception):
    """A problem with a known cause.

    Args:
        message: what was found, with file and line, or key and value.
        hint: what to do about it; empty when the message already says so.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = _printable(message)
        self.hint = _printable(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class SettingsError(PtmPlusError):
    """A flag, a settings key or a value is wrong."""

    exit_code = 2


class PluginError(PtmPlusError):
    """A plugin that was asked for is missing, broken, or in conflict with another."""

    exit_code = 3


class DataError(PtmPlusError):
    """A file, a row or a graph is not what it has to be.

    Args:
        message: what was found.
        hint: how to mend it.
        path: the file at fault.
        line: 1-based line of that file.
    """

    exit_code = 4

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        path: str | PathLike[str] | None = None,
        line: int | None = None,
    ) -> None:
        where = "" if path is None else f"{path}:{line}: " if line is not None else f"{path}: "
        super().__init__(where + message, hint)
        self.path = path
        self.line = line


class EnvironmentProblem(PtmPlusError):
    """The machine lacks something: a device, memory, disk space, an extra."""

    exit_code = 5


class GuardStop(PtmPlusError):
    """Training stopped itself because going on would waste or spoil the run."""

    exit_code = 6


class StopRequested(PtmPlusError):
    """Somebody asked the run to stop; what was done is saved and can be resumed."""

    exit_code = 75


def shown(value: object, longest: int = 60) -> str:
    """Return a value as a message shows it: as Python writes it, cut where it is long."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply; a number of too many digits
        return f"a {type(value).__name__}"
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def listed(names: Iterable[str], most: int = 8) -> str:
    """Return names as a message lists them; long names and long lists are cut."""
    words = [
        name if name and name.isprintable() and len(name) <= 40 else shown(name, 40)
        for name in names
    ]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _printable(text: str) -> str:
    """Spell half characters out, as names of files that are not UTF-8 have them."""
    return text.encode("utf-8", "backslashreplace").decode()

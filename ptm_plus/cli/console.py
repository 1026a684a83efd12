"""Which way progress is shown, and the log that a run keeps of it.

Progress goes to stderr; stdout is for results.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.segment import Segment

from ptm_plus.cli.rendering import plain_values
from ptm_plus.cli.watches import JsonWatch, PlainWatch, RichWatch, json_line
from ptm_plus.errors import SettingsError, nearest
from ptm_plus.launched import is_main_process
from ptm_plus.progress import Silent, Watch
from ptm_plus.run_log import append_record

FORMATS = ("auto", "rich", "plain", "json")


def make_watch(log_format: str = "auto", quiet: bool = False) -> Watch:
    """Return the watch for this process.

    Args:
        log_format: one of ``FORMATS``; ``auto`` takes bars on a terminal and lines elsewhere.
        quiet: show nothing.

    Raises:
        SettingsError: another format.
    """
    if log_format not in FORMATS:
        raise SettingsError(
            f"--log-format {log_format}: unknown{nearest(log_format, FORMATS)}",
            f"one of {', '.join(FORMATS)}",
        )
    if quiet or not is_main_process():
        return Silent()
    if log_format == "json":
        return JsonWatch()
    console = stderr_console()
    bars = log_format == "rich" or (
        log_format == "auto" and console.is_terminal and not console.is_dumb_terminal
    )
    return RichWatch(console) if bars else PlainWatch(console)


def stderr_console() -> Console:
    """Return a console on stderr; off a terminal lines are as long as they need to be."""
    return _console(stderr=True)


def stdout_console() -> Console:
    """Return a console on stdout, likewise."""
    return _console(stderr=False)


class _Harmless(Console):
    """A console whose terminal is not steered by what stands in files: it is only shown."""

    def render(self, *arguments: Any, **options: Any) -> Iterator[Segment]:
        """Yield segments in which control characters are replaced."""
        for one in super().render(*arguments, **options):
            yield one if one.control else one._replace(text=one.text.translate(_STEERING))


_STEERING = dict.fromkeys({*range(32), *range(127, 160)} - set(map(ord, "\n\t")), "\ufffd")


def _console(stderr: bool) -> Console:
    console = _Harmless(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 120
    return console


class LoggedWatch:
    """Passes everything on, and appends notes and figures to ``log.jsonl`` in a run folder.

    Args:
        watch: what shows them.
        folder: the run folder; made if need be.
    """

    def __init__(self, watch: Watch, folder: Path) -> None:
        self._watch = watch
        self._folder = folder

    def task(self, name: str, begun: int = 0) -> Any:
        """Return the other watch's task."""
        return self._watch.task(name, begun)

    def note(self, text: str) -> None:
        """Pass a note on and log it."""
        self._append("note", {"text": text})
        self._watch.note(text)

    def figures(self, kind: str, values: Mapping[str, Any]) -> None:
        """Pass figures on and log them."""
        self._append(kind, plain_values(values))
        self._watch.figures(kind, values)

    def _append(self, kind: str, values: Mapping[str, Any]) -> None:
        append_record(self._folder, json_line(kind, values))

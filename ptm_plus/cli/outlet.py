"""Where a command's words go: progress to stderr, the result to stdout as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import typer
from rich.console import Console, RenderableType

from ptm_plus.cli.console import make_watch, stdout_console
from ptm_plus.cli.flags import OutputFlags
from ptm_plus.cli.rendering import plain_value
from ptm_plus.cli.root import VERBOSE
from ptm_plus.errors import StopRequested
from ptm_plus.launched import is_main_process
from ptm_plus.progress import Watch
from ptm_plus.stopping import interrupting_signals


@dataclass(frozen=True)
class Outlet:
    """A command's two channels.

    Attributes:
        watch: takes progress, notes and figures; on stderr.
        console: stdout.
        json: whether the result is a JSON document.
    """

    watch: Watch
    console: Console
    json: bool

    def show(self, document: Any, *tables: Callable[[], RenderableType]) -> None:
        """Print a result.

        Args:
            document: the result as plain values; printed with ``--json``.
            tables: make what is printed otherwise.
        """
        if not is_main_process():
            return
        if self.json:
            typer.echo(json.dumps(plain_value(document), indent=2, ensure_ascii=False))
            return
        for table in tables:
            made = table()
            if isinstance(made, str):  # as it is: neither wrapped nor read as markup
                typer.echo(made)
            else:
                self.console.print(made)


def open_outlet(context: typer.Context, flags: OutputFlags) -> Outlet:
    """Return the channels of a command.

    Raises:
        SettingsError: an unknown ``--log-format``.
    """
    context.meta[VERBOSE] = flags.verbose
    return Outlet(make_watch(flags.log_format, flags.quiet), stdout_console(), flags.json)


@contextmanager
def stoppable(what: str, *, goes_on: bool = False) -> Iterator[None]:
    """Turn Ctrl-C and its like into a stop that tells what to do next.

    Args:
        what: is being done.
        goes_on: the same command takes up what is done already.

    Raises:
        StopRequested: Ctrl-C was pressed, or another signal asked to stop.
    """
    try:
        with interrupting_signals():
            yield
    except KeyboardInterrupt:
        raise StopRequested(
            f"stopped while {what}; nothing half-written",
            f"run the same command again to {'go on' if goes_on else 'start anew'}",
        ) from None

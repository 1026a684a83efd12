"""The group around all commands: errors become a message, a hint and an exit code."""

from __future__ import annotations

import errno
import traceback
from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from ptm_plus.cli.console import stderr_console
from ptm_plus.errors import (
    EnvironmentProblem,
    GuardStop,
    PluginError,
    PtmPlusError,
    SettingsError,
    StopRequested,
)
from ptm_plus.launched import is_main_process, rank

VERBOSE = "ptm_plus.verbose"
"""Key in a context's ``meta``: show the traceback of an error that has a message."""

INTERRUPTED = 130

_TOLD_ONCE = (SettingsError, PluginError, GuardStop, StopRequested)
"""What every process of a run finds alike; the first one tells it."""


class Root(TyperGroup):
    """Turns errors into messages and exit codes; what nobody foresaw keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            stderr_console().print("interrupted", markup=False)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            known = _known(error)
            if known is None:
                raise
            if ctx.meta.get(VERBOSE):
                traceback.print_exc()
            if is_main_process():
                show_error(known, stderr_console())
            elif not isinstance(known, _TOLD_ONCE):
                known.message = f"process {rank()}: {known.message}"
                show_error(known, stderr_console())
            raise typer.Exit(known.exit_code) from None


def show_error(error: PtmPlusError, console: Console) -> None:
    """Print what was found and how to mend it."""
    if isinstance(error, StopRequested):
        console.print(Text(error.message), soft_wrap=True)
    else:
        console.print(Text("error: ", style="bold red") + Text(error.message), soft_wrap=True)
    if error.hint:
        console.print(Text("hint: ", style="bold cyan") + Text(error.hint), soft_wrap=True)


def _known(error: Exception) -> PtmPlusError | None:
    """Return the error as one with a message, ``None`` where nobody knows the cause."""
    if isinstance(error, PtmPlusError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f"{error.filename}: " if error.filename else ""
        return EnvironmentProblem(f"{where}the disk is full", "free some space and run it again")
    # torch's own error is matched by name, so that this module does not import torch.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        words = (str(error).splitlines() or ["out of memory"])[0]
        return EnvironmentProblem(
            f"out of memory: {words}",
            "lower batch.micro_rows or batch.row_tokens; `ptm-plus plan` estimates what is needed",
        )
    return None

"""For plugins that add a command: flags, progress and output like those of the core's commands.

    @spread
    def train(context: typer.Context, kg: ..., flags: OutputFlags) -> None:
        outlet = open_outlet(context, flags)
        with outlet.watch.task("training") as task:
            ...
        outlet.show({"figure": 1.0}, lambda: named_rows("result", [("figure", "1.0")]))

An entry point of the group ``ptm_plus.commands``, named ``GROUP.COMMAND``, points to it.
"""

from __future__ import annotations

from ptm_plus.cli.flags import OutputFlags, spread
from ptm_plus.cli.outlet import Outlet, open_outlet, stoppable
from ptm_plus.cli.rendering import columns, named_rows

__all__ = [
    "Outlet",
    "OutputFlags",
    "columns",
    "named_rows",
    "open_outlet",
    "spread",
    "stoppable",
]

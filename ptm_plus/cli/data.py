"""``prepare``, ``plan`` and ``preview``."""

from __future__ import annotations

from typing import Annotated

import typer

from ptm_plus.cli.flags import OutputFlags, RunFlags, spread
from ptm_plus.cli.outlet import open_outlet, stoppable
from ptm_plus.rendering import account_table

Count = Annotated[int, typer.Option("--count", "-n", min=1, help="Sequences to show.")]
Epoch = Annotated[int, typer.Option("--epoch", min=0, help="Epoch whose masks to show.")]
StreamName = Annotated[str | None, typer.Option("--stream", help="Stream; default: all.")]


@spread
def prepare(context: typer.Context, run: RunFlags, output: OutputFlags) -> None:
    """Turn text into sequences on disk, and print the account.

    What is in the cache already is not made again; one that was stopped goes on where it was.
    """
    outlet = open_outlet(context, output)
    settings = run.resolve().settings
    with stoppable("preparing"):
        from ptm_plus.launch import prepare as prepare_run

        prepared = prepare_run(settings, outlet.watch)
    accounts = prepared.accounts
    if output.json:
        outlet.show({"streams": {name: one.to_json() for name, one in accounts.items()}})
    elif output.quiet:  # otherwise the watch has printed them
        outlet.show(None, *(lambda n=n, a=a: account_table(n, a) for n, a in accounts.items()))


@spread
def plan(
    context: typer.Context,
    run: RunFlags,
    output: OutputFlags,
    prepare_data: Annotated[
        bool, typer.Option("--prepare", help="Prepare data and vectors first, if need be.")
    ] = False,
) -> None:
    """Show what a run would do and cost, without training."""
    outlet = open_outlet(context, output)
    settings = run.resolve().settings
    with stoppable("planning"):
        from ptm_plus.plan import make_plan
        from ptm_plus.plan_tables import plan_tables

        document = make_plan(settings, outlet.watch, prepare_data=prepare_data)
    outlet.show(document, lambda: plan_tables(document))


@spread
def preview(
    context: typer.Context,
    run: RunFlags,
    output: OutputFlags,
    stream: StreamName = None,
    count: Count = 5,
    epoch: Epoch = 0,
) -> None:
    """Show masked sequences as the model will see them."""
    outlet = open_outlet(context, output)
    settings = run.resolve().settings
    with stoppable("preparing"):
        from ptm_plus.preview import make_preview, preview_text

        document = make_preview(settings, outlet.watch, stream=stream, count=count, epoch=epoch)
    outlet.show(document, lambda: preview_text(document))

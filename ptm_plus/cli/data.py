"""``prepare``, ``plan`` and ``preview``."""

from __future__ import annotations

from typing import Annotated

import typer

from ptm_plus.cli.flags import CodeFlag, DeviceFlag, OutputFlags, RunFlags, spread
from ptm_plus.cli.outlet import open_outlet, stoppable
from ptm_plus.cli.rendering import account_table
from ptm_plus.cli.sample_inputs import given_or_sample

Count = Annotated[int, typer.Option("--count", "-n", min=1, help="Sequences to show.")]
Epoch = Annotated[int, typer.Option("--epoch", min=0, help="Epoch whose masks to show.")]
StreamName = Annotated[str | None, typer.Option("--stream", help="Stream; default: all.")]


@spread
def prepare(context: typer.Context, run: RunFlags, code: CodeFlag, output: OutputFlags) -> None:
    """Turn text into sequences on disk, and print the account.

    What is in the cache already is not made again; one that was stopped goes on where it was.
    """
    outlet = open_outlet(context, output)
    resolved = code.checked(run.resolve())
    with stoppable("preparing", goes_on=True):
        from ptm_plus.prepared import prepare as prepare_run

        settings = given_or_sample(resolved, outlet.watch)
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
    code: CodeFlag,
    where: DeviceFlag,
    output: OutputFlags,
    prepare_data: Annotated[
        bool, typer.Option("--prepare", help="Prepare data and vectors first, if need be.")
    ] = False,
    take_steps: Annotated[
        bool,
        typer.Option(
            "--try", help="Prepare, and take some steps here: speed, memory, rows at a time."
        ),
    ] = False,
) -> None:
    """Show what a run would do and cost, without training.

    With no data at all, for the built-in sample, whose files are written to the run folder.
    """
    outlet = open_outlet(context, output)
    resolved = code.checked(run.resolve())
    with stoppable("planning", goes_on=True):
        from ptm_plus.cli.plan import make_plan
        from ptm_plus.cli.plan_tables import plan_tables

        settings = given_or_sample(resolved, outlet.watch)
        device = where.checked() if take_steps else ""
        document = make_plan(settings, outlet.watch, prepare_data=prepare_data, device=device)
    outlet.show(document, lambda: plan_tables(document))


@spread
def preview(
    context: typer.Context,
    run: RunFlags,
    code: CodeFlag,
    output: OutputFlags,
    stream: StreamName = None,
    count: Count = 5,
    epoch: Epoch = 0,
) -> None:
    """Show masked sequences as the model will see them."""
    outlet = open_outlet(context, output)
    resolved = code.checked(run.resolve())
    with stoppable("preparing", goes_on=True):
        from ptm_plus.cli.preview import make_preview
        from ptm_plus.cli.preview_text import preview_text

        settings = given_or_sample(resolved, outlet.watch)
        document = make_preview(settings, outlet.watch, stream=stream, count=count, epoch=epoch)
    outlet.show(document, lambda: preview_text(document))

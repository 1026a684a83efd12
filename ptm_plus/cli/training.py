"""``train``, ``resume`` and ``export``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptm_plus.cli.console import LoggedWatch
from ptm_plus.cli.flags import CodeFlag, DeviceFlag, OutputFlags, RunFlags, spread
from ptm_plus.cli.outlet import Outlet, open_outlet, stoppable
from ptm_plus.cli.sample_inputs import given_or_sample, has_inputs
from ptm_plus.errors import StopRequested
from ptm_plus.launched import is_main_process

if TYPE_CHECKING:
    from ptm_plus.progress import Watch
    from ptm_plus.settings import RunSettings
    from ptm_plus.settings_files import Resolved

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]


@spread
def train(
    context: typer.Context,
    run: RunFlags,
    code: CodeFlag,
    device: DeviceFlag,
    output: OutputFlags,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run in the folder.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Take a few steps and tell where their time goes.")
    ] = False,
) -> None:
    """Train, from raw files to checkpoints and a report.

    With no text, pairs, graph or labels at all, it trains on the built-in sample.

    ptm-plus train --plugin kg-fusion --plugin tlm

    ptm-plus train --text 'news/*.jsonl' --kg triples.tsv --labels names.tsv -p kg-fusion -o runs/a
    """
    outlet = open_outlet(context, output)
    resolved = code.checked(run.resolve())
    settings, where = resolved.settings, device.checked()
    _check_plugins(settings)
    if profile:
        _profile(outlet, resolved, where)
        return
    if is_main_process():
        from ptm_plus.cli.folders import claim_folder

        claim_folder(settings, overwrite)
    watch = _logged(outlet, settings)
    with _interruptible(settings.output):
        if has_inputs(settings):
            from ptm_plus.training_run import train as train_run

            report = train_run(settings, watch, device=where)
        else:
            from ptm_plus.sample_run import train_sample

            report = train_sample(resolved, watch, device=where)
    _finish(outlet, report, settings.output)


@spread
def resume(
    context: typer.Context,
    folder: RunFolder,
    code: CodeFlag,
    device: DeviceFlag,
    output: OutputFlags,
    verify: Annotated[
        int,
        typer.Option(
            "--verify", metavar="N", min=0, max=8, help="Check the data of the next N steps first."
        ),
    ] = 0,
    allow_changes: Annotated[
        bool,
        typer.Option(
            "--allow-changes", help="Also with other plugins, data, tables or settings than saved."
        ),
    ] = False,
) -> None:
    """Go on with a run from its newest whole checkpoint, or from the beginning before the first."""
    from ptm_plus.run_folder import read_folder

    outlet = open_outlet(context, output)
    settings = code.checked(read_folder(folder), flags=False).settings
    where, watch = device.checked(), _logged(outlet, settings)
    with _interruptible(folder):
        from ptm_plus.sample_run import compare, is_sample
        from ptm_plus.training_run import Resume
        from ptm_plus.training_run import train as train_run

        go_on = compare if is_sample(settings) else train_run
        report = go_on(settings, watch, device=where, resume=Resume(allow_changes, verify))
    _finish(outlet, report, folder)


@spread
def export(
    context: typer.Context,
    folder: RunFolder,
    code: CodeFlag,
    output: OutputFlags,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder to write.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Load it without ptm-plus and compare the logits.")
    ] = False,
) -> None:
    """Write a trained model that plain transformers loads."""
    from ptm_plus.exporting.export import export as write_export
    from ptm_plus.run_folder import read_folder

    outlet = open_outlet(context, output)
    read_folder(folder)
    with stoppable("exporting"):
        document = write_export(folder, to, verify, outlet.watch, allow_code=code.allow_code)
        from ptm_plus.cli.report_tables import export_tables
    outlet.show(document, lambda: export_tables(document))


def _profile(outlet: Outlet, resolved: Resolved, device: str) -> None:
    """Profile the first steps of a run; on the sample, those with plugins."""
    with stoppable("profiling"):
        from ptm_plus.cli.profile_table import profile_table
        from ptm_plus.training_run import profile

        settings = given_or_sample(resolved, outlet.watch)
        document = profile(settings, outlet.watch, device=device)
    outlet.show(document, lambda: profile_table(document))


def _check_plugins(settings: RunSettings) -> None:
    """Load the plugins before the run folder is touched: their mistakes leave nothing behind."""
    from ptm_plus.plugins import load

    load(settings.plugins, settings.plugin)


@contextmanager
def _interruptible(folder: Path) -> Iterator[None]:
    """Say how to go on after a signal outside the loop, which answers to signals itself.

    Raises:
        StopRequested: Ctrl-C was pressed, or another signal asked to stop.
    """
    try:
        with stoppable("preparing", goes_on=True):
            yield
    except StopRequested as stop:
        from ptm_plus.run_folder import SETTINGS

        if isinstance(stop.__context__, KeyboardInterrupt) and (folder / SETTINGS).is_file():
            raise StopRequested(
                "stopped; nothing half-written, what was done is kept",
                f"go on with: ptm-plus resume {folder}",
            ) from None
        raise


def _logged(outlet: Outlet, settings: RunSettings) -> Watch:
    return LoggedWatch(outlet.watch, settings.output) if is_main_process() else outlet.watch


def _finish(outlet: Outlet, report: dict[str, Any], folder: Path) -> None:
    from ptm_plus.cli.report_tables import report_tables

    outlet.show(report, lambda: report_tables(report, folder))

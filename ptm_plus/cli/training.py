"""``train``, ``resume`` and ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptm_plus.cli.flags import DeviceFlag, OutputFlags, RunFlags, spread
from ptm_plus.cli.folders import claim_folder, read_folder
from ptm_plus.cli.outlet import Outlet, open_outlet, stoppable
from ptm_plus.console import LoggedWatch, is_main_process
from ptm_plus.rendering import named_rows

if TYPE_CHECKING:
    from ptm_plus.progress import Watch
    from ptm_plus.settings import RunSettings

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]


@spread
def train(
    context: typer.Context,
    run: RunFlags,
    device: DeviceFlag,
    output: OutputFlags,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run in the folder.")
    ] = False,
) -> None:
    """Train, from raw files to checkpoints and a report.

    With no text, pairs, graph or labels at all, it trains on the built-in sample.

    ptm-plus train --plugin kg-fusion --plugin tlm

    ptm-plus train --text 'news/*.jsonl' --kg triples.tsv --labels names.tsv -p kg-fusion -o runs/a
    """
    outlet = open_outlet(context, output)
    settings = run.resolve().settings
    where = device.checked()
    _check_plugins(settings)
    if is_main_process():
        claim_folder(settings, overwrite)
    _finish(outlet, _trained(settings, _logged(outlet, settings), where, resume=False))


@spread
def resume(
    context: typer.Context, folder: RunFolder, device: DeviceFlag, output: OutputFlags
) -> None:
    """Go on with a run from its newest whole checkpoint."""
    outlet = open_outlet(context, output)
    settings = read_folder(folder).settings
    where = device.checked()
    _finish(outlet, _trained(settings, _logged(outlet, settings), where, resume=True))


@spread
def export(
    context: typer.Context,
    folder: RunFolder,
    output: OutputFlags,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder to write.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Load it without ptm-plus and compare the logits.")
    ] = False,
) -> None:
    """Write a trained model that plain transformers loads."""
    outlet = open_outlet(context, output)
    read_folder(folder)
    from ptm_plus.export import export as write_export

    with stoppable("exporting"):
        document = write_export(folder, to, verify, outlet.watch)
    rows = [(name, _words(value)) for name, value in document.items()]
    outlet.show(document, lambda: named_rows(f"exported to {to}", rows))


def has_inputs(settings: RunSettings) -> bool:
    """Tell whether any data was named; without, the built-in sample is trained on."""
    data = settings.data
    return bool(data.text or data.pairs or data.kg or data.labels)


def _check_plugins(settings: RunSettings) -> None:
    """Load the plugins before the run folder is touched: their mistakes leave nothing behind."""
    from ptm_plus.plugins import load

    load(settings.plugins, settings.plugin)


def _trained(settings: RunSettings, watch: Watch, device: str, resume: bool) -> dict[str, Any]:
    """Train to the end and return the report."""
    if not has_inputs(settings):
        from ptm_plus.sample_run import train_sample

        return train_sample(settings, watch)
    with stoppable("preparing"):
        from ptm_plus.launch import compose, prepare
        from ptm_plus.report import finish
        from ptm_plus.train import Trainer, make_accelerator

        accelerator = make_accelerator(settings.train.precision, device)
        run = compose(prepare(settings, watch), accelerator.device)
        trainer = Trainer(run, watch, accelerator)
        if resume:
            trainer.resume()
    trainer.fit()
    return finish(run, trainer, watch)


def _logged(outlet: Outlet, settings: RunSettings) -> Watch:
    return LoggedWatch(outlet.watch, settings.output) if is_main_process() else outlet.watch


def _finish(outlet: Outlet, report: dict[str, Any]) -> None:
    if is_main_process():
        from ptm_plus.report import report_table

        outlet.show(report, lambda: report_table(report))


def _words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "\n".join(map(_words, value)) or "–"
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_words(entry)}" for key, entry in value.items()) or "–"
    return str(value)

"""``report``: a run or an ablation as a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptm_plus.cli.flags import CodeFlag, OutputFlags, spread
from ptm_plus.cli.outlet import open_outlet, stoppable
from ptm_plus.cli.rendering import named_rows
from ptm_plus.errors import DataError, EnvironmentProblem, PtmPlusError

if TYPE_CHECKING:
    from ptm_plus.progress import Watch
    from ptm_plus.settings import RunSettings

_PAGE = "report.html"
_SEQUENCES = 4


@spread
def report(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of a run, or of an ablation.")],
    code: CodeFlag,
    output: OutputFlags,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Default: FOLDER/report.html.")
    ] = None,
) -> None:
    """Write one HTML page of a run or an ablation, which needs no network and runs no script.

    ptm-plus report runs/first
    """
    outlet = open_outlet(context, output)
    from ptm_plus.files import write_whole
    from ptm_plus.pages.plots import need_matplotlib

    need_matplotlib()
    target = to or folder / _PAGE
    with stoppable("writing the page"):
        if (folder / "ablation.json").is_file():
            text = _of_ablation(folder)
        elif (folder / "report.json").is_file():
            text = _of_run(folder, code, outlet.watch)
        else:
            raise DataError(
                "holds neither a finished run nor an ablation",
                "name the folder that `ptm-plus train` or `ptm-plus ablate` wrote",
                path=folder,
            )
        try:
            write_whole(target, text)
        except OSError as error:
            raise EnvironmentProblem(
                f"{target}: cannot be written: {error.strerror or error}", "name another file"
            ) from error
    outlet.show({"page": str(target)}, lambda: named_rows("", [("page", str(target))]))


def _of_run(folder: Path, code: CodeFlag, watch: Watch) -> str:
    from ptm_plus.pages.run_page import run_page
    from ptm_plus.report import read_report
    from ptm_plus.run_folder import read_folder
    from ptm_plus.run_log import read_log
    from ptm_plus.settings_files import plain_settings

    settings = code.checked(read_folder(folder), flags=False).settings
    return run_page(
        f"Run {folder.resolve().name}",
        read_report(folder),
        read_log(folder),
        plain_settings(settings),
        _masked(settings, watch),
    )


def _masked(settings: RunSettings, watch: Watch) -> Mapping[str, Any] | None:
    """Return some masked sequences, where what the run read is still there."""
    from ptm_plus.cli.preview import make_preview

    try:
        return make_preview(settings, watch, stream=None, count=_SEQUENCES, epoch=0)
    except PtmPlusError as error:
        watch.note(f"no masked sequences are shown: {error.message}")
        return None


def _of_ablation(folder: Path) -> str:
    from ptm_plus.ablation.ablation import read_ablation
    from ptm_plus.ablation.curves import mean_curves
    from ptm_plus.pages.ablation_page import ablation_page

    document, curves = read_ablation(folder)
    return ablation_page(document, mean_curves(curves))

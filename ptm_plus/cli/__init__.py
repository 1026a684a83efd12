"""The command line. Importing it imports nothing heavy: each command imports what it needs."""

from __future__ import annotations

import os
import sys

import typer

from ptm_plus.cli import (
    ablate,
    checks,
    configuration,
    data,
    evaluate,
    kg,
    plugin_list,
    recipe,
    report,
    tokenizer,
    training,
)
from ptm_plus.cli.console import stdout_console
from ptm_plus.cli.root import Root
from ptm_plus.stopping import follow_starter

app = typer.Typer(
    cls=Root,
    name="ptm-plus",
    help="Pre-train encoder language models with plugins that combine.",
    epilog="With no files given, `ptm-plus train` trains on the built-in sample.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_RUNS, _LOOKS = "Runs", "Before and around a run"

app.command(rich_help_panel=_RUNS)(training.train)
app.command(rich_help_panel=_RUNS)(training.resume)
app.command(rich_help_panel=_RUNS)(training.export)
app.command(rich_help_panel=_RUNS)(evaluate.evaluate)
app.command(rich_help_panel=_RUNS)(ablate.ablate)
app.command(rich_help_panel=_RUNS)(report.report)
app.command(rich_help_panel=_RUNS)(data.prepare)
app.command(rich_help_panel=_LOOKS)(data.plan)
app.command(rich_help_panel=_LOOKS)(data.preview)
app.add_typer(kg.app, name="kg", rich_help_panel=_LOOKS)
app.add_typer(tokenizer.app, name="tokenizer", rich_help_panel=_LOOKS)
app.add_typer(recipe.app, name="recipe", rich_help_panel=_LOOKS)
app.add_typer(plugin_list.app, name="plugins", rich_help_panel=_LOOKS)
app.add_typer(configuration.app, name="config", rich_help_panel=_LOOKS)
app.command(rich_help_panel=_LOOKS)(checks.doctor)


def _version(asked: bool) -> None:
    if asked:
        from ptm_plus import __version__

        stdout_console().print(f"ptm-plus {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and leave."
    ),
) -> None:
    """Pre-train encoder language models with plugins that combine."""


def main() -> None:
    """Run the command line; the exit codes are those of ``ptm_plus.errors``."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # Names of entities come in every script; a narrow locale must not stop a run.
            stream.reconfigure(errors="backslashreplace")
    follow_starter()
    # Processes that are started here import nothing from the folder that they are started in.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    app(prog_name="ptm-plus")

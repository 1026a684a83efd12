"""``config show`` and ``config schema``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ptm_plus.cli.flags import OutputFlags, RunFlags, spread
from ptm_plus.cli.outlet import open_outlet
from ptm_plus.cli.rendering import columns, flattened

app = typer.Typer(
    help="Settings: show what a run would use, print the schema.", no_args_is_help=True
)

Origin = Annotated[bool, typer.Option("--origin", help="Also say where each value comes from.")]


@app.command()
@spread
def show(
    context: typer.Context, run: RunFlags, output: OutputFlags, origin: Origin = False
) -> None:
    """Print the resolved settings as TOML, or each with its origin."""
    from ptm_plus.settings_files import dump_toml

    outlet = open_outlet(context, output)
    resolved = run.resolve()
    settings = resolved.settings.model_dump(mode="json")
    document = {"settings": settings, "origins": dict(resolved.origins)} if origin else settings
    if outlet.json or not origin:
        outlet.show(document, lambda: dump_toml(resolved.settings).rstrip())
        return
    values = dict(flattened(settings))
    rows = [
        (key, json.dumps(values.get(key), ensure_ascii=False), source)
        for key, source in resolved.origins.items()
    ]
    outlet.show(document, lambda: columns(("key", "value", "from"), rows))


@app.command()
def schema() -> None:
    """Print the JSON Schema of the settings file, for editors."""
    from ptm_plus.settings_files import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))

"""``plugins list``, ``show``, ``new`` and ``test``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from ptm_plus.cli.flags import Names, OutputFlags, spread
from ptm_plus.cli.outlet import open_outlet, stoppable
from ptm_plus.cli.rendering import columns, named_rows
from ptm_plus.errors import PluginError

app = typer.Typer(
    help="Plugins: what each does, a new one, and whether one keeps its contract.",
    no_args_is_help=True,
)


@app.command("list")
@spread
def list_plugins(context: typer.Context, output: OutputFlags) -> None:
    """List the installed plugins."""
    from ptm_plus.cli.plugin_cards import all_cards

    outlet = open_outlet(context, output)
    cards = all_cards()
    outlet.show({"plugins": cards}, lambda: _listed(cards))


@app.command("show")
@spread
def show_plugin(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name, or ./file.py.")],
    output: OutputFlags,
) -> None:
    """Show one plugin: its settings, hooks, needs and claims."""
    from ptm_plus.cli.plugin_cards import full_card

    outlet = open_outlet(context, output)
    card = full_card(name)
    outlet.show(card, lambda: _shown(card))


@app.command("new")
def new_plugin(
    name: Annotated[str, typer.Argument(help="Word after --plugin, such as long-words.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder; default: the name."),
    ] = None,
    summary: Annotated[
        str, typer.Option("--summary", metavar="WORDS", help="What it does, in one line.")
    ] = "Mask long words more often",
) -> None:
    """Write a plugin's package, which passes its tests as it is.

    ptm-plus plugins new demo && pip install ./demo && ptm-plus plugins test demo
    """
    from ptm_plus.testing.template import write_plugin

    folder = output or Path(name)
    written = write_plugin(name, folder, summary)
    for path in written:
        typer.echo(str(path))
    typer.echo(f"next: pip install -e ./{folder} && ptm-plus plugins test {name}")


@app.command("test")
@spread
def check_plugin(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name, or ./file.py.")],
    output: OutputFlags,
    check: Annotated[
        Names,
        typer.Option("--check", metavar="NAME", help="One check instead of all. Repeatable."),
    ] = None,
    sets: Annotated[
        Names, typer.Option("--set", metavar="KEY=VALUE", help="A setting of its runs. Repeatable.")
    ] = None,
) -> None:
    """Check that a plugin keeps its contract, on small runs of its own.

    ptm-plus plugins test ./my_plugin.py
    """
    outlet = open_outlet(context, output)
    from ptm_plus.cli.plugin_checks import checks_table, tested

    with stoppable("checking"):
        found = tested(name, tuple(check or ()), tuple(sets or ()), outlet.watch)
    outlet.show({"plugin": name, "checks": found}, lambda: checks_table(found))
    failed = [one["name"] for one in found if one["state"] == "failed"]
    if failed:
        raise PluginError(
            f"{name}: {len(failed)} of {len(found)} checks failed: {', '.join(failed)}",
            "docs/writing-a-plugin.md says what each checks",
        )


def _listed(cards: list[dict[str, Any]]) -> RenderableType:
    if not cards:
        return "No plugin is installed."
    rows = [
        (card["name"], f"{card['distribution']} {card['version']}", card["summary"])
        for card in cards
    ]
    problems = [
        Text(f"{card['name']}: {card['problem']}\n  mend: {card['mend']}")
        for card in cards
        if card["problem"]
    ]
    return Group(columns(("plugin", "from", "what it does"), rows), *problems)


def _shown(card: dict[str, Any]) -> RenderableType:
    facts = [
        ("from", f"{card['distribution']} {card['version']}"),
        ("contract", card["contract"]),
        ("needs", ", ".join(card["needs"]) or "nothing"),
        ("claims", ", ".join(f"{one['resource']} ({one['mode']})" for one in card["claims"])),
        ("before", ", ".join(card["before"])),
        ("after", ", ".join(card["after"])),
        ("install", card["mend"] if card["missing"] else ""),
        ("problem", card["problem"]),
    ]
    parts: list[RenderableType] = [
        Text(f"{card['name']}: {card['summary']}", style="bold"),
        named_rows("", [(name, value) for name, value in facts if value]),
    ]
    if card["hooks"]:
        hooks = [(hook["name"], hook["summary"]) for hook in card["hooks"]]
        parts.append(columns(("hook", "what it returns"), hooks))
    if card["settings"]:
        rows = [(one["key"], one["type"], one["default"], one["help"]) for one in card["settings"]]
        parts.append(columns(("setting", "type", "default", ""), rows))
        first = card["settings"][0]
        parts.append(Text(f"set one with: --set plugin.{card['name']}.{first['key']}=VALUE"))
    else:
        parts.append(Text("no settings"))
    return Group(*parts)

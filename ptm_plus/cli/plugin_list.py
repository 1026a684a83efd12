"""``plugins list`` and ``plugins show``: what is installed, told without importing much."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from ptm_plus.cli.flags import OutputFlags, spread
from ptm_plus.cli.outlet import open_outlet
from ptm_plus.cli.rendering import columns, named_rows

app = typer.Typer(help="Plugins: what is installed, and what each does.", no_args_is_help=True)


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

"""Commands that plugins add, such as ``kg train``: found by metadata, imported when called.

An entry point of the group ``ptm_plus.commands`` is named ``GROUP.COMMAND`` and points to a typer
function, which reaches progress and output through :func:`ptm_plus.cli.outlet.open_outlet`.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

import typer
import typer.main
from typer.core import TyperGroup

from ptm_plus.errors import PluginError

if TYPE_CHECKING:
    from ptm_plus.discovery import Found

GROUP = "ptm_plus.commands"
"""Entry-point group of commands."""


class OpenGroup(TyperGroup):
    """A command group that plugins may add commands to."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the group's own commands, then those of plugins by name."""
        own = super().list_commands(ctx)
        return [*own, *sorted(name for name in self._external() if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command for a listing: one of a plugin is a name and where it comes from."""
        own = super().get_command(ctx, cmd_name)
        found = self._external().get(cmd_name, [])
        return own if own is not None or not found else _placeholder(cmd_name, found)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is called; only now a plugin's is imported."""
        found = self._external().get(args[0], [])
        if super().get_command(ctx, args[0]) is None and found:
            return args[0], _loaded(args[0], found), args[1:]
        return super().resolve_command(ctx, args)

    def _external(self) -> dict[str, list[Found]]:
        from ptm_plus.discovery import Found

        prefix = f"{self.name}."
        commands: dict[str, list[Found]] = {}
        for entry in metadata.entry_points(group=GROUP):
            if entry.dist is not None and entry.name.startswith(prefix):
                found = Found(entry.name, entry.dist.name, entry.dist.version, entry.value)
                commands.setdefault(entry.name.removeprefix(prefix), []).append(found)
        return commands


def _placeholder(name: str, found: list[Found]) -> Any:
    owners = " and ".join((_owner(one) or one).label for one in found)
    app = typer.Typer(add_completion=False)
    app.command(name, help=f"From {owners}.")(lambda: None)
    return typer.main.get_command(app)


def _loaded(name: str, found: list[Found]) -> Any:
    if len(found) > 1:
        both = " and ".join(f"{one.distribution} {one.version}" for one in found)
        raise PluginError(
            f"the command {found[0].name!r} is installed by {both}",
            f"keep one: pip uninstall {found[-1].distribution}",
        )
    from ptm_plus.discovery import discover, find, load_object

    owner = _owner(found[0])
    if owner is not None:
        find(owner.name, discover())  # says what is missing of the plugin's extra
    app = typer.Typer(add_completion=False)
    app.command(name)(load_object(found[0].target, owner or found[0]))
    return typer.main.get_command(app)


def _owner(command: Found) -> Found | None:
    """Return the plugin that lies in the same package as a command."""
    from ptm_plus.discovery import discover

    package = command.target.partition(":")[0].partition(".")[0]
    same = [one for one in discover() if one.target.partition(":")[0].split(".")[0] == package]
    return same[0] if same else None

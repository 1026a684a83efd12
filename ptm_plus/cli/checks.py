"""``doctor``."""

from __future__ import annotations

import typer
from rich.console import Group
from rich.text import Text

from ptm_plus.cli.flags import OutputFlags, spread
from ptm_plus.cli.outlet import open_outlet
from ptm_plus.cli.rendering import columns
from ptm_plus.errors import EnvironmentProblem

_STYLES = {"ok": "green", "note": "yellow", "wrong": "bold red"}


@spread
def doctor(context: typer.Context, output: OutputFlags) -> None:
    """Check this machine: versions, devices, memory, disk, plugins, a small computation."""
    outlet = open_outlet(context, output)
    from ptm_plus.cli.doctor import examine
    from ptm_plus.inputs import cache_folder
    from ptm_plus.settings import RunSettings

    document = examine(cache_folder(RunSettings()))
    outlet.show(document, lambda: _table(document["checks"]))
    wrong = [check["name"] for check in document["checks"] if check["state"] == "wrong"]
    if wrong:
        raise EnvironmentProblem(f"not able to run: {', '.join(wrong)}", "see the lines above")


def _table(checks: list[dict[str, str]]) -> Group:
    rows = [
        (Text(check["state"], style=_STYLES[check["state"]]), check["name"], check["found"])
        for check in _folded(checks)
    ]
    mends = [Text(f"{check['name']}: {check['mend']}") for check in checks if check["mend"]]
    return Group(columns(("", "what", "found"), rows), *mends)


def _folded(checks: list[dict[str, str]]) -> list[dict[str, str]]:
    """Put the members of a group that are well in one row; those that are not keep their own."""
    rows: list[dict[str, str]] = []
    for check in checks:
        if check["group"] and check["state"] == "ok":
            found = f"{check['name']} {check['found']}"
            if rows and rows[-1]["name"] == check["group"]:
                rows[-1]["found"] += f", {found}"
                continue
            check = {**check, "name": check["group"], "found": found}
        rows.append(check)
    return rows

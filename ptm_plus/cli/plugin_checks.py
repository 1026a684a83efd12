"""What ``plugins test`` runs and shows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from ptm_plus.cli.rendering import columns, duration
from ptm_plus.errors import PtmPlusError, SettingsError, nearest
from ptm_plus.progress import Watch
from ptm_plus.testing import Check, NotApplicable, plugin_checks

_STYLES = {"passed": "green", "failed": "bold red", "not applicable": "yellow"}


def tested(
    plugin: str, names: Sequence[str], sets: Sequence[str], watch: Watch
) -> list[dict[str, Any]]:
    """Run checks of a plugin; return name, what it checks, state, words and seconds of each.

    Args:
        plugin: its name, or ``./file.py``.
        names: the checks; all by default.
        sets: settings of its runs.
        watch: where progress goes.

    Raises:
        SettingsError: a check is unknown.
        PluginError: there is no such plugin.
    """
    checks = {one.name: one for one in plugin_checks(plugin, sets=sets)}
    for name in names:
        if name not in checks:
            raise SettingsError(
                f"--check {name}: unknown{nearest(name, checks)}", ", ".join(checks)
            )
    chosen = [one for one in checks.values() if not names or one.name in names]
    found = []
    with watch.task("check") as task:
        for number, one in enumerate(chosen, start=1):
            found.append(_tried(one))
            task.update(number, len(chosen), one.name)
    return found


def _tried(check: Check) -> dict[str, Any]:
    began = time.perf_counter()
    state, words = "passed", ""
    try:
        check()
    except NotApplicable as reason:
        state, words = "not applicable", str(reason)
    except PtmPlusError as error:
        state, words = "failed", error.message
    except Exception as error:  # whatever a broken plugin raises
        state, words = "failed", str(error) or type(error).__name__
    seconds = round(time.perf_counter() - began, 1)
    kept = {"name": check.name, "about": check.about, "state": state}
    return {**kept, "words": words, "seconds": seconds}


def checks_table(found: Sequence[dict[str, Any]]) -> RenderableType:
    """Return the table of the checks, with the words of those that failed below it."""
    rows = [
        (
            Text(one["state"], style=_STYLES[one["state"]]),
            one["name"],
            one["about"] if one["state"] != "not applicable" else one["words"],
            duration(one["seconds"]),
        )
        for one in found
    ]
    failed = [Text(f"{one['name']}: {one['words']}") for one in found if one["state"] == "failed"]
    return Group(columns(("", "check", "what", "time"), rows, right=("time",)), *failed)

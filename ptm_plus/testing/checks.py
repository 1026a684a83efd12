"""The table of checks, and the ways to run them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import ptm_plus.testing.contract as contract
import ptm_plus.testing.together as together
import ptm_plus.testing.training as training
import ptm_plus.testing.work as work
from ptm_plus.errors import SettingsError, nearest
from ptm_plus.settings_files import merged, parse_set
from ptm_plus.testing.failing import NotApplicable
from ptm_plus.testing.subject import Subject
from ptm_plus.testing.world import World, write_world

Body = Callable[[Subject], None]

_ALONE: Mapping[str, Body] = {
    "light-import": contract.light_import,
    "settings": contract.settings,
    "hooks": contract.hooks,
    "two-instances": contract.two_instances,
    "needs": contract.needs,
    "claims": contract.claims,
    "placebos": contract.placebos,
    "unselected": together.unselected,
    "finite-steps": training.finite_steps,
    "same-seed": training.same_seed,
    "stateless-access": training.stateless_access,
    "gradients": training.gradients,
    "split": training.split,
    "processes": together.processes,
    "resume": training.resume,
    "export": training.exported,
    "events": training.events,
    "no-waiting": training.no_waiting,
    "array-work": work.array_work,
}

WITH_ALL = "with-all"


def check_names() -> list[str]:
    """Return the names of all checks, in their order."""
    return list(_bodies())


def _bodies() -> dict[str, Body]:
    """Return all checks: those of a plugin alone, and with each of ptm-plus's, and with all."""
    names = together.first_party()
    pairs: dict[str, Body] = {f"with-{one}": together.Combination((one,)) for one in names}
    return {**_ALONE, **pairs, WITH_ALL: together.Combination(tuple(names))}


@dataclass(frozen=True)
class Check:
    """A check of a plugin, to be called.

    Attributes:
        name: its name.
        about: what it checks, in a sentence.
        body: the check.
        subject: the plugin.
        expected_failure: why the plugin is known to fail it; empty where it is not.
    """

    name: str
    about: str
    body: Body
    subject: Subject
    expected_failure: str = ""

    def __call__(self) -> None:
        """Check.

        Raises:
            AssertionError: the plugin fails, or passes what it is expected to fail.
            NotApplicable: the check says nothing of it.
            Exception: whatever the plugin raises.
        """
        try:
            with _scratch(self.subject) as subject:
                self.body(subject)
        except NotApplicable:
            raise
        except Exception:
            if self.expected_failure:
                return
            raise
        if self.expected_failure:
            raise AssertionError(
                f"passes, though it is expected to fail ({self.expected_failure}): take "
                f"{self.name!r} out of the expected failures"
            )

    def __str__(self) -> str:
        return self.name


def plugin_checks(
    plugin: str,
    *,
    settings: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
    expected_failures: Mapping[str, str] | None = None,
) -> list[Check]:
    """Return all checks of a plugin.

    Args:
        plugin: its name, or ``./file.py``.
        settings: its settings, for files that it cannot do without.
        sets: further settings of the run, as after ``--set``.
        expected_failures: why it fails a check, by the check's name.

    Raises:
        SettingsError: an expected failure is of no check.
        PluginError: there is no such plugin.
    """
    expected, bodies = dict(expected_failures or {}), _bodies()
    for name in expected:
        if name not in bodies:
            raise SettingsError(
                f"expected_failures names {name!r}, which is no check{nearest(name, bodies)}",
                f"checks: {', '.join(bodies)}",
            )
    world = _world()
    name = Subject(plugin, world, Path()).instance
    own, others = _divided(name, sets)
    table = merged(settings or together.needed_settings(name, world), own)
    subject = Subject(plugin, world, Path(), {name: table} if table else {}, others)
    return [
        Check(name, _about(body), body, subject, expected.get(name, ""))
        for name, body in bodies.items()
    ]


def _divided(name: str, sets: Sequence[str]) -> tuple[Mapping[str, Any], Sequence[str]]:
    """Return a plugin's own settings among those after ``--set``, and the others as they are.

    Its own are for runs with it alone: a run without it would refuse them.
    """
    own: dict[str, Any] = {}
    others = []
    for one in sets:
        given = parse_set(one).get("plugin", {}).get(name)
        if given is None:
            others.append(one)
        else:
            own = merged(own, given)
    return own, others


def parametrize_with_checks(
    plugin: str, **options: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a test function of one argument, ``check``, with the checks of a plugin.

    What says nothing of the plugin is skipped.

    Args:
        plugin: its name, or ``./file.py``.
        **options: of :func:`plugin_checks`.
    """
    import pytest

    def skipping(check: Check) -> Callable[[], None]:
        def call() -> None:
            try:
                check()
            except NotApplicable as reason:
                pytest.skip(str(reason))

        return call

    checks = plugin_checks(plugin, **options)
    given = [pytest.param(skipping(one), id=one.name) for one in checks]
    decorated: Callable[[Callable[..., None]], Callable[..., None]]
    decorated = pytest.mark.parametrize("check", given)
    return decorated


def _about(body: Body) -> str:
    said = body.__doc__ or ""
    if isinstance(body, together.Combination):
        said = f"It trains together with {', '.join(body.others)}."
    return said.strip().splitlines()[0]


@lru_cache
def _world() -> World:
    """Return the small world, written once for a process."""
    folder = tempfile.TemporaryDirectory(prefix="ptm-plus-world-")
    _KEPT.append(folder)
    return write_world(Path(folder.name))


_KEPT: list[tempfile.TemporaryDirectory[str]] = []
"""Folders that are removed when the process ends."""


@contextmanager
def _scratch(subject: Subject) -> Iterator[Subject]:
    with tempfile.TemporaryDirectory(prefix="ptm-plus-check-") as folder:
        yield Subject(subject.request, subject.world, Path(folder), subject.tables, subject.sets)

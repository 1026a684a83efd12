"""What long work tells about itself; the console decides how it looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol


class Task(Protocol):
    """One piece of long work."""

    def update(self, done: int, total: int | None = None, detail: str = "") -> None:
        """Say how far it is."""
        ...


class Watch(Protocol):
    """Receives progress, notes and figures."""

    def task(self, name: str, begun: int = 0) -> Any:
        """Return a context manager that yields a :class:`Task`.

        Args:
            name: what is done.
            begun: how much of it was done before, by a run that was broken off.
        """
        ...

    def note(self, text: str) -> None:
        """Take one line that a person should read."""
        ...

    def figures(self, kind: str, values: Mapping[str, Any]) -> None:
        """Take figures of a kind: ``account``, ``step``, ``evaluation``."""
        ...


class _Nothing:
    def update(self, done: int, total: int | None = None, detail: str = "") -> None:
        """Do nothing."""


class Silent:
    """A watch that shows nothing."""

    @contextmanager
    def task(self, name: str, begun: int = 0) -> Iterator[Task]:
        """Yield a task that shows nothing."""
        yield _Nothing()

    def note(self, text: str) -> None:
        """Drop the line."""

    def figures(self, kind: str, values: Mapping[str, Any]) -> None:
        """Drop the figures."""

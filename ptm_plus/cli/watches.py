"""Three ways to show progress: bars, plain lines, JSON lines.

Every task leaves one line when it ends, so that what scrolled by can be read again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress import Task as BarTask
from rich.table import Column
from rich.text import Text

from ptm_plus.cli.rendering import account_table, duration, figures_table, number, plain_values
from ptm_plus.prepare.accounts import Account
from ptm_plus.progress import Task

SECONDS = 5.0
"""Plain lines and JSON lines come at most this often, or at every tenth of a task."""


class _Pace:
    """Says when a task is due another line: every ``SECONDS``, and at every tenth."""

    def __init__(self) -> None:
        self.started = self._last = time.monotonic()
        self._tenth = 0

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def due(self, done: int, total: int | None) -> bool:
        """Tell whether to write now."""
        tenth = 10 * done // total if total else 0
        now = time.monotonic()
        # Tenths of a task that takes no time are no news.
        news = tenth > self._tenth and now - self._last > SECONDS / 10
        if not news and now - self._last < SECONDS:
            return False
        self._last, self._tenth = now, tenth
        return True


@dataclass
class _Seen:
    """What a task has said so far, and what was done before it began."""

    begun: int = 0
    done: int = 0
    total: int | None = None
    detail: str = ""
    pace: _Pace = field(default_factory=_Pace)

    def take(self, done: int, total: int | None, detail: str) -> None:
        """Remember an update; a task's closing words may come with no count."""
        self.done, self.total = max(self.done, done), total or self.total
        self.detail = detail or self.detail

    @property
    def words(self) -> str:
        """The last words, after the count where they do not begin with it."""
        count = f"{self.done:,}"
        return self.detail if self.detail.startswith(count) else f"{count}  {self.detail}".rstrip()

    def summary(self) -> str:
        """Return how much was done, how long it took, and the last words."""
        done = self.done - self.begun
        count = f"{done:,} in " if done else ""
        words = f"  {self.detail}" if self.total and self.detail else ""
        return f"{count}{duration(self.pace.seconds)}{words}"


class _Count(TextColumn):
    """``1,200/5,000``, or the bare count where the end is not known."""

    def __init__(self) -> None:
        super().__init__("", justify="right", table_column=Column(no_wrap=True))

    def render(self, task: BarTask) -> Text:
        done = f"{int(task.completed):,}"
        if task.total:
            return Text(f"{done}/{int(task.total):,}")
        told = str(task.fields["detail"]).startswith(done)
        return Text(done if task.completed and not told else "")


class RichWatch:
    """Bars on a terminal: one per task under way, and a line for each that is done.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: Progress | None = None

    @contextmanager
    def task(self, name: str, begun: int = 0) -> Iterator[Task]:
        """Show a bar as long as the task lasts."""
        outermost = self._bars is None
        bars = self._bars = self._bars or self._open()
        number = bars.add_task(name, total=None, completed=begun, detail="")
        seen = _Seen(begun, begun)

        class Bar:
            def update(self, done: int, total: int | None = None, detail: str = "") -> None:
                seen.take(done, total, detail)
                bars.update(number, completed=seen.done, total=seen.total, detail=seen.detail)

        try:
            yield Bar()
        except BaseException:
            bars.remove_task(number)
            self._line("[red]✗[/]", name, seen)
            raise
        else:
            bars.remove_task(number)
            self._line("[green]✓[/]", name, seen)
        finally:
            if outermost:
                bars.stop()
                self._bars = None

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self.console.print(Text(text, style="dim"), soft_wrap=True)

    def figures(self, kind: str, values: Mapping[str, Any]) -> None:
        """Print accounts and evaluations; the bar already shows what a step says."""
        show_figures(self.console, kind, values)

    def _open(self) -> Progress:
        bars = Progress(
            TextColumn("  [bold]{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),
            _Count(),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            TextColumn(
                "{task.fields[detail]}",
                style="dim",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            console=self.console,
            transient=True,
            expand=True,
            speed_estimate_period=60,
        )
        bars.start()
        return bars

    def _line(self, mark: str, name: str, seen: _Seen) -> None:
        text = Text.from_markup(f"{mark} [bold]") + Text(name, style="bold")
        self.console.print(text + Text(f"  {seen.summary()}", style="dim not bold"))


class PlainWatch:
    """Lines for logs: a task's start and end, and where it stands now and then.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def task(self, name: str, begun: int = 0) -> Iterator[Task]:
        """Write lines as long as the task lasts."""
        seen = _Seen(begun, begun)
        self._say(f"{name}: started")
        say = self._say

        class Lines:
            def update(self, done: int, total: int | None = None, detail: str = "") -> None:
                seen.take(done, total, detail)
                if seen.pace.due(done, total):
                    say(f"{name}: {_standing(seen)}")

        try:
            yield Lines()
        except BaseException:
            self._say(f"{name}: stopped, {seen.summary()}")
            raise
        self._say(f"{name}: done, {seen.summary()}")

    def note(self, text: str) -> None:
        """Write a line."""
        self._say(text)

    def figures(self, kind: str, values: Mapping[str, Any]) -> None:
        """Write accounts and evaluations; the task's lines already show what a step says."""
        show_figures(self.console, kind, values)

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)


def _standing(seen: _Seen) -> str:
    if not seen.total:
        return seen.words
    done = seen.done - seen.begun
    left = seen.pace.seconds * (seen.total - seen.done) / done if done else 0.0
    share = f"{seen.done:,}/{seen.total:,} ({100 * seen.done // seen.total} %)"
    return f"{share}, {duration(left)} left  {seen.detail}".rstrip()


class JsonWatch:
    """JSON lines on stderr, for machines that watch a run."""

    @contextmanager
    def task(self, name: str, begun: int = 0) -> Iterator[Task]:
        """Write where the task stands, at its start and end and in between."""
        seen = _Seen(begun, begun)
        self._write("task", name=name, state="started")

        def write(state: str) -> None:
            self._write(
                "task",
                name=name,
                state=state,
                done=seen.done,
                total=seen.total,
                detail=seen.detail,
                seconds=round(seen.pace.seconds, 3),
            )

        class Lines:
            def update(self, done: int, total: int | None = None, detail: str = "") -> None:
                seen.take(done, total, detail)
                if seen.pace.due(done, total):
                    write("running")

        try:
            yield Lines()
        except BaseException:
            write("stopped")
            raise
        write("done")

    def note(self, text: str) -> None:
        """Write the line as an object."""
        self._write("note", text=text)

    def figures(self, kind: str, values: Mapping[str, Any]) -> None:
        """Write the figures as an object."""
        self._write(kind, **plain_values(values))

    def _write(self, kind: str, **values: Any) -> None:
        sys.stderr.write(json_line(kind, values))
        sys.stderr.flush()


def json_line(kind: str, values: Mapping[str, Any]) -> str:
    """Return one line of the log: kind and time first, then the figures."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"kind": kind, "time": now, **values}, ensure_ascii=False, default=str) + "\n"


def show_figures(console: Console, kind: str, values: Mapping[str, Any]) -> None:
    """Print figures for a person: the account of a stream, or an evaluation."""
    if kind == "account":
        account = values["account"]
        if not isinstance(account, Account):
            account = Account.from_json(account)
        console.print(account_table(str(values["stream"]), account))
    elif kind == "evaluation":
        console.print(evaluation_line(values), markup=False, soft_wrap=True)
    elif kind not in ("step", "started", "resumed"):  # a bar or a note says it
        console.print(figures_table(kind, values))


def evaluation_line(values: Mapping[str, Any]) -> str:
    """Return an evaluation in one line: its step and the held-out losses; the report has all."""
    losses = values.get("held_out") or {}
    words = [
        f"{name} {number(value)}"
        for name, value in losses.items()
        if name.count("/") == 1  # stream/objective; metrics have a third part
    ]
    where = f" at step {values['step']:,}" if "step" in values else ""
    return f"evaluation{where}: " + (", ".join(words) or "see the log")

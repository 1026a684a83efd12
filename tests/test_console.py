"""How progress looks, on a terminal and elsewhere."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from ptm_plus.cli import watches
from ptm_plus.cli.console import LoggedWatch, make_watch
from ptm_plus.cli.rendering import account_rows, duration, number, quantity, size
from ptm_plus.cli.watches import JsonWatch, PlainWatch, RichWatch
from ptm_plus.errors import EnvironmentProblem, SettingsError
from ptm_plus.prepare.accounts import Account, SpanAccount
from ptm_plus.progress import Silent, Watch


def terminal(is_terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=100, color_system=None)


def written(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(watches.time, "monotonic", lambda: now[0])
    return now


def account() -> Account:
    spans = SpanAccount(found=9, kept=7, cut=2, kinds={"entity": 7}, counts={"ambiguous": 3})
    return Account(
        rows=12,
        used=10,
        refused={"empty text": 2},
        documents=10,
        sequences=10,
        tokens=2000,
        unknown=1,
        truncated_tokens=5,
        truncated_sequences=1,
        stratum_examples={"en": 6, "fr": 4},
        stratum_tokens={"en": 900, "fr": 1100},
        spans={"given": spans, "empty": SpanAccount()},
        seconds=2.0,
    )


def test_plain_lines_come_at_every_tenth_and_every_five_seconds(clock: list[float]) -> None:
    screen = terminal(False)
    with PlainWatch(screen).task("work") as task:
        for done in range(1, 101):
            clock[0] += 0.1
            task.update(done, 100, f"loss {done}")
        for _ in range(3):
            clock[0] += 5.0
            task.update(100, 100, "closing")
    lines = written(screen).splitlines()
    assert lines[0] == "work: started"
    assert lines[1] == "work: 10/100 (10 %), 9.0 s left  loss 10"
    assert sum("%" in line for line in lines) == 10 + 3
    assert lines[-1] == "work: done, 100 in 25 s  closing"


def test_plain_lines_of_quick_tasks_are_two(clock: list[float]) -> None:
    screen = terminal(False)
    with PlainWatch(screen).task("work") as task:
        for done in range(1, 11):
            task.update(done, 10)
    assert written(screen).splitlines() == ["work: started", "work: done, 10 in 0.0 s"]


def test_a_task_of_unknown_length_shows_its_count(clock: list[float]) -> None:
    screen = terminal(False)
    with PlainWatch(screen).task("read") as task:
        clock[0] += 6
        task.update(1500, None, "rows")
        clock[0] += 6
        task.update(2500, None, "2,500 rows")
        task.update(0, None, "writing")
    assert written(screen).splitlines()[1:] == [
        "read: 1,500  rows",
        "read: 2,500 rows",
        "read: done, 2,500 in 12 s",
    ]


@pytest.mark.parametrize("make", [PlainWatch, RichWatch])
def test_a_failing_task_says_so_and_passes_the_error_on(make: type[PlainWatch]) -> None:
    screen = terminal(make is RichWatch)
    with pytest.raises(ValueError, match="inside"), make(screen).task("work"):
        raise ValueError("inside")
    assert ("✗ work" if make is RichWatch else "work: stopped") in written(screen)


def test_bars_leave_one_line_per_task() -> None:
    screen = terminal(True)
    watch = RichWatch(screen)
    with watch.task("outer") as outer:
        outer.update(1, 2, "mlm [not markup] 2.5")
        with watch.task("inner") as inner:
            inner.update(5)
    lines = [line for line in written(screen).splitlines() if "✓" in line]
    assert "✓ inner  5 in " in lines[0]
    assert "✓ outer  1 in " in lines[1]
    assert "[not markup]" in lines[1]
    with watch.task("again"):
        pass  # a new display starts once the first is closed
    assert "✓ again" in written(screen)


def test_json_lines_are_json(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    watch = JsonWatch()
    with watch.task("work") as task:
        clock[0] += 6
        task.update(1, 2, "half")
    watch.note("a word")
    watch.figures("account", {"stream": "text", "account": account()})
    watch.figures("step", {"loss": float("nan")})
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in err.splitlines()]
    assert out == ""
    assert [row.get("state") for row in rows] == ["started", "running", "done", None, None, None]
    assert rows[4]["account"]["spans"]["given"]["kept"] == 7
    assert rows[5]["loss"] is None


def test_the_log_takes_figures_and_notes_whatever_is_shown(tmp_path: Path) -> None:
    watch: Watch = LoggedWatch(Silent(), tmp_path / "run")
    watch.figures("step", {"step": 1, "losses": {"text/mlm": 2.5}})
    watch.note("half way")
    with watch.task("work") as task:
        task.update(1)
    log = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in log.splitlines()]
    assert [row["kind"] for row in rows] == ["step", "note"]
    assert rows[0]["losses"] == {"text/mlm": 2.5}


def test_a_log_that_cannot_be_written_is_the_environment(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file", encoding="utf-8")
    with pytest.raises(EnvironmentProblem, match=r"log\.jsonl"):
        LoggedWatch(Silent(), tmp_path / "run").note("x")


def test_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_watch("plain"), PlainWatch)
    assert isinstance(make_watch("rich"), RichWatch)
    assert isinstance(make_watch("json"), JsonWatch)
    assert isinstance(make_watch("plain", quiet=True), Silent)
    with pytest.raises(SettingsError, match="did you mean 'json'"):
        make_watch("jsn")
    monkeypatch.setenv("RANK", "1")
    assert isinstance(make_watch("plain"), Silent)


def test_accounts_tell_every_figure() -> None:
    rows = dict(account_rows(account()))
    assert rows["rows"] == "12 read · 10 used · 2 refused (empty text 2)"
    assert rows["sequences"] == "10 · 2,000 tokens · truncated 5 tokens of 1 sequences"
    assert rows["unknown"] == "1 tokens (0.05 %)"
    assert list(rows)[3:5] == ["fr", "en"]  # by tokens
    assert rows["spans given"] == "9 found · 7 kept (entity 7) · 2 cut · ambiguous 3"
    assert "spans empty" not in rows
    assert rows["prepared in"] == "2.0 s · 1,000 tokens/s"


def test_accounts_and_evaluations_are_shown_and_steps_are_not() -> None:
    screen = terminal(False)
    watch = PlainWatch(screen)
    watch.figures("account", {"stream": "text", "account": account().to_json()})
    watch.figures("step", {"step": 1})
    assert "account of text" in written(screen)
    assert "step" not in written(screen)
    losses = {"text/mlm": 2.5, "text/mlm/accuracy": 0.5, "pairs/tlm": 1.25}
    watch.figures("evaluation", {"step": 1500, "held_out": losses})
    assert "evaluation at step 1,500: text/mlm 2.5, pairs/tlm 1.25\n" in written(screen)
    watch.figures("other", {"some": {"figure": 3}})
    assert "some.figure  3" in written(screen)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_numbers_in_words() -> None:
    assert [number(v) for v in (1234, 0.12345, 12345.6, True, None)] == [
        *("1,234", "0.1235", "12,346", "yes", "–")
    ]
    assert [quantity(v) for v in (950, 12_300, 278e6, 1.25e9)] == [
        "950",
        "12.3 k",
        "278 M",
        "1.25 G",
    ]
    assert [size(v) for v in (10, 1536, 150 << 20, 3 << 30)] == [
        *("10 B", "1.5 KiB", "150 MiB", "3.0 GiB")
    ]


def test_the_time_left_does_not_count_what_was_done_before(capsys, monkeypatch) -> None:
    """A resumed run at step 90 of 120 that did ten steps in ten seconds has thirty to go."""
    from ptm_plus.cli import watches

    now = [0.0]
    monkeypatch.setattr(watches.time, "monotonic", lambda: now[0])
    with make_watch("plain").task("train", 80) as task:
        now[0] = 10.0
        task.update(90, 120)
    said = capsys.readouterr().err
    assert "90/120 (75 %), 30 s left" in said
    assert "train: done, 10 in 10 s" in said

"""The run folder: one process at a time, a log that reads as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from ptm_plus import run_folder
from ptm_plus.cli.console import LoggedWatch
from ptm_plus.cli.watches import json_line
from ptm_plus.errors import EnvironmentProblem
from ptm_plus.files import write_whole
from ptm_plus.progress import Silent
from ptm_plus.run_folder import locked
from ptm_plus.run_log import LOG, append_record, read_log
from ptm_plus.stopping import FOLLOWING, SIGNALS, interrupting_signals, stop_requests


def records(folder, *written):
    for kind, values in written:
        append_record(folder, json_line(kind, values))
    return [{k: v for k, v in one.items() if k != "time"} for one in read_log(folder)]


def test_what_a_resumed_run_did_again_counts_once(tmp_path):
    found = records(
        tmp_path,
        ("started", {"processes": 1}),
        ("note", {"text": "a"}),
        ("step", {"step": 5, "losses": {"a": 1.0}}),
        ("step", {"step": 10, "losses": {"a": 0.5}}),
        ("evaluation", {"step": 10, "b": 1}),
        ("resumed", {"step": 7}),
        ("step", {"step": 10, "losses": {"a": 0.6}}),
        ("evaluation", {"step": 10, "b": 2}),
        ("evaluation", {"step": 10, "b": 3}),
    )
    assert [(one["kind"], one.get("step")) for one in found] == [
        ("started", None),
        ("note", None),
        ("step", 5),
        ("resumed", 7),
        ("step", 10),
        ("evaluation", 10),
    ]
    assert found[-2]["losses"] == {"a": 0.6}
    assert found[-1]["b"] == 3


def test_a_new_start_leaves_out_everything_before(tmp_path):
    found = records(
        tmp_path, ("started", {}), ("step", {"step": 1}), ("started", {}), ("note", {"text": "b"})
    )
    assert [one["kind"] for one in found] == ["started", "note"]


def test_half_a_line_of_a_killed_process_is_none_and_spoils_no_other(tmp_path):
    records(tmp_path, ("started", {}), ("step", {"step": 1}))
    with (tmp_path / LOG).open("ab") as log:
        log.write('{"kind": "step", "text": "é'.encode()[:-1])
    found = records(tmp_path, ("step", {"step": 2}))
    assert [one.get("step") for one in found] == [None, 1, 2]
    assert (tmp_path / LOG).read_bytes().count(b"\n") == 4


def test_the_clock_may_go_backwards(tmp_path, monkeypatch):
    """Order is that of lines and steps; times are only told."""
    from ptm_plus.cli import watches

    class Back(watches.datetime):
        hour = iter(range(9, 0, -1))

        @classmethod
        def now(cls, zone):
            return watches.datetime(2020, 1, 1, next(cls.hour), tzinfo=zone)

    monkeypatch.setattr(watches, "datetime", Back)
    watch = LoggedWatch(Silent(), tmp_path)
    watch.figures("started", {})
    for step in (1, 2, 3):
        watch.figures("step", {"step": step})
    found = read_log(tmp_path)
    assert [one.get("step") for one in found] == [None, 1, 2, 3]
    assert [one["time"] for one in found] == sorted((one["time"] for one in found), reverse=True)


def test_a_second_process_is_refused_and_a_killed_one_lets_go(tmp_path, monkeypatch):
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom ptm_plus.run_folder import locked\n"
        f"with locked(Path({str(tmp_path)!r})):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    monkeypatch.setattr(run_folder, "_PATIENCE", 0.1)
    with pytest.raises(EnvironmentProblem, match="another process is training"), locked(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    monkeypatch.setattr(run_folder, "_PATIENCE", 10.0)
    with locked(tmp_path):
        pass


def test_a_file_is_replaced_whole_or_left(tmp_path, monkeypatch):
    path = tmp_path / "a.toml"
    write_whole(path, "first")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "second")
    assert path.read_text() == "first"
    assert [one.name for one in tmp_path.iterdir()] == ["a.toml"]


# ---------------------------------------------------------------------------------------------
# Signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_asks_to_stop_and_handlers_are_put_back(number):
    before = signal.getsignal(number)
    with stop_requests() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
    assert signal.getsignal(number) is before


def test_ctrl_c_twice_at_once_is_one_and_later_it_interrupts(monkeypatch):
    """A terminal sends Ctrl-C to every process, and torchrun passes it on once more."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with stop_requests() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        now[0] += 1.0
        os.kill(os.getpid(), signal.SIGINT)
        assert asked()
        now[0] += 5.0
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", SIGNALS)
def test_outside_the_loop_a_signal_interrupts(number):
    with interrupting_signals(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


def test_a_process_stops_when_its_starter_was_killed():
    child = (
        "import signal, sys, time\nfrom ptm_plus.stopping import follow_starter\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "follow_starter()\nprint('up', flush=True)\ntime.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", child],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, FOLLOWING: "1"},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"up\n"
    process.stdin.close()  # as the kernel does for a killed one
    assert process.wait(20) == 75
    process.stdout.close()


def test_log_lines_are_objects(tmp_path):
    append_record(tmp_path, json_line("note", {"text": "zwölf"}))
    assert json.loads((tmp_path / LOG).read_text(encoding="utf-8"))["text"] == "zwölf"


def test_a_run_of_one_s_own_in_a_folder_of_the_sample_is_not_the_sample(tmp_path):
    from ptm_plus.cli.folders import claim_folder
    from ptm_plus.sample_run import is_sample
    from ptm_plus.settings_files import resolve

    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "majority_guess.json").write_text("{}")
    (tmp_path / "without-plugins").mkdir()
    sample = {"output": str(tmp_path), "data.text": [str(tmp_path / "sample" / "text.jsonl")]}
    assert is_sample(resolve(None, sample).settings)
    own = resolve(None, {"output": str(tmp_path), "data.text": ["mine.txt"]}).settings
    assert not is_sample(own)
    claim_folder(own, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]

"""The cache as a graph, workers, and runs that are broken off."""

from __future__ import annotations

import copy
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from preparing import (
    PAIR_LAYOUT,
    Heavy,
    bytes_of,
    die,
    example,
    fail,
    name_annotator,
    prepare,
    settings,
    stream,
    swapper,
)
from small_tokenizers import small_tokenizer

from ptm_plus import crew
from ptm_plus.components import Annotator, Refused
from ptm_plus.errors import DataError, EnvironmentProblem, PluginError, SettingsError
from ptm_plus.examples import Example
from ptm_plus.prepare import artifacts, preparation
from ptm_plus.prepare.artifacts import part_path, partial_folder
from ptm_plus.prepare.layouts import TEXT_LAYOUT
from ptm_plus.prepare.store import SequenceStore
from ptm_plus.prepare.stream import plan_stream

ROWS: list[Example | Refused] = [
    Refused("no tab") if number % 7 == 6 else replace(example(number), labels={"n": f"l{number}"})
    for number in range(40)
]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "CHUNK_ROWS", 5)
    monkeypatch.setattr(crew, "IN_PROCESS", 1)


def made(cache: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in cache.glob("*/*") if path.is_dir()}


def test_an_annotator_adds_its_table_only(tmp_path: Path) -> None:
    plain = prepare(tmp_path, ROWS)
    before = bytes_of(plain)
    first = made(tmp_path)
    linked = prepare(tmp_path, ROWS, annotators=[name_annotator()])
    added = made(tmp_path) - first
    assert added == {f"spans/{linked.spans['names'].folder.name}"}
    assert {name: bytes_of(linked)[name] for name in before} == before
    # The table made later from the artifact equals the one made along with it.
    fresh = prepare(tmp_path / "fresh", ROWS, annotators=[name_annotator()])
    assert bytes_of(fresh) == bytes_of(linked)
    changed = prepare(tmp_path, ROWS, annotators=[name_annotator(version="2")])
    assert changed.folder == linked.folder
    assert changed.spans["names"].folder != linked.spans["names"].folder


def test_two_annotators_of_one_content_share_a_table(tmp_path: Path) -> None:
    both = [name_annotator("a"), name_annotator("b")]
    store = prepare(tmp_path, ROWS, annotators=both)
    assert store.spans["a"].folder == store.spans["b"].folder
    alone = prepare(tmp_path / "alone", ROWS, annotators=[name_annotator("a")])
    assert len(store.spans["a"].start) == len(alone.spans["a"].start) > 0


def test_later_tables_of_rewritten_copies_equal_those_made_along(tmp_path: Path) -> None:
    values: dict[str, Any] = {"rewriters": [swapper(2)], "annotators": [name_annotator()]}
    store = prepare(tmp_path, ROWS, **values)
    before = bytes_of(store)
    for path in store.spans["names"].folder.iterdir():
        path.unlink()
    assert bytes_of(prepare(tmp_path, ROWS, **values)) == before


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"max_length": 16}},
        {"settings": {"max_examples": 20}},
        {"tokenizer": "roberta"},
        {"stream": stream(ROWS, content="2")},
        {"layout": replace(TEXT_LAYOUT, fingerprint="text-2")},
        {"rewriters": [swapper()]},
    ],
)
def test_what_decides_on_tokens_makes_new_ones(tmp_path: Path, change: dict[str, Any]) -> None:
    if "tokenizer" in change:
        change = {"tokenizer": small_tokenizer(change["tokenizer"])}
    before = prepare(tmp_path, ROWS)
    assert prepare(tmp_path, ROWS, **change).folder != before.folder


def test_nothing_is_read_when_everything_is_there(tmp_path: Path) -> None:
    store = prepare(tmp_path, ROWS, annotators=[name_annotator()])

    def unreadable() -> Any:
        raise AssertionError("the stream was read")

    again = prepare(
        tmp_path,
        [],
        stream=replace(stream(ROWS), examples=unreadable),
        annotators=[name_annotator()],
        settings={"workers": 2},
    )
    assert again.folder == store.folder
    renamed = replace(stream(ROWS), name="other", examples=unreadable)
    assert prepare(tmp_path, [], stream=renamed).folder == store.folder


def test_the_plan_says_what_is_made_and_why(tmp_path: Path) -> None:
    def plan(annotators: list[Annotator], **values: Any) -> list[tuple[str, bool, str]]:
        planned = plan_stream(
            stream(ROWS),
            TEXT_LAYOUT,
            annotators,
            [],
            small_tokenizer("bert"),
            settings(**values),
            tmp_path,
        )
        return [(one.artifact, one.present, one.reason) for one in planned]

    never = "the stream was never prepared"
    again = "the sequences are made again"
    assert plan([]) == [("tokens", False, never), ("spans:given", False, again)]
    assert not tmp_path.joinpath("tokens").exists()
    prepare(tmp_path, ROWS)
    assert plan([]) == [("tokens", True, ""), ("spans:given", True, "")]
    assert plan([name_annotator()])[2] == (
        "spans:names", False, "this annotator is new or has changed"
    )  # fmt: skip
    assert plan([], max_length=32)[0] == ("tokens", False, "changed: max_length")


def test_two_workers_make_the_same_bytes(tmp_path: Path) -> None:
    values = {"annotators": [name_annotator()]}
    one = prepare(tmp_path / "1", ROWS, **values)
    two = prepare(tmp_path / "2", ROWS, settings={"workers": 2}, **values)
    assert bytes_of(one) == bytes_of(two)
    assert one.account.spans == two.account.spans
    assert len(one.labels["n"] or ()) == one.account.used


def test_a_broken_off_run_goes_on_where_it_was(tmp_path: Path) -> None:
    values: dict[str, Any] = {"annotators": [name_annotator()]}
    whole = prepare(tmp_path / "whole", ROWS, **values)

    def interrupt(done: int, total: int | None, detail: str) -> None:
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, ROWS, progress=interrupt, **values)
    assert all(
        path.name.endswith((".partial", ".lock")) for path in (tmp_path / "tokens").iterdir()
    )
    # A part that was damaged meanwhile, and one that was not finished.
    damaged = part_path(tmp_path / "tokens" / whole.folder.name, 1)
    damaged.write_bytes(damaged.read_bytes()[:100])
    seen: list[str] = []
    again = prepare(
        tmp_path, ROWS, progress=lambda done, total, detail: seen.append(detail), **values
    )
    assert bytes_of(again) == bytes_of(whole)
    assert "40 rows, 3 of 8 parts were there" in seen
    assert not list(tmp_path.glob("*/*.partial"))


def test_an_interrupted_pool_keeps_its_parts(tmp_path: Path) -> None:
    def interrupt(done: int, total: int | None, detail: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, ROWS, progress=interrupt, settings={"workers": 2})
    parts = list(tmp_path.glob("tokens/*.partial/parts/*.npz"))
    assert parts
    assert not list(tmp_path.glob("tokens/*.partial/parts/*.tmp"))
    assert bytes_of(prepare(tmp_path, ROWS)) == bytes_of(prepare(tmp_path / "2", ROWS))


KILLED = """
import os, signal, sys
sys.path.insert(0, "tests")
from pathlib import Path
import psutil
from ptm_plus import crew
from ptm_plus.prepare import preparation
from preparing import prepare
from test_prepare_cache import ROWS

def kill(done, total, detail):
    if done >= 10:
        print(*(child.pid for child in psutil.Process().children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    preparation.CHUNK_ROWS, crew.IN_PROCESS = 5, 1
    prepare(Path(sys.argv[1]), ROWS, settings={"workers": 2}, progress=kill)
"""


def test_a_killed_run_goes_on_and_leaves_no_worker(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED, encoding="utf-8")
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    ran = subprocess.run(
        [sys.executable, script, tmp_path / "cache"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    workers = [int(word) for word in ran.stdout.split()]
    assert len(workers) >= 2
    assert not made(tmp_path / "cache") & made_names(prepare(tmp_path / "whole", ROWS))
    again = prepare(tmp_path / "cache", ROWS)
    assert bytes_of(again) == bytes_of(prepare(tmp_path / "whole", ROWS))
    deadline = time.monotonic() + 30
    while any(psutil.pid_exists(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived its main process"
        time.sleep(0.05)


def made_names(store: SequenceStore) -> set[str]:
    folders = [store.folder, *(table.folder for table in store.spans.values())]
    return {f"{folder.parent.name}/{folder.name}" for folder in folders}


def test_control_tokens_make_nothing_new(tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(small_tokenizer("bert"))
    before = prepare(tmp_path, ROWS, tokenizer=tokenizer).folder
    tokenizer.add_tokens(["[REL]"], special_tokens=True)
    assert prepare(tmp_path, ROWS, tokenizer=tokenizer).folder == before
    tokenizer.add_tokens(["Hauptstadt"])
    assert prepare(tmp_path, ROWS, tokenizer=tokenizer).folder != before


def test_parts_of_another_division_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(done: int, total: int | None, detail: str) -> None:
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, ROWS, progress=interrupt)
    monkeypatch.setattr(preparation, "CHUNK_ROWS", 9)
    store = prepare(tmp_path, ROWS)
    assert (store.account.rows, store.account.used) == (40, 35)
    assert store.ids.tolist() == prepare(tmp_path / "2", ROWS).ids.tolist()


def test_a_full_disk_stops_with_the_folder_and_nothing_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = artifacts.ArrayFile.write, []

    def write(self: artifacts.ArrayFile, values: Any) -> None:
        calls.append(1)
        if len(calls) > 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, values)

    monkeypatch.setattr(artifacts.ArrayFile, "write", write)
    with pytest.raises(EnvironmentProblem, match=r"no space left while writing to .*MiB free"):
        prepare(tmp_path, ROWS)
    folders = [path for path in tmp_path.glob("*/*") if path.is_dir()]
    assert folders
    assert all(path.name.endswith(".partial") for path in folders)
    assert not list(tmp_path.glob("*/*.partial/*.npy"))
    monkeypatch.setattr(artifacts.ArrayFile, "write", real)
    assert bytes_of(prepare(tmp_path, ROWS)) == bytes_of(prepare(tmp_path / "2", ROWS))


def test_a_second_run_waits_for_the_first_and_uses_its_work(tmp_path: Path) -> None:
    stores: list[SequenceStore] = []
    reads: list[int] = []

    def read() -> Any:
        reads.append(1)
        return iter(ROWS)

    counted = replace(stream(ROWS), examples=read)
    threads = [
        threading.Thread(target=lambda: stores.append(prepare(tmp_path, [], stream=counted)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 2
    assert len(reads) == 1


def test_errors_come_back_from_workers_as_they_are(tmp_path: Path) -> None:
    annotator = name_annotator(annotate=fail, account=None)
    with pytest.raises(DataError, match=r"a\.jsonl:3: wrong row") as caught:
        prepare(tmp_path, ROWS, annotators=[annotator], settings={"workers": 2})
    assert (caught.value.hint, caught.value.line) == ("mend it", 3)


def test_a_worker_that_dies_is_an_error_of_the_machine(tmp_path: Path) -> None:
    annotator = name_annotator(annotate=die, account=None)
    with pytest.raises(EnvironmentProblem, match="a worker process of prepare died"):
        prepare(tmp_path, ROWS, annotators=[annotator], settings={"workers": 2})


def test_a_worker_that_is_killed_as_it_starts_is_an_error_and_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crew, "IN_PROCESS", 0)
    here, killed = psutil.Process(), []

    def kill_the_first() -> None:
        while not killed:
            for child in here.children():
                with suppress(psutil.Error):
                    if "spawn_main" in " ".join(child.cmdline()):
                        child.kill()
                        killed.append(child.pid)
                        return

    thread = threading.Thread(target=kill_the_first, daemon=True)
    thread.start()
    annotator = name_annotator(annotate=Heavy(), account=None)
    with pytest.raises(EnvironmentProblem, match="a worker process of prepare died"):
        prepare(tmp_path, ROWS, annotators=[annotator], settings={"workers": 2})
    assert killed
    assert "Traceback" not in capfd.readouterr().err  # of the other worker


def test_a_component_that_cannot_travel_is_named(tmp_path: Path) -> None:
    annotator = name_annotator(annotate=lambda examples: [[] for _ in examples], account=None)
    with pytest.raises(PluginError, match="the annotator 'names' cannot be sent to a worker"):
        prepare(tmp_path, ROWS, annotators=[annotator], settings={"workers": 2})
    assert len(prepare(tmp_path, ROWS, annotators=[annotator]).spans["names"]) == 0


def test_annotators_need_names_of_their_own(tmp_path: Path) -> None:
    for annotators in ([name_annotator(), name_annotator()], [name_annotator("given")]):
        with pytest.raises(SettingsError, match="names of their own"):
            prepare(tmp_path, ROWS, annotators=annotators)


def test_components_of_other_streams_are_left_out(tmp_path: Path) -> None:
    store = prepare(tmp_path, ROWS, annotators=[name_annotator(streams=("pairs",))])
    assert set(store.spans) == {"given"}
    rewriter = replace(swapper(3), streams=("pairs",))
    assert prepare(tmp_path, ROWS, rewriters=[rewriter]).folder == store.folder


def test_a_leftover_folder_without_an_account_is_replaced(tmp_path: Path) -> None:
    store = prepare(tmp_path / "2", ROWS)
    leftover = tmp_path / "tokens" / store.folder.name
    leftover.mkdir(parents=True)
    (leftover / "ids.npy").write_bytes(b"half")
    assert bytes_of(prepare(tmp_path, ROWS)) == bytes_of(store)
    assert not partial_folder(leftover).exists()


def test_long_rows_close_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [example(0)] * 10
    length = len(example(0).fields["text"])
    chunks = list(preparation.chunked(rows, 0, 4, 2 * length))
    assert [(one.number, one.first, one.rows) for one in chunks] == [
        (0, 0, 2), (1, 2, 2), (2, 4, 2), (3, 6, 2), (4, 8, 2)
    ]  # fmt: skip
    chunks = list(preparation.chunked(rows, 7, 4, 10**6))
    assert [(one.first, one.rows) for one in chunks] == [(0, 4), (4, 3)]
    assert [number for one in chunks for number, _ in one.examples] == list(range(7))


def test_chunks_without_a_usable_row(tmp_path: Path) -> None:
    rows: list[Example | Refused] = (
        [Refused("no tab")] * 11 + [example(0)] + [Refused("no tab")] * 6
    )
    store = prepare(tmp_path, rows)
    assert (store.account.rows, store.account.used, len(store)) == (18, 1, 1)
    linked = prepare(tmp_path, rows, annotators=[name_annotator()])
    assert len(linked.spans["names"]) == 4


def test_pairs_with_two_workers(tmp_path: Path) -> None:
    rows = [
        Example(str(n), {"src": f"Paris {n}", "tgt": "the Seine"}, {"src": "en", "tgt": "fr"})
        for n in range(30)
    ]
    values: dict[str, Any] = {"layout": PAIR_LAYOUT, "annotators": [name_annotator()]}
    one = prepare(tmp_path / "1", rows, **values)
    two = prepare(tmp_path / "2", rows, settings={"workers": 2}, **values)
    assert bytes_of(one) == bytes_of(two)
    assert one.account.spans["names"].kept == 60

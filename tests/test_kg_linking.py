"""``kg link`` in parts: the same bytes for any number of workers, and after a kill."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from cli_files import document, run
from hypothesis import given, settings
from hypothesis import strategies as st

from ptm_plus import crew
from ptm_plus.cli import kg_linking
from ptm_plus.cli.kg_commands import read_examples
from ptm_plus.knowledge.common_words import WordCounter, common_words
from ptm_plus.knowledge.labels import read_labels
from ptm_plus.knowledge.linker import DictionaryLinker, LinkCounts

NAMES = [
    {"id": "Q1", "lang": "en", "label": "Jesus", "aliases": ["His", "Lord"]},
    {"id": "Q2", "lang": "en", "label": "Metropolitan Museum", "aliases": ["Met", "The Met"]},
    {"id": "Q3", "lang": "en", "label": "Rome"},
    {"id": "Q4", "lang": "en", "label": "Romulus", "aliases": ["Romus", "Village"]},
    {"id": "Q5", "lang": "en", "label": "Remus", "aliases": ["Romus"]},
    {"id": "Q6", "lang": "de", "label": "Rom", "aliases": ["Stadt"]},
]
WORDS = ["his", "His", "The Met", "Met", "met", "Rome", "village", "Village", "a", "ñ—日"]
WORDS += ["Romus", "romus", "romus"]  # ambiguous, and common too


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def texts(count: int, seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        text = ". ".join(" ".join(draw.choices(WORDS, k=6)) for _ in range(3))
        rows.append({"text": text, "lang": "de" if number % 9 == 8 else "en"})
        if number % 5 == 4:
            rows[-1]["mentions"] = [{"start": 0, "end": 2, "id": "Q9"}]
        if number % 7 == 6:
            rows[-1]["spans"] = [{"start": 0, "end": 1, "kind": "phrase"}]
    return rows


def by_hand(text: Path, labels: Path, common: bool) -> tuple[list[dict[str, Any]], LinkCounts]:
    """Link in two passes: count all text, then link with what is known to be common."""
    names = read_labels([labels])
    counter = WordCounter(names)
    examples = list(read_examples([str(text)]))
    for one in examples:
        counter.add(one.fields["text"], one.languages["text"])
    words = common_words(names, counter.counts) if common else {}
    linker, counts, rows = DictionaryLinker(names, common=words), LinkCounts(), []
    for one in examples:
        given = [[span.start, span.end, span.id] for span in one.spans if span.kind == "entity"]
        found = given or linker.link(one.fields["text"], one.languages["text"], counts)
        mentions = [dict(zip(("start", "end", "id"), link, strict=True)) for link in found]
        rows.append({"text": one.fields["text"], "mentions": mentions})
    return rows, counts


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kg_linking, "PART_ROWS", 10)
    monkeypatch.setattr(crew, "IN_PROCESS", 1)
    write(tmp_path / "labels.jsonl", NAMES)
    write(tmp_path / "text.jsonl", texts(95))
    return tmp_path


def link(files: Path, name: str, *flags: object, text: str = "text.jsonl") -> dict[str, Any]:
    given = ("--text", files / text, "--labels", files / "labels.jsonl", "-o", files / name)
    return document("kg", "link", *given, "--cache", files / "cache", "--workers", 1, *flags)


def parts(files: Path) -> dict[str, tuple[int, int]]:
    """Which parts there are, by number, with what changes when one is written again."""
    found = (files / "cache" / "links").glob("*/parts/*.npz")
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


@pytest.mark.parametrize("common", [True, False])
def test_the_links_are_those_of_the_linker_itself(files: Path, common: bool) -> None:
    counts = link(files, "a.jsonl", *([] if common else ["--no-common-words"]))
    rows, expected = by_hand(files / "text.jsonl", files / "labels.jsonl", common)
    lines = (files / "a.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    assert [{name: row[name] for name in ("text", "mentions")} for row in found] == rows
    assert [row["spans"] for row in found if "spans" in row] == (
        [[{"start": 0, "end": 1, "kind": "phrase", "id": ""}]] * 13
    )
    names = ("names_found", "linked", "ambiguous", "common_words")
    assert [counts[name] for name in names] == (
        [expected.found, expected.linked, expected.ambiguous, expected.common]
    )
    assert counts["ambiguous"] > 0
    assert (counts["common_words"] > 0) is common
    assert counts["mentions_given"] == 19
    assert counts["entities"] == len({"Q9"} | expected.by_id.keys())
    assert (counts["texts"], len(parts(files))) == (95, 10)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8), min_size=1, max_size=6))
def test_any_text_is_linked_as_in_two_passes(words: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        labels = write(folder / "labels.jsonl", NAMES)
        text = write(folder / "t.jsonl", [{"text": " ".join(w), "lang": "en"} for w in words])
        counts = link(folder, "a.jsonl", text="t.jsonl")
        rows, expected = by_hand(text, labels, common=True)
        lines = (folder / "a.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["mentions"] for line in lines] == [row["mentions"] for row in rows]
        assert (counts["linked"], counts["common_words"]) == (expected.linked, expected.common)


def test_two_workers_write_the_same_bytes(files: Path) -> None:
    one = link(files, "1.jsonl", "--workers", 1)
    before = parts(files)
    two = link(files, "2.jsonl", "--workers", 2, "--cache", files / "other")
    assert (files / "1.jsonl").read_bytes() == (files / "2.jsonl").read_bytes()
    assert {**one, "output": ""} == {**two, "output": ""}
    assert len(before) == len(list((files / "other").glob("links/*/parts/*.npz"))) == 10


def test_what_was_linked_is_not_read_again(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = link(files, "1.jsonl")
    before = parts(files)

    def unread(spec: object) -> None:
        raise AssertionError("the text was read")

    monkeypatch.setattr(kg_linking, "read_text", unread)
    assert {**link(files, "2.jsonl"), "output": first["output"]} == first
    assert (files / "1.jsonl").read_bytes() == (files / "2.jsonl").read_bytes()
    plain = link(files, "3.jsonl", "--no-common-words")  # the parts hold the links of all names
    assert plain["linked"] == first["linked"] + first["common_words"]
    assert parts(files) == before


def test_other_names_and_other_text_are_linked_anew(files: Path) -> None:
    link(files, "1.jsonl")
    link(files, "2.jsonl", "--min-length", 4)
    assert len(list((files / "cache" / "links").glob("*/parts.json"))) == 2
    write(files / "more.jsonl", texts(12, seed=1))
    both = link(files, "3.jsonl", "--text", files / "more.jsonl")
    assert len(list((files / "cache" / "links").glob("*/parts.json"))) == 3
    assert both["texts"] == 107
    write(files / "text.jsonl", texts(95, seed=2))
    link(files, "4.jsonl")
    assert len(list((files / "cache" / "links").glob("*/parts.json"))) == 4


def test_rows_that_are_refused_are_counted(files: Path) -> None:
    write(files / "odd.jsonl", [{"text": " ", "lang": "en"}, {"text": "Rome", "lang": "en"}])
    counts = link(files, "odd-linked.jsonl", text="odd.jsonl")
    assert (counts["texts"], counts["refused"], counts["linked"]) == (1, 1, 1)


@pytest.mark.parametrize("name", ["parts/000003.npz", "parts.json"])
def test_what_is_broken_is_named_with_what_to_delete(files: Path, name: str) -> None:
    link(files, "1.jsonl")
    (folder,) = (files / "cache" / "links").glob("*/")
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    given = ("--text", files / "text.jsonl", "--labels", files / "labels.jsonl")
    again = ("kg", "link", *given, "-o", files / "2.jsonl", "--cache", files / "cache")
    result = run(*again)
    assert result.exit_code == 4
    assert f"delete {folder}: it is made again" in result.stderr
    assert not (files / "2.jsonl").exists()


def test_a_link_in_the_cache_is_refused(files: Path) -> None:
    link(files, "1.jsonl")
    (part, *_) = (files / "cache" / "links").glob("*/parts/*.npz")
    part.unlink()
    part.symlink_to(files / "text.jsonl")
    given = ("--text", files / "text.jsonl", "--labels", files / "labels.jsonl")
    result = run("kg", "link", *given, "-o", files / "2.jsonl", "--cache", files / "cache")
    assert result.exit_code == 4
    assert "symbolic link" in result.stderr


KILLED = """
import os, signal, sys
import psutil
from ptm_plus import crew
from ptm_plus.cli import app, kg_linking
from ptm_plus.prepare import chunk_pool

add = chunk_pool._Done.add

def add_then_kill(done, chunk):
    add(done, chunk)
    if done.chunks == 4:
        print(*(child.pid for child in psutil.Process().children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    kg_linking.PART_ROWS, crew.IN_PROCESS = 10, 1
    chunk_pool._Done.add = add_then_kill
    app(["kg", "link", *sys.argv[1:]])
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_command_goes_on_with_the_part_it_was_at(files: Path, workers: int) -> None:
    script = files / "killed.py"
    script.write_text(KILLED, encoding="utf-8")
    root = Path(__file__).parents[1]
    given = ["--text", files / "text.jsonl", "--labels", files / "labels.jsonl"]
    target = files / "linked.jsonl"
    flags = ["--cache", files / "cache", "--workers", str(workers)]
    ran = subprocess.run(
        [sys.executable, script, *given, "-o", target, *flags],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert not target.exists()
    assert not list(files.glob(".linked*"))
    deadline = time.monotonic() + 30
    while any(psutil.pid_exists(int(pid)) for pid in ran.stdout.split()):
        assert time.monotonic() < deadline, "a worker outlived its main process"
        time.sleep(0.05)
    before = parts(files)
    assert 4 <= len(before) < 10
    link(files, "linked.jsonl")
    link(files, "whole.jsonl", "--cache", files / "other")
    assert target.read_bytes() == (files / "whole.jsonl").read_bytes()
    after = parts(files)
    assert len(after) == 10
    assert {name: after[name] for name in before} == before

"""``kg link`` and ``kg check`` against counts made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_files import NAMES, Files, document, run, write_files


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return write_files(tmp_path)


def test_linked_text_marks_the_names(files: Files) -> None:
    target = files.folder / "out" / "linked.jsonl"
    counts = document("kg", "link", "--text", files.text, "--labels", files.labels, "-o", target)
    rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == files.sentences
    for row in rows:
        marked = [row["text"][one["start"] : one["end"]] for one in row["mentions"]]
        assert [NAMES[one["id"]] for one in row["mentions"]] == marked
    total = sum(len(row["mentions"]) for row in rows)
    assert total == sum(word in NAMES.values() for text in files.sentences for word in text.split())
    assert counts["linked"] == total
    assert counts["texts"] == 120


def test_linked_text_can_be_read_and_linked_again_unchanged(files: Files) -> None:
    first, second = files.folder / "a.jsonl", files.folder / "b.jsonl"
    document("kg", "link", "--text", files.text, "--labels", files.labels, "-o", first)
    counts = document("kg", "link", "--text", first, "--labels", files.labels, "-o", second)
    assert first.read_bytes() == second.read_bytes()
    assert counts["names_found"] == 0
    assert counts["mentions_given"] > 0


def test_a_graph_restricts_the_links(files: Files) -> None:
    small = files.folder / "small.tsv"
    small.write_text("Q0\tP1\tQ1\n", encoding="utf-8")
    target = files.folder / "linked.jsonl"
    document(
        *("kg", "link", "--text", files.text, "--labels", files.labels),
        *("--kg", small, "-o", target),
    )
    rows = map(json.loads, target.read_text(encoding="utf-8").splitlines())
    assert {one["id"] for row in rows for one in row["mentions"]} == {"Q0", "Q1"}


def test_nothing_is_left_when_linking_fails(files: Files) -> None:
    with files.text.open("a", encoding="utf-8") as file:
        file.write("not json\n")
    target = files.folder / "out" / "linked.jsonl"
    result = run("kg", "link", "--text", files.text, "--labels", files.labels, "-o", target)
    assert result.exit_code == 4
    assert list(files.folder.glob("out/*")) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "a.txt"], ".jsonl"),
        (["-o", "a.jsonl"], "no text"),
        (["-o", "a.jsonl", "--text", "t.txt"], "no names"),
    ],
)
def test_link_says_what_it_lacks(arguments: list[str], words: str) -> None:
    result = run("kg", "link", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_check_counts_what_fits(files: Files) -> None:
    half = files.folder / "half.tsv"
    half.write_text("Q0\tP1\tQ1\nQ1\tP1\tQ2\n", encoding="utf-8")
    arguments = ("kg", "check", "--kg", half, "--labels", files.labels, "--text", files.text)
    ledger = document(*arguments)
    words = [word for text in files.sentences for word in text.split()]
    known = sum(word in {NAMES["Q0"], NAMES["Q1"], NAMES["Q2"]} for word in words)
    assert ledger["mentions"]["linked"] == sum(word in NAMES.values() for word in words)
    assert ledger["mentions_in_graph"] == known
    share = known / ledger["mentions"]["linked"]
    assert run(*arguments, "--fail-below", share - 0.01).exit_code == 0
    failed = run(*arguments, "--fail-below", share + 0.01)
    assert failed.exit_code == 4
    assert "in the graph, fewer than" in failed.stderr
    assert "names en" in failed.stdout  # the table is there all the same


def test_check_fails_without_any_overlap(files: Files) -> None:
    other = files.folder / "other.tsv"
    other.write_text("X1\tP1\tX2\n", encoding="utf-8")
    arguments = ("kg", "check", "--kg", other, "--labels", files.labels, "--text", files.text)
    result = run(*arguments, "--json")
    assert result.exit_code == 4
    assert json.loads(result.stdout)["mentions_in_graph"] == 0
    assert "no overlap" in result.stderr


def test_check_wants_a_graph() -> None:
    assert run("kg", "check").exit_code == 2

"""Inputs that no reader expects: no traceback, no hang, no row lost in silence."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # behind what is installed: only the benchmarks come from there

from benchmarks import fuzz  # noqa: E402
from benchmarks.fuzzing.cases import Outcome, Reader, make_case, run_case  # noqa: E402
from benchmarks.fuzzing.counting import csv_records, documents, filled_lines, lines  # noqa: E402
from benchmarks.fuzzing.readers import READERS  # noqa: E402
from ptm_plus.errors import DataError, SettingsError  # noqa: E402
from ptm_plus.files import open_lines  # noqa: E402
from ptm_plus.sources import readers as sources_readers  # noqa: E402

INPUTS = 450
SEED = 2026

PER_FILE = settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "case"


@pytest.mark.parametrize("name", READERS)
def test_no_input_breaks_a_rule(name: str, memory: Path) -> None:
    reader, seen = READERS[name], Counter[str]()
    for number in range(INPUTS):
        outcome = run_case(reader, make_case(reader, SEED, number), memory)
        assert not outcome.violation, f"input {number} of seed {SEED}: {outcome.violation}"
        seen["refused" if outcome.rows < 0 else "accepted"] += 1
    # A document that nothing spoilt is valid, and much of what is spoilt is not.
    assert seen["accepted"] > INPUTS / 20
    never_refused = {"part", "fingerprints", "manifest"}
    assert name in never_refused or seen["refused"] > INPUTS / 20


def test_that_is_ten_thousand_inputs() -> None:
    assert len(READERS) * INPUTS >= 10_000


@pytest.mark.parametrize("name", READERS)
def test_an_input_depends_on_reader_seed_and_number_alone(name: str) -> None:
    reader = READERS[name]
    assert make_case(reader, 1, 2) == make_case(reader, 1, 2)
    assert len({str(make_case(reader, 1, number)) for number in range(20)}) > 5


# The rules see what they are for


def judged(reader: Reader, folder: Path, content: bytes = b"a\tb\tc\n", **changes: object) -> str:
    changed = replace(reader, **changes)
    return run_case(changed, {"kg.tsv": content}, folder / "case").violation


def raising(error: BaseException) -> object:
    def read(path: Path) -> int:
        raise error

    return read


def test_other_errors_are_violations(memory: Path) -> None:
    reader = READERS["triples"]
    assert judged(reader, memory) == ""
    assert judged(reader, memory, read=raising(KeyError("x"))).startswith("KeyError: 'x' at ")
    wrong_kind = raising(SettingsError("no"))
    assert "SettingsError instead of DataError" in judged(reader, memory, read=wrong_kind)


@pytest.mark.parametrize(
    ("message", "path", "line", "violation"),
    [
        ("wrong", "kg.tsv", 1, ""),
        ("wrong", "kg.tsv", 2, "names line 2 of 1"),
        ("wrong", "kg.tsv", None, "does not name the line"),
        ("holds no rows", "kg.tsv", None, ""),
        ("wrong", None, None, "does not name the file"),
        ("wrong" * 1000, "kg.tsv", 1, "a message of 5"),
    ],
)
def test_an_error_names_file_and_line_in_few_words(
    memory: Path, message: str, path: str | None, line: int | None, violation: str
) -> None:
    where = memory / "case" / path if path else None
    error = raising(DataError(message, path=where, line=line))
    assert judged(READERS["triples"], memory, read=error).startswith(violation)
    assert bool(judged(READERS["triples"], memory, read=error)) == bool(violation)


def test_warnings_and_hangs_are_violations(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(path: Path) -> int:
        import warnings

        warnings.warn("odd", UserWarning, stacklevel=1)
        return 0

    def hang(path: Path) -> int:
        while True:
            pass

    monkeypatch.setattr("benchmarks.fuzzing.cases.SECONDS", 0.05)
    reader = READERS["triples"]
    assert judged(reader, memory, read=warn).startswith("UserWarning: odd")
    assert judged(reader, memory, read=hang) == "no end after 0.05 s"


def test_a_lost_row_is_a_violation(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = sources_readers.text_rows

    def lossy(spec: object) -> Iterator[object]:
        return (row for row in rows(spec) if "lost" not in str(row[2]))  # type: ignore[arg-type]

    files = {"a.jsonl": b'{"text": "kept"}\n{"text": "lost"}\n'}
    assert run_case(READERS["text.jsonl"], files, memory) == Outcome(rows=2)
    monkeypatch.setattr(sources_readers, "text_rows", lossy)
    found = run_case(READERS["text.jsonl"], files, memory).violation
    assert found == "2 rows in the file, 1 used or refused"


# The counts are right


@pytest.mark.parametrize(
    ("count", "text", "expected"),
    [
        (lines, "", 0),
        (lines, "a", 1),
        (lines, "a\n\nb\n", 3),
        (lines, "\ufeff", 1),
        (lines, "a\u2028b\r\nc", 2),
        (filled_lines, "a\n \nb\n", 2),
        (documents, "\n\na\nb\n \n\nc", 2),
        (csv_records, 'a,b\n"1\n2",3\n', 2),
        (csv_records, 'a\n"say ""\n"" x"\nb"\n', 3),
    ],
)
def test_rows_are_counted(memory: Path, count: object, text: str, expected: int) -> None:
    path = memory.with_suffix(".txt")
    path.write_bytes(text.encode())
    assert count(path) == expected  # type: ignore[operator]


# The command


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_the_command_counts_and_keeps_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(results: object, name: str, seed: int, numbers: range) -> None:
        if numbers.start <= 3 < numbers.stop and numbers.start + 1 < numbers.stop:
            os._exit(5)
        if numbers == range(3, 4):
            os._exit(7)
        outcomes = [Outcome(rows=n) if n else Outcome(violation="odd") for n in numbers]
        results.send((outcomes, 0.5))  # type: ignore[attr-defined]

    # Forked, so that the worker's stand-in is there, too.
    monkeypatch.setattr(fuzz, "_work", work)
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: fork)
    output = tmp_path / "fuzz.json"
    arguments = ["--inputs", "6", "--seed", "9", "--reader", "links", "--json", str(output)]
    assert fuzz.main(arguments) == 1
    assert "links: 6 inputs, 4 accepted, 0 refused, 2 violations" in capsys.readouterr().err
    found = json.loads(output.read_text(encoding="utf-8"))["readers"]["links"]
    assert found["rows"] == 1 + 2 + 4 + 5
    died, odd = sorted(found["findings"].values(), key=lambda one: -one["number"])
    assert (died["violation"], died["number"]) == ("the process died with 7", 3)
    assert (odd["violation"], odd["seed"], odd["times"]) == ("odd", 9, 1)
    files = {name: base64.b64decode(text) for name, text in odd["files"].items()}
    assert files == make_case(READERS["links"], 9, 0)


def test_the_command_leaves_with_0_where_nothing_is_found(tmp_path: Path) -> None:
    assert fuzz.main(["--inputs", "40", "--reader", "links"]) == 0


# Whatever bytes


@given(content=st.binary(max_size=200), name=st.sampled_from(sorted(READERS)))
@PER_FILE
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes, name: str) -> None:
    reader = READERS[name]
    files = make_case(reader, SEED, 0)
    first = next(iter(files))
    assert not run_case(reader, {**files, first: content}, tmp_path / "case").violation


@given(
    text=st.text(max_size=60),
    suffix=st.sampled_from([".gz", ".xz", ".bz2"]),
    at=st.integers(0, 200),
    flip=st.integers(1, 255),
)
@PER_FILE
def test_a_damaged_archive_gives_all_or_an_error(
    tmp_path: Path, text: str, suffix: str, at: int, flip: int
) -> None:
    from benchmarks.fuzzing.cases import _COMPRESS

    packed = bytearray(_COMPRESS[suffix](text.encode("utf-8", "replace")) * 2)
    whole = tmp_path / f"whole{suffix}"
    whole.write_bytes(packed)
    expected = list(open_lines(whole))
    packed[at % len(packed)] ^= flip
    damaged = tmp_path / f"damaged{suffix}"
    damaged.write_bytes(packed)
    try:
        found = list(open_lines(damaged))
    except DataError:
        return
    assert found == expected

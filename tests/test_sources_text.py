"""Reading text: every format gives back what was written, and a broken row names its line."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptm_plus.components import Refused
from ptm_plus.errors import DataError, SettingsError
from ptm_plus.examples import Example, Span
from ptm_plus.sources import formats, parse_source, read_text

PER_FILE = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
CHARACTERS = st.characters(exclude_categories=("Cs",))
TEXTS = st.text(CHARACTERS, max_size=30)


@st.composite
def marked_rows(draw: st.DrawFn) -> dict[str, Any]:
    text = draw(TEXTS)
    row: dict[str, Any] = {"text": text}
    if draw(st.booleans()):
        row["lang"] = draw(st.sampled_from(["en", "fra", "zh-Hant"]))
    if draw(st.booleans()):
        row["id"] = draw(st.text(CHARACTERS, min_size=1, max_size=5))
    if text:
        borders = st.tuples(*[st.integers(0, len(text))] * 2).filter(lambda b: b[0] != b[1])
        row["mentions"] = [
            {"start": min(b), "end": max(b), "qid": f"Q{i}"}
            for i, b in enumerate(draw(st.lists(borders, max_size=3)))
        ]
    return row


def read(argument: str | Path) -> list[Example | Refused]:
    return list(read_text(parse_source(str(argument))))


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def row_error(path: Path, text: str) -> DataError:
    with pytest.raises(DataError) as caught:
        read(write(path, text))
    assert caught.value.hint
    return caught.value


@given(rows=st.lists(marked_rows(), min_size=1, max_size=6))
@PER_FILE
def test_json_lines_come_back_as_written(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    standard = {None: "de", "en": "en", "fra": "fr", "zh-Hant": "zh-Hant"}
    found = read(f"de={path}")
    assert len(found) == len(rows)
    for line, (row, example) in enumerate(zip(rows, found, strict=True), start=1):
        if not row["text"].strip():
            assert example == Refused("empty text", str(path), line)
            continue
        assert isinstance(example, Example)
        assert example.id == row.get("id", f"{path}:{line}")
        assert example.fields == {"text": row["text"]}
        assert example.languages == {"text": standard[row.get("lang")]}
        assert example.spans == [
            Span("text", m["start"], m["end"], "entity", m["qid"]) for m in row["mentions"]
        ]


@given(
    rows=st.lists(marked_rows(), min_size=1, max_size=6),
    breakage=st.sampled_from(['{"text": "a"', '"text"', "[]", '{"txt": "a"}', '{"text": 3}', "a"]),
    data=st.data(),
)
@PER_FILE
def test_a_broken_row_is_named_by_its_line(
    tmp_path: Path, rows: list[dict[str, Any]], breakage: str, data: st.DataObject
) -> None:
    lines = [json.dumps(row) for row in rows]
    at = data.draw(st.integers(0, len(lines)))
    lines.insert(at, breakage)
    error = row_error(tmp_path / "a.jsonl", "\n".join(lines))
    assert error.line == at + 1
    assert str(error).startswith(f"{tmp_path / 'a.jsonl'}:{at + 1}: ")


@given(row=marked_rows(), data=st.data())
@PER_FILE
def test_spans_outside_the_text_are_refused(
    tmp_path: Path, row: dict[str, Any], data: st.DataObject
) -> None:
    row["text"] = row["text"] + "x"
    length = len(row["text"])
    borders = st.tuples(*[st.integers(-2, length + 2)] * 2)
    start, end = data.draw(borders.filter(lambda b: not 0 <= b[0] < b[1] <= length))
    row["mentions"] = [{"start": start, "end": end, "qid": "Q1"}]
    error = row_error(tmp_path / "a.jsonl", "\n" + json.dumps(row))
    assert error.line == 2
    assert f"{start} to {end}" in error.message
    assert f"{length} characters" in str(error)


@pytest.mark.parametrize("border", [1.0, "1", None, True])
def test_offsets_are_whole_numbers(tmp_path: Path, border: object) -> None:
    row = {"text": "abc", "spans": [{"start": border, "end": 3, "id": "Q1"}]}
    assert row_error(tmp_path / "a.jsonl", json.dumps(row)).line == 1


def test_mentions_are_entities_and_spans_have_kinds(tmp_path: Path) -> None:
    row = {
        "text": "Paris is big",
        "mentions": [
            {"start": 0, "end": 5, "qid": "Q90", "kind": "global"},
            {"start": 0, "end": 5, "qid": ""},
            {"start": 6, "end": 8, "qid": None, "kind": "self"},
        ],
        "spans": [
            {"start": 0, "end": 5, "id": "Q1"},
            {"start": 0, "end": 5, "entity": "Q2"},
            {"start": 6, "end": 8, "kind": "verb"},
            {"start": 9, "end": 12, "kind": "topic", "id": "T7"},
            {"start": 9, "end": 12, "kind": "entity", "id": ""},
        ],
    }
    (example,) = read(write(tmp_path / "a.jsonl", json.dumps(row)))
    assert isinstance(example, Example)
    assert example.spans == [
        Span("text", 0, 5, "entity", "Q90"),
        Span("text", 0, 5, "entity", "Q1"),
        Span("text", 0, 5, "entity", "Q2"),
        Span("text", 6, 8, "verb"),
        Span("text", 9, 12, "topic", "T7"),
    ]


@pytest.mark.parametrize(
    "extra",
    [
        {"mentions": {"start": 0}},
        {"mentions": ["Q1"]},
        {"mentions": [{"start": 0, "end": 1, "qid": 7}]},
        {"spans": [{"start": 0, "end": 1, "kind": 7}]},
        {"lang": 7},
        {"lang": "not a language"},
    ],
)
def test_values_of_another_type_are_refused(tmp_path: Path, extra: dict[str, object]) -> None:
    row = json.dumps({"text": "abc", **extra})
    assert row_error(tmp_path / "a.jsonl", '{"text": "fine"}\n' + row).line == 2


def test_offsets_count_characters_of_the_text_as_it_is(tmp_path: Path) -> None:
    text = "e\u0301😀 Ünï"
    row = {"text": text, "mentions": [{"start": 2, "end": 3, "qid": "Q1"}]}
    (example,) = read(write(tmp_path / "a.jsonl", json.dumps(row, ensure_ascii=False)))
    assert isinstance(example, Example)
    assert example.fields["text"] == text
    assert text[example.spans[0].start : example.spans[0].end] == "😀"


def test_half_a_surrogate_pair_is_refused(tmp_path: Path) -> None:
    error = row_error(tmp_path / "a.jsonl", '{"text": "\\ud83d\\ude00"}\n{"text": "\\ud83d"}')
    assert (error.line, "d83d" in error.message) == (2, True)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"text": ' + "1" * 5000 + "}", "nan"])
def test_json_that_breaks_parsers_is_refused(tmp_path: Path, line: str) -> None:
    assert row_error(tmp_path / "a.jsonl", line).line == 1


def test_blank_lines_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a"}\n\n{"text": null}\n \n')
    reasons = [e.reason if isinstance(e, Refused) else "used" for e in read(path)]
    assert reasons == ["used", "blank line", "empty text", "blank line"]


@pytest.mark.parametrize(
    ("suffix", "compress"), [("gz", gzip.compress), ("xz", lzma.compress), ("bz2", bz2.compress)]
)
def test_compressed_files(tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(compress('{"text": "é"}\n'.encode()))
    (example,) = read(path)
    assert isinstance(example, Example)
    assert example.fields == {"text": "é"}


def test_bytes_that_are_not_utf8_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "\xe9"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: .*0xe9"):
        read(path)


LINES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\n\r"), max_size=8)


@given(lines=st.lists(LINES, max_size=12))
@PER_FILE
def test_documents_of_plain_text_lie_between_blank_lines(tmp_path: Path, lines: list[str]) -> None:
    lines = ["start", *lines]
    path = write(tmp_path / "a.txt", "\n".join(lines))
    found = read(path)
    expected: list[tuple[int, str]] = []
    fresh = True
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            fresh = True
        elif fresh:
            expected.append((number, line))
            fresh = False
        else:
            expected[-1] = (expected[-1][0], f"{expected[-1][1]}\n{line}")
    assert [(e.id, e.fields["text"]) for e in found if isinstance(e, Example)] == [
        (f"{path}:{number}", text) for number, text in expected
    ]


def test_a_document_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "LONGEST_DOCUMENT", 20)
    assert len(read(write(tmp_path / "a.txt", "0123456789\n\n" * 9))) == 9
    error = row_error(tmp_path / "a.txt", "short\n\n" + "0123456789\n" * 9)
    assert (error.line, "blank line" in error.hint) == (3, True)


FIELDS = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\t\n\r\0"), max_size=12
)


@given(rows=st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=6))
@PER_FILE
def test_tab_separated_text_has_no_quoting(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    lines = ["other\ttext", *("\t".join(row) for row in rows)]
    found = read(write(tmp_path / "a.tsv", "\n".join(lines)))
    assert len(found) == len(rows)
    for (_, text), example in zip(rows, found, strict=True):
        assert isinstance(example, Example) == bool(text.strip())
        assert not isinstance(example, Example) or example.fields["text"] == text


@given(rows=st.lists(st.tuples(FIELDS, FIELDS, FIELDS), min_size=1, max_size=4))
@PER_FILE
def test_csv_is_quoted(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    texts = [f"{a}\n{b}" for a, b, _ in rows]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["text", "note"])
    writer.writerows((text, row[2]) for text, row in zip(texts, rows, strict=True))
    found = read(write(tmp_path / "a.csv", stream.getvalue()))
    assert [e.fields["text"] if isinstance(e, Example) else e.reason for e in found] == [
        text if text.strip() else "empty text" for text in texts
    ]
    assert [e.line for e in found if isinstance(e, Refused)] == [
        2 * i + 2 for i, text in enumerate(texts) if not text.strip()
    ]


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.tsv", "text\tlang\na\ten\nb\n", 3),
        ("a.tsv", "text\tlang\na\ten\tmore\n", 2),
        ("a.tsv", "txt\tlang\na\ten\n", 1),
        ("a.tsv", "text\ttext\na\ten\n", 1),
        ("a.csv", 'text,lang\n"a\nb",en\nc\n', 4),
        ("a.csv", 'text\na\n"open\nto the end\n', 3),
    ],
)
def test_broken_tables_name_their_line(tmp_path: Path, name: str, text: str, line: int) -> None:
    assert row_error(tmp_path / name, text).line == line


def test_a_long_csv_field_is_read(tmp_path: Path) -> None:
    (example,) = read(write(tmp_path / "a.csv", "text\n" + "x" * 200_000))
    assert isinstance(example, Example)
    assert len(example.fields["text"]) == 200_000


@given(rows=st.lists(marked_rows(), min_size=1, max_size=5))
@PER_FILE
def test_parquet_reads_as_json_lines(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    rows = [{"id": str(i), "lang": None, "mentions": []} | row for i, row in enumerate(rows)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    from_json = read(tmp_path / "a.jsonl")
    from_parquet = read(tmp_path / "a.parquet")
    assert [e for e in from_parquet if isinstance(e, Example)] == [
        e for e in from_json if isinstance(e, Example)
    ]
    assert [(e.line, e.reason) for e in from_parquet if isinstance(e, Refused)] == [
        (e.line, e.reason) for e in from_json if isinstance(e, Refused)
    ]


def test_parquet_without_the_column_or_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"txt": ["a"]}), path)
    with pytest.raises(DataError, match=r"no 'text' among txt; did you mean 'txt'"):
        read(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match="cannot be read as parquet"):
        read(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.tsv", "a.csv"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    assert "holds no rows" in row_error(tmp_path / name, "").message


def test_a_header_alone_is_an_empty_file(tmp_path: Path) -> None:
    assert "holds no rows" in row_error(tmp_path / "a.tsv", "text\tlang\n").message


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    error = row_error(tmp_path / "a.json", '{"text": "a"}')
    assert "did you mean '.jsonl'" in error.message


def test_a_flag_that_is_no_language_is_refused_before_reading(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "text")
    with pytest.raises(SettingsError):
        read(f"en-toolongtag={tmp_path / 'a.txt'}")


DEEP = "[" * 199 + "]" * 199  # 200 levels with the row, the most that is read


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"text": "a", "text": "b"}', "the key 'text' occurs twice"),
        (
            '{"text": "a", "mentions": [{"start": 0, "end": 1, "id": 0}]}',
            "an id .* is 0, not a text",
        ),
        ('{"text": "a", "mentions": [{"start": 0, "end": 1, "id": []}]}', r"is \[\], not a text"),
        ('{"text": "a", "mentions": {}}', r"'mentions' is {}, not a list"),
        ('{"text": "a", "spans": [{"start": 0, "end": 1, "kind": 0}]}', "'kind' .* is 0"),
        ('{"text": "a", "lang": 0}', "a language is 0, not a text"),
        ('{"text": "a", "id": {"a": 1}}', "'id' is {'a': 1}, not a text or a number"),
        (f'{{"text": "a", "id": {DEEP}}}', "'id' is "),
        (f'{{"text": {DEEP}}}', "'text' is "),
        ('{"text": "a", "x": ' + "[" * 100_000, "nested too deeply"),
        ('{"text": "a", "x": ' + "[" * 200 + "]" * 200 + "}", "nested too deeply"),
        ('{"text": "a", "x": ' + '{"y": ' * 200 + "0" + "}" * 201, "nested too deeply"),
        ('{"text": "a", "x": ' + "9" * 5000 + "}", "broken JSON"),
        (json.dumps({f"{'x' * 500}{n}": 1 for n in range(500)}), "and 492 more"),
    ],
)
def test_rows_with_what_says_something_wrong(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(write(tmp_path / "a.jsonl", f"\n{row}"))
    assert caught.value.line == 2
    assert len(str(caught.value)) < 1000


def test_the_header_is_cut_in_messages(tmp_path: Path) -> None:
    error = row_error(tmp_path / "a.tsv", "\t".join(["\x1b[31m", "x" * 9000] * 900))
    assert len(str(error)) < 1000
    assert "\x1b" not in str(error)


def test_parquet_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = pyarrow.array(["one", "caf\u00e9"])
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path, compression="none")
    path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xe9\xe9"))
    with pytest.raises(DataError, match="cannot be read as parquet after row 0"):
        read(path)


def test_parquet_columns_named_twice_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 2, ["text", "text"])
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(DataError, match="columns named twice: text"):
        read(path)


def test_parquet_with_other_rows_than_it_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"]}), path)

    class Short(pyarrow.parquet.ParquetFile):
        def iter_batches(self, batch_size: int) -> Any:
            return (batch[:1] for batch in super().iter_batches(batch_size))

    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", Short)
    with pytest.raises(DataError, match="has 1 rows, not 2 as it says"):
        read(path)

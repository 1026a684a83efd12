"""Reading pairs: four layouts of columns, translations, and datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptm_plus.components import Refused
from ptm_plus.errors import DataError, SettingsError
from ptm_plus.examples import Example, Span
from ptm_plus.sources import parse_source, read_pairs, read_text, source_fingerprint

PER_FILE = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FIELDS = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\t\n\r\ufeff"), max_size=4
)
LAYOUTS = ["header", "header_and_file", "four", "two", "jsonl", "translation"]


def read(argument: str | Path) -> list[Example | Refused]:
    return list(read_pairs(parse_source(str(argument))))


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def lines_of(layout: str, pairs: list[tuple[str, str]]) -> list[str]:
    if layout == "jsonl":
        keys = ("src", "tgt", "src_lang", "tgt_lang")
        return [json.dumps(dict(zip(keys, (s, t, "en", "fr"), strict=True))) for s, t in pairs]
    if layout == "translation":
        return [json.dumps({"translation": {"en": s, "fr": t}}) for s, t in pairs]
    if layout == "two":
        return [f"{s}\t{t}" for s, t in pairs]
    if layout == "four":
        return [f"{s}\t{t}\teng\tfra" for s, t in pairs]
    if layout == "header":
        return ["src\ttgt\tsrc_lang\ttgt_lang", *(f"{s}\t{t}\ten\tfr" for s, t in pairs)]
    return ["tgt_lang\tfile\ttgt\tsrc\tsrc_lang", *(f"fr\tx.po\t{t}\t{s}\ten" for s, t in pairs)]


def outcome(source: str, target: str) -> object:
    if not source.strip() or not target.strip():
        return "empty half"
    return "identical halves" if source.strip() == target.strip() else (source, target)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(pairs=st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=6))
@PER_FILE
def test_every_layout_comes_back_as_written(
    tmp_path: Path, layout: str, pairs: list[tuple[str, str]]
) -> None:
    pairs = [("a first", "une première"), *pairs]
    suffix = "jsonl" if layout in ("jsonl", "translation") else "tsv"
    path = write(tmp_path / f"a.{suffix}", "\n".join(lines_of(layout, pairs)) + "\n")
    found = read(f"en-fr={path}" if layout == "two" else path)
    assert [
        (e.fields["src"], e.fields["tgt"]) if isinstance(e, Example) else e.reason for e in found
    ] == [outcome(*pair) for pair in pairs]
    offset = 2 if layout.startswith("header") else 1
    for number, example in enumerate(found, start=offset):
        if isinstance(example, Example):
            assert example.languages == {"src": "en", "tgt": "fr"}
            assert example.id == f"{path}:{number}"
        else:
            assert example.line == number


@pytest.mark.parametrize(
    ("argument", "text", "line"),
    [
        ("", "src\ttgt\tsrc_lang\ttgt_lang\na\tb\ten\tfr\na\tb\ten\n", 3),
        ("", "a\tb\ten\tfr\na\tb\ten\tfr\tmore\n", 2),
        ("", "a\tb\ten\n", 1),
        ("", "a\n", 1),
        ("", "a\tb\n", 1),
        ("en-fr=", "a\tb\nc\n", 2),
        ("", "a\tb\ten\tno language\n", 1),
        ("", "a\tb\ten\t\n", 1),
    ],
)
def test_broken_tables_name_their_line(tmp_path: Path, argument: str, text: str, line: int) -> None:
    path = write(tmp_path / "a.tsv", text)
    with pytest.raises(DataError) as caught:
        read(f"{argument}{path}")
    assert caught.value.line == line
    assert caught.value.hint


def test_a_file_without_languages_says_how_to_give_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="en-fr=FILE"):
        read(write(tmp_path / "a.tsv", "a\tb\n"))


def test_one_language_before_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="two languages"):
        read(f"en={write(tmp_path / 'a.tsv', 'a	b')}")


def test_mentions_of_both_halves(tmp_path: Path) -> None:
    row = {
        "id": "p1",
        "src": "Rome is old",
        "tgt": "Rom ist alt",
        "src_lang": "en",
        "tgt_lang": "de",
        "src_mentions": [{"start": 0, "end": 4, "qid": "Q220", "kind": "global"}],
        "tgt_mentions": [{"start": 0, "end": 3, "id": "Q220"}],
        "tgt_spans": [{"start": 4, "end": 7, "kind": "verb"}],
    }
    (example,) = read(write(tmp_path / "a.jsonl", json.dumps(row)))
    assert example == Example(
        "p1",
        {"src": "Rome is old", "tgt": "Rom ist alt"},
        {"src": "en", "tgt": "de"},
        [
            Span("src", 0, 4, "entity", "Q220"),
            Span("tgt", 0, 3, "entity", "Q220"),
            Span("tgt", 4, 7, "verb"),
        ],
    )


def test_a_mention_is_checked_against_its_own_half(tmp_path: Path) -> None:
    row = {"src": "long enough", "tgt": "kurz", "tgt_mentions": [{"start": 0, "end": 9, "id": "Q"}]}
    path = write(tmp_path / "a.jsonl", json.dumps(row))
    with pytest.raises(DataError, match="outside 'tgt' with its 4 characters"):
        read(f"en-de={path}")


@pytest.mark.parametrize(
    ("argument", "translation", "texts"),
    [
        ("", {"en": "a", "fra": "b"}, ("a", "b", "en", "fr")),
        ("fr-en=", {"en": "a", "fra": "b"}, ("b", "a", "fr", "en")),
        ("de-fr=", {"en": "a", "fr": "b", "de": "c"}, ("c", "b", "de", "fr")),
    ],
)
def test_the_flag_orders_translations(
    tmp_path: Path, argument: str, translation: dict[str, str], texts: tuple[str, ...]
) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"translation": translation}))
    (example,) = read(f"{argument}{path}")
    assert isinstance(example, Example)
    assert (*example.fields.values(), *example.languages.values()) == texts


@pytest.mark.parametrize(
    ("argument", "translation"),
    [
        ("", {"en": "a", "fr": "b", "de": "c"}),
        ("", {"en": "a"}),
        ("", "a"),
        ("en-de=", {"en": "a", "fr": "b"}),
        ("", {"en": "a", "??": "b"}),
    ],
)
def test_translations_that_are_no_pair(tmp_path: Path, argument: str, translation: Any) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"translation": translation}))
    with pytest.raises(DataError, match=r"a\.jsonl:1: "):
        read(f"{argument}{path}")


def test_several_files_are_read_in_order_each_with_its_own_layout(tmp_path: Path) -> None:
    write(tmp_path / "b.tsv", "src\ttgt\tsrc_lang\ttgt_lang\nthree\tdrei\ten\tde\n")
    write(tmp_path / "a.tsv", "one\tun\ten\tfr\n\ntwo\tdeux\ten\tfr\n")
    found = read(tmp_path / "*.tsv")
    assert [e.fields["src"] if isinstance(e, Example) else e.reason for e in found] == [
        "one",
        "blank line",
        "two",
        "three",
    ]


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "dataset"
    folder.mkdir()
    write(folder / "train.jsonl", '{"text": "hello", "lang": "eng"}\n{"text": ""}\n')
    write(folder / "test.jsonl", '{"text": "bonjour", "lang": "fra"}\n')
    return folder


def test_a_dataset_is_streamed(dataset: Path) -> None:
    name = f"hub:{dataset}"
    assert list(read_text(parse_source(name))) == [
        Example(f"{name}::train:1", {"text": "hello"}, {"text": "en"}),
        Refused("empty text", f"{name}::train", 2),
    ]
    (other,) = read_text(parse_source(f"{name}::test"))
    assert isinstance(other, Example)
    assert other.languages == {"text": "fr"}


def test_a_dataset_of_translations(dataset: Path) -> None:
    write(dataset / "train.jsonl", '{"translation": {"en": "one", "fr": "un"}}\n')
    (dataset / "test.jsonl").unlink()
    (pair,) = read(f"hub:{dataset}")
    assert isinstance(pair, Example)
    assert pair.fields == {"src": "one", "tgt": "un"}
    assert pair.languages == {"src": "en", "tgt": "fr"}


@pytest.mark.parametrize("ending", ["::dev", ":other", "-missing"])
def test_a_dataset_that_is_not_there(dataset: Path, ending: str) -> None:
    with pytest.raises(DataError, match="cannot be opened"):
        list(read_text(parse_source(f"hub:{dataset}{ending}")))


def test_a_dataset_with_a_broken_row_stops(dataset: Path) -> None:
    write(dataset / "train.jsonl", '{"text": "hello"}\n{"text": "a\n')
    with pytest.raises(DataError, match="stopped after row"):
        list(read_text(parse_source(f"hub:{dataset}")))


def test_fingerprint_of_a_dataset_follows_its_content(dataset: Path) -> None:
    spec = parse_source(f"hub:{dataset}")
    first = source_fingerprint(spec)
    assert source_fingerprint(spec) == first
    write(dataset / "train.jsonl", '{"text": "changed"}\n')
    assert source_fingerprint(spec) != first


def test_a_translation_that_names_a_language_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"translation": {"en": "a", "eng": "b", "fr": "c"}}\n', encoding="utf-8")
    for argument in (str(path), f"en-fr={path}"):
        with pytest.raises(DataError, match="has the languages en, eng, fr") as caught:
            list(read_pairs(parse_source(argument)))
        assert caught.value.line == 1


def test_lines_that_end_with_a_carriage_return_alone_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "old.tsv", "one\tun\r\ntwo\tdeux\rthree\ttrois\n")
    with pytest.raises(DataError, match="3 columns instead of 2") as caught:
        read(f"en-fr={path}")
    assert caught.value.line == 2
    assert "tr '\\r' '\\n'" in caught.value.hint
    path = write(tmp_path / "tabs.tsv", "one\tun\r\ntwo\tdeux\tzwei\n")
    with pytest.raises(DataError) as caught:
        read(f"en-fr={path}")
    assert "tabs" in caught.value.hint

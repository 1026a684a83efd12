"""What a flag names, and the fingerprint of what it names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ptm_plus.errors import DataError, SettingsError
from ptm_plus.sources import HubDataset, SourceSpec, parse_source, source_fingerprint


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.jsonl", "a.jsonl", "notes.txt", "en=odd.txt"):
        (tmp_path / name).write_text(json.dumps({"text": name}) + "\n", encoding="utf-8")
    return tmp_path


def test_a_path_alone_names_one_file_without_language(folder: Path) -> None:
    spec = parse_source("a.jsonl")
    assert spec == SourceSpec("a.jsonl", "", ("a.jsonl",))
    assert spec.text_language() == "und"
    assert spec.pair_languages() is None


@pytest.mark.parametrize(
    ("given", "standard"), [("en", "en"), ("eng", "en"), ("zh-hant", "zh-Hant"), ("pt-BR", "pt-BR")]
)
def test_a_language_stands_before_the_path(folder: Path, given: str, standard: str) -> None:
    spec = parse_source(f"{given}=a.jsonl")
    assert spec.files == ("a.jsonl",)
    assert spec.text_language() == standard


@pytest.mark.parametrize(
    ("given", "both"),
    [
        ("en-fr", ("en", "fr")),
        ("eng-fra", ("en", "fr")),
        ("zh-Hant-en", ("zh-Hant", "en")),
        ("en-pt-BR", ("en", "pt-BR")),
        ("zh-Hans-CN-zh-Hant-TW", ("zh-Hans-CN", "zh-Hant-TW")),
        ("es-419-en", ("es-419", "en")),
    ],
)
def test_two_languages_stand_before_the_path(
    folder: Path, given: str, both: tuple[str, str]
) -> None:
    assert parse_source(f"{given}=a.jsonl").pair_languages() == both


@pytest.mark.parametrize("given", ["en", "en-FR", "en-fr-de"])
def test_pairs_need_two_languages(folder: Path, given: str) -> None:
    with pytest.raises(SettingsError, match="two languages") as caught:
        parse_source(f"{given}=a.jsonl").pair_languages()
    assert given in str(caught.value)


def test_what_cannot_be_a_language_is_refused(folder: Path) -> None:
    with pytest.raises(SettingsError, match="'en-verylongword' is not a language"):
        parse_source("en-verylongword=a.jsonl").text_language()


def test_a_file_that_exists_is_that_file(folder: Path) -> None:
    assert parse_source("en=odd.txt").files == ("en=odd.txt",)
    assert parse_source("en=en=odd.txt") == SourceSpec("en=en=odd.txt", "en", ("en=odd.txt",))


def test_a_pattern_names_files_in_order(folder: Path) -> None:
    assert parse_source("fr=*.jsonl").files == ("a.jsonl", "b.jsonl")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "c.jsonl").touch()
    assert "deep/er/c.jsonl" in parse_source("**/*.jsonl").files


def test_the_home_folder_is_found_behind_a_language(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert parse_source("en=~/a.jsonl").files == (str(folder / "a.jsonl"),)


@pytest.mark.parametrize(
    ("argument", "found"),
    [("none.jsonl", "no such file"), ("*.csv", "no file matches"), (".", "is a folder")],
)
def test_files_that_are_not_there(folder: Path, argument: str, found: str) -> None:
    with pytest.raises(DataError, match=found) as caught:
        parse_source(argument)
    assert str(caught.value).startswith(argument)
    assert caught.value.hint


def test_what_is_no_language_is_told_from_a_path(folder: Path) -> None:
    with pytest.raises(DataError, match="no such file") as caught:
        parse_source("english=a.jsonl")
    assert caught.value.hint == "'english' is no language code: write en=a.jsonl or en-fr=a.jsonl"


@pytest.mark.parametrize(
    ("argument", "dataset"),
    [
        ("hub:org/name", HubDataset("org/name", "", "train")),
        ("en=hub:org/name:20240101.en", HubDataset("org/name", "20240101.en", "train")),
        ("hub:org/name::test", HubDataset("org/name", "", "test")),
        ("hub:org/name:en:test", HubDataset("org/name", "en", "test")),
    ],
)
def test_hub_datasets(argument: str, dataset: HubDataset) -> None:
    assert parse_source(argument).hub == dataset


@pytest.mark.parametrize("argument", ["", "en=", "hub:", "hub:a:b:c:d"])
def test_arguments_that_name_nothing(argument: str) -> None:
    with pytest.raises(SettingsError):
        parse_source(argument)


def test_fingerprint_follows_the_content_and_not_the_place(folder: Path) -> None:
    first = source_fingerprint(parse_source("a.jsonl"))
    (folder / "a.jsonl").rename(folder / "moved.jsonl")
    assert source_fingerprint(parse_source("moved.jsonl")) == first
    (folder / "moved.jsonl").write_text('{"text": "other"}\n', encoding="utf-8")
    assert source_fingerprint(parse_source("moved.jsonl")) != first


def test_fingerprint_covers_language_format_and_set_of_files(folder: Path) -> None:
    (folder / "a.txt").write_bytes((folder / "a.jsonl").read_bytes())
    arguments = ["a.jsonl", "en=a.jsonl", "fr=a.jsonl", "a.txt", "*.jsonl", "b.jsonl"]
    assert len({source_fingerprint(parse_source(a)) for a in arguments}) == len(arguments)


def test_fingerprint_reads_an_unchanged_file_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def sha256(path: str) -> str:
        read.append(path)
        return Path(path).read_text(encoding="utf-8")

    monkeypatch.setattr("ptm_plus.sources.fingerprint.file_sha256", sha256)
    spec, cache = parse_source("*.jsonl"), folder / "cache"
    first = source_fingerprint(spec, cache)
    assert source_fingerprint(spec, cache) == first
    assert read == ["a.jsonl", "b.jsonl"]

    (folder / "b.jsonl").write_text('{"text": "changed"}\n', encoding="utf-8")
    assert source_fingerprint(spec, cache) != first
    assert read == ["a.jsonl", "b.jsonl", "b.jsonl"]
    assert [path.name for path in cache.iterdir()] == ["fingerprints.json"]


def test_fingerprint_sees_a_change_that_keeps_the_size(folder: Path) -> None:
    path, cache = folder / "a.jsonl", folder / "cache"
    path.write_text("aa\n", encoding="utf-8")
    first = source_fingerprint(parse_source("a.jsonl"), cache)
    path.write_text("bb\n", encoding="utf-8")
    os.utime(path, ns=(1, 1))
    assert source_fingerprint(parse_source("a.jsonl"), cache) != first


@pytest.mark.parametrize("damage", ["{", "[]", '{"a": 1}', ""])
def test_a_damaged_memo_is_made_again(folder: Path, damage: str) -> None:
    spec = parse_source("a.jsonl")
    expected = source_fingerprint(spec, folder)
    (folder / "fingerprints.json").write_text(damage, encoding="utf-8")
    assert source_fingerprint(spec, folder) == expected
    memo = json.loads((folder / "fingerprints.json").read_text(encoding="utf-8"))
    assert list(memo) == [str((folder / "a.jsonl").resolve())]


def test_fingerprint_of_a_file_that_went_away(folder: Path) -> None:
    spec = parse_source("a.jsonl")
    (folder / "a.jsonl").unlink()
    with pytest.raises(DataError, match=r"a\.jsonl"):
        source_fingerprint(spec, folder)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("a" * 5000, "is no path: File name too long"),
        (f"en={'a' * 5000}", "is no path: File name too long"),
        ("~nobody-of-that-name/a.txt", "is no path: Could not determine home directory"),
        ("a\0*", "is no path|no file matches"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_is_no_path_is_refused(argument: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_source(argument)


def test_a_file_whose_name_is_not_utf8_is_refused_in_printable_words(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    (folder / name).touch()
    with pytest.raises(DataError, match="is no path") as caught:
        parse_source(name)
    assert "caf\\udce9.txt" in str(caught.value)
    str(caught.value).encode()


def test_a_memo_that_is_nested_too_deeply_or_a_folder_is_made_again(folder: Path) -> None:
    spec, memo = parse_source("a.jsonl"), folder / "fingerprints.json"
    expected = source_fingerprint(spec, folder)
    memo.write_text("[" * 100_000, encoding="utf-8")
    assert source_fingerprint(spec, folder) == expected

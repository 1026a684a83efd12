"""Pairs that are refused: unequal lengths, duplicates, halves in each other's language."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_settings

from ptm_plus.components import Refused
from ptm_plus.errors import DataError, SettingsError
from ptm_plus.examples import Example
from ptm_plus.inputs import pairs_stream
from ptm_plus.prepared import prepare
from ptm_plus.progress import Silent
from ptm_plus.sources import pair_filters as module
from ptm_plus.sources import parse_source, read_pairs, read_text
from ptm_plus.sources.pair_filters import PairFilters, PairSet, usual_ratios
from ptm_plus.sources.readers import placed_pairs
from ptm_plus.sources.swapped import script_of_language, script_of_text

ENGLISH = "the function returns a new list of all the words that were found in this file number"
FRENCH = "la fonction renvoie une nouvelle liste de tous les mots trouvés dans ce fichier numéro"
RUSSIAN = "функция возвращает новый список всех слов, найденных в этом файле под номером"
CHINESE = "该函数返回在此文件中找到的所有单词的新列表"
EVERYTHING = PairFilters(length_ratio=3.0, duplicates=False, swapped=True)


def pair(src: str, tgt: str, languages: str = "en-fr") -> Example:
    codes = dict(zip(("src", "tgt"), languages.split("-"), strict=True))
    return Example("p", {"src": src, "tgt": tgt}, codes)


def over(filters: PairFilters, *sources: list[Example]) -> list[str]:
    """Return what becomes of each pair: ``""``, or why it is refused."""
    placed = [iter([(one, "f", line) for line, one in enumerate(s, start=1)]) for s in sources]
    return [one.reason if isinstance(one, Refused) else "" for one in filters.over(placed)]


# ---------------------------------------------------------------------------------------------
# Lengths


def test_lengths_are_judged_against_what_is_usual_for_the_languages() -> None:
    usual = [pair(f"{ENGLISH} {n}", f"{CHINESE}{n}", "en-zh") for n in range(40)]
    odd = [pair(ENGLISH, CHINESE * 4, "en-zh"), pair(ENGLISH, "列表", "en-zh")]
    found = over(PairFilters(2.0, False, False), [*usual, *odd])
    assert found == [""] * 40 + ["halves of unequal length"] * 2
    # As many characters as the English are four times too many.
    assert len(CHINESE * 4) == pytest.approx(len(ENGLISH), abs=5)
    assert over(PairFilters(0, False, False), [*usual, *odd]) == [""] * 42


def test_few_pairs_say_nothing_about_their_languages() -> None:
    few = [pair(f"{ENGLISH} {n}", f"{CHINESE}{n}", "en-zh") for n in range(19)]
    assert usual_ratios(few) == {}
    assert set(over(PairFilters(2.5, False, False), few)) == {"halves of unequal length"}


def test_short_halves_may_differ() -> None:
    assert over(PairFilters(3.0, False, False), [pair("Yes.", "Mais oui, bien entendu.")]) == [""]
    long = pair("Yes.", "Mais oui, bien entendu, " * 3)
    assert over(PairFilters(3.0, False, False), [long]) == ["halves of unequal length"]


# ---------------------------------------------------------------------------------------------
# Duplicates


def test_a_pair_is_used_once_over_all_sources() -> None:
    one, other = pair("a", "b"), pair("a", "c")
    sources = [[one, other, pair(" a", "b ")], [one, pair("a", "b", "en-de"), pair("b", "a")]]
    assert over(PairFilters(0, False, False), *sources) == [
        *("", "", "duplicate pair"),
        *("duplicate pair", "", ""),
    ]
    assert set(over(PairFilters(0, True, False), *sources)) == {""}


@given(st.lists(st.integers(0, 400), max_size=600))
def test_the_set_is_a_set(numbers: list[int]) -> None:
    known, seen = PairSet(), set[int]()
    for number in numbers:
        assert known.add(pair(str(number), "x")) == (number not in seen)
        seen.add(number)
    assert len(known) == len(seen)


def test_the_set_grows_and_stays_small() -> None:
    known = PairSet()
    assert all(known.add(pair(str(number), "x")) for number in range(20_000))
    assert not any(known.add(pair(str(number), "x")) for number in range(0, 20_000, 7))
    table = known._table
    assert len(table) * table.itemsize <= 24 * 20_000
    assert 3 * len(known) <= 2 * len(table)


# ---------------------------------------------------------------------------------------------
# Halves in each other's language


def rows_of(
    src: str, tgt: str, languages: str, swapped: set[int], count: int = 200
) -> list[Example]:
    return [
        pair(f"{tgt} {n}", f"{src} {n}", languages)
        if n in swapped
        else pair(f"{src} {n}", f"{tgt} {n}", languages)
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("src", "tgt", "languages"),
    [
        (ENGLISH, FRENCH, "en-fr"),
        (ENGLISH, RUSSIAN, "en-ru"),
        (CHINESE, ENGLISH, "zh-en"),
        (RUSSIAN, CHINESE, "ru-zh"),
    ],
)
def test_swapped_rows_are_found_and_no_other(src: str, tgt: str, languages: str) -> None:
    swapped = {3, 50, 199}
    found = over(EVERYTHING, rows_of(src, tgt, languages, swapped))
    assert {n for n, why in enumerate(found) if why == "halves in each other's language"} == swapped
    assert Counter(found)[""] == 197
    kept = over(PairFilters(0, False, False), rows_of(src, tgt, languages, swapped))
    assert set(kept) == {""}


def test_languages_that_the_identifier_does_not_know_are_told_by_their_columns() -> None:
    """Two made-up codes: nothing but the columns says what they are."""
    swapped = {3, 50, 199}
    found = over(EVERYTHING, rows_of(ENGLISH, FRENCH, "qaa-qab", swapped))
    assert {n for n, why in enumerate(found) if why} == swapped


@pytest.mark.parametrize(
    ("src", "tgt", "languages"),
    [
        ("I have never seen him before.", "Ich habe ihn noch nie gesehen.", "en-de"),
        ("Das ist nicht mein Buch.", "Dit is niet mijn boek.", "de-nl"),
        ("No tengo tiempo para eso.", "Eu não tenho tempo para isso.", "es-pt"),
        ("Jag vet inte vad du menar.", "Jeg ved ikke, hvad du mener.", "sv-da"),
    ],
)
def test_a_short_pair_of_near_languages_is_told(src: str, tgt: str, languages: str) -> None:
    assert over(EVERYTHING, [pair(src, tgt, languages)]) == [""]
    assert over(EVERYTHING, [pair(tgt, src, languages)]) == ["halves in each other's language"]
    assert over(EVERYTHING, [pair("Anna", "Bergen", languages)]) == [""]


@pytest.mark.parametrize(("tgt", "other"), [(RUSSIAN, "ru"), (FRENCH, "fr")])
def test_a_swapped_file_is_refused_with_counts_and_the_first_line(tgt: str, other: str) -> None:
    rows = rows_of(ENGLISH, tgt, f"en-{other}", set(range(5, 200)))
    with pytest.raises(DataError, match=f"195 of the first 200 pairs of en and {other}") as caught:
        over(EVERYTHING, rows)
    assert (caught.value.path, caught.value.line) == ("f", 6)
    assert f"{other}-en=FILE" in caught.value.hint
    assert "data.swapped=true" in caught.value.hint


def test_halves_alike_and_text_without_letters_are_left_alone() -> None:
    rows = rows_of(ENGLISH, FRENCH, "en-fr", set())
    odd = [pair("1 + 1 = 2", "1+1=2"), pair("list.append(x)", "list.append (x)"), pair("?", "!")]
    assert set(over(EVERYTHING, [*rows, *odd])) == {""}


def test_scripts() -> None:
    tags = ("en", "ru", "sr-Latn", "zh-Hant", "ja", "ko", "und")
    expected = ("LATIN", "CYRILLIC", "LATIN", "CJK", "CJK", "HANGUL", "LATIN")
    assert tuple(map(script_of_language, tags)) == expected
    texts = ("abc где", "12 где?", "ひらがな", "한국어", "…")
    assert tuple(map(script_of_text, texts)) == ("LATIN", "CYRILLIC", "CJK", "HANGUL", "")


# ---------------------------------------------------------------------------------------------
# In a run


def run_on(path: Path, **values: object) -> object:
    settings = tiny_settings(
        "bert", **{"data.pairs": [f"en-fr={path}"], "data.text": None, **values}
    )
    return prepare(settings, Silent()).streams["halves"].store.account


def test_the_account_says_how_many_and_where_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    rows = [f"{ENGLISH} {n}\t{FRENCH} {n}" for n in range(600)]
    rows[3], rows[590], rows[595] = rows[2], rows[0], "\tempty"
    rows[10] = f"{FRENCH} 10\t{ENGLISH} 10"
    rows[599] = f"x\t{FRENCH} {FRENCH} {FRENCH}"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    account = run_on(path, **{"data.duplicates": False})
    assert account.refused == {
        "duplicate pair": 2,
        "empty half": 1,
        "halves in each other's language": 1,
        "halves of unequal length": 1,
    }
    assert account.refused_first == {
        "duplicate pair": f"{path}:4",
        "empty half": f"{path}:596",
        "halves in each other's language": f"{path}:11",
        "halves of unequal length": f"{path}:600",
    }
    assert account.rows == 600 == account.used + sum(account.refused.values())
    assert f"  refused, duplicate pair: 2 (first: {path}:4)" in account.lines()


def test_filters_are_part_of_what_prepare_keeps() -> None:
    prints = {
        pairs_stream(
            tiny_settings("bert", **values), name="pairs", layout="x", objectives=()
        ).fingerprint
        for values in ({}, {"data.length_ratio": 2.0}, {"data.swapped": True})
    }
    assert len(prints) == 3


def test_the_head_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_ROWS", 10)
    monkeypatch.setattr(module, "HEAD_CHARACTERS", 50)
    taken: list[int] = []

    def rows() -> object:
        for number in range(100):
            taken.append(number)
            yield pair("x" * 9, f"{number}"), "f", number + 1

    found = PairFilters(0, False, False).over([rows()])  # type: ignore[list-item]
    next(found)
    assert len(taken) == 6
    assert sum(1 for _ in found) == 99


# ---------------------------------------------------------------------------------------------
# Codes, marks, ends of lines, long lines


@pytest.mark.parametrize(
    ("argument", "meant"), [("en-jp", "'ja'"), ("en-cz", "'cs'"), ("uk-gr", "'el'")]
)
def test_a_wrong_code_in_a_flag_names_the_nearest(
    tmp_path: Path, argument: str, meant: str
) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("a\tb\n", encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        list(read_pairs(parse_source(f"{argument}={path}")))
    assert f"did you mean {meant}" in caught.value.hint
    with pytest.raises(SettingsError, match="'jp' is not a language code"):
        list(read_text(parse_source(f"jp={path}")))


@pytest.mark.parametrize("read", [read_pairs, read_text])
def test_a_wrong_code_in_a_row_names_line_and_nearest(tmp_path: Path, read: object) -> None:
    path = tmp_path / "a.jsonl"
    good = {"src": "a", "tgt": "b", "text": "c", "src_lang": "en", "tgt_lang": "ja", "lang": "ja"}
    rows = [good, {**good, "tgt_lang": "jp", "lang": "jp"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl:2: 'jp' is not a language code") as caught:
        list(read(parse_source(str(path))))  # type: ignore[operator]
    assert "did you mean 'ja'" in caught.value.hint


def test_a_mark_mixed_ends_and_long_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    long = ("word " * 20_000).strip(), ("mot " * 25_000).strip()
    assert min(map(len, long)) > 99_000
    text = f"\ufeffone\tun\r\ntwo\tdeux\nthree\ttrois\r\n{long[0]}\t{long[1]}\n"
    path.write_bytes(text.encode())
    found = list(EVERYTHING.over([placed_pairs(parse_source(f"en-fr={path}"))]))
    assert [tuple(one.fields.values()) for one in found if isinstance(one, Example)] == [
        ("one", "un"),
        ("two", "deux"),
        ("three", "trois"),
        long,
    ]


@pytest.mark.tlm
def test_a_long_pair_is_cut_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    long = f"{'the old town ' * 8_000}\t{'die alte Stadt ' * 7_000}"
    short = "\n".join(f"the old town {n}\tdie alte Stadt {n}" for n in range(60))
    path.write_text(f"{long}\n{short}\n", encoding="utf-8")
    settings = tiny_settings("bert", ("tlm",), **{"data.pairs": [f"en-de={path}"]})
    store = prepare(settings, Silent()).streams["pairs"].store
    assert store.account.truncated_sequences >= 1
    assert store.account.truncated_tokens > 30_000
    lengths = store.segment_length[: store.segments[1]]
    assert lengths.sum() == 64
    assert lengths.min() >= 1

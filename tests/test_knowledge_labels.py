from __future__ import annotations

import gzip
import json

import pytest

from ptm_plus.errors import DataError
from ptm_plus.knowledge.labels import EntityLabels, Names, read_labels, standard_language

ROWS = [
    {"id": "Q90", "lang": "eng", "label": "Paris", "aliases": ["City of Light", " Paris "]},
    {"id": "Q90", "lang": "fr", "label": "Paris"},
    {"id": "Q830149", "lang": "en", "label": "Paris, Texas", "aliases": ["Paris"]},
    {"id": 7, "lang": "zh", "label": "巴黎", "aliases": None},
]


def jsonl(path, rows):
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def test_jsonl_labels_by_language_and_surface(tmp_path):
    labels = read_labels([jsonl(tmp_path / "l.jsonl.gz", ROWS)])
    assert labels.by_language == {
        "en": {
            "Paris": [("Q90", False), ("Q830149", True)],
            "City of Light": [("Q90", True)],
            "Paris, Texas": [("Q830149", False)],
        },
        "fr": {"Paris": [("Q90", False)]},
        "zh": {"巴黎": [("7", False)]},
    }
    assert labels.labelled == {"en": {"Q90", "Q830149"}, "fr": {"Q90"}, "zh": {"7"}}
    assert labels.label("Q90", "eng") == "Paris"
    assert labels.label("Q90", "zh") is None


def test_wikipedia_titles_lose_underscores_and_give_the_plain_name_as_alias(tmp_path):
    path = tmp_path / "e.tsv"
    path.write_text("id\tlang\twikipedia_title\n0\ten\tParis_(Texas)\n1\tfr\tMono (logiciel)\n")
    labels = read_labels([path])
    assert labels.by_language["en"] == {"Paris (Texas)": [("0", False)], "Paris": [("0", True)]}
    assert labels.by_language["fr"] == {"Mono (logiciel)": [("1", False)], "Mono": [("1", True)]}


@pytest.mark.parametrize("column", ["label", "title", "name"])
def test_tsv_labels_with_aliases_in_any_column_order(tmp_path, column):
    path = tmp_path / "e.tsv"
    path.write_text(f"{column}\tnote\taliases\tlang\tid\nA_B (C)\tx\tAb| |Abc\ten\tQ1\n")
    assert read_labels([path]).by_language == {
        "en": {"A_B (C)": [("Q1", False)], "Ab": [("Q1", True)], "Abc": [("Q1", True)]}
    }


def test_links_unite_names_under_the_representative(tmp_path):
    names, links = tmp_path / "e.tsv", tmp_path / "links.tsv"
    names.write_text("id\tlang\ttitle\n10500\ten\tVienna\n3\tfr\tVienne\n")
    links.write_text("10500\t3\n")
    labels = read_labels([names], [links])
    assert labels.by_language == {
        "en": {"Vienna": [("3", False)]},
        "fr": {"Vienne": [("3", False)]},
    }


def test_surfaces_are_composed_and_a_label_beats_the_same_alias():
    rows = [Names("Q1", "en", "X", ("Zu\u0308rich",)), Names("Q1", "en", "Z\u00fcrich")]
    assert EntityLabels.build(rows).by_language["en"]["Z\u00fcrich"] == [("Q1", False)]


def test_names_can_be_restricted_to_some_entities(tmp_path):
    labels = read_labels([jsonl(tmp_path / "l.jsonl.gz", ROWS)]).restricted({"Q830149", "Q5"})
    assert labels.by_language == {
        "en": {"Paris": [("Q830149", True)], "Paris, Texas": [("Q830149", False)]}
    }
    assert labels.labelled == {"en": {"Q830149"}}


def test_fingerprint_sees_every_name():
    one = EntityLabels.build([Names("Q1", "en", "A"), Names("Q2", "en", "B")])
    same = EntityLabels.build([Names("Q2", "en", "B"), Names("Q1", "eng", "A")])
    alias = EntityLabels.build([Names("Q1", "en", "A"), Names("Q2", "en", "", ("B",))])
    assert one.fingerprint == same.fingerprint != alias.fingerprint


def test_language_codes_are_standardised():
    assert [standard_language(tag) for tag in ("eng", "zh-hans", "EN", "", "und")] == [
        "en",
        "zh-Hans",
        "en",
        "und",
        "und",
    ]
    with pytest.raises(DataError, match="'not a code!' is not a language code"):
        standard_language("not a code!")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.jsonl", '{"id": "Q1"\n', r"l\.jsonl:1: broken JSON"),
        ("l.jsonl", '\n["Q1"]\n', r"l\.jsonl:2: a JSON list instead of an"),
        ("l.jsonl", '{"id": "Q1", "lang": "en"}\n', r"l\.jsonl:1: 'label' must be text"),
        ("l.jsonl", '{"id": "", "lang": "en", "label": "a"}\n', r":1: 'id' is empty"),
        ("l.jsonl", '{"id": "Q1", "lang": "en", "label": "a", "aliases": "b"}\n', r"'aliases'"),
        ("l.jsonl", '{"id": "Q1", "lang": "e n!", "label": "a"}\n', r"l\.jsonl:1: 'e n!' is not"),
        ("l.jsonl", "", r"l\.jsonl: holds no labels"),
        ("l.tsv", "", r"l\.tsv:1: the header has no columns|l\.tsv:1: the header has"),
        ("l.tsv", "id\tname\n", r"l\.tsv:1: the header has id, name"),
        ("l.tsv", "id\tlang\tname\nQ1\ten\n", r"l\.tsv:2: found 2 columns, expected 3"),
        ("l.tsv", "id\tlang\tname\n", r"l\.tsv: holds no labels"),
        ("l.csv", "id,lang,name\n", r"labels are \.jsonl or \.tsv, not '\.csv'"),
    ],
)
def test_bad_label_files_are_named_by_line(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_labels([path])


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (', "x": ' + "[" * 100_000, "nested too deeply"),
        (', "x": ' + "9" * 5000 + "}", "broken JSON: Exceeds the limit"),
        (', "x": "a\\ud800"}', r"half a character: \\ud800"),
        (', "label": "b"}', "key 'label' occurs twice"),
        (', "aliases": 0}', "'aliases' must be a list"),
        (', "aliases": [' + '"x",' * 9000 + "1]}", r"'aliases' must be .*\.\.\.$"),
        (', "aliases": [' + '"x",' * 9000, "broken JSON"),
    ],
)
def test_rows_that_json_alone_would_let_through_or_choke_on(tmp_path, rest, message):
    path = tmp_path / "l.jsonl"
    path.write_text('\n{"id": "Q1", "lang": "en", "label": "a"' + rest)
    with pytest.raises(DataError, match=rf"l\.jsonl:2: .*{message}") as caught:
        read_labels([path])
    assert len(str(caught.value)) < 1000


def test_a_long_value_is_cut_in_the_message(tmp_path):
    path = tmp_path / "l.jsonl"
    path.write_text(json.dumps({"id": "Q1", "lang": "en", "label": ["x"] * 9000}))
    with pytest.raises(DataError, match=r"'label' must be text, found \['x', .*\.\.\.$"):
        read_labels([path])


def test_columns_named_twice_are_refused(tmp_path):
    path = tmp_path / "l.tsv"
    path.write_text("id\tlang\tlabel\tlabel\nQ1\ten\tone\ttwo\n")
    with pytest.raises(DataError, match=r"l\.tsv:1: columns named twice: label"):
        read_labels([path])

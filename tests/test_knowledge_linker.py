from __future__ import annotations

import pickle
import re
import unicodedata
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ptm_plus.errors import SettingsError
from ptm_plus.knowledge.boundaries import is_linkable
from ptm_plus.knowledge.labels import EntityLabels, Names
from ptm_plus.knowledge.linker import DictionaryLinker, Link, LinkCounts


def labels(*rows):
    """Make labels from (id, language, label, *aliases)."""
    return EntityLabels.build(Names(id, lang, name, aliases) for id, lang, name, *aliases in rows)


def mentions(linker, text, language="en"):
    return [(text[link.start : link.end], link.id) for link in linker.link(text, language)]


def test_names_are_linked_at_word_borders_with_exact_case():
    linker = DictionaryLinker(labels(("Q183", "en", "Germany"), ("Q38", "en", "Italy")))
    text = (
        "Germany's neighbours: (Italy), italy, Germanys, EastGermany, Germany1 and Italy-Germany."
    )
    assert linker.link("In Italy", "en") == [Link(3, 8, "Q38")]
    assert mentions(linker, text) == [
        ("Germany", "Q183"),
        ("Italy", "Q38"),
        ("Italy", "Q38"),
        ("Germany", "Q183"),
    ]


def test_the_longest_name_wins_and_a_whole_shorter_one_is_not_hidden():
    linker = DictionaryLinker(
        labels(("Q1", "en", "New York"), ("Q2", "en", "New York City"), ("Q3", "en", "York C"))
    )
    assert mentions(linker, "New York City") == [("New York City", "Q2")]
    assert mentions(linker, "New York Citylights") == [("New York", "Q1")]
    assert mentions(linker, "new York C and") == [("York C", "Q3")]
    assert mentions(linker, "ANew York C") == [("York C", "Q3")]


def test_scripts_without_spaces_need_no_borders():
    linker = DictionaryLinker(
        labels(
            ("Q1490", "ja", "東京"),
            ("Q7473516", "ja", "東京都"),
            ("Q90", "ja", "パリ"),
            ("Q1", "ja", "京"),
            ("Q869", "th", "ไทย"),
            ("Q5", "ja", "NHK"),
        )
    )
    assert mentions(linker, "東京都とパリに住む。京", "ja") == [
        ("東京都", "Q7473516"),
        ("パリ", "Q90"),
    ]
    assert mentions(linker, "私はNHKを見る", "ja") == [("NHK", "Q5")]
    assert mentions(linker, "ประเทศไทยและ", "th") == [("ไทย", "Q869")]


def test_a_combining_mark_is_not_parted_from_its_letter():
    linker = DictionaryLinker(
        labels(
            ("Q1", "en", "Cafe"), ("Q2", "hi", "हिन्द"), ("Q3", "th", "กาน"), ("Q4", "hi", "भारत")
        )
    )
    assert mentions(linker, "Cafe\u0301 Cafe") == [("Cafe", "Q1")]
    assert mentions(linker, "हिन्दी भारत", "hi") == [("भारत", "Q4")]
    assert mentions(linker, "กาน\u0e49 กานก", "th") == [("กาน", "Q3")]


def test_languages_keep_apart():
    linker = DictionaryLinker(labels(("Q1741", "en", "Vienna"), ("Q1741", "fr", "Vienne")))
    assert mentions(linker, "Vienna Vienne", "eng") == [("Vienna", "Q1741")]
    assert mentions(linker, "Vienna Vienne", "fr") == [("Vienne", "Q1741")]
    for language in ("und", "", "de"):
        assert linker.link("Vienna Vienne", language) == []


AMBIGUOUS = (
    ("Q10", "en", "Georgia"),
    ("Q9", "en", "Georgia"),
    ("Q8", "en", "Georgian", "Georgia", "Tiflis"),
    ("Q7", "en", "Tbilisi", "Tiflis"),
)


@pytest.mark.parametrize(
    ("policy", "degree", "expected"),
    [
        ("skip", None, []),
        ("first", None, [("Georgia", "Q10"), ("Tiflis", "Q8")]),
        ("most_connected", {"Q10": 3, "Q8": 99, "Q7": 100}, [("Georgia", "Q10"), ("Tiflis", "Q7")]),
        ("most_connected", {}, [("Georgia", "Q9"), ("Tiflis", "Q7")]),
    ],
)
def test_ambiguity_policies_prefer_labels_to_aliases(policy, degree, expected):
    linker = DictionaryLinker(labels(*AMBIGUOUS), ambiguity=policy, degree=degree)
    assert mentions(linker, "Georgia, Tiflis") == expected


def test_an_ambiguous_name_hides_what_lies_inside_it():
    linker = DictionaryLinker(
        labels(("Q1", "en", "New York"), ("Q2", "en", "New York"), ("Q3", "en", "York"))
    )
    assert mentions(linker, "New York, York") == [("York", "Q3")]


def test_counts_add_up():
    linker = DictionaryLinker(labels(*AMBIGUOUS))
    counts = LinkCounts()
    linker.link("Georgia Tbilisi Tbilisi Georgian", "en", counts)
    assert counts == LinkCounts(4, 3, 1, 0, Counter({"Q7": 2, "Q8": 1}))
    total = counts + LinkCounts(1, 1, 0, 0, Counter({"Q7": 1}))
    assert total == LinkCounts(5, 4, 1, 0, Counter({"Q7": 3, "Q8": 1}))


@pytest.mark.parametrize(
    ("surface", "linkable", "with_lower_case"),
    [
        ("Paris", True, True),
        ("died", False, True),
        ("b52", True, True),
        ("eBay", True, True),
        ("UK", False, False),
        ("P", False, False),
        ("1984", False, False),
        ("3.14!", False, False),
        ("東京", True, True),
        ("京", False, False),
        ("ไทย", True, True),
        ("서울시", True, True),
        ("москва", False, True),
        ("საქართველო", True, True),
    ],
)
def test_which_names_are_looked_for(surface, linkable, with_lower_case):
    assert is_linkable(surface, min_length=3, lower_case=False) is linkable
    assert is_linkable(surface, min_length=3, lower_case=True) is with_lower_case


def test_settings_change_what_is_linked():
    names = labels(("Q4", "en", "death", "died"), ("Q145", "en", "UK"))
    assert mentions(DictionaryLinker(names), "UK death") == []
    everything = DictionaryLinker(names, lower_case=True, min_length=2)
    assert mentions(everything, "UK death Death") == [("UK", "Q145"), ("death", "Q4")]


def test_a_pickled_linker_links_the_same_and_carries_no_automaton():
    linker = DictionaryLinker(labels(("Q183", "en", "Germany")))
    before = linker.link("Germany", "en")
    data = pickle.dumps(linker)
    assert b"ahocorasick" not in data.lower()
    copy = pickle.loads(data)  # noqa: S301 our own bytes
    assert copy.link("Germany", "en") == before == [Link(0, 7, "Q183")]
    assert copy.fingerprint == linker.fingerprint


def test_the_fingerprint_tells_what_would_link_differently():
    names = labels(*AMBIGUOUS)
    degree = {"Q10": 3}
    linkers = [
        DictionaryLinker(names),
        DictionaryLinker(names, min_length=4),
        DictionaryLinker(names, lower_case=True),
        DictionaryLinker(names, ambiguity="first"),
        DictionaryLinker(names, ambiguity="most_connected", degree=degree),
        DictionaryLinker(names, ambiguity="most_connected", degree={"Q9": 3}),
        DictionaryLinker(labels(*AMBIGUOUS[:2])),
    ]
    assert len({linker.fingerprint for linker in linkers}) == len(linkers)
    assert DictionaryLinker(names, degree=degree).fingerprint == linkers[0].fingerprint


def test_bad_settings_are_refused():
    with pytest.raises(SettingsError, match="unknown ambiguity policy 'most-connected'") as error:
        DictionaryLinker(labels(), ambiguity="most-connected")
    assert "did you mean 'most_connected'" in error.value.hint
    with pytest.raises(SettingsError, match="needs a graph"):
        DictionaryLinker(labels(), ambiguity="most_connected")


def reference(surfaces, text):
    """Try every stretch of the text from the left, the longest first."""

    def solid(char):
        # Letters of the alphabet below that spaces delimit: neither Han, Kana nor Thai.
        return unicodedata.category(char)[0] in "LNM" and not re.match("[東京カไท]", char)

    def cut(at):
        if at in (0, len(text)):
            return False
        mark = unicodedata.category(text[at])[0] == "M"
        return mark or (solid(text[at - 1]) and solid(text[at]))

    found, at = [], 0
    while at < len(text):
        for end in range(len(text), at, -1):
            if text[at:end] in surfaces and not cut(at) and not cut(end):
                found.append((at, end))
                at = end
                break
        else:
            at += 1
    return found


ALPHABET = "AbC é\u0301東京カไท-𝒳1"
SURFACES = st.lists(st.text(alphabet=ALPHABET, min_size=1, max_size=5), max_size=8)
TEXTS = st.text(alphabet=ALPHABET, max_size=30)


@given(SURFACES, TEXTS)
@example(["A b", "A bC", "bC A", "C A b"], "A bCA A bC A b")
@example(["東京", "東京A", "京カ"], "東京Ab東京カ")
def test_linking_agrees_with_brute_force(surfaces, text):
    names = labels(*((f"Q{at}", "en", name) for at, name in enumerate(surfaces)))
    linker = DictionaryLinker(names, ambiguity="first", lower_case=True, min_length=2)
    dictionary = {
        name
        for name in names.by_language.get("en", {})
        if len(name) > 1 and any(char.isalpha() for char in name)
    }
    assert [(link.start, link.end) for link in linker.link(text, "en")] == reference(
        dictionary, text
    )

"""Common words among aliases, against regular expressions and counts made by hand."""

from __future__ import annotations

import json
import pickle
import re
from collections import Counter
from pathlib import Path

import pytest
from cli_files import document, run
from hypothesis import example, given
from hypothesis import strategies as st
from tiny import tiny_settings

from ptm_plus.components import Refused, Stream
from ptm_plus.errors import DataError
from ptm_plus.examples import Example
from ptm_plus.inputs import linking_annotator
from ptm_plus.knowledge.common_words import WordCounter, add_up, common_words
from ptm_plus.knowledge.labels import EntityLabels, Names
from ptm_plus.knowledge.linker import DictionaryLinker, LinkCounts
from ptm_plus.prepare.word_counts import stream_word_counts
from ptm_plus.progress import Silent

NAMES = [
    Names("Q1", "en", "Jesus", ("His", "Lord")),
    Names("Q2", "en", "Metropolitan Museum", ("Met", "the Met")),
    Names("Q3", "en", "Apple", ("Apfel",)),
    Names("Q4", "en", "Information technology", ("IT", "B-side")),
    Names("Q5", "de", "Essen"),
    Names("Q6", "de", "Nahrung", ("Essen", "Mahl")),
    Names("Q7", "ja", "東京", ("都",)),
]
LABELS = EntityLabels.build(NAMES)


def counts_of(*texts: str, language: str = "en", labels: EntityLabels = LABELS) -> Counter[str]:
    counter = WordCounter(labels)
    for text in texts:
        counter.add(text, language)
    return counter.counts.get(language, Counter())


@pytest.mark.parametrize(
    ("text", "his", "capitalised"),
    [
        ("of his own, his and (his), his.", 3, 0),  # not the one behind a bracket
        ("His own. His! His? His: His", 0, 0),
        ("and His, His; His) His", 0, 4),
        ("history has Hiss and his's", 1, 0),
        ("said “His” and 'His' on\nHis way,\nHis", 0, 0),
        ("an anti-his and a  his", 0, 0),
        ("a his\u0301 is another word", 0, 0),
    ],
)
def test_whole_words_inside_sentences_are_counted(text: str, his: int, capitalised: int) -> None:
    counts = counts_of(text)
    assert (counts["his"], counts["His"]) == (his, capitalised)


def test_only_aliases_of_one_capitalised_word_are_looked_at() -> None:
    text = "an apple, an apfel, it is it, a jesus, a lord, b-side and b-side"
    assert counts_of(text) == {"apfel": 1, "lord": 1}
    assert counts_of("das essen, ein mahl", language="de") == {"mahl": 1}  # Essen is a label too
    assert counts_of("都 の 都", language="ja") == {}
    assert counts_of("in his", language="und") == {}
    assert counts_of("in his", language="fr") == {}


WORDS = ["his", "His", "met", "Met", "history", "lord", "Lord", "a", "Apfel", "é", "é"]
GAPS = [" ", ", ", ". ", "; ", ") ", "\n", "  ", "“", ": ", ""]


@given(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GAPS)), max_size=30))
@example([("a", " "), ("his", "")])
def test_counting_agrees_with_a_regular_expression(parts: list[tuple[str, str]]) -> None:
    text = "".join(word + gap for word, gap in parts)
    found = re.findall(r"(?<=[^\W_] |[,;)\]] )[^\W_]+(?![\w\u0301])", text)
    wanted = {"his", "His", "met", "Met", "lord", "Lord", "apfel", "Apfel"}
    assert counts_of(text) == Counter(word for word in found if word in wanted)


@given(st.lists(st.sampled_from(["a his", "a His", "the met", "and Met"]), max_size=12))
def test_counts_of_parts_add_up(texts: list[str]) -> None:
    parts = []
    for text in texts:
        counter = pickle.loads(pickle.dumps(WordCounter(LABELS)))  # noqa: S301 our own bytes
        counter.add(text, "en")
        parts.append(counter.counts)
    assert add_up(*parts).get("en", Counter()) == counts_of(*texts)


def test_a_word_that_is_oftener_written_small_is_common() -> None:
    def common(text: str) -> set[str]:
        return set(common_words(LABELS, {"en": counts_of(text)}).get("en", ()))

    assert common("a his or his, for His Lord and a lord") == {"His"}  # equally often: no
    assert common("he met them, he met the Met") == {"Met"}
    assert common("") == set()


def test_the_linker_leaves_common_words_out_and_counts_them() -> None:
    linker = DictionaryLinker(LABELS, common={"en": {"Met"}})
    counts = LinkCounts()
    text = "Met at the Met, Apple: His Met"
    found = [text[link.start : link.end] for link in linker.link(text, "en", counts)]
    assert found == ["the Met", "Apple", "His"]
    assert (counts.found, counts.linked, counts.common, counts.ambiguous) == (5, 3, 2, 0)
    assert DictionaryLinker(LABELS).fingerprint != linker.fingerprint
    assert DictionaryLinker(LABELS, common={"de": ()}).fingerprint == (
        DictionaryLinker(LABELS).fingerprint
    )
    again = pickle.loads(pickle.dumps(linker))  # noqa: S301 our own bytes
    assert again.link(text, "en") == linker.link(text, "en")


# ---------------------------------------------------------------------------------------------
# In prepare


def stream(name: str, *texts: str, reads: list[str] | None = None) -> Stream:
    def examples():
        if reads is not None:
            reads.append(name)
        for number, text in enumerate(texts):
            yield Example(str(number), {"text": text}, {"text": "en"})
        yield Refused("blank line", name, 1)

    return Stream(name=name, examples=examples, fingerprint=f"{name} {texts}")


def test_counts_are_kept_by_stream_and_made_again_for_other_text(tmp_path: Path) -> None:
    reads: list[str] = []
    one, two = stream("one", "a his", reads=reads), stream("two", "a His met", reads=reads)

    def counts(*streams: Stream, limit: int = 0) -> Counter[str]:
        return stream_word_counts(LABELS, streams, limit, tmp_path, Silent())["en"]

    assert counts(one) == {"his": 1}
    assert counts(one, two) == {"his": 1, "His": 1, "met": 1}
    assert counts(two, one) == {"his": 1, "His": 1, "met": 1}
    assert reads == ["one", "two"]
    assert counts(stream("one", "a met", "a his", reads=reads), limit=1) == {"met": 1}
    assert reads == ["one", "two", "one"]
    assert counts(stream("three", "a his", "half \ud800 his")) == {"his": 1}


@pytest.mark.parametrize("broken", ["{", "[]", '{"en": 3}', '{"en": {"his": "many"}}'])
def test_what_is_no_count_in_the_cache_is_named(tmp_path: Path, broken: str) -> None:
    stream_word_counts(LABELS, [stream("one", "a his")], 0, tmp_path, Silent())
    (path,) = (tmp_path / "words").glob("*.json")
    path.write_text(broken, encoding="utf-8")
    with pytest.raises(DataError) as error:
        stream_word_counts(LABELS, [stream("one", "a his")], 0, tmp_path, Silent())
    assert error.value.path == path


@pytest.mark.parametrize("on", [True, False])
def test_training_links_no_common_words_unless_asked_to(tmp_path: Path, on: bool) -> None:
    labels = tmp_path / "labels.jsonl"
    rows = [{"id": one.id, "lang": one.language, "label": one.label} for one in NAMES[:2]]
    rows[0]["aliases"], rows[1]["aliases"] = ["His"], ["Met"]
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = tiny_settings(
        **{
            "prepare.cache": str(tmp_path / "cache"),
            "data.labels": [str(labels)],
            "linker.common_words": on,
        }
    )
    text = "Jesus and his disciples. His house. Met by Jesus at the Met"
    annotator = linking_annotator(settings, None, [stream("text", text)], Silent())
    (spans,) = annotator.annotate([Example("1", {"text": text}, {"text": "en"})])
    linked = [text[span.start : span.end] for span in spans]
    every = ["Jesus", "His", "Met", "Jesus", "Met"]
    assert linked == [word for word in every if not on or word != "His"]
    assert annotator.account is not None
    assert annotator.account()["common"] == (1 if on else 0)
    other = linking_annotator(settings, None, [stream("text", "he met his")], Silent())
    assert (other.fingerprint != annotator.fingerprint) is on


def test_the_flag_of_the_commands(tmp_path: Path) -> None:
    labels, text = tmp_path / "labels.jsonl", tmp_path / "text.jsonl"
    graph, target = tmp_path / "kg.tsv", tmp_path / "linked.jsonl"
    graph.write_text("Q1\tP1\tQ1\n", encoding="utf-8")
    names = {"id": "Q1", "lang": "en", "label": "Jesus", "aliases": ["His"]}
    labels.write_text(json.dumps(names) + "\n", encoding="utf-8")
    mention = {"start": 0, "end": 3, "id": "Q1"}
    rows = [
        {"text": "Jesus and his disciples.", "lang": "en"},
        {"text": "His house.", "lang": "en"},
    ]
    text.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    flags = ("--text", text, "--labels", labels)
    link = ("kg", "link", *flags, "-o", target, "--cache", tmp_path)
    counts = document(*link)
    assert (counts["linked"], counts["common_words"]) == (1, 1)
    counts = document(*link, "--no-common-words")
    assert (counts["linked"], counts["common_words"]) == (2, 0)
    ledger = document("kg", "check", *flags, "--kg", graph)
    assert ledger["mentions"] == {"found": 2, "linked": 1, "ambiguous": 0, "common": 1}
    assert "1 common words" in run("kg", "check", *flags, "--kg", graph).stdout
    rows[1]["mentions"] = [mention]
    text.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert document("kg", "score", *flags)["languages"]["en"]["common"] == 1
    assert document("kg", "score", *flags, "--no-common-words")["languages"]["en"]["right"] == 1

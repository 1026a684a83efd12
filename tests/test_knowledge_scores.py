"""Scores of linking, against counts made by hand and by brute force."""

from __future__ import annotations

import json

import pytest
from cli_files import document, run
from hypothesis import given
from hypothesis import strategies as st

from ptm_plus.knowledge.labels import EntityLabels, Names
from ptm_plus.knowledge.linker import DictionaryLinker, Link
from ptm_plus.knowledge.scores import LinkScorer, total_scores

LABELS = EntityLabels.build(
    [
        Names("Q1", "en", "Rome"),
        Names("Q2", "en", "Paris"),
        Names("Q3", "en", "Paris"),
        Names("Q4", "en", "Ada Lovelace", ("Ada",)),
        Names("Q5", "fr", "Lyon"),
    ]
)


def test_every_case_is_counted_where_it_belongs() -> None:
    scorer = LinkScorer(DictionaryLinker(LABELS))
    text = "Ada saw Rome, Paris, Lyon and Rome."
    known = [
        Link(0, 3, "Q4"),  # right
        Link(8, 12, "Q9"),  # another entity on the same characters, which nothing names
        Link(14, 19, "Q2"),  # ambiguous: Q2 or Q3
        Link(21, 25, "Q5"),  # named in French only
    ]
    scorer.add(text, "en", known)
    (scores,) = scorer.by_language.values()
    assert (scores.gold, scores.linked, scores.right, scores.same_span) == (4, 3, 1, 2)
    assert (scores.without_name, scores.ambiguous) == (2, 1)
    assert scores.missed == {"Rome": 1, "Paris": 1, "Lyon": 1}
    assert scores.wrong == {"Rome": 2}
    assert scores.precision == pytest.approx(1 / 3)
    assert scores.recall == pytest.approx(1 / 4)
    assert scores.f1 == pytest.approx(2 / 7)
    assert scores.accuracy == pytest.approx(1 / 2)
    assert scores.gold_spans == 4
    assert scores.span_precision == pytest.approx(2 / 3)
    assert scores.span_recall == pytest.approx(2 / 4)
    assert scores.span_f1 == pytest.approx(4 / 7)


def test_characters_that_may_mean_two_entities_count_once_as_a_span() -> None:
    scorer = LinkScorer(DictionaryLinker(LABELS))
    scorer.add("Rome", "en", [Link(0, 4, "Q1"), Link(0, 4, "Q7")])
    (scores,) = scorer.by_language.values()
    assert (scores.gold, scores.gold_spans, scores.recall, scores.span_recall) == (2, 1, 0.5, 1.0)


def test_scores_of_parts_add_up_to_those_of_the_whole() -> None:
    texts = [
        ("Ada saw Rome", "en", [Link(0, 3, "Q4"), Link(8, 12, "Q9")]),
        ("Lyon or Rome", "fr", [Link(0, 4, "Q5")]),
        ("Paris and Ada", "en", [Link(0, 5, "Q2")]),
    ]
    whole = LinkScorer(DictionaryLinker(LABELS))
    parts = []
    for text in texts:
        whole.add(*text)
        parts.append(LinkScorer(DictionaryLinker(LABELS)))
        parts[-1].add(*text)
    assert total_scores(part.by_language for part in parts) == whole.by_language


@given(
    st.lists(st.sampled_from(["Rome", "Ada", "Paris", "the", "Lyon"]), max_size=12),
    st.sets(st.tuples(st.integers(0, 11), st.sampled_from(["Q1", "Q4", "Q7"])), max_size=8),
)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(words: list[str], marks: set) -> None:
    """Against sets of (place, entity), word by word."""
    starts = [sum(len(word) + 1 for word in words[:place]) for place in range(len(words))]
    known = {
        Link(starts[place], starts[place] + len(words[place]), entity)
        for place, entity in marks
        if place < len(words)
    }
    scorer = LinkScorer(DictionaryLinker(LABELS))
    scorer.add(" ".join(words), "en", known)
    scores = scorer.by_language["en"]
    means = {"Rome": "Q1", "Ada": "Q4"}
    linked = {(place, means[word]) for place, word in enumerate(words) if word in means}
    gold = {(place, entity) for place, entity in marks if place < len(words)}
    assert (scores.gold, scores.linked, scores.right) == (
        len(gold),
        len(linked),
        len(gold & linked),
    )
    precision, recall = scores.precision, scores.recall
    expected = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    assert scores.f1 == pytest.approx(expected)


def test_nothing_linked_and_nothing_known_is_zero() -> None:
    scorer = LinkScorer(DictionaryLinker(LABELS))
    scorer.add("nothing", "de", [])
    scores = scorer.by_language["de"]
    assert (scores.precision, scores.recall, scores.f1, scores.accuracy) == (0, 0, 0, 0)
    assert (scores.span_precision, scores.span_recall, scores.span_f1) == (0, 0, 0)


@pytest.fixture
def files(tmp_path):
    labels, text = tmp_path / "labels.jsonl", tmp_path / "text.jsonl"
    rows = [
        {"id": "Q1", "lang": "en", "label": "Rome"},
        {"id": "Q2", "lang": "fr", "label": "Lyon"},
    ]
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    rows = [
        {"text": "In Rome.", "lang": "en", "mentions": [{"start": 3, "end": 7, "id": "Q1"}]},
        {"text": "Rome again.", "lang": "en", "mentions": []},
        {"text": "À Lyon.", "lang": "fr", "mentions": [{"start": 2, "end": 6, "id": "old:2"}]},
    ]
    text.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def test_the_command_scores_each_language_and_knows_ids_that_are_one(files) -> None:
    links = files / "links.tsv"
    links.write_text("old:2\tQ2\n", encoding="utf-8")
    flags = ("kg", "score", "--text", files / "text.jsonl", "--labels", files / "labels.jsonl")
    apart = document(*flags)["languages"]
    assert (apart["en"]["linked"], apart["en"]["right"], apart["en"]["recall"]) == (2, 1, 1.0)
    assert apart["en"]["wrong"] == {"Rome": 1}
    assert (apart["fr"]["right"], apart["fr"]["accuracy"]) == (0, 0.0)
    assert document(*flags, "--links", links)["languages"]["fr"]["f1"] == 1.0


def test_the_command_scores_each_file_and_all_together(files) -> None:
    text, more = files / "text.jsonl", files / "more.jsonl"
    row = {"text": "Rome", "lang": "en", "mentions": [{"start": 0, "end": 4, "id": "Q9"}]}
    more.write_text(json.dumps(row) + "\n", encoding="utf-8")
    gold = files / "[mt]*.jsonl"
    flags = ("kg", "score", "--text", gold, "--labels", files / "labels.jsonl")
    found = document(*flags, "--text", text)  # named twice, scored once
    assert set(found["files"]) == {str(text), str(more)}
    alone = found["files"][str(more)]["en"]
    assert (alone["linked"], alone["precision"], alone["span_f1"]) == (1, 0.0, 1.0)
    assert found["languages"]["en"]["linked"] == 3
    assert found["languages"]["fr"] == found["files"][str(text)]["fr"]
    shown = run(*flags).stdout
    assert "links, characters alone" in shown
    assert "more.jsonl" in shown


def test_text_without_mentions_is_no_gold(files) -> None:
    bare = files / "bare.jsonl"
    bare.write_text('{"text": "In Rome.", "lang": "en"}\n', encoding="utf-8")
    result = run("kg", "score", "--text", bare, "--labels", files / "labels.jsonl")
    assert result.exit_code == 4
    assert "comes without mentions" in result.stderr
    assert run("kg", "score", "--text", bare).exit_code == 2

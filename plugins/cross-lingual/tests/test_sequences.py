"""Layouts and columns: what stands where, and who sees whom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import FAMILIES, perturb, tiny_run

from ptm_plus import Example, LayoutInput, Piece, Refused, Span, Template
from ptm_plus.data import Row
from ptm_plus.microbatch import to_device
from ptm_plus_cross_lingual.apart import apart_layout, fitting
from ptm_plus_cross_lingual.paraphrase import paraphrase_layout
from ptm_plus_cross_lingual.switching import documents, line_borders, switched_layout

pytestmark = pytest.mark.cross_lingual

NAME = "cross-lingual"
CLS, SEP = 2, 3
TEMPLATE = Template(
    prefix=(CLS,),
    suffix=(SEP,),
    pair_prefix=(CLS,),
    middle=(SEP,),
    pair_suffix=(SEP,),
    types=(0, 0, 0, 1, 1),
    two_types=True,
    cls=CLS,
    sep=SEP,
    pad=0,
    mask=4,
)
EVERYTHING = {
    "contrast": {"weight": 1.0, "queue": 64},
    "recovery": {"weight": 1.0},
    "paraphrase": {"weight": 1.0},
    "switching": {"weight": 1.0},
}


def piece_of(text):
    """Return a token per letter: its place in the alphabet, from 10 on."""
    places = [n for n, sign in enumerate(text) if not sign.isspace()]
    words = np.cumsum([text[n - 1].isspace() if n else 0 for n in places])
    ids = np.array([ord(text[n]) - ord("a") + 10 for n in places], np.int64)
    start = np.array(places, np.int64)
    return Piece(ids, start, start + 1, words.astype(np.int64))


def laid_out(layout, fields, room=40, languages=None):
    languages = languages or {"src": "en", "tgt": "fr", "other": "fr"}
    example = Example("1", fields, {name: languages[name] for name in fields})
    pieces = {name: piece_of(text) for name, text in fields.items()}
    return layout(LayoutInput(example, pieces, TEMPLATE, room))


def letters(sequence):
    """Return a sequence as text: ^ and | for special tokens."""
    signs = {CLS: "^", SEP: "|"}
    ids = (int(i) for segment in sequence.segments for i in segment.ids)
    return "".join(signs.get(i) or chr(i - 10 + ord("a")) for i in ids)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 80))
def test_what_fits_is_as_even_as_it_can_be(lengths, more):
    room = len(lengths) + more
    taken = fitting(lengths, room)
    assert all(1 <= own <= length for own, length in zip(taken, lengths, strict=True))
    if sum(lengths) <= room:
        assert taken == lengths
    else:
        assert sum(taken) == room
        cut = [own for own, length in zip(taken, lengths, strict=True) if own < length]
        assert max(taken) - min(cut) <= 1  # nobody keeps more than those that lose


def test_sentences_apart_by_hand():
    (sequence,) = laid_out(apart_layout, {"src": "ab c", "tgt": "xyz"})
    assert letters(sequence) == "^abc|^xyz|"
    assert [segment.restart for segment in sequence.segments] == [False] * 3 + [True, False, False]
    marks = [int(n) for segment in sequence.segments for n in segment.columns["half"]]
    assert marks == [0] * 5 + [1] * 5
    assert [segment.language for segment in sequence.segments] == ["", "en", "", "", "fr", ""]
    (cut,) = laid_out(apart_layout, {"src": "abcdefgh", "tgt": "xy"}, room=10)
    assert (letters(cut), cut.truncated) == ("^abcd|^xy|", 4)
    assert laid_out(apart_layout, {"src": " ", "tgt": "xy"}) == []


def test_candidates_by_hand():
    (sequence,) = laid_out(paraphrase_layout, {"src": "ab", "tgt": "xyz", "other": "uv"})
    assert letters(sequence) == "^ab|xyz|uv"
    movable = [letters(replace_segments(sequence, s)) for s in sequence.segments if s.movable]
    assert movable == ["xyz", "uv"]
    assert [segment.type for segment in sequence.segments] == [0, 0, 0, 1, 1, 1]
    assert [segment.restart for segment in sequence.segments] == [False] * 3 + [True, False, True]
    (cut,) = laid_out(paraphrase_layout, {"src": "ab", "tgt": "wxyz", "other": "uvuv"}, room=9)
    assert (letters(cut), cut.truncated) == ("^ab|wx|uv", 4)
    assert laid_out(paraphrase_layout, {"src": "ab", "tgt": "xy", "other": ""}) == []


def replace_segments(sequence, *segments):
    return replace(sequence, segments=segments)


def test_switched_documents_by_hand():
    fields = {"src": "ab\nc d\nef", "tgt": "uv\nw\nxyz"}
    first, second = laid_out(switched_layout, fields)
    assert (letters(first), letters(second)) == ("^abwef|", "^uvcdxyz|")
    assert [s.language for s in first.segments] == ["", "en", "fr", "en", ""]
    assert [s.language for s in second.segments] == ["", "fr", "en", "fr", ""]
    parts = laid_out(switched_layout, fields, room=7)
    assert [letters(part) for part in parts] == ["^abwef|", "^uvcd|", "^xyz|"]
    parts = laid_out(switched_layout, {"src": "abcdefgh\ni", "tgt": "u\nw"}, room=5)
    assert [letters(part) for part in parts] == ["^abc|", "^w|", "^ui|"]
    assert [part.truncated for part in parts] == [5, 0, 0]


def test_documents_are_neighbours_of_one_language_pair():
    def pair(number, source, target, languages=("en", "fr"), spans=()):
        codes = dict(zip(("src", "tgt"), languages, strict=True))
        return Example(f"{number}", {"src": source, "tgt": target}, codes, list(spans))

    rows = [
        pair(0, "One.", "Un.", spans=[Span("tgt", 0, 2, "entity", "Q1")]),
        pair(1, "Eins.", "Un.", ("de", "fr")),
        Refused("blank line"),
        pair(2, "Two\nlines.", "Deux.", spans=[Span("tgt", 0, 4, "entity", "Q2")]),
        pair(3, "Three.", "Trois."),
    ]
    refused, first, rest, german = documents(rows, lambda pair: False, 2)
    assert refused == Refused("blank line")
    assert first.fields == {"src": "One.\nTwo lines.", "tgt": "Un.\nDeux."}
    marked = [first.fields["tgt"][span.start : span.end] for span in first.spans]
    assert marked == ["Un", "Deux"]
    assert rest.fields == {"src": "Three.", "tgt": "Trois."}
    assert german.languages == {"src": "de", "tgt": "fr"}
    assert (first.id, german.id) == ("0", "1")
    assert first.held_out_by == "One."
    _, first, german, rest = documents(rows, lambda pair: pair.id in "02", 2)
    assert (first.fields["src"], rest.fields["src"]) == ("One.\nTwo lines.", "Three.")
    _, first, german, second = documents(rows, lambda pair: pair.id == "2", 2)
    assert (first.fields["src"], second.fields["src"]) == ("One.\nThree.", "Two lines.")


def test_borders_of_lines_with_tokens_for_line_breaks():
    text = "ab\ncd"
    broken = Piece(
        np.array([10, 11, 5, 12, 13]),
        np.array([0, 1, 3, 3, 4]),
        np.array([1, 2, 3, 4, 5]),
        np.array([0, 0, -1, 1, 1]),
    )
    assert line_borders(broken, text) == [0, 2, 5]
    assert line_borders(piece_of(text), text) == [0, 2, 4]
    assert line_borders(piece_of("ab"), "ab") == [0, 2]


# ---------------------------------------------------------------------------------------------
# In a run


def batch_of(run, stream, numbers=range(16)):
    row = Row(stream, "", 0, np.asarray(numbers))
    host = run.collator.batch([row], [row], 0.3)
    return host, to_device(host, run.device, torch.float64)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_hidden_is_seen_by_nobody(family):
    run = tiny_run(family, (NAME,), plugin={NAME: EVERYTHING})
    perturb(run)
    for stream, column in (("apart", "half"), ("paraphrases", "hidden")):
        _, batch = batch_of(run, f"{NAME}-{stream}")
        marks = batch.column(NAME, column)
        assert 0 < int(marks.sum()) < len(batch)
        for mark in (0, 1):
            ids = torch.where(marks == mark, batch.ids, batch.ids.flip(0))
            before, after = (
                run.encoder.encode(one).top for one in (batch, replace(batch, ids=ids))
            )
            assert torch.equal(before[marks == mark], after[marks == mark])
            assert not torch.equal(before[marks != mark], after[marks != mark])


def test_the_shown_candidate_is_the_translation_where_the_label_says_so():
    run = tiny_run("bert", (NAME,), plugin={NAME: EVERYTHING})
    host, batch = batch_of(run, f"{NAME}-paraphrases", range(60))
    candidate, hidden = host.view.columns["candidate"], batch.column(NAME, "hidden").numpy()
    labels = batch.column(NAME, "label").tolist()
    for sequence, label in enumerate(labels):
        own = host.view.sequence == sequence
        assert set(candidate[own & (hidden == 1)]) == {1 + label}
        assert set(candidate[own & (hidden == 0)]) == {0, 2 - label}
        shown = np.flatnonzero(own & (candidate == 2 - label))
        behind = np.flatnonzero(own & (candidate == 1 + label))
        assert shown.max() < behind.min()
        assert host.view.positions[shown[0]] == host.view.positions[behind[0]] == 0
    assert 0 < sum(labels) < len(labels)
    assert not len(batch.predicted)


def test_switched_documents_change_language_at_each_sentence():
    run = tiny_run("bert", (NAME,), plugin={NAME: EVERYTHING})
    host, batch = batch_of(run, f"{NAME}-switched")
    several = 0
    for sequence in range(len(host.view.numbers)):
        own = np.flatnonzero((host.view.sequence == sequence) & (host.view.languages >= 0))
        segments, first = np.unique(host.view.segments[own], return_index=True)
        languages = host.view.languages[own][first]
        assert (np.diff(languages) != 0).all()
        several += len(segments) > 1
    assert several > len(host.view.numbers) / 2
    assert len(batch.predicted)

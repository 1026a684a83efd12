"""Positions from parent pointers, and the layout of running text."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import small_tokenizer

from ptm_plus.examples import Example, Span
from ptm_plus.prepare.layouts import (
    TEXT_LAYOUT,
    LaidOut,
    LayoutInput,
    Piece,
    resolve_positions,
    special_segment,
    split_points,
    text_layout,
    tokens_of_span,
)
from ptm_plus.prepare.tokenization import pieces, template


def test_positions_of_a_chain_a_tree_and_loose_tokens() -> None:
    assert resolve_positions([-1, 0, 1, 2]).tolist() == [0, 1, 2, 3]
    # K-BERT's tree: the branch 3-4 hangs on token 1, the trunk goes on at 2.
    assert resolve_positions([-1, 0, 1, 1, 3]).tolist() == [0, 1, 2, 2, 3]
    assert resolve_positions([2, -1, 1]).tolist() == [2, 0, 1]
    assert resolve_positions([]).tolist() == []


@given(st.data())
def test_positions_equal_the_recursion(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 40))
    order = data.draw(st.permutations(range(size)))
    parents = [-1] * size
    for place, node in enumerate(order):
        parents[node] = data.draw(st.sampled_from([-1, *order[:place]]))

    def position(node: int) -> int:
        return 0 if parents[node] < 0 else position(parents[node]) + 1

    assert resolve_positions(parents).tolist() == [position(node) for node in range(size)]


@pytest.mark.parametrize(
    ("parents", "what"), [([1, 0], "circle"), ([0], "circle"), ([5], "leaves"), ([-2], "leaves")]
)
def test_wrong_pointers_are_refused(parents: list[int], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        resolve_positions(parents)


def piece_of(words: list[str]) -> tuple[Piece, str]:
    """Words of one token per two letters; a word after the first has a space before it."""
    starts, ends, numbers, text = [], [], [], ""
    for number, word in enumerate(words):
        text += " " if text else ""
        for place in range(0, len(word), 2):
            starts.append(len(text) + place)
            ends.append(len(text) + min(place + 2, len(word)))
            numbers.append(number)
        text += word
    arrays = [np.array(values, np.int64) for values in (starts, starts, ends, numbers)]
    return Piece(*arrays), text


def test_a_split_is_at_the_last_sentence_end_that_fits() -> None:
    piece, text = piece_of(["aa", "b.", "cc", "d.", "ee", "ff", "gg"])
    assert split_points(piece, text, [], 5) == [0, 4, 7]
    assert split_points(piece, text, [], 3) == [0, 2, 4, 7]


def test_without_a_sentence_end_it_is_at_a_word_border() -> None:
    piece, text = piece_of(["aa", "bbbb", "cccccc", "dd"])
    assert split_points(piece, text, [], 4) == [0, 3, 7]


def test_a_word_longer_than_a_sequence_is_split_in_itself() -> None:
    piece, text = piece_of(["aa", "bbbbbbbbbb"])
    assert split_points(piece, text, [], 3) == [0, 1, 4, 6]


def test_spans_stay_whole_when_they_can() -> None:
    piece, text = piece_of(["aa", "bb", "cc", "dd", "ee"])
    span = Span("text", 6, 11, "entity")  # cc dd
    assert tokens_of_span(piece, span.start, span.end) == (2, 4)
    assert split_points(piece, text, [span], 3) == [0, 2, 5]
    assert split_points(piece, text, [Span("text", 0, 14, "entity")], 3) == [0, 3, 5]


@given(
    words=st.lists(st.text("ab.。", min_size=1, max_size=9), max_size=30),
    room=st.integers(1, 12),
    spans=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=3),
)
def test_splits_against_brute_force(
    words: list[str], room: int, spans: list[tuple[int, int]]
) -> None:
    piece, text = piece_of(words)
    marked = [Span("text", a, min(a + n, len(text)), "entity") for a, n in spans if a < len(text)]
    points = split_points(piece, text, marked, room)
    size = len(piece)
    assert points == sorted(set(points))
    assert points[0] == 0
    assert points[-1] == size

    def allowed(border: int) -> bool:
        inside = [
            [t for t in range(size) if piece.char_end[t] > s.start and piece.char_start[t] < s.end]
            for s in marked
        ]
        whole_word = piece.words[border] != piece.words[border - 1]
        return whole_word and not any({border - 1, border} <= set(tokens) for tokens in inside)

    for first, last in pairwise(points):
        assert last - first <= room
        if last < size and not allowed(last):
            reach = range(first + 1, first + room + 1)
            assert not any(allowed(border) for border in reach)


def lay_out(text: str, max_length: int, spans: list[Span] | None = None) -> list[LaidOut]:
    tokenizer = small_tokenizer("bert")
    (piece,) = pieces(tokenizer, [text])
    example = Example("1", {"text": text}, {"text": "en"}, spans or [], {"topic": "x"})
    return text_layout(LayoutInput(example, {"text": piece}, template(tokenizer), max_length))


def test_text_loses_nothing_and_has_its_special_tokens() -> None:
    text = "Paris is the capital of France. The river Seine flows through Paris. " * 4
    sequences = lay_out(text, 24)
    tokenizer = small_tokenizer("bert")
    (piece,) = pieces(tokenizer, [text])
    bodies = []
    for sequence in sequences:
        before, body, after = sequence.segments
        assert before.ids.tolist() == [tokenizer.cls_token_id]
        assert after.ids.tolist() == [tokenizer.sep_token_id]
        assert (before.field, body.field, body.language) == ("", "text", "en")
        assert len(sequence) <= 24
        assert sequence.labels == {"topic": "x"}
        assert sequence.truncated == 0
        bodies += body.ids.tolist()
    assert bodies == piece.ids.tolist()
    ends = [text[: sequence.segments[1].char_end[-1]][-1] for sequence in sequences]
    assert set(ends) == {"."}


def test_empty_text_makes_no_sequence() -> None:
    assert lay_out(" \n ", 24) == []
    assert TEXT_LAYOUT.lay_out is text_layout


def test_special_segments_are_shared() -> None:
    assert special_segment((7, 8), 1) is special_segment((7, 8), 1)
    assert special_segment((7, 8), 1).words.tolist() == [-1, -1]

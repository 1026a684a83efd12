"""The pair layout: frames of every tokenizer's manner, positions, lengths, and the drawn order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import ALL, small_tokenizer

from ptm_plus.examples import Example
from ptm_plus.prepare.layouts import LayoutInput, Piece
from ptm_plus.prepare.tokenization import pieces, template
from ptm_plus_tlm.frames import frame_of
from ptm_plus_tlm.layout import fit, pair_layout

pytestmark = pytest.mark.tlm


def laid_out(tokenizer, texts, *, restart=True, swap=True, max_length=64):
    positions = "restart" if restart else "continue"
    fields = dict(zip(("src", "tgt"), texts, strict=True))
    example = Example("e", fields, {"src": "en", "tgt": "de"}, [], {"number": 5})
    given_ = LayoutInput(
        example,
        dict(zip(fields, pieces(tokenizer, texts), strict=True)),
        template(tokenizer),
        max_length,
    )
    frame = frame_of("auto", positions, template(tokenizer))
    return pair_layout(given_, frame=frame, swap=swap)


def piece(size):
    numbers = np.arange(size, dtype=np.int64)
    return Piece(numbers + 10, numbers, numbers + 1, numbers)


# ---------------------------------------------------------------------------------------------
# Frames


@pytest.mark.parametrize("manner", sorted(ALL))
def test_a_pair_is_what_the_tokenizer_makes_of_it(manner):
    tokenizer = ALL[manner]()
    texts = ["Paris is the capital", "Berlin ist die Hauptstadt"]
    (sequence,) = laid_out(tokenizer, texts)
    own = tokenizer(*texts)
    found = [token for segment in sequence.segments for token in segment.ids.tolist()]
    assert found == own["input_ids"]
    if "token_type_ids" in own:
        types = [segment.type for segment in sequence.segments for _ in segment.ids]
        assert types == own["token_type_ids"]
    assert sequence.labels == {"number": 5}
    assert sequence.truncated == 0


@pytest.mark.parametrize(
    ("family", "frame"),
    [
        ("bert", ["[CLS]", "[SEP]", "[SEP]"]),
        ("roberta", ["<s>", "</s> </s>", "</s>"]),
        ("xlm-roberta", ["<s>", "</s> </s>", "</s>"]),
        ("modernbert", ["[CLS]", "[SEP]", "[SEP]"]),
    ],
)
def test_the_frames_are_those_of_the_published_models(family, frame):
    tokenizer = small_tokenizer(family)
    (sequence,) = laid_out(tokenizer, ["Paris", "Berlin"])
    special = [segment for segment in sequence.segments if not segment.field]
    frames = frame_of("auto", "continue", template(tokenizer))
    runs = (frames.prefix, frames.middle, frames.suffix)
    assert [" ".join(tokenizer.convert_ids_to_tokens(list(run))) for run in runs] == frame
    assert all((segment.words == -1).all() for segment in special)


@pytest.mark.parametrize(("restart", "swap"), [(True, True), (True, False), (False, True)])
def test_only_halves_move_and_only_the_second_slot_restarts(restart, swap):
    (sequence,) = laid_out(small_tokenizer("bert"), ["Paris", "Berlin"], restart=restart, swap=swap)
    assert [segment.movable for segment in sequence.segments] == [False, swap, False, swap, False]
    assert [segment.restart for segment in sequence.segments] == [False] * 3 + [restart, False]
    assert [segment.field for segment in sequence.segments] == ["", "src", "", "tgt", ""]
    assert [segment.language for segment in sequence.segments] == ["", "en", "", "de", ""]


@pytest.mark.parametrize("texts", [["", "Berlin"], ["Paris", ""], ["Paris", "   "]])
def test_a_half_without_tokens_makes_no_pair(texts):
    assert laid_out(small_tokenizer("bert"), texts) == []


# ---------------------------------------------------------------------------------------------
# Lengths


@given(st.integers(1, 400), st.integers(1, 400), st.integers(2, 300))
def test_no_half_is_cut_to_nothing_and_no_room_is_wasted(left, right, room):
    x, y = fit(left, right, room)
    assert 1 <= x <= left
    assert 1 <= y <= right
    assert x + y == min(left + right, room)
    if left + right > room:  # the longer half gives way first
        assert x == left or y == right or abs(x - y) <= 1


def test_lengths_by_hand():
    assert fit(10, 10, 20) == (10, 10)
    assert fit(10, 30, 20) == (10, 10)
    assert fit(3, 30, 20) == (3, 17)
    assert fit(30, 3, 20) == (17, 3)
    assert fit(30, 30, 21) == (10, 11)
    assert fit(30, 1, 2) == (1, 1)


@pytest.mark.parametrize("layout", ["auto", "xlm", "roberta", "infoxlm"])
@given(left=st.integers(1, 60), right=st.integers(1, 60), longest=st.integers(8, 40))
def test_a_pair_never_exceeds_the_length_and_counts_what_it_lost(layout, left, right, longest):
    tokenizer = small_tokenizer("xlm-roberta")
    example = Example("e", {"src": "", "tgt": ""}, {"src": "en", "tgt": "de"}, [], {})
    parts = {"src": piece(left), "tgt": piece(right)}
    given_ = LayoutInput(example, parts, template(tokenizer), longest)
    frame = frame_of(layout, "auto", template(tokenizer))
    (sequence,) = pair_layout(given_, frame=frame, swap=True)
    marks = 3 if layout == "infoxlm" else 4
    assert len(sequence) == min(left + right + marks, longest)
    assert sequence.truncated == left + right + marks - len(sequence)
    halves = [segment for segment in sequence.segments if segment.field]
    for segment, size in zip(halves, (left, right), strict=True):
        assert len(segment) >= 1
        assert segment.ids.tolist() == (np.arange(size) + 10).tolist()[: len(segment)]

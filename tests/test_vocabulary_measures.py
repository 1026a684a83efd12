"""What a tokenizer does to text, against counts made character by character."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from many_languages import KINDS, tokenizer_of

from ptm_plus.vocabulary.measures import Splits, measure

UNSPACED = "北京水山"
TEXTS = st.text(st.sampled_from("river река 北京水山 ŝ.,!’'- 42\n\t\u0301"), max_size=40)


def words_of(text: str) -> list[set[int]]:
    """Return the character positions of every word."""
    found: list[set[int]] = []
    last = " "
    for place, one in enumerate(text):
        if one.isspace() or unicodedata.category(one)[0] in "PS":
            last = " "
            continue
        if one in UNSPACED or last in UNSPACED or last == " ":
            found.append(set())
        found[-1].add(place)
        last = one
    return found


def counted(tokenizer: Any, text: str) -> Splits:
    encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    words = words_of(text)
    ranges = [set(range(start, end)) for start, end in encoding.offsets]
    solid = [{i for i in one if not text[i].isspace()} for one in ranges]
    return Splits(
        texts=1,
        characters=len(text),
        words=len(words),
        tokens=len(ranges),
        pieces=sum(not one or any(one & word for word in words) for one in solid),
        continued=sum(sum(bool(one & word) for one in ranges) > 1 for word in words),
        unknown=encoding.ids.count(tokenizer.unk_token_id),
        partial=sum(
            any(one & other for j, other in enumerate(ranges) if abs(i - j) == 1)
            for i, one in enumerate(ranges)
        ),
    )


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_counts_are_those_made_by_hand(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    assert measure([tokenizer], [("en", text)])[0]["en"] == counted(tokenizer, text)


def test_rates_of_a_sentence() -> None:
    tokenizer = tokenizer_of("wordpiece")
    text = "river rivers, ŝ 北京"
    assert tokenizer.tokenize(text) == ["river", "rivers", ",", "[UNK]", "北", "京"]
    found = measure([tokenizer], [("en", text)])[0]["en"].to_json()
    assert found["fertility"] == 5 / 5
    assert found["continued_share"] == 0.0
    assert found["unknown_rate"] == 1 / 6
    assert found["characters_per_token"] == len(text) / 6


def test_languages_are_counted_apart_and_add_up() -> None:
    texts = [("ru", "река"), ("en", "river walks"), ("ru", "вода река")]
    first, second = measure([tokenizer_of("bpe"), tokenizer_of("byte-bpe")], texts)
    assert list(first) == list(second) == ["en", "ru"]
    assert first["ru"].words == 3
    alone = measure([tokenizer_of("byte-bpe")], texts[:1] + texts[2:])[0]
    assert alone == {"ru": second["ru"]}


def test_nothing_to_count_over_is_no_rate() -> None:
    found = measure([tokenizer_of("bpe")], [("en", "")])[0]["en"].to_json()
    assert found["fertility"] is None
    assert found["unknown_rate"] is None

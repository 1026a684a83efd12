"""Collocations against values computed by hand, and against gensim's formula written down."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptm_plus_ernie_masking.collocations import (
    find_collocations,
    longest_matches,
    npmi,
    runs,
    words,
)


def test_npmi_by_hand():
    """Two words that always stand together, 10 of 100; two that are independent."""
    assert npmi(10, 10, 10, 100) == pytest.approx(1.0)
    assert npmi(20, 50, 10, 100) == pytest.approx(0.0)
    assert npmi(20, 25, 10, 100) == pytest.approx(math.log(2) / math.log(10))


def gensim_npmi(sentences, threshold, min_count):
    """``original_scorer=npmi_scorer`` of gensim 4 on a vocabulary, as its source reads."""
    vocabulary: Counter[tuple[str, ...]] = Counter()
    corpus_word_count = 0
    for sentence in sentences:
        for word in sentence:
            vocabulary[word,] += 1
            corpus_word_count += 1
        for pair in pairwise(sentence):
            vocabulary[pair] += 1
    found = {}
    for pair, bigram_count in vocabulary.items():
        if len(pair) == 2 and bigram_count >= min_count:
            pa = vocabulary[pair[0],] / corpus_word_count
            pb = vocabulary[pair[1],] / corpus_word_count
            pab = bigram_count / corpus_word_count
            score = math.log(pab / (pa * pb)) / -math.log(pab) if pab < 1 else 1.0
            if score > threshold:
                found[pair] = score
    return found


@given(
    st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=9), min_size=1, max_size=9),
    st.sampled_from([-0.5, 0.0, 0.3]),
)
def test_one_pass_is_gensim_s_formula(sentences, threshold):
    found = find_collocations(sentences, threshold, 2, longest=2)
    assert found == pytest.approx(gensim_npmi(sentences, threshold, 2))


def test_later_passes_find_longer_phrases():
    filler = [[one, other] for one in "klmnop" for other in "qrstuv"] * 4
    sentences = [["the", "united", "arab", "emirates", "lie"], ["in", "new", "york", "city"]] * 10
    found = find_collocations(sentences + filler, 0.6, 5, longest=4)
    assert ("new", "york") in found or ("york", "city") in found
    assert ("in", "new", "york", "city") in found
    short = find_collocations(sentences + filler, 0.6, 5, longest=2)
    assert {len(phrase) for phrase in short} == {2}


def test_rare_and_chance_pairs_are_left_out():
    sentences = [["a", "b"]] * 4 + [["a", "c"], ["d", "b"]] * 20
    assert ("a", "b") not in find_collocations(sentences, -0.9, 5, 2)  # 4 of 5
    assert ("a", "b") not in find_collocations(sentences, 0.2, 4, 2)  # as often as by chance


@given(st.lists(st.sampled_from("abcdefgh"), max_size=12))
def test_the_longest_phrase_from_the_left_wins(sentence):
    phrases = frozenset({("a", "b"), ("b", "c", "d"), ("c", "d"), ("a", "b", "c"), ("d", "e")})
    found, place = [], 0
    while place < len(sentence):
        fitting = [p for p in phrases if tuple(sentence[place : place + len(p)]) == p]
        if fitting:
            end = place + max(map(len, fitting))
            found.append((place, end))
            place = end
        else:
            place += 1
    assert list(longest_matches(sentence, phrases)) == found


def test_words_and_what_keeps_them_apart():
    text = "O’Neill's well-known  café, naïve ٣٤ Москва_город 東京"
    found = [text[start:end] for start, end in words(text)]
    assert found == ["O’Neill's", "well-known", "café", "naïve", "٣٤", "Москва", "город", "東京"]
    together = [[found[n] for n in run] for run in runs(text, words(text))]
    assert together == [
        ["O’Neill's", "well-known", "café"],
        ["naïve", "٣٤", "Москва"],
        ["город", "東京"],
    ]

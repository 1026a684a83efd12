"""The closest other sentence, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptm_plus import Example, Refused, Span
from ptm_plus_cross_lingual.retrieval import (
    ALONE,
    closest_others,
    trigram_vectors,
    with_others,
)

pytestmark = pytest.mark.cross_lingual

TEXTS = st.lists(
    st.text("abc dé.、中文", min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=12
)


def pair(number, source, target, languages=("en", "fr"), spans=()):
    fields = {"src": source, "tgt": target}
    return Example(str(number), fields, dict(zip(fields, languages, strict=True)), list(spans))


def test_it_looks_alike_and_is_no_equal():
    sources = ["a red house", "a big red house", "rain falls", "the rain falls", "A red house!"]
    targets = ["ein rotes Haus", "ein großes rotes Haus", "Regen fällt", "der Regen fällt", "Haus"]
    assert closest_others(sources, targets).tolist() == [1, 0, 3, 2, 1]
    # the source of the first and the last is the same text: neither is the other's negative
    targets[2] = "Ein rotes  Haus."  # an equal of the first's translation
    found = closest_others(sources, targets).tolist()
    assert found[0] == 1
    assert found[2] != 0


@given(TEXTS, st.randoms(use_true_random=False))
def test_it_is_the_argmax_over_what_is_allowed(targets, random):
    sources = [random.choice(["x", "y", "Z.", "z", "long one"]) for _ in targets]
    vectors = trigram_vectors(targets).astype(np.float64)
    found = closest_others(sources, targets)

    def plain(text):
        kept = "".join(sign for sign in text.casefold() if sign.isalnum())
        return kept or text

    for row, other in enumerate(found.tolist()):
        allowed = [
            n
            for n in range(len(targets))
            if plain(targets[n]) != plain(targets[row]) and plain(sources[n]) != plain(sources[row])
        ]
        if not allowed:
            assert other == -1
            continue
        assert other in allowed
        best = max(float(vectors[row] @ vectors[n]) for n in allowed)
        assert float(vectors[row] @ vectors[other]) == best


def test_vectors_are_whole_numbers_of_one_length():
    vectors = trigram_vectors(["the same words", "other words here", "中文句子", "a"])
    assert (vectors == np.rint(vectors)).all()
    norms = np.sqrt((vectors.astype(np.float64) ** 2).sum(1))
    assert (np.abs(norms - 127) < 3).all()


def nobody(pair):
    return False


def test_pools_hold_pairs_of_the_same_languages_in_order():
    rows = [
        pair(0, "one", "un chat"),
        Refused("blank line"),
        pair(1, "eins", "un chat noir", ("de", "fr")),
        pair(2, "two", "un chat gris", spans=[Span("tgt", 3, 7, "entity", "Q146")]),
        pair(3, "three", "le chien"),
        pair(4, "four", "le chien noir"),
        pair(5, "five", "seul"),
    ]
    found = list(with_others(rows, nobody, 2))
    assert [getattr(one, "id", one.__class__.__name__) for one in found] == [
        *("Refused", "0", "2", "3", "4"),
        *("Refused", "Refused"),  # the last ones of both language pairs are alone in their pool
    ]
    assert found[-1] == Refused(ALONE)
    first, second = found[1], found[2]
    assert first.fields == {"src": "one", "tgt": "un chat", "other": "un chat gris"}
    assert first.languages["other"] == "fr"
    assert first.spans == [Span("other", 3, 7, "entity", "Q146")]
    assert second.fields["other"] == "un chat"
    assert second.spans == [Span("tgt", 3, 7, "entity", "Q146")]
    assert found == list(with_others(rows, nobody, 2))
    held = [one for one in with_others(rows, lambda pair: pair.id in "03", 2) if one not in found]
    assert [(one.id, one.fields["other"]) for one in held if isinstance(one, Example)] == [
        ("0", "le chien"),
        ("3", "un chat"),
        ("2", "le chien noir"),
        ("4", "un chat gris"),
    ]


def test_with_nothing_in_common_the_next_one_is_taken():
    assert closest_others(["a", "b", "c"], ["xyz", "uvw", "rst"]).tolist() == [1, 2, 0]

"""Labelled sentences with the labels of others."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptm_plus import RunSettings
from ptm_plus_k_adapter.dependencies import WORD, Word, read_dependencies, to_example
from ptm_plus_k_adapter.placebos import OtherLabels, rehung
from ptm_plus_k_adapter.relations import HEAD, read_relations

pytestmark = pytest.mark.k_adapter


@st.composite
def trees(draw: st.DrawFn) -> list[int]:
    """Heads of a tree: each word hangs on one that was drawn before it."""
    count = draw(st.integers(1, 12))
    order = draw(st.permutations(range(1, count + 1)))
    heads = dict.fromkeys(order, 0)
    for at, number in enumerate(order[1:], start=1):
        heads[number] = draw(st.sampled_from(order[:at]))
    return [heads[number] for number in range(1, count + 1)]


def shape(heads: list[int]) -> Counter[tuple[int, int]]:
    """How many words hang on a word, and how deep it is: what does not depend on which it is."""
    depth = {}
    for number in range(1, len(heads) + 1):
        at, steps = number, 0
        while at:
            at, steps = heads[at - 1], steps + 1
        depth[number] = steps
    return Counter((heads.count(number), depth[number]) for number in depth)


@settings(max_examples=60, deadline=None)
@given(trees(), st.integers(0, 99))
def test_words_exchange_their_places_in_a_tree_of_the_same_shape(
    heads: list[int], seed: int
) -> None:
    words = [Word(number, f"w{number}", head) for number, head in enumerate(heads, start=1)]
    tree = to_example(words, " ".join(word.form for word in words), "en", "s")
    found = rehung(tree, np.random.default_rng(seed))
    assert found["tokens"] == [word.form for word in words]
    assert shape(found["heads"]) == shape(heads)


def test_files_of_other_labels_hold_the_same_sentences(tmp_path: Path) -> None:
    rows = [
        {
            "text": f"town {n} in land {n}",
            "relation": f"P{n % 3}",
            "head": {"start": 0, "end": 4},
            "tail": {"start": 10, "end": 14},
        }
        for n in range(30)
    ]
    trees_ = [{"tokens": ["a", "b", f"c{n}"], "heads": [2, 0, 2]} for n in range(30)]
    for name, given_ in (("relations", rows), ("trees", trees_)):
        text = "".join(json.dumps(row) + "\n" for row in given_)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    files = str(tmp_path / "relations.jsonl"), str(tmp_path / "trees.jsonl")
    change = OtherLabels("k-adapter", [files[0]], [files[1]])
    table = change(RunSettings(), tmp_path / "new", 0).plugin["k-adapter"]
    before, after = (list(read_relations(one)) for one in (files[0], table["relations"][0]))

    def labels(found):
        return [span.id for one in found for span in one.spans if span.kind == HEAD]

    assert [one.fields for one in before] == [one.fields for one in after]
    assert Counter(labels(before)) == Counter(labels(after))
    assert labels(before) != labels(after)
    before, after = (list(read_dependencies(one)) for one in (files[1], table["dependencies"][0]))
    assert [one.fields for one in before] == [one.fields for one in after]
    assert any(
        [s.id for s in one.spans if s.kind == WORD] != [s.id for s in two.spans if s.kind == WORD]
        for one, two in zip(before, after, strict=True)
    )

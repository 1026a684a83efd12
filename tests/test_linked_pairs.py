"""Pairs that speak of one entity in both halves, against counting by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from building import Mention, Seg, Seq, build_store, random_sequences, random_text

from ptm_plus.linked_pairs import LinkedPairs, linked_pairs


def pair(*mentions: Mention) -> Seq:
    half = Seg([20, 21, 22], words=[0, 1, 2], language="en")
    other = Seg([30, 31, 32], words=[3, 4, 5], language="fr")
    return Seq([Seg([2]), half, Seg([3]), other, Seg([3])], mentions)


def test_one_entity_in_both_halves_counts_once(tmp_path: Path) -> None:
    store = build_store(
        tmp_path,
        [
            pair(),
            pair(Mention(1, 0, 1, "Q1")),
            pair(Mention(1, 0, 1, "Q1"), Mention(3, 0, 1, "Q2")),
            pair(Mention(1, 0, 1, "Q1"), Mention(1, 2, 1, "Q1")),
            pair(Mention(1, 0, 1, "Q1"), Mention(3, 1, 2, "Q1"), Mention(3, 0, 1, "Q1")),
            pair(Mention(1, 0, 1, None), Mention(3, 0, 1, None)),
            pair(Mention(1, 0, 1, "Q2"), Mention(3, 0, 1, "Q2", kind="phrase")),
        ],
    )
    assert linked_pairs(store) == LinkedPairs(pairs=7, any=5, both=1)


def test_running_text_has_no_pairs(tmp_path: Path) -> None:
    texts = random_sequences(5, 0, random_text)
    assert linked_pairs(build_store(tmp_path, texts)) is None
    assert np.diff(build_store(tmp_path / "again", texts).segments).max() < 4

"""Runs of words: their lengths, that they are whole, and where they begin."""

from __future__ import annotations

import numpy as np
import pytest
from building import random_pair, random_sequences
from test_masking import VOCABULARY, maker_of

from ptm_plus import Draws, UnitKind
from ptm_plus.masking import _whole, plan_masks, word_kind
from ptm_plus_ernie_masking.units import WordRuns, geometric_lengths, inverse_lengths


def test_chances_by_hand():
    assert inverse_lengths(3) == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    chances = geometric_lengths(0.2, 10)
    assert chances[1:] / chances[:-1] == pytest.approx(0.8)
    assert chances.sum() == pytest.approx(1)
    mean = float(chances @ np.arange(1, 11))
    assert mean == pytest.approx(3.797, abs=1e-3)  # "3.8" in section 3.1 of the paper


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    sequences = random_sequences(4000, 7, random_pair)
    maker = maker_of(tmp_path_factory.mktemp("runs"), sequences, "pairs")
    numbers = np.arange(4000)
    return [maker.view(numbers, np.full(4000, epoch)) for epoch in range(2)]


@pytest.mark.parametrize("chances", [inverse_lengths(3), geometric_lengths(0.2, 10)])
def test_runs_are_whole_words_within_a_segment(views, chances):
    view = views[0]
    units = _whole(view, WordRuns("x", chances)(view, Draws(0, "x", "pairs")))
    for start, length in zip(units.start.tolist(), units.length.tolist(), strict=True):
        tokens = slice(start, start + length)
        assert (view.words[tokens] >= 0).all()
        assert len(set(view.sequence[tokens])) == len(set(view.segments[tokens])) == 1
        assert len(set(view.words[tokens])) <= len(chances)
        assert start == 0 or view.words[start - 1] != view.words[start]
        end = start + length
        assert end == len(view) or view.words[end] != view.words[end - 1]


def test_runs_cover_every_word_once(views):
    view = views[0]
    units = _whole(view, WordRuns("x", inverse_lengths(3))(view, Draws(0, "x", "pairs")))
    covered = np.zeros(len(view), dtype=int)
    for start, length in zip(units.start.tolist(), units.length.tolist(), strict=True):
        covered[start : start + length] += 1
    assert np.array_equal(covered, (view.words >= 0).astype(int))


def test_lengths_have_their_chances_and_no_word_is_likelier_to_begin(views):
    chances = np.array([0.5, 0.2, 0.3])
    mean = float(chances @ [1, 2, 3])
    sizes, begins = [], []
    for view in views:
        units = _whole(view, WordRuns("x", chances)(view, Draws(0, "x", "pairs")))
        counted = np.array(
            [
                len(set(view.words[s : s + n]))
                for s, n in zip(units.start, units.length, strict=True)
            ]
        )
        first = first_words(view)
        inner = np.ones(len(units.start), dtype=bool)
        inner[np.isin(units.start, first)] = False
        ends = np.isin(units.start + units.length, behind_last(view))
        sizes.append(counted[inner & ~ends])
        begins.append(np.isin(first_of_word(view, 2), units.start).mean())
    share = np.bincount(np.concatenate(sizes), minlength=4)[1:] / sum(map(len, sizes))
    # runs that end a segment are left out above; long ones are among them more often
    assert share == pytest.approx(chances, abs=0.04)
    assert np.mean(begins) == pytest.approx(1 / mean, abs=0.02)


def segments(view):
    """Return (first token, end) of each run of text between special tokens."""
    text = view.words >= 0
    edges = np.flatnonzero(np.diff(np.concatenate(([False], text, [False])).astype(int)))
    return edges.reshape(-1, 2)


def first_words(view):
    return segments(view)[:, 0]


def behind_last(view):
    return segments(view)[:, 1]


def first_of_word(view, place):
    """Return the first token of the word at a place (from 0) of each segment that has it."""
    found = []
    for start, end in segments(view).tolist():
        starts = [t for t in range(start, end) if t == start or view.words[t] != view.words[t - 1]]
        found += starts[place : place + 1]
    return np.array(found)


def test_the_budget_holds(views):
    kinds = (
        word_kind("word"),
        UnitKind(name="span", propose=WordRuns("x", geometric_lengths(0.2, 10)), weight=1e6),
    )
    spent = maskable = 0
    for view in views:
        draws = {kind.name: Draws(0, kind.name, "pairs") for kind in kinds}
        plan = plan_masks(view, kinds, 0.15, draws, VOCABULARY)
        spent += int(plan.predicted.sum())
        maskable += int((view.words >= 0).sum())
    assert 0.98 < spent / (0.15 * maskable) < 1.02

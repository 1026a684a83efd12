"""One half masked more than the other: its share, the budget that stays, and its independence."""

from __future__ import annotations

import numpy as np
import pytest
from building import ENTITIES, MASK, build_store, random_pair, random_sequences
from tiny import tiny_run

from ptm_plus.components import UnitKind
from ptm_plus.data import Row
from ptm_plus.keyed import Draws
from ptm_plus.masking import Vocabulary, plan_masks, span_units, word_kind
from ptm_plus.views import ViewMaker
from ptm_plus_tlm.focus import one_half

pytestmark = pytest.mark.tlm

RATE = 0.15
VOCABULARY = Vocabulary(mask=MASK, ordinary=np.arange(1000, 1100))
DRAWS = Draws(0, "tlm", "pairs")


@pytest.fixture(scope="module")
def maker(tmp_path_factory):
    rng_pairs = random_sequences(1500, 3, lambda rng: random_pair(rng, 60, 61))
    store = build_store(tmp_path_factory.mktemp("store"), rng_pairs)
    return ViewMaker("pairs", store, {"entity": ENTITIES}, 0)


def masked(view, focus, *kinds):
    every = (word_kind("word"), *kinds)
    draws = {kind.name: Draws(0, kind.name, "pairs") for kind in every}
    emphasis = one_half(view, DRAWS, focus=focus)
    return plan_masks(view, every, RATE, draws, VOCABULARY, emphasis), emphasis > 1


def expected_rates(focus):
    """Rates of the two halves when units of chance w are drawn in a race until 15 % are taken.

    A unit's arrival is exponential with rate w, so that at time t it is taken with probability
    1 - exp(-w t); both halves are equally long.
    """

    def rates(time):
        return 1 - np.exp(-focus * time), 1 - np.exp(-time)

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if sum(rates(middle)) > 2 * RATE else (middle, high)
    return rates(low)


@pytest.mark.parametrize("focus", [1.5, 3.0, 20.0])
def test_the_drawn_half_has_its_share_of_the_one_budget(maker, focus):
    view = maker.view(np.arange(1500), np.zeros(1500, dtype=np.int64))
    plan, inside = masked(view, focus)
    more, less = (plan.predicted[here & (view.words >= 0)].mean() for here in (inside, ~inside))
    expected = expected_rates(focus)
    assert more == pytest.approx(expected[0], rel=0.03)
    assert less == pytest.approx(expected[1], rel=0.06)
    plain, _ = masked(view, 1.0)
    assert plan.budget == plain.budget
    words = float((view.words >= 0).sum())
    assert plan.predicted.sum() == pytest.approx(RATE * words, rel=0.005)


def test_halves_are_drawn_equally_often_and_anew_at_each_access(maker):
    numbers = np.arange(1500)
    firsts = []
    for epoch in range(4):
        view = maker.view(numbers, np.full(1500, epoch))
        chances = one_half(view, DRAWS, focus=2.0)
        assert set(chances[view.words >= 0].tolist()) == {1.0, 2.0}
        assert set(chances[view.words < 0].tolist()) == {1.0}
        english = view.segments == 1
        per_pair = np.bincount(view.sequence, english & (chances > 1)) > 0
        other = np.bincount(view.sequence, (view.segments == 3) & (chances > 1)) > 0
        assert (per_pair ^ other).all()
        firsts.append(per_pair[np.argsort(view.numbers)])
    share = np.mean(firsts)
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(4 * 1500)
    assert abs(np.mean(firsts[0] == firsts[1]) - 0.5) < 4 * 0.5 / np.sqrt(1500)


def test_mentions_follow_the_half_as_words_do(maker):
    entity = UnitKind(name="entity", propose=lambda view, _: span_units(view, "entity"))
    view = maker.view(np.arange(1500), np.zeros(1500, dtype=np.int64))
    plan, inside = masked(view, 5.0, entity)
    mine = plan.kind == plan.kinds.index("entity")
    assert mine[inside].sum() > 2 * mine[~inside].sum()


def test_a_pair_is_masked_alike_in_any_company(maker):
    numbers = np.arange(40, 60)
    whole = maker.view(numbers, numbers % 3)
    together, _ = masked(whole, 7.0)
    for place, number in enumerate(whole.numbers.tolist()):
        alone, _ = masked(maker.view(np.array([number]), np.array([number % 3])), 7.0)
        own = slice(*whole.offsets[place : place + 2])
        assert alone.ids.tolist() == together.ids[own].tolist()
        assert alone.predicted.tolist() == together.predicted[own].tolist()


def test_a_run_masks_its_pairs_so_and_nothing_else():
    plain, focused = (
        tiny_run("bert", ("tlm",), plugin={"tlm": {"focus": focus}}) for focus in (1.0, 50.0)
    )
    for stream in ("text", "pairs"):
        rows = [Row(stream, "", epoch, np.arange(80)) for epoch in range(8)]
        plans = [run.collator.masked(rows, 0.3) for run in (plain, focused)]
        same = np.array_equal(plans[0].plan.ids, plans[1].plan.ids)
        assert same == (stream == "text")
        assert plans[0].plan.budget == plans[1].plan.budget
    view, plan = plans[1].view, plans[1].plan
    halves = [
        np.bincount(view.sequence, plan.predicted & (view.segments == half)) for half in (1, 3)
    ]
    assert np.minimum(*halves).sum() < 0.25 * np.maximum(*halves).sum()

"""The plan of a step: shares, learning rate, schedules."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptm_plus.mixture import (
    Planner,
    StepPlan,
    draw_rows,
    learning_rate,
    mask_rate,
    row_shares,
    share_out,
    shares,
    value_at,
)
from ptm_plus.settings import RunSettings
from ptm_plus.stages import Stage

FEW = 5
"""Rows by which a sum over many steps may miss its expectation."""

WEIGHTS = st.dictionaries(st.sampled_from("abcdefg"), st.floats(0.01, 100), min_size=1)


@given(WEIGHTS, st.integers(0, 60), st.floats(0, 1, exclude_max=True))
def test_shares_are_floor_or_ceiling_and_sum_to_the_rows(weights, rows, offset):
    counts = share_out(rows, weights, offset)
    assert sum(counts.values()) == rows
    assert all(count > 0 for count in counts.values())
    for name, weight in weights.items():
        expected = rows * weight / sum(weights.values())
        assert math.floor(expected - 1e-9) <= counts.get(name, 0) <= math.ceil(expected + 1e-9)


@given(WEIGHTS, st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_the_mean_over_offsets_is_exact(weights, rows):
    grid = 400
    total: Counter[str] = Counter()
    for step in range(grid):
        total.update(share_out(rows, weights, (step + 0.5) / grid))
    for name, weight in weights.items():
        # each of the two borders of a share is off by at most half a cell of the grid
        assert total[name] / grid == pytest.approx(
            rows * weight / sum(weights.values()), abs=1.01 / grid
        )


def test_sharing_out_by_hand():
    # borders at 1.2, 3.0 and 4; a row starts at every 1 - offset
    weights = {"a": 0.3, "b": 0.45, "c": 0.25}
    assert share_out(4, weights, 0.5) == {"a": 1, "b": 2, "c": 1}
    assert share_out(4, weights, 0.1) == {"a": 2, "b": 1, "c": 1}
    assert share_out(1, {"a": 1.0, "b": 0.0}, 0.3) == {"a": 1}
    assert share_out(5, {}, 0.3) == {}
    assert share_out(0, weights, 0.3) == {}


def test_the_order_of_names_does_not_matter():
    weights = {"a": 0.3, "b": 0.45, "c": 0.25}
    backwards = dict(reversed(weights.items()))
    assert share_out(7, weights, 0.37) == share_out(7, backwards, 0.37)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7, 1.0])
def test_strata_are_drawn_by_a_power_of_their_tokens(alpha):
    tokens = {"en": 1_000_000, "fr": 10_000, "sw": 100}
    found = shares(tokens, alpha)
    total = 10 ** (6 * alpha) + 10 ** (4 * alpha) + 10 ** (2 * alpha)
    expected = {"en": 6, "fr": 4, "sw": 2}
    for name, power in expected.items():
        assert found[name] == pytest.approx(10 ** (power * alpha) / total)
    assert sum(found.values()) == pytest.approx(1)


def test_strata_without_tokens_are_left_out():
    assert shares({"en": 5, "fr": 0}, 0.0) == {"en": 1.0}


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 400.0])
def test_powers_do_not_overflow(alpha):
    found = shares({"en": 10**15, "fr": 10**14}, alpha)
    assert found["fr"] / found["en"] == pytest.approx(10**-alpha)


def test_factors_weigh_strata_and_zero_leaves_them_out():
    tokens = {"en": 400, "fr": 100, "sw": 900}
    found = shares(tokens, 0.5, {"fr": 3.0, "sw": 0.0})
    assert found == pytest.approx({"en": 20 / 50, "fr": 30 / 50})


def step_plan(step: int, **changes) -> StepPlan:
    values = {
        "step": step,
        "steps": 100,
        "stage": "main",
        "stream_weights": {"text": 3.0, "pairs": 1.0},
        "alpha": {"text": 0.5},
        "stage_step": 0,
        "stage_steps": 10,
        "objective_weights": {},
        "mask_rate": 0.15,
        "lr": 1.0,
    }
    return StepPlan(**{**values, **changes})


TOKENS = {"text": {"en": 90_000, "fr": 10_000}, "pairs": {"en-fr": 500}}


def test_drawn_rows_sum_to_the_rows_and_meet_the_weights():
    total: Counter[tuple[str, str]] = Counter()
    steps = 3000
    for step in range(steps):
        counts = draw_rows(step_plan(step), 6, 0, TOKENS)
        assert sum(counts.values()) == 6
        total.update(counts)
    # text gets 4.5 of 6 rows, shared by the square roots 3 to 1; pairs the rest
    assert total["pairs", "en-fr"] == pytest.approx(1.5 * steps, abs=FEW)
    assert total["text", "en"] == pytest.approx(4.5 * 0.75 * steps, abs=FEW)
    assert total["text", "fr"] == pytest.approx(4.5 * 0.25 * steps, abs=FEW)


@given(
    st.dictionaries(
        st.sampled_from(["text", "pairs"]),
        st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 10**9), min_size=1),
        min_size=1,
    ),
    st.floats(0, 1),
    st.floats(0.1, 10),
    st.integers(1, 50),
    st.integers(0, 10**6),
    st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_sums_over_steps_stay_within_a_few_rows_of_the_formula(
    tokens, alpha, weight, rows, first, seed
):
    weights = {"text": 1.0, "pairs": weight}
    expected = {
        (stream, name): rows
        * (weights[stream] / sum(weights[one] for one in tokens))
        * (count**alpha / sum(other**alpha for other in strata.values()))
        for stream, strata in tokens.items()
        for name, count in strata.items()
    }
    total: Counter[tuple[str, str]] = Counter()
    for number in range(400):
        plan = step_plan(
            first + number, stream_weights=weights, alpha=dict.fromkeys(weights, alpha)
        )
        counts = draw_rows(plan, rows, seed, tokens)
        assert sum(counts.values()) == rows
        total.update(counts)
        for stream in tokens:  # the ratio between streams holds in every step
            taken = sum(count for (name, _), count in counts.items() if name == stream)
            assert abs(taken - sum(v for k, v in expected.items() if k[0] == stream)) < 1 + 1e-9
        for one, each in expected.items():
            assert abs(counts.get(one, 0) - each) < 1 + 1e-9
            assert abs(total[one] - each * (number + 1)) < FEW


def test_drawn_rows_are_a_function_of_step_and_seed():
    one = [draw_rows(step_plan(step), 7, 0, TOKENS) for step in range(50)]
    assert [draw_rows(step_plan(step), 7, 0, TOKENS) for step in range(50)] == one
    assert [draw_rows(step_plan(step), 7, 1, TOKENS) for step in range(50)] != one


def test_alpha_is_one_where_nothing_is_said():
    total: Counter[tuple[str, str]] = Counter()
    for step in range(500):
        total.update(draw_rows(step_plan(step, alpha={}), 10, 0, TOKENS))
    text = total["text", "en"] + total["text", "fr"]
    assert total["text", "en"] / text == pytest.approx(0.9, abs=0.01)


def test_a_stream_without_strata_leaves_its_rows_to_the_others():
    plan = step_plan(0, stratum_weights={"pairs": {"en-fr": 0.0}})
    assert row_shares(plan, TOKENS) == pytest.approx({("text", "en"): 0.75, ("text", "fr"): 0.25})


def test_streams_without_tokens_or_weight_get_no_rows():
    plan = step_plan(0, stream_weights={"text": 1.0, "pairs": 0.0, "gone": 5.0})
    assert {stream for stream, _ in draw_rows(plan, 8, 0, TOKENS)} == {"text"}
    assert sum(draw_rows(plan, 8, 0, TOKENS).values()) == 8


def test_a_course_changes_at_shares_of_the_run():
    course = ((0.0, 0.7), (0.75, 0.5), (0.95, 0.3))  # mmBERT's exponents
    values = [value_at(course, step, 20) for step in range(20)]
    assert values == [0.7] * 15 + [0.5] * 4 + [0.3]
    assert value_at(0.3, 7, 20) == 0.3
    # two changes that fall on one step: the later one counts
    assert [value_at(course, step, 2) for step in range(2)] == [0.7, 0.7]


def test_alpha_and_factors_change_with_the_run_and_the_formula_follows():
    resolved = RunSettings.model_validate({"train": {"steps": 1000}})
    tokens = {"text": {"en": 90_000, "fr": 10_000, "sw": 100}}
    planner = Planner(
        resolved,
        {"text": 1.0},
        {"text": ((0.0, 1.0), (0.5, 0.5))},
        {},
        strata={"text": {"sw": ((0.0, 0.0), (0.25, 1.0))}},
    )
    assert planner.changes() == [0, 250, 500]
    total: Counter[tuple[str, str]] = Counter()
    expected: Counter[str] = Counter()
    for step in range(1000):
        counts = draw_rows(planner.plan(step), 7, 0, tokens)
        assert step >= 250 or ("text", "sw") not in counts
        total.update(counts)
        alpha = 1.0 if step < 500 else 0.5
        strata = {k: v**alpha for k, v in tokens["text"].items() if k != "sw" or step >= 250}
        expected.update({k: 7 * v / sum(strata.values()) for k, v in strata.items()})
        for name in strata:
            assert abs(total["text", name] - expected[name]) < FEW
    assert total["text", "sw"] > 0


@pytest.mark.parametrize(
    ("step", "decay", "expected"),
    [
        (0, "linear", 0.1),
        (8, "linear", 0.9),
        (9, "linear", 1.0),
        (10, "linear", 1.0),
        (55, "linear", 0.5),
        (99, "linear", 1 / 90),
        (100, "linear", 0.0),
        (10, "cosine", 1.0),
        (40, "cosine", 0.75),
        (55, "cosine", 0.5),
        (100, "cosine", 0.0),
        (3, "constant", 0.4),
        (99, "constant", 1.0),
        (3, "wsd", 0.4),
        (10, "wsd", 1.0),
        (75, "wsd", 1.0),
        (79, "wsd", 0.6),  # 4 of 25 steps are done
        (84, "wsd", 0.4),
        (91, "wsd", 0.2),
        (100, "wsd", 0.0),
    ],
)
def test_learning_rate_by_hand(step, decay, expected):
    assert learning_rate(step, 100, 0.1, decay, 0.25) == pytest.approx(expected)


@given(st.integers(1, 400), st.floats(0, 1), st.floats(0, 1, exclude_min=True))
def test_wsd_warms_up_stays_and_goes_down_to_zero(steps, warmup, share):
    cooldown = share * (1 - warmup) or 1e-9
    rates = [learning_rate(step, steps, warmup, "wsd", cooldown) for step in range(steps + 1)]
    ramp, down = max(1, round(warmup * steps)), round(cooldown * steps)
    start = max(ramp, steps - down)
    assert rates[: ramp - 1] == sorted(rates[: ramp - 1])
    assert all(rate < 1 for rate in rates[: ramp - 1])
    assert rates[ramp - 1 : start] == [1.0] * (start - ramp + 1)
    if start < steps:
        assert rates[start] == 1  # it begins where the plateau ends, without a jump
        assert rates[steps] == 0
        assert all(one > two for one, two in itertools.pairwise(rates[start:]))
    assert all(0 < rate <= 1 for rate in rates[:steps])


@given(st.integers(1, 300), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_the_mask_rate_goes_from_one_end_to_the_other_on_a_straight_line(steps, first, last):
    rates = [mask_rate(step, steps, (first, last)) for step in range(steps)]
    assert rates[0] == first
    assert rates[-1] == pytest.approx(last if steps > 1 else first)
    assert all(min(first, last) - 1e-12 <= rate <= max(first, last) + 1e-12 for rate in rates)
    slopes = np.diff(rates)
    assert np.allclose(slopes, slopes.mean() if len(slopes) else 0, atol=1e-12)


def test_the_mask_rate_by_hand_and_schedules_change_what_it_is_by_then():
    given = {"train": {"steps": 5}, "masking": {"rate": 0.3, "final_rate": 0.1}}
    resolved = RunSettings.model_validate(given)
    planner = Planner(resolved, {}, {}, {})
    rates = [planner.plan(step).mask_rate for step in range(5)]
    assert rates == pytest.approx([0.3, 0.25, 0.2, 0.15, 0.1])

    def halve(plan: StepPlan) -> StepPlan:
        return plan.changed(mask_rate=plan.mask_rate / 2)

    assert Planner(resolved, {}, {}, {}, (halve,)).plan(2).mask_rate == pytest.approx(0.1)


def test_every_stage_has_a_cooldown_of_its_own_and_the_mask_rate_one_course():
    given = {"steps": 20, "warmup": 0.0, "decay": "wsd", "cooldown": 0.4}
    resolved = RunSettings.model_validate({"train": given, "masking": {"final_rate": 0.34}})
    stages = [Stage("a", 0, 10, frozenset(), {}), Stage("b", 10, 10, frozenset(), {})]
    plans = [Planner(resolved, {}, {}, {}, stages=stages).plan(step) for step in range(20)]
    down = [1 - math.sqrt(done / 4) for done in range(4)]
    assert [plan.lr for plan in plans] == pytest.approx(2 * [*[1.0] * 6, *down])
    assert [plan.mask_rate for plan in plans] == pytest.approx(np.linspace(0.15, 0.34, 20))


@pytest.mark.parametrize("decay", ["linear", "cosine", "constant", "wsd"])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (1, 1.0), (2, 0.06), (50, 0.0), (50, 1.0)])
def test_the_learning_rate_is_never_zero_while_training(decay, steps, warmup):
    rates = [learning_rate(step, steps, warmup, decay, 1 - warmup) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) == 1
    peak = rates.index(1)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert all(type(rate) is float for rate in rates)


def test_the_planner_changes_the_base_plan_in_chain_order():
    resolved = RunSettings.model_validate({"train": {"steps": 10, "warmup": 0.2}})
    seen = []

    def halve(plan: StepPlan) -> StepPlan:
        seen.append("halve")
        return plan.changed(mask_rate=plan.mask_rate / 2)

    def add(plan: StepPlan) -> StepPlan:
        seen.append("add")
        return plan.changed(mask_rate=plan.mask_rate + 0.1 * plan.step, stage="late")

    planner = Planner(resolved, {"text": 2.0}, {"text": 0.3}, {"mlm": 1.0}, (halve, add))
    plan = planner.plan(3)
    assert seen == ["halve", "add"]
    assert plan.mask_rate == pytest.approx(resolved.masking.rate / 2 + 0.3)
    assert (plan.step, plan.steps, plan.stage) == (3, 10, "late")
    assert plan.lr == pytest.approx(7 / 8)
    assert (plan.stream_weights, plan.alpha) == ({"text": 2.0}, {"text": 0.3})
    assert plan.objective_weights == {"mlm": 1.0}
    assert planner.plan(3) == plan
    assert np.isclose(Planner(resolved, {}, {}, {}).plan(0).lr, 0.5)

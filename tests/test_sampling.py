"""What a whole run takes of its strata, against sums over every step."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptm_plus import SettingsError
from ptm_plus.mixture import draw_rows
from ptm_plus.sampling import epoch_warnings, expected, make_planner
from ptm_plus.settings import BatchSettings, RunSettings

ROWS = 6


@dataclass
class Text:
    """A stream's strata, by tokens and rows of an epoch."""

    strata: dict[str, tuple[int, int]]

    @property
    def tokens(self) -> dict[str, int]:
        return {name: tokens for name, (tokens, _) in self.strata.items()}

    def rows(self, stratum: str, epoch: int) -> range:
        return range(self.strata[stratum][1])


def prepared_of(strata, steps=100, weights=None, **batch):
    """Return the data of a run; strata by stream as ``{name: (tokens, rows)}``."""
    values = {"train": {"steps": steps}, "batch": {"rows": ROWS, **batch}}
    resolved = RunSettings.model_validate(values)
    streams = {name: Text(of) for name, of in strata.items()}
    alpha = {name: resolved.batch.alpha.get(name, 1.0) for name in streams}
    return SimpleNamespace(
        settings=resolved,
        streams=streams,
        stream_weights={name: (weights or {}).get(name, 1.0) for name in streams},
        stream_alpha=alpha,
    )


def drawn(planner, prepared):
    """Return the rows of every step, added up, by stratum."""
    tokens = {name: data.tokens for name, data in prepared.streams.items()}
    total: Counter[tuple[str, str]] = Counter()
    for step in range(prepared.settings.train.steps):
        total.update(draw_rows(planner.plan(step), ROWS, 0, tokens))
    return total


LATE = {
    "alpha": {"text": ((0, 0.7), (0.6, 0.5), (0.9, 0.3)), "pairs": 0.5},
    "joins": {"text": {"sw": 0.5}, "pairs": {"en-sw": 0.25}},
}
TEXT = {"en": (9_000, 90), "fr": (2_500, 25), "sw": (400, 4)}
PAIRS = {"en-fr": (3_000, 30), "en-sw": (100, 1)}


def test_expected_rows_are_the_formula_summed_over_every_step():
    prepared = prepared_of({"text": TEXT, "pairs": PAIRS}, weights={"text": 3.0}, **LATE)
    found = expected(make_planner(prepared, {}), prepared)
    total: Counter[tuple[str, str]] = Counter()
    for step in range(100):
        alpha = 0.7 if step < 60 else 0.5 if step < 90 else 0.3
        text = {k: v**alpha for k, (v, _) in TEXT.items() if k != "sw" or step >= 50}
        pairs = {k: v**0.5 for k, (v, _) in PAIRS.items() if k != "en-sw" or step >= 25}
        total.update({("text", k): ROWS * 0.75 * v / sum(text.values()) for k, v in text.items()})
        total.update({("pairs", k): ROWS / 4 * v / sum(pairs.values()) for k, v in pairs.items()})
    assert {k: one.rows for k, one in found.items()} == pytest.approx(dict(total))
    assert sum(one.share for one in found.values()) == pytest.approx(1)
    assert found["text", "en"].epochs == pytest.approx(total["text", "en"] / 90)


def test_what_is_taken_is_what_was_expected():
    prepared = prepared_of({"text": TEXT, "pairs": PAIRS}, steps=700, **LATE)
    planner = make_planner(prepared, {})
    total = drawn(planner, prepared)
    for one, taken in expected(planner, prepared).items():
        assert total[one] == pytest.approx(taken.rows, abs=5)


def test_the_step_at_which_a_stratum_was_read_once():
    strata = {"en": (300, 200), "fr": (100, 50)}  # 4.5 and 1.5 rows a step
    prepared = prepared_of({"text": strata}, steps=40)
    found = expected(make_planner(prepared, {}), prepared)
    assert found["text", "fr"].used_up == 34  # 50 / 1.5
    assert found["text", "en"].used_up is None
    prepared = prepared_of({"text": strata}, steps=40, alpha={"text": ((0, 1), (0.5, 0))})
    found = expected(make_planner(prepared, {}), prepared)
    assert found["text", "fr"].used_up == 27  # 20 · 1.5 + 7 · 3 is more than 50


def test_schedules_count():
    def only_french(plan):
        return plan.changed(stratum_weights={"text": {"en": 0.0}}) if plan.step >= 50 else plan

    prepared = prepared_of({"text": {"en": (300, 200), "fr": (100, 50)}})
    found = expected(make_planner(prepared, {}, [only_french]), prepared)
    assert found["text", "en"].rows == pytest.approx(50 * 4.5)
    assert found["text", "fr"].rows == pytest.approx(50 * 1.5 + 50 * ROWS)


def test_strata_that_are_read_too_often_are_named():
    prepared = prepared_of({"text": TEXT}, alpha={"text": 0.0}, max_epochs=3)
    found = expected(make_planner(prepared, {}), prepared)
    (swahili, french) = epoch_warnings(found, prepared.settings.batch)
    assert swahili.startswith("text/sw is read 50.0 times (batch.max_epochs is 3): ")
    assert french.startswith("text/fr is read 8.0 times")


def test_a_single_stratum_is_not_told_of_shares():
    prepared = prepared_of({"text": {"en": (300, 10)}})
    (warning,) = epoch_warnings(expected(make_planner(prepared, {}), prepared), BatchSettings())
    assert warning.endswith("give more text of it or take fewer steps")


# ---------------------------------------------------------------------------------------------
# The limit


def unimax(rows: dict[str, int], budget: float, epochs: float) -> dict[str, float]:
    """Return rows by stratum as UniMax shares them (Chung et al. 2023, algorithm 1)."""
    shares = {}
    names = sorted(rows, key=lambda name: rows[name])
    for place, name in enumerate(names):
        shares[name] = min(epochs * rows[name], budget / (len(names) - place))
        budget -= shares[name]
    return shares


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 300), min_size=1),
    st.floats(1, 8),
)
@settings(max_examples=60, deadline=None)
def test_the_limit_at_alpha_zero_is_unimax(rows, epochs):
    strata = {name: (count * 100, count) for name, count in rows.items()}
    prepared = prepared_of(
        {"text": strata}, alpha={"text": 0.0}, max_epochs=epochs, exhausted="limit"
    )
    if sum(rows.values()) * epochs < 100 * ROWS * 1.05:  # less than the run takes, or nearly so
        return
    found = expected(make_planner(prepared, {}), prepared)
    made = {name: one.rows for (_, name), one in found.items()}
    assert made == pytest.approx(unimax(rows, 100 * ROWS, epochs), rel=1e-5)


def test_the_limit_holds_with_late_joins_and_changing_exponents_in_every_stream():
    strata = {"text": TEXT, "pairs": {"en-fr": (9_000, 90), "en-sw": (100, 4)}}
    limit = {"max_epochs": 4, "exhausted": "limit"}
    free = prepared_of(strata, **LATE)
    kept = prepared_of(strata, **LATE, **limit)
    before = expected(make_planner(free, {}), free)
    planner = make_planner(kept, {})
    after = expected(planner, kept)
    assert before["text", "sw"].epochs > 4
    assert before["pairs", "en-sw"].epochs > 4
    assert after["text", "sw"].epochs == pytest.approx(4)
    assert after["pairs", "en-sw"].epochs == pytest.approx(4)
    assert max(one.epochs for one in after.values()) < 4 * (1 + 1e-6)
    for stream in strata:  # the ratio between streams stays
        shares = [sum(v.share for k, v in of.items() if k[0] == stream) for of in (before, after)]
        assert shares[0] == pytest.approx(shares[1])
    # who is not limited, keeps its share against the others that are not
    others = [of["text", "en"].rows / of["text", "fr"].rows for of in (before, after)]
    assert others[0] == pytest.approx(others[1], rel=0.01)
    total = drawn(planner, kept)
    assert not any(total[one] > 4 * len(kept.streams[one[0]].rows(one[1], 0)) + 5 for one in total)
    assert not epoch_warnings(after, kept.settings.batch)


def test_a_limit_that_cannot_be_kept_says_how_many_steps_can():
    strata = {"en": (300, 30), "fr": (100, 10)}
    prepared = prepared_of({"text": strata}, max_epochs=5, exhausted="limit")
    with pytest.raises(SettingsError, match=r"text/(en|fr) would be read 15.0 times") as error:
        make_planner(prepared, {})
    assert "at most 33 steps" in error.value.hint  # 200 rows at 6 a step
    prepared = prepared_of({"text": strata}, 33, max_epochs=5, exhausted="limit")
    make_planner(prepared, {})


# ---------------------------------------------------------------------------------------------
# Late joins


def test_a_stratum_that_is_not_there_cannot_join():
    prepared = prepared_of({"text": TEXT}, joins={"text": {"swa": 0.5}})
    with pytest.raises(SettingsError, match=r"no text of 'swa'; did you mean 'sw'\?") as error:
        make_planner(prepared, {})
    assert error.value.hint == "it has: en, fr, sw"


def test_a_step_without_rows_is_refused():
    prepared = prepared_of({"text": {"sw": (400, 4)}}, joins={"text": {"sw": 0.5}})
    with pytest.raises(SettingsError, match="nothing to read in step 1"):
        make_planner(prepared, {})
    prepared = prepared_of({"text": TEXT}, weights={"text": 0.0})
    with pytest.raises(SettingsError, match="nothing to read in step 1"):
        make_planner(prepared, {})

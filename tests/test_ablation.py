"""``ablate``: arms, equal tokens, intervals and their correction, verdicts, a whole small one."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_settings

from ptm_plus.ablation.ablation import ablate
from ptm_plus.ablation.arms import ALL, NONE, Arm, arms_of, settings_of
from ptm_plus.ablation.comparisons import (
    Table,
    compare,
    pairs_of,
    resolution,
    tables_of,
    verdicts,
)
from ptm_plus.ablation.curves import at, at_equal_time, curves_of
from ptm_plus.ablation.outcomes import outcomes
from ptm_plus.ablation.planning import (
    PlannedArm,
    Request,
    _planned,
    _settle_tokenizer,
    _within_hours,
    arm_settings,
    plan_ablation,
)
from ptm_plus.ablation.processes import slots
from ptm_plus.ablation.resampling import holm, paired_difference
from ptm_plus.arrangement import arrange
from ptm_plus.components import Placebo
from ptm_plus.errors import PtmPlusError, SettingsError
from ptm_plus.examples import Example
from ptm_plus.inputs import pairs_stream
from ptm_plus.knowledge.graph import read_graph
from ptm_plus.launch import launch
from ptm_plus.placebos import mispaired, shuffled_graph
from ptm_plus.plugins import requests_by_instance
from ptm_plus.prepare.tokenizer_training import train_tokenizer
from ptm_plus.probes import ProbeContext, mention_answers
from ptm_plus.progress import Silent
from ptm_plus.tryout import Tryout


def placebo(name: str) -> Placebo:
    return Placebo(
        name=name, summary=f"{name} instead", change=lambda settings, folder, seed: settings
    )


# ---------------------------------------------------------------------------------------------
# Arms


def test_the_quick_design_has_each_plugin_all_and_the_first_placebo_of_each() -> None:
    found = arms_of(["a", "b"], {"a": [placebo("x"), placebo("y")], "b": []}, "quick")
    assert [one.name for one in found] == [NONE, "a", "b", ALL, "a, x"]
    assert [one.plugins for one in found] == [(), ("a",), ("b",), ("a", "b"), ("a",)]


def test_the_full_design_also_leaves_each_out_and_has_every_placebo() -> None:
    given = {"a": [placebo("x"), placebo("y")]}
    names = [one.name for one in arms_of(["a", "b", "c"], given, "full")]
    assert names == [
        *(NONE, "a", "b", "c", ALL, "all but a", "all but b", "all but c", "a, x", "a, y")
    ]


def test_leaving_one_of_two_out_is_the_other_alone() -> None:
    assert not [one for one in arms_of(["a", "b"], {}, "full") if "but" in one.name]


def test_one_plugin_has_no_arm_of_all() -> None:
    assert [one.name for one in arms_of(["a"], {"a": [placebo("x")]}, "quick")] == [
        *(NONE, "a", "a, x")
    ]


@pytest.mark.tlm
def test_an_arm_has_the_settings_of_its_plugins_alone() -> None:
    whole = tiny_settings(plugins=("tlm", "tlm:b"), sets=["plugin.tlm.focus=2.0"])
    found = settings_of(whole, Arm("tlm:b", ("tlm:b",)), requests_by_instance(whole.plugins))
    assert found.plugins == ("tlm:b",)
    assert not found.plugin
    assert found.train == whole.train


@pytest.mark.k_adapter
def test_what_trains_beside_the_encoder_takes_steps_on_top() -> None:
    whole = tiny_settings(plugins=("k-adapter",), **{"train.steps": 10})
    requests = requests_by_instance(whole.plugins)
    beside = settings_of(whole, Arm("k-adapter", ("k-adapter",)), requests)
    assert [stage.name for stage in beside.train.stages] == ["backbone", "beside"]
    assert beside.train.steps == 20
    assert settings_of(whole, Arm(NONE, ()), requests).train.steps == 10


# ---------------------------------------------------------------------------------------------
# Placebos that the core gives


@pytest.mark.kg_fusion
def test_a_shuffled_graph_keeps_degrees_and_drops_given_vectors(tmp_path: Path) -> None:
    whole = tiny_settings(plugins=("kg-fusion",))
    found = shuffled_graph(whole, tmp_path, 0)
    assert found.data.vectors == ""
    before, after = (read_graph(list(one.data.kg)) for one in (whole, found))
    assert before.degree_by_label() == after.degree_by_label()
    assert before.fingerprint != after.fingerprint


def test_a_graph_is_needed_to_shuffle_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no graph"):
        shuffled_graph(tiny_settings(), tmp_path, 0)
    with pytest.raises(SettingsError, match="no pairs"):
        mispaired(tiny_settings(**{"data.pairs": None}), tmp_path, 0)


def pairs_in(chosen: Any) -> list[tuple[str, str]]:
    stream = pairs_stream(chosen, name="pairs", layout="text", objectives=())
    rows = [one for one in stream.examples() if isinstance(one, Example)]
    return [(one.fields["src"], one.fields["tgt"]) for one in rows]


def test_mispaired_halves_are_the_same_halves_and_no_pair_stays(tmp_path: Path) -> None:
    rows = [
        {"src": f"line {n} here", "tgt": f"Zeile {n} da", "src_lang": "en", "tgt_lang": to}
        for to in ("de", "nl")
        for n in range(20)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    whole = tiny_settings(**{"data.pairs": [str(file)]})
    before = pairs_in(whole)
    after = pairs_in(mispaired(whole, tmp_path / "a", 0))
    assert len(before) == len(after) == 40
    for side in (0, 1):
        assert sorted(one[side] for one in before) == sorted(one[side] for one in after)
    assert not set(before) & set(after)
    assert sorted(after) != sorted(pairs_in(mispaired(whole, tmp_path / "b", 1)))


def test_mentions_go_with_their_half(tmp_path: Path) -> None:
    found = mispaired(tiny_settings(), tmp_path, 0)
    stream = pairs_stream(found, name="pairs", layout="text", objectives=())
    rows = [one for one in stream.examples() if isinstance(one, Example)]
    spans = [(row.fields[one.field][one.start : one.end], one) for row in rows for one in row.spans]
    assert spans
    assert all(text.istitle() and one.kind == "entity" and one.id for text, one in spans)


# ---------------------------------------------------------------------------------------------
# Intervals


def brute_force(own: Any, other: Any, clusters: list[str]) -> list[float]:
    """Every sample of seeds and clusters, equally likely, with widened deviations of seeds."""
    apart = np.array(own) - np.array(other)
    seeds, names = len(apart), sorted(set(clusters))
    members = [[n for n, one in enumerate(clusters) if one == name] for name in names]
    overall = apart.mean(axis=1)
    widened = (np.sqrt(seeds / (seeds - 1)) - 1) * (overall - overall.mean()) if seeds > 1 else [0]
    found = []
    for drawn in product(range(len(names)), repeat=len(names)):
        items = [n for which in drawn for n in members[which]]
        means = apart[:, items].mean(axis=1) + widened
        found += [float(means[list(of)].mean()) for of in product(range(seeds), repeat=seeds)]
    return sorted(found)


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_intervals_are_those_of_every_possible_sample(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    own, other = rng.random((2, seeds, 6))
    clusters = ["a", "a", "b", "c", "c", "c"]
    found = paired_difference(own, other, clusters)
    expected = brute_force(own, other, clusters)
    assert found.mean == pytest.approx((own - other).mean())
    assert found.replicates.mean() == pytest.approx(np.mean(expected), abs=0.01)
    assert found.replicates.std() == pytest.approx(np.std(expected), rel=0.03)
    values = np.unique(np.round(expected, 9))
    between = (values[1:] + values[:-1]) / 2  # where neither distribution has a step
    ours, theirs = (
        np.searchsorted(np.sort(one), between) / len(one) for one in (found.replicates, expected)
    )
    assert np.abs(ours - theirs).max() < 0.02


def test_items_that_a_seed_lacks_are_left_out_of_its_mean() -> None:
    """Two seeds without a common item are two samples: their variances add."""
    rng = np.random.default_rng(5)
    own = np.full((2, 60), np.nan)
    own[0, :30], own[1, 30:] = rng.normal(1, 2, 30), rng.normal(3, 2, 30)
    found = paired_difference(own, np.zeros((2, 60)), [str(n) for n in range(60)])
    first, second = own[0, :30], own[1, 30:]
    assert found.mean == pytest.approx((first.mean() + second.mean()) / 2)
    between = np.var([first.mean(), second.mean()]) / 2 * 2  # drawn twice, widened to n / (n − 1)
    within = (first.var() + second.var()) / 30 / 4 * 1.5  # of what each sample of seeds takes
    assert found.replicates.std() == pytest.approx(np.sqrt(between + within), rel=0.05)


def test_intervals_cover_what_is_true_about_as_often_as_they_say() -> None:
    """Three seeds with a spread of their own, two hundred items of their own difficulty."""
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(200):
        difficulty = rng.normal(0, 1, 200)
        apart = 0.3 + rng.normal(0, 0.05, 3)[:, None] + difficulty + rng.normal(0, 1, (3, 200))
        items = [str(n) for n in range(200)]
        low, high = paired_difference(apart, np.zeros((3, 200)), items, 1000).interval()
        covered += low <= 0.3 <= high
    assert 180 <= covered <= 199


def test_a_difference_that_every_item_shows_has_a_small_p_and_none_has_a_large_one() -> None:
    items = [str(n) for n in range(50)]
    rng = np.random.default_rng(0)
    nothing = rng.normal(0, 1, (3, 50))
    assert paired_difference(nothing + 5, np.zeros((3, 50)), items).p < 1e-3
    assert paired_difference(nothing, nothing, items).p == 1.0
    assert paired_difference(nothing - nothing.mean(), np.zeros((3, 50)), items).p > 0.5


def test_holm_by_hand() -> None:
    # 0.01·4, 0.02·3, 0.03·2, 0.5·1, never below the one before
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([]) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.0001, 1), min_size=1, max_size=12))
def test_holm_is_between_the_values_and_bonferroni(values: list[float]) -> None:
    found = holm(values)
    assert all(
        one <= two <= min(1.0, one * len(values)) + 1e-12
        for one, two in zip(values, found, strict=True)
    )
    assert [found[n] for n in np.argsort(values, kind="stable")] == sorted(found)


# ---------------------------------------------------------------------------------------------
# Comparisons and verdicts

ARMS = [Arm(NONE, ()), Arm("kg", ("kg",)), Arm("kg, other", ("kg",), placebo("other"))]


def table(
    name: str, means: dict[str, float], *, unit: str = "points", higher: bool = True
) -> Table:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (3, 100))
    values = {arm: mean + noise + rng.normal(0, 0.2, (3, 100)) for arm, mean in means.items()}
    return Table(name, unit, higher, values, [str(n) for n in range(100)])


def words_of(*tables: Table, cost: float = 1.0) -> str:
    found = compare(tables, pairs_of(ARMS))
    (one,) = verdicts(found, {"kg": {"speed": cost, "memory": 1.0}})
    return one["words"]


def test_pairs_say_what_they_are_for() -> None:
    arms = arms_of(["a", "b", "c"], {"a": [placebo("x")]}, "full")
    found = [(one.own, one.other, one.role, one.plugin) for one in pairs_of(arms)]
    assert found == [
        *(("a", NONE, "plugin", "a"), ("b", NONE, "plugin", "b"), ("c", NONE, "plugin", "c")),
        *(("a", "a, x", "knowledge", "a"), ("a, x", NONE, "placebo", "a"), (ALL, NONE, "all", "")),
        *((ALL, "all but a", "within all", "a"), (ALL, "all but b", "within all", "b")),
        (ALL, "all but c", "within all", "c"),
    ]


def test_knowledge_is_what_the_placebo_does_not_give() -> None:
    words = words_of(table("facts", {NONE: 40, "kg": 60, "kg, other": 45}), cost=0.94)
    assert words.startswith("+15.")
    assert "points over its placebo on facts" in words
    assert words.endswith("costs 6% of the speed")


def test_a_gain_that_the_placebo_has_too_is_not_the_knowledges() -> None:
    words = words_of(table("facts", {NONE: 40, "kg": 60, "kg, other": 60}))
    assert "over no plugin on facts, but not over its placebo: not by knowledge" in words
    assert "no slower" in words


def test_no_effect_is_said_with_what_would_have_been_seen() -> None:
    assert words_of(table("facts", {NONE: 40, "kg": 40, "kg, other": 40})).startswith(
        "no effect on facts (±0."
    )


def test_what_only_harms_less_than_its_placebo_is_no_gain() -> None:
    words = words_of(table("facts", {NONE: 60, "kg": 60, "kg, other": 40}))
    assert words.startswith("nothing over no plugin on facts, though +20.")
    assert "worse than no plugin" in words_of(table("facts", {NONE: 60, "kg": 50, "kg, other": 40}))


def test_a_loss_that_rises_is_worse() -> None:
    words = words_of(table("words", {NONE: 2, "kg": 5, "kg, other": 5}, unit="nats", higher=False))
    assert "nats on words: worse than no plugin" in words


def test_p_values_are_corrected_for_every_comparison() -> None:
    tables = [table(f"m{n}", {NONE: 0, "kg": 0, "kg, other": 0}) for n in range(4)]
    found = compare(tables, pairs_of(ARMS))
    assert len(found) == 12
    assert [one["corrected_p"] for one in found] == holm([one["p"] for one in found])
    for one in found:
        (low, high), (lower, higher) = one["interval"], one["corrected_interval"]
        assert lower < low < high < higher


def test_a_placebo_is_told_whether_half_the_effect_would_have_been_seen() -> None:
    wide, clear = {NONE: 40, "kg": 40.3, "kg, other": 40}, {NONE: 40, "kg": 60, "kg, other": 40}
    found = resolution(compare([table("a", clear), table("b", wide)], pairs_of(ARMS)))
    by_name = {one["measure"]: one for one in found}
    assert by_name["a"]["would_be_seen"]
    assert by_name["a"]["half_of_the_plugins"] == pytest.approx(10, abs=0.2)
    narrow = by_name.get("b")
    assert narrow is None or narrow["half_width"] > 0


def test_frequency_is_told_of_where_bands_are_large_enough() -> None:
    def answers(right: float) -> dict[str, Any]:
        items = {f"{n} Q{n}": [f"fact {n}", right] for n in range(100)}
        mentioned = {f"Q{n}": 0 if n < 40 else 5 if n < 80 else 100 for n in range(100)}
        measure = {"unit": "points", "higher": True, "items": items}
        return {"measures": {"mentions/all": measure}, "mentioned": mentioned}

    found = tables_of({NONE: [answers(0.0)], "kg": [answers(1.0)]})
    assert [one.name for one in found] == [
        *("mentions/all", "mentions/all, never", "mentions/all, rare")  # 20 frequent: too few
    ]
    assert [len(one.clusters) for one in found] == [100, 40, 40]
    assert found[0].values["kg"].mean() == 100.0


def test_items_are_paired_within_their_seed() -> None:
    def seed(items: dict[str, float]) -> dict[str, Any]:
        measure = {"unit": "nats", "higher": False, "items": {n: [n, v] for n, v in items.items()}}
        return {"measures": {"words/text": measure}, "mentioned": {}}

    none = [seed({"a": 1.0, "b": 2.0}), seed({"c": 3.0})]
    other = [seed({"a": 1.5, "b": 2.5}), seed({"c": 2.0, "d": 9.0})]
    (found,) = tables_of({NONE: none, "kg": other})
    assert found.clusters == ["a", "b", "c"]
    assert np.array_equal(found.values["kg"], [[1.5, 2.5, np.nan], [np.nan] * 2 + [2.0]], True)


def test_only_what_every_arm_measured_is_compared() -> None:
    one = {"unit": "nats", "higher": False, "items": {"a": ["a", 1.0], "b": ["b", 2.0]}}
    fewer = {**one, "items": {"a": ["a", 1.0]}}
    first = {"measures": {"words/text": one, "words/halves": one}, "mentioned": {}}
    second = {"measures": {"words/text": fewer}, "mentioned": {}}
    (found,) = tables_of({NONE: [first], "kg": [second]})
    assert found.name == "words/text"
    assert found.values[NONE].shape == (1, 1)


# ---------------------------------------------------------------------------------------------
# Equal time


def log(seconds: list[float], accuracies: list[float]) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for number, (second, accuracy) in enumerate(zip(seconds, accuracies, strict=True), start=1):
        records.append({"kind": "step", "step": 10 * number, "seconds": second})
        found = {"all": {"accuracy": accuracy}}
        records.append({"kind": "evaluation", "step": 10 * number, "masked_mentions": found})
    return records


def test_equal_time_is_where_the_quickest_run_ended() -> None:
    quick, slow = log([1, 2, 3], [0.1, 0.2, 0.3]), log([2, 4, 6], [0.2, 0.4, 0.5])
    curves = {NONE: [curves_of(quick)], "kg": [curves_of(slow)]}
    found = at_equal_time(curves)["mentions/all"]
    assert found["seconds"] == 3
    assert found["means"] == pytest.approx({NONE: 30.0, "kg": 30.0})  # half way from 20 to 40
    assert at(curves["kg"][0]["mentions/all"], 100) == pytest.approx(50)


def test_a_figure_that_is_none_is_no_point_of_a_curve() -> None:
    records = log([1], [float("nan")])
    assert curves_of(records) == {}


# ---------------------------------------------------------------------------------------------
# Outcomes, and a whole ablation


def test_over_objects_every_entity_counts_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"text": f"the old town of {name} lies near", "lang": "en", "target": 0, "group": "x"}
        | {"mentions": [{"start": 16, "end": 16 + len(name), "id": one}]}
        for one, name, times in (("Q1", "Altona", 3), ("Q2", "Berga", 1))
        for _ in range(times)
    ]
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = launch(tiny_settings(**{"evaluate.mentions": [str(file)]}), Silent())
    told = sorted(mention_answers(ProbeContext(run)), key=lambda one: (one.asked, one.number))
    answers = [replace(one, right=n in (0, 3)) for n, one in enumerate(told)]
    monkeypatch.setattr("ptm_plus.ablation.outcomes.mention_answers", lambda context: answers)
    found = outcomes(run)["measures"]
    each = [right for _, right in found["mentions/x"]["items"].values()]
    assert each == [1.0, 0.0, 0.0, 1.0]
    objects = found["mentions/x, over objects"]["items"]
    assert objects == {"Q1": ("Q1", pytest.approx(1 / 3)), "Q2": ("Q2", 1.0)}


@pytest.mark.kg_fusion
def test_held_out_words_are_the_same_in_every_arm(tmp_path: Path) -> None:
    plain, fused = (
        outcomes(launch(tiny_settings(plugins=of, output=tmp_path / str(len(of))), Silent()))
        for of in ((), ("kg-fusion",))
    )
    ours, theirs = (one["measures"]["words/text"] for one in (plain, fused))
    assert ours["items"].keys() == theirs["items"].keys()
    # At the start fusion is the identity: equal masks give equal losses.
    for name, (document, loss) in ours["items"].items():
        assert theirs["items"][name] == (document, pytest.approx(loss))
    assert len({document for document, _ in ours["items"].values()}) > 5


def request(folder: Path, **changes: Any) -> Request:
    chosen = tiny_settings(
        plugins=("tlm",), output=folder, **{"train.steps": 4, "data.kg": None, "train.log_every": 1}
    )
    given = {
        "settings": chosen,
        "design": "quick",
        "seeds": 2,
        "hours": 0.0,
        "tasks": (),
        "device": "cpu",
        "slots": (None, None),
        "threads": 1,
        "keep": False,
    }
    return Request(**{**given, **changes})


def test_steps_are_those_of_equal_tokens(tmp_path: Path) -> None:
    asked = request(tmp_path)
    trials = {NONE: Tryout(100.0, 2.0, 40.0), "tlm": Tryout(80.0, 3.0, 50.0)}
    found = _planned(asked, Arm("tlm", ("tlm",)), trials)
    assert found.steps == 5  # four steps of 100 tokens are five of 80
    assert found.tokens == 400
    assert found.fixed == pytest.approx(9 * 50 / 3600)
    assert found.hours == pytest.approx((9 * 50 + 5 * 3) / 3600)
    other = Arm("tlm, x", ("tlm",), placebo("x"))
    of_placebo = _planned(asked, other, {**trials, "tlm, x": Tryout(200.0)})
    assert of_placebo.steps == 2
    assert of_placebo.hours == pytest.approx((9 * 50 + 2 * 3) / 3600)  # timed as its plugin


@pytest.mark.domain
def test_arms_that_read_other_text_have_one_tokenizer(tmp_path: Path) -> None:
    general = tmp_path / "general.txt"
    general.write_text("Quixotic zephyrs vexed jumbled wizards.\n\n" * 40, encoding="utf-8")
    given = tiny_settings(
        plugins=("domain",),
        output=tmp_path / "a",
        **{"data.pairs": None, "train.steps": 2, "tokenizer.vocabulary": 400},
        sets=[f'plugin.domain.general=["en={general}"]'],
    )
    asked = request(tmp_path, settings=given)
    settled = [one.arm for one in plan_ablation(asked, Silent())]
    arms = {arm.name: arrange(arm_settings(asked, arm, 0), Silent()).tokenizer for arm in settled}
    assert arms.keys() == {NONE, "domain", "domain, own-text"}
    vocabularies = [one.get_vocab() for one in arms.values()]
    assert vocabularies[0] == vocabularies[1] == vocabularies[2]
    alone = given.model_copy(update={"plugins": (), "plugin": {}})
    assert arrange(alone, Silent()).tokenizer.get_vocab() != vocabularies[0]


def test_a_tokenizer_that_is_named_is_every_arms(tmp_path: Path) -> None:
    train_tokenizer(["one two three"] * 9, 70, "bert").save_pretrained(tmp_path / "named")
    chosen = request(tmp_path / "a").settings
    named = chosen.tokenizer.model_copy(update={"path": str(tmp_path / "named")})
    asked = request(tmp_path, settings=chosen.model_copy(update={"tokenizer": named}))
    stale = tmp_path / "a" / "tokenizer"
    stale.mkdir(parents=True)
    _settle_tokenizer(asked, Silent())
    assert not stale.exists()
    found = arm_settings(asked, Arm("tlm", ("tlm",)), 0)
    assert found.tokenizer.path == str(tmp_path / "named")


def test_runs_share_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptm_plus.crew.cores", lambda: 8)
    assert slots("cpu", 0, 2) == [None] * 4
    assert slots("cpu", 0, 0) == [None]
    assert slots("cpu", 3, 2) == [None] * 3
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert slots("cuda", 0, 0) == [0, 1]
    assert slots("cuda", 3, 0) == [0, 1, 0]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert slots("cuda", 0, 0) == [5, 7]


def arm_of(name: str, steps: int, hours: float, fixed: float) -> PlannedArm:
    return PlannedArm(Arm(name, ()), steps, steps * 100.0, hours, fixed)


def test_hours_cut_every_arms_steps_alike(tmp_path: Path) -> None:
    planned = [arm_of("a", 1000, 1.1, 0.1), arm_of("b", 500, 2.1, 0.1)]
    asked = request(tmp_path, hours=2.0)
    found = _within_hours(asked, planned)  # 3.2 hours are needed at two a time; 1.8 may be taken
    assert [one.steps for one in found] == [533, 267]  # (1.8 − 0.2) / (3.2 − 0.2)
    assert sum(one.hours for one in found) == pytest.approx(1.8)
    assert _within_hours(request(tmp_path, hours=4.0), planned) == planned


def test_too_few_hours_are_refused(tmp_path: Path) -> None:
    planned = [arm_of("a", 1000, 10.0, 0.1), arm_of("b", 500, 20.0, 0.1)]
    with pytest.raises(SettingsError, match=r"30\.0 hours, and with a tenth") as caught:
        _within_hours(request(tmp_path, hours=1.0), planned)
    assert "give 3.5 hours at least" in str(caught.value.hint)


@pytest.mark.tlm
def test_a_whole_ablation_goes_on_where_it_was_broken_off(tmp_path: Path) -> None:
    asked = request(tmp_path / "a", seeds=1)
    planned = plan_ablation(asked, Silent())
    assert [one.arm.name for one in planned] == [NONE, "tlm", "tlm, mispaired"]
    tokens = [one.tokens for one in planned]
    assert max(tokens) < 1.2 * min(tokens)  # four steps: the last one is a quarter
    document = ablate(asked, planned, Silent())
    written = json.loads((tmp_path / "a" / "ablation.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(document))
    assert {one["effect"] for one in document["comparisons"]} <= {"better", "worse", "none"}
    assert [one["plugin"] for one in document["verdicts"]] == ["tlm"]
    first = document["arms"][0]
    assert first["relative"] == {"speed": 1.0, "memory": 1.0}
    assert first["peak_memory"] > 2**20
    assert not (tmp_path / "a" / "seed-0" / "none" / "checkpoints").exists()

    before = (tmp_path / "a" / "seed-0" / "tlm" / "outcomes.json").read_bytes()
    done = tmp_path / "a" / "seed-0" / "none" / "outcomes.json"
    stamp = done.stat().st_mtime_ns
    for gone in ("outcomes.json", "report.json"):
        (tmp_path / "a" / "seed-0" / "tlm" / gone).unlink()
    again = ablate(asked, plan_ablation(asked, Silent()), Silent())
    assert (tmp_path / "a" / "seed-0" / "tlm" / "outcomes.json").read_bytes() == before
    assert done.stat().st_mtime_ns == stamp
    assert again["comparisons"] == document["comparisons"]

    more = plan_ablation(request(tmp_path / "a", seeds=2), Silent())
    assert [one.steps for one in more] == [one.steps for one in planned]
    with pytest.raises(SettingsError, match="other settings"):
        plan_ablation(request(tmp_path / "a", design="full"), Silent())


@pytest.mark.tlm
def test_a_run_that_fails_says_which_and_where(tmp_path: Path) -> None:
    asked = request(tmp_path / "a", seeds=1, slots=(None,))
    planned = plan_ablation(asked, Silent())
    folder = tmp_path / "a" / "seed-0" / "tlm"
    folder.mkdir(parents=True)
    (folder / "log.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PtmPlusError, match=r"tlm, seed 0: .*symbolic link") as caught:
        ablate(asked, planned, Silent())
    assert "output.log" in str(caught.value.hint)

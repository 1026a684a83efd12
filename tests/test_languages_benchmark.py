"""The benchmark on real languages: how it splits, what is equal between its arms, what it reads."""

from __future__ import annotations

import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # behind what is installed: only the benchmarks come from there

from benchmarks import languages, steps  # noqa: E402
from benchmarks.real_languages.data import (  # noqa: E402
    GROUPS,
    TATOEBA,
    TRAINED,
    Pair,
    is_asked,
    key,
    questions_of,
    training_of,
)

sentences = st.sampled_from([f"{word} {number}" for word in "ab" for number in range(12)])
pairs = st.lists(st.builds(Pair, sentences, sentences, st.sampled_from(sorted(TATOEBA))))


@given(pairs, pairs)
def test_no_sentence_is_on_both_sides(tatoeba: list[Pair], documentation: list[Pair]) -> None:
    questions = questions_of(tatoeba)
    left_out: Counter[str] = Counter()
    trained = list(training_of(tatoeba, documentation, questions, left_out))
    asked = [pair for of_language in questions.values() for pair in of_language]
    assert not {half for one in trained for half in one.keys} & {
        half for one in asked for half in one.keys
    }
    assert {one.language for one in trained} <= set(TRAINED)
    kept = sum(not is_asked(one.english) for one in tatoeba) + len(documentation)
    assert len(trained) + left_out.total() == kept


@given(pairs)
def test_a_sentence_is_asked_about_once_and_has_one_answer(tatoeba: list[Pair]) -> None:
    for language, asked in questions_of(tatoeba).items():
        assert all(one.language == language for one in asked)
        halves = [half for one in asked for half in set(one.keys)]
        assert len(set(halves)) == len(halves)


def test_sentences_are_compared_by_letters_and_digits() -> None:
    assert key("It's 5 o'clock!") == key("its 5 O’CLOCK") == "its5oclock"
    assert is_asked("It's late.") == is_asked("it's late")


def test_every_language_is_in_one_group() -> None:
    assert sorted(one for group in GROUPS.values() for one in group) == sorted(TATOEBA)
    found = languages.by_group({language: float(language == "es") for language in TATOEBA})
    assert (found["pairs"], found["text"], found["nothing"]) == (0.0, 1.0, 0.0)


@pytest.fixture
def bench(tmp_path: Path) -> languages.Bench:
    return languages.Bench(Path("data"), tmp_path, 3_000_000)


def test_arms_differ_in_plugins_and_data_alone(bench: languages.Bench) -> None:
    def rest(arm: str) -> dict[str, Any]:
        return {**bench.settings(arm, 1, 500), "plugins": [], "data": {}}

    assert all(rest(arm) == rest("no plugin") for arm in languages.ARMS)
    data = {arm: bench.settings(arm, 1, 500)["data"] for arm in languages.ARMS}
    texts = data["no plugin"]["text"]
    assert data["pairs as text"] == {"text": [*texts, str(bench.inputs / "halves.jsonl")]}
    for arm in ("tlm", "cross-lingual", "tlm, cross-lingual"):
        assert data[arm] == {"text": texts, "pairs": [str(bench.inputs / "pairs.tsv")]}


def test_steps_follow_from_how_full_rows_are(
    bench: languages.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a quarter of the rows is half full, the rest is full: 0.875 x 512 x 2 = 896 tokens a step
    strata = (
        [{"share": 0.75, "fill": 1.0}],
        [{"share": 0.2, "fill": 0.5}, {"share": 0.05, "fill": 0.5}],
    )
    plan = {"streams": [{"strata": one} for one in strata]}
    monkeypatch.setattr(steps, "ptm_plus", lambda *_: steps.json.dumps(plan))
    given = bench.settings("tlm", 0, 1)
    assert steps.planned_steps(bench.output / "plans" / "tlm.toml", given, 896_000) == 1000


def test_unequal_tokens_are_refused() -> None:
    steps.check_equal_tokens({"a": {"tokens": 1000}, "b": {"tokens": 1009}})
    with pytest.raises(SystemExit, match="equal tokens"):
        steps.check_equal_tokens({"a": {"tokens": 1000}, "b": {"tokens": 1011}})


def test_accuracies_are_read_by_language() -> None:
    pairs = {"de-en": {"accuracy": 0.25}, "it-en": {"accuracy": 0.5}}
    found = {"retrieval": [{"layer": 2, "pairs": pairs, "accuracy": 0.375}]}
    assert languages.accuracies(found) == {"de": 0.25, "it": 0.5}


def test_encoders_without_tlm_are_asked_with_it_in_one_step(
    bench: languages.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[tuple[str, ...]] = []

    def write_report(name: str, rise: float) -> None:
        folder = bench.folder("cross-lingual", 1) / name
        folder.mkdir(parents=True)
        found = {"loss": 6.0, "loss_hidden": 6.0 + rise, "rise": {"mean": rise, "error": 0.01}}
        text = languages.json.dumps({"evaluation": {"tlm_other_half": found}})
        (folder / "report.json").write_text(text)

    write_report("asked", -0.25)
    monkeypatch.setattr(languages, "ptm_plus", lambda *given: commands.append(given))
    found = languages.other_half(bench, "cross-lingual", 1)
    assert (found["rise"], found["error"], found["loss"]) == (-0.25, 0.01, 6.0)
    ((command, file, option, source, *_),) = commands
    assert (command, option) == ("train", "--init-from")
    assert Path(source) == bench.folder("cross-lingual", 1) / "run"
    asked = tomllib.loads(Path(file).read_text())
    assert (asked["train"]["steps"], asked["train"]["lr"], asked["plugins"]) == (1, 1e-9, ["tlm"])

"""The plugin in runs: shares of replay, the task's text last, a guard that acts, its account."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import Recorder, tiny_settings

from ptm_plus import GuardStop, SettingsError
from ptm_plus.exporting.export import export
from ptm_plus.initialisation import start_from
from ptm_plus.launch import launch
from ptm_plus.mixture import draw_rows
from ptm_plus.processes import make_accelerator
from ptm_plus.progress import Silent
from ptm_plus.run_folder import checkpoints, write_settings
from ptm_plus.settings_paths import anchored, names_files
from ptm_plus.train import Trainer
from ptm_plus_domain.guard import ForgettingGuard
from ptm_plus_domain.hooks import Domain

pytestmark = pytest.mark.domain

FIELDS = {
    "general": ["the old river town lies near a lake", "people like small old towns and rivers"],
    "domain": ["patients received doses twice daily", "trial arms differed in daily doses"],
    "task": ["was the dose safe for patients", "did both arms receive doses"],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Text of three fields, in words of its own each."""
    folder = tmp_path_factory.mktemp("fields")
    rng = np.random.default_rng(0)
    found = {}
    for name, lines in FIELDS.items():
        words = " ".join(lines).split()
        texts = [" ".join(rng.choice(words, 8)) for _ in range(300)]
        rows = [json.dumps({"text": text, "lang": "en"}) + "\n" for text in texts]
        path = folder / f"{name}.jsonl"
        path.write_text("".join(rows), encoding="utf-8")
        found[name] = str(path)
    return found


def domain_settings(files, output, *sets, steps=10, **chosen):
    table = {"general": [files["general"]], **chosen}
    settings = tiny_settings(
        "bert",
        ("domain",),
        output=output,
        sets=[f"train.steps={steps}", *sets],
        **{"data.text": [files["domain"]], "data.pairs": None},
    )
    return settings.model_copy(update={"plugin": {"domain": table}})


def domain_trainer(files, output, *sets, init="", steps=10, **chosen):
    given_ = domain_settings(files, output, *sets, steps=steps, **chosen)
    if init:
        tokenizer = given_.tokenizer.model_copy(update={"path": f"{init}/tokenizer"})
        given_ = given_.model_copy(update={"tokenizer": tokenizer})
    run = launch(given_, Silent())
    if init:
        start_from(run, Path(init), Silent())
    return Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))


def rows_of(run, steps) -> list[dict[str, int]]:
    """Return how many rows of each stream a run takes in each step."""
    found = []
    for step in range(steps):
        plan = run.planner.plan(step)
        tokens = {name: data.tokens for name, data in run.prepared.streams.items()}
        counts: dict[str, int] = {}
        for (stream, _), rows in draw_rows(plan, 8, 0, tokens).items():
            counts[stream] = counts.get(stream, 0) + rows
        found.append(counts)
    return found


# ---------------------------------------------------------------------------------------------
# Rows


@pytest.mark.parametrize("weights", [{}, {"text": 3.0}])
@pytest.mark.parametrize("replay", [0.05, 0.25, 0.5])
def test_general_text_has_its_share_of_the_rows(files, tmp_path, replay, weights):
    sets = [f"batch.weights={{text={weights['text']}}}"] if weights else []
    run = domain_trainer(files, tmp_path, *sets, steps=400, replay=replay).run
    rows = rows_of(run, 400)
    general = sum(one.get("general", 0) for one in rows)
    assert general == pytest.approx(replay * 400 * 8, abs=2)
    assert sum(map(sum, (one.values() for one in rows))) == 400 * 8


def test_without_replay_general_text_is_measured_and_never_trained_on(files, tmp_path):
    trainer = domain_trainer(files, tmp_path, "train.evaluate_every=5", steps=5, replay=0.0)
    trainer.fit()
    assert {name.partition("/")[0] for name in trainer.progress.taken} == {"text"}
    (_, before), (_, after) = [one for one in trainer.watch.seen if one[0] == "evaluation"]
    assert before["domain"].keys() == {"domain", "general"}
    assert after["domain"]["general"] == after["held_out"]["general/mlm"]
    assert after["domain"]["domain"] == after["held_out"]["text/mlm"]
    change = after["domain"]["general"] - before["domain"]["general"]
    assert after["domain"]["general_change"] == pytest.approx(change, abs=1e-12)


def test_the_task_s_text_takes_the_place_of_the_domain_s_at_the_end(files, tmp_path):
    chosen = {"task": [files["task"]], "task_share": 0.3, "replay": 0.25}
    run = domain_trainer(files, tmp_path, steps=20, **chosen).run
    rows = rows_of(run, 20)
    assert {name for one in rows[:14] for name in one} == {"text", "general"}
    assert {name for one in rows[14:] for name in one} == {"task", "general"}
    assert sum(one["general"] for one in rows[:14]) == pytest.approx(0.25 * 14 * 8, abs=2)
    assert sum(one["general"] for one in rows[14:]) == pytest.approx(0.25 * 6 * 8, abs=2)


# ---------------------------------------------------------------------------------------------
# Forgetting


@pytest.fixture(scope="module")
def general_run(files, tmp_path_factory) -> str:
    """A run that has learned the general text: its loss is far below what it began with."""
    output = tmp_path_factory.mktemp("general") / "run"
    settings_ = tiny_settings(
        "bert",
        (),
        output=output,
        sets=["train.steps=250", "train.lr=3e-3", "train.checkpoint_every=250"],
        **{"data.text": [files["general"], files["domain"], files["task"]], "data.pairs": None},
    )
    # One tokenizer for all three; the weights see general text alone.
    run = launch(settings_, Silent())
    run.prepared.tokenizer.save_pretrained(output / "tokenizer")
    own = settings_.model_copy(
        update={
            "data": settings_.data.model_copy(update={"text": (files["general"],)}),
            "tokenizer": settings_.tokenizer.model_copy(update={"path": f"{output}/tokenizer"}),
        }
    )
    write_settings(anchored(own))
    Trainer(launch(own, Silent()), Recorder(), make_accelerator("fp32", "cpu")).fit()
    return str(output)


FORGETFUL = ("train.lr=3e-3", "train.evaluate_every=10", "train.checkpoint_every=10")


def general_losses(trainer) -> list[float]:
    return [
        values["domain"]["general"] for kind, values in trainer.watch.seen if kind == "evaluation"
    ]


def test_replay_keeps_what_is_forgotten_without(files, general_run, tmp_path):
    rise = {}
    for replay in (0.0, 0.5):
        output = tmp_path / f"replay-{replay}"
        trainer = domain_trainer(
            files, output, *FORGETFUL, init=general_run, steps=60, replay=replay
        )
        trainer.fit()
        losses = general_losses(trainer)
        rise[replay] = losses[-1] - losses[0]
    assert rise[0.0] > 0.5
    assert rise[0.5] < 0.2 * rise[0.0]


def test_the_guard_stops_a_run_that_forgets_and_leaves_what_was_before(
    files, general_run, tmp_path
):
    guard = {"action": "stop", "margin": 0.3}
    options = {"init": general_run, "steps": 200, "replay": 0.0, "guard": guard}
    trainer = domain_trainer(files, tmp_path, *FORGETFUL, **options)
    with pytest.raises(GuardStop, match=r"general text is being forgotten: .* the margin is 0\.3"):
        trainer.fit()
    step, losses = trainer.progress.step, general_losses(trainer)
    assert 0 < step < 200
    assert losses[-1] > losses[0] + 0.3
    assert all(loss <= losses[0] + 0.3 for loss in losses[:-1])
    kept = [int(path.name.removeprefix("step-")) for path in checkpoints(tmp_path)]
    assert kept[-1] == step


def test_the_guard_slows_a_run_and_a_resumed_one_is_as_slow(files, general_run, tmp_path):
    guard = {"action": "slow", "margin": 0.3, "factor": 0.25}
    options = {"init": general_run, "steps": 50, "replay": 0.0, "guard": guard}
    whole = domain_trainer(files, tmp_path / "whole", *FORGETFUL, **options)
    whole.fit()
    cuts = whole.run.plugins.instances[0].implementation.guard.cuts
    assert cuts
    plain = domain_trainer(
        files, tmp_path / "plain", *FORGETFUL, init=general_run, steps=50, replay=0.0
    )
    for step in range(50):
        factor = 0.25 ** sum(cut <= step for cut in cuts)
        found, without = whole.run.planner.plan(step), plain.run.planner.plan(step)
        assert found.lr == pytest.approx(factor * without.lr)
    broken = domain_trainer(files, tmp_path / "broken", *FORGETFUL, **options)
    broken.start()
    broken._evaluate_at_start()
    while broken.progress.step < 30:
        broken.step(broken.run.planner.plan(broken.progress.step))
        broken.after_step()
    broken.writer.finish()
    again = domain_trainer(files, tmp_path / "broken", *FORGETFUL, **options)
    again.resume()
    again.fit()
    for mine, other in zip(
        again.run.encoder.parameters(), whole.run.encoder.parameters(), strict=True
    ):
        assert mine.equal(other)


@settings(max_examples=50)
@given(
    losses=st.lists(st.floats(0, 10), min_size=1, max_size=8),
    margin=st.floats(0, 2),
)
def test_the_guard_compares_with_the_start_whatever_came_between(losses, margin):
    guard = ForgettingGuard(margin)
    for step, loss in enumerate(losses):
        guard.hear(step, {"general": loss})
    assert guard.is_beyond == (losses[-1] - losses[0] > margin)
    assert guard.is_rising == (len(losses) > 1 and losses[-1] >= losses[-2])
    again = ForgettingGuard(margin)
    again.load_state_dict(json.loads(json.dumps(guard.state_dict())))
    assert again == guard


def test_a_loss_that_is_no_number_is_beyond_any_margin():
    guard = ForgettingGuard(5.0)
    guard.hear(0, {"general": 1.0})
    guard.hear(1, {"general": float("nan")})
    assert guard.is_beyond
    assert guard.is_rising


def test_the_guard_slows_only_while_the_loss_still_rises(files, tmp_path, monkeypatch):
    guard = {"action": "slow", "margin": 0.3}
    # Within the margin, risen twice, falling, level, within, risen, falling; the last is the end.
    heard = iter([1.0, 1.25, 1.5, 1.75, 1.5, 1.5, 1.25, 1.75, 1.5, 2.0])
    monkeypatch.setattr(Domain, "measure", lambda self, context: {"general": next(heard)})
    trainer = domain_trainer(files, tmp_path, "train.evaluate_every=1", steps=9, guard=guard)
    trainer.fit()
    assert trainer.run.plugins.instances[0].implementation.guard.cuts == [2, 3, 5, 7]


# ---------------------------------------------------------------------------------------------
# What is wrong, what is written


@pytest.mark.parametrize(
    ("chosen", "sets", "words"),
    [
        ({"general": []}, (), "plugin.domain.general names no text to replay"),
        ({"general": [], "replay": 0.0, "guard": {"action": "stop"}}, (), "names no text"),
        ({"general": [], "replay": 0.0}, (), "has nothing to do"),
        ({"guard": {"action": "slow"}}, (), "nothing is evaluated while the run trains"),
    ],
)
def test_settings_that_do_nothing_are_refused(files, tmp_path, chosen, sets, words):
    with pytest.raises(SettingsError, match=words):
        launch(domain_settings(files, tmp_path, *sets, **chosen), Silent())


def test_its_files_are_the_run_s_own(files):
    table = {"domain": {"general": ["en=general.txt"], "task": ["task.txt"]}}
    given_ = tiny_settings("bert", ("domain",)).model_copy(update={"plugin": table})
    assert names_files(given_)
    found = anchored(given_).plugin["domain"]
    assert found["general"] == [f"en={Path('general.txt').absolute()}"]
    assert found["task"] == [str(Path("task.txt").absolute())]


def test_an_export_says_what_was_gained_and_what_was_lost(files, tmp_path):
    sets = ("train.evaluate_every=4", "train.checkpoint_every=4")
    trainer = domain_trainer(files, tmp_path / "run", *sets, steps=4)
    write_settings(anchored(trainer.run.settings))
    trainer.fit()
    export(tmp_path / "run", tmp_path / "exported", Silent())
    account = json.loads(
        (tmp_path / "exported/ptm_plus/domain/before-and-after.json").read_text(encoding="utf-8")
    )
    evaluations = [values for kind, values in trainer.watch.seen if kind == "evaluation"]
    assert account["step"] == 4
    assert account["before"] == evaluations[0]["domain"]
    assert account["after"]["general"] == evaluations[1]["domain"]["general"]
    card = (tmp_path / "exported/README.md").read_text(encoding="utf-8")
    assert f"general {account['before']['general']:.3f} before and" in card

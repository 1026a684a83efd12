"""Guards: what is not finite is named and never applied, spikes, roll-backs, memory."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import BOTH, Recorder, home_made, tiny_run

from ptm_plus import EnvironmentProblem, GuardStop, Objective, Outcome, hookimpl
from ptm_plus.cli.root import _known
from ptm_plus.compose import Contribution
from ptm_plus.guards import is_spike
from ptm_plus.processes import make_accelerator
from ptm_plus.train import Trainer


def trainer_of(output, plugins=(), *sets, watch=None, **values):
    run = tiny_run("bert", plugins, output=output, sets=sets, **values)
    return Trainer(run, watch or Recorder(), make_accelerator("fp32", "cpu"))


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.run.encoder.named_parameters()}


# ---------------------------------------------------------------------------------------------
# A rotten row: one sequence makes its loss, or only its gradient, NaN


class Rotten:
    """A plugin whose objective breaks on one sequence."""

    name = "rotten"

    def __init__(self, sequence, what="loss"):
        self.sequence, self.what, self.on = sequence, what, True

    @hookimpl
    def ptm_features(self, context):
        from ptm_plus import Feature

        return [Feature(name="which", compute=self.which, streams=("text",))]

    def which(self, given):
        hit = given.view.numbers == self.sequence
        return {"bad": hit.astype(int)}

    @hookimpl
    def ptm_objectives(self, context):
        count, compute = (lambda columns: 1.0), self.compute
        return [Objective(name="rot", count=count, compute=compute, streams=("text",))]

    def compute(self, batch, encode, parts):
        some = encode(batch).top.pow(2).sum() * 0
        if self.on and batch.column("rotten", "bad").any():
            return Outcome(some * math.nan if self.what == "loss" else torch.sqrt(some))
        return Outcome(some)


def rotten_trainer(tmp_path, monkeypatch, *sets, what="loss", step=2, micro_rows=8):
    """Return a trainer whose third step reads the rotten sequence, and that sequence."""
    probe = trainer_of(tmp_path)
    for number in range(step + 1):
        rows = probe.reader.step_rows(probe.run.planner.plan(number))
    bad = int(rows["text"][-1].numbers[0])
    hooks = Rotten(bad, what)
    with home_made(monkeypatch, hooks) as names:
        trainer = trainer_of(tmp_path, names, f"batch.micro_rows={micro_rows}", *sets)
    return trainer, hooks, bad


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("micro_rows", [8, 2])
def test_a_rotten_row_is_named_with_its_objective_plugin_and_stream(
    tmp_path, monkeypatch, what, micro_rows
):
    trainer, _, bad = rotten_trainer(tmp_path, monkeypatch, what=what, micro_rows=micro_rows)
    for number in range(2):
        assert trainer.step(trainer.run.planner.plan(number))
    before = weights(trainer)
    trainer.step(trainer.run.planner.plan(2))
    with pytest.raises(GuardStop) as error:
        trainer.settle()
    assert error.value.exit_code == 6
    message = error.value.message
    assert f"not finite at step 3: {what} of objective 'rot' (plugin 'rotten')" in message
    assert "on stream 'text'" in message
    named = message.partition("sequences ")[2].partition(" (examples")[0].split(", ")
    assert str(bad) in named
    assert message.count("objective") == 1  # nothing else is blamed
    after = weights(trainer)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_bad_update_is_left_out_and_training_goes_on(tmp_path, monkeypatch):
    """The same weights as when that step had not been taken at all."""
    trainer, hooks, _ = rotten_trainer(tmp_path, monkeypatch, "guards.nonfinite=skip")
    for number in range(5):
        assert trainer.step(trainer.run.planner.plan(number))
    trainer.log()
    assert (trainer.progress.skipped, trainer.progress.step) == (1, 5)
    assert any("it is left out" in note for note in trainer.watch.notes)
    assert all(math.isfinite(value) for value in trainer.watch.losses()[-1].values())
    hooks.on = False
    other, *_ = rotten_trainer(tmp_path, monkeypatch)
    for number in range(5):
        plan = other.run.planner.plan(number)
        if number == 2:
            other.reader.step_rows(plan)  # the data are passed over
        else:
            other.step(plan)
    found, expected = weights(trainer), weights(other)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_too_many_bad_updates_stop_the_run(tmp_path, monkeypatch):
    trainer, hooks, _ = rotten_trainer(tmp_path, monkeypatch, "guards.nonfinite=skip", step=0)
    monkeypatch.setattr(hooks, "which", lambda given: {"bad": (given.view.numbers >= 0) * 1})
    trainer.run.collator.features = [
        Contribution(one.instance, replace(one.component, compute=hooks.which))
        for one in trainer.run.collator.features
    ]
    for number in range(4):  # the fourth bad one is noticed when a fifth is due
        trainer.step(trainer.run.planner.plan(number))
    with pytest.raises(GuardStop, match="3 tries since the last checkpoint"):
        trainer.step(trainer.run.planner.plan(4))
    assert trainer.progress.step == 4


def test_rolling_back_takes_the_last_checkpoint_and_the_data_that_come_next(tmp_path, monkeypatch):
    trainer, hooks, _ = rotten_trainer(tmp_path, monkeypatch, "guards.nonfinite=roll_back")
    for number in range(2):
        trainer.step(trainer.run.planner.plan(number))
        if number == 0:
            trainer.save()
            trainer.writer.finish()
            saved = weights(trainer)
    trainer.step(trainer.run.planner.plan(2))
    cursors = {name: dict(strata) for name, strata in trainer.reader.cursors.items()}
    assert trainer.settle()
    assert trainer.progress.step == trainer.run.step == 1
    assert (trainer.progress.rolled_back, trainer.progress.troubles) == (1, 1)
    assert trainer.reader.cursors == cursors
    found = weights(trainer)
    assert all(torch.equal(found[name], saved[name]) for name in saved)
    assert any("back to step 1, the data go on" in note for note in trainer.watch.notes)
    assert ("resumed", {"step": 1}) in trainer.watch.seen
    assert hooks.on
    while trainer.progress.step < 4:  # the rotten row does not come again
        assert trainer.step(trainer.run.planner.plan(trainer.progress.step))
    trainer.log()


def test_without_a_checkpoint_there_is_no_way_back(tmp_path, monkeypatch):
    trainer, *_ = rotten_trainer(tmp_path, monkeypatch, "guards.nonfinite=roll_back", step=0)
    trainer.step(trainer.run.planner.plan(0))
    with pytest.raises(GuardStop, match="there is no checkpoint to go back to"):
        trainer.settle()


def test_rolling_back_keeps_what_memory_allowed_and_needs_no_second_leave(tmp_path, monkeypatch):
    trainer, *_ = rotten_trainer(tmp_path, monkeypatch, "guards.nonfinite=roll_back")
    trainer.save()
    trainer.writer.finish()
    changed, *_ = rotten_trainer(
        tmp_path, monkeypatch, "guards.nonfinite=roll_back", "train.lr=0.02"
    )
    changed.resume(allow_changes=True)
    for number in range(3):
        changed.step(changed.run.planner.plan(number))
    changed.progress.micro_rows, changed.progress.skipped = 2, 1
    assert changed.settle()
    assert (changed.progress.step, changed.progress.micro_rows, changed.progress.skipped) == (
        0,
        2,
        1,
    )


def test_a_step_in_which_nothing_counts_changes_nothing(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.run.root.count = lambda host: {}
    before = weights(trainer)
    assert trainer.step(trainer.run.planner.plan(0))
    assert not trainer.settle()
    after = weights(trainer)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_run_that_rolls_back_ends(tmp_path, monkeypatch):
    sets = ("guards.nonfinite=roll_back", "train.checkpoint_every=1", "train.steps=6")
    trainer, *_ = rotten_trainer(tmp_path, monkeypatch, *sets)
    trainer.fit()
    assert (trainer.progress.step, trainer.progress.rolled_back) == (6, 1)


# ---------------------------------------------------------------------------------------------
# Spikes


def test_a_spike_is_far_above_the_median():
    before = [4.0, 4.1, 3.9, 4.0, 4.05, 3.95, 4.0, 4.0]
    assert not is_spike(4.3, before, 10, 8)  # median 4, least spread 0.04
    assert is_spike(4.5, before, 10, 8)
    assert not is_spike(99.0, before[:7], 10, 8)  # too few to tell
    assert not is_spike(1.0, before, 10, 8)
    assert is_spike(4.5, [99.0] * 20 + before, 10, 8)  # only the last ones count


@given(st.lists(st.floats(0.1, 10), min_size=8, max_size=20), st.floats(0.1, 10))
def test_a_loss_that_was_seen_at_the_middle_is_no_spike(before, size):
    assert not is_spike(sorted(before[-8:])[3], before, size, 8)


def spiking(tmp_path, policy, at=9):
    sets = ("train.steps=14", "guards.spike_window=8", f"guards.spike={policy}")
    trainer = trainer_of(tmp_path, (), *sets)
    real = trainer.run.root.losses

    def losses(batch, *others, **options):
        loss, sums, metrics = real(batch, *others, **options)
        seen = len(trainer.progress.recent)
        trainer.high = trainer.run.step == at and not trainer.progress.rolled_back and seen == 8
        return (loss + 50 if trainer.high else loss), sums, metrics

    trainer.run.root.losses = losses
    return trainer


def test_a_spike_stops_or_goes_back(tmp_path):
    with pytest.raises(GuardStop, match=r"the loss jumped to \d+\.?\d* at step 10"):
        spiking(tmp_path / "a", "stop").fit()
    ignoring = spiking(tmp_path / "b", "ignore")
    ignoring.fit()
    assert ignoring.progress.rolled_back == 0
    trainer = spiking(tmp_path / "c", "roll_back")
    trainer.fit()
    assert (trainer.progress.step, trainer.progress.rolled_back) == (14, 1)
    assert max(trainer.progress.recent) < 50


# ---------------------------------------------------------------------------------------------
# Memory


@pytest.mark.parametrize("plugins", [(), BOTH], ids=["plain", "plugins"])
def test_memory_that_runs_out_halves_the_micro_batch_and_keeps_the_gradient(tmp_path, plugins):
    def after(limit):
        trainer = trainer_of(tmp_path, plugins)
        real = trainer.run.root.losses

        def losses(batch, *others, **options):
            if limit and len(batch) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return real(batch, *others, **options)

        trainer.run.root.losses = losses
        for step in range(3):
            trainer.step(trainer.run.planner.plan(step))
        trainer.log()
        return trainer

    short, enough = after(200), after(0)
    assert short.progress.micro_rows == 2
    assert short.progress.tokens == enough.progress.tokens
    assert any("micro-batches of 2 rows" in note for note in short.watch.notes)
    assert short.watch.losses()[-1] == pytest.approx(enough.watch.losses()[-1], rel=1e-9)
    found, expected = weights(short), weights(enough)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-11)


def test_a_row_that_never_fits_is_an_error_with_a_mend(tmp_path):
    trainer = trainer_of(tmp_path)

    def losses(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    trainer.run.root.losses = losses
    with pytest.raises(torch.OutOfMemoryError) as error:
        trainer.step(trainer.run.planner.plan(0))
    told = _known(error.value)
    assert isinstance(told, EnvironmentProblem)
    assert "one row alone does not fit; lower batch.row_tokens" in told.message

"""The loop: baseline and plugin order, logging, guards, events, dropout, checkpoints on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import pytest
import torch
from tiny import BOTH, Recorder, home_made, tiny_run

from ptm_plus import GuardStop, Probe, Schedule, hookimpl
from ptm_plus.mixture import learning_rate
from ptm_plus.processes import make_accelerator
from ptm_plus.run_folder import checkpoints
from ptm_plus.train import Trainer


def fitted(plugins=(), *, family="bert", sets=(), **values) -> Trainer:
    run = tiny_run(family, plugins, sets=sets, **values)
    trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
    trainer.fit()
    return trainer


def weights(trainer):
    return {name: value.clone() for name, value in trainer.run.encoder.state_dict().items()}


def same(one, other):
    assert one.watch.losses() == other.watch.losses()
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


# ---------------------------------------------------------------------------------------------
# Plugins and the baseline


def test_installed_plugins_that_were_not_asked_for_change_nothing(tmp_path, monkeypatch):
    """The losses of a run without plugins, with the entry points there and with none at all."""
    with_them = fitted(output=tmp_path / "a")
    assert len(with_them.watch.losses()) == 6
    real = metadata.entry_points

    def none(**given):
        found = real(**given)
        return type(found)() if str(given.get("group", "")).startswith("ptm_plus") else found

    monkeypatch.setattr(metadata, "entry_points", none)
    from ptm_plus import discovery
    from ptm_plus.plugins import PluginError, load

    if hasattr(discovery, "entry_points"):
        monkeypatch.setattr(discovery, "entry_points", none)
    with pytest.raises(PluginError, match="kg-fusion"):
        load(["kg-fusion"], {})  # they are really gone
    same(fitted(output=tmp_path / "b"), with_them)


def test_the_order_of_plugins_does_not_matter(tmp_path):
    plugin = {"tlm": {"language_embeddings": True}}
    one = fitted(("kg-fusion", "tlm"), output=tmp_path / "a", plugin=plugin)
    other = fitted(("tlm", "kg-fusion"), output=tmp_path / "b", plugin=plugin)
    same(one, other)
    assert one.watch.losses()[0].keys() == {"pairs/dea", "pairs/tlm", "text/dea", "text/mlm"}


def test_a_plugin_on_other_streams_leaves_the_text_s_rows_and_masks_alone():
    """tlm adds pairs; the text's sequences are read in the same order, masked alike."""
    plain, pairs = tiny_run("bert"), tiny_run("bert", ("tlm",))
    for run in (plain, pairs):
        row = run.prepared.streams["text"].rows("en", 0).row(0)
        assert len(row)
    rows = [run.prepared.streams["text"].rows("en", 0).row(0) for run in (plain, pairs)]
    assert rows[0].tolist() == rows[1].tolist()


def test_a_seed_gives_one_run_and_another_seed_another(tmp_path):
    values = {"model.dropout": 0.1}
    one, again = (fitted(output=tmp_path / name, **values) for name in "ab")
    same(one, again)
    other = fitted(output=tmp_path / "c", sets=["train.seed=1"], **values)
    assert other.watch.losses() != one.watch.losses()


def test_dropout_is_drawn_anew_in_every_step_and_off_in_evaluation(tmp_path):
    run = tiny_run("bert", **{"model.dropout": 0.5})
    trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
    seen = []
    layer = run.encoder.backbone.bert.embeddings.dropout
    layer.register_forward_hook(lambda module, given, output: seen.append((output == 0).clone()))
    plan = run.planner.plan(0)
    for step in (0, 1):
        trainer.step(plan.changed(step=step))
    assert len(seen) == 4
    assert all(0.3 < float(zeros.float().mean()) < 0.7 for zeros in seen)


# ---------------------------------------------------------------------------------------------
# Losses, logs, guards


def test_the_loss_falls_on_every_family(tmp_path):
    for family in ("bert", "roberta", "xlm-roberta", "modernbert"):
        sets = ["train.steps=40", "train.lr=0.01", "train.log_every=5"]
        losses = fitted(family=family, sets=sets, output=tmp_path / family).watch.losses()
        assert losses[-1]["text/mlm"] < 0.8 * losses[0]["text/mlm"]


def test_logged_losses_are_means_over_all_that_was_counted():
    run = tiny_run("bert", sets=["train.log_every=3"])
    watch = Recorder()
    trainer = Trainer(run, watch, make_accelerator("fp32", "cpu"))
    sums, counts = {}, {}
    real = run.root.losses

    def losses(batch, divisors, *others, **options):
        outcome = real(batch, divisors, *others, **options)
        for key, value in outcome[1].items():
            sums[key] = sums.get(key, 0.0) + float(value)
            counts[key] = counts.get(key, 0.0) + divisors[key]
        return outcome

    run.root.losses = losses
    for step in range(3):
        trainer.step(run.planner.plan(step))
    trainer.log()
    (logged,) = watch.losses()
    assert logged == {
        "/".join(key): pytest.approx(sums[key] / counts[key], rel=1e-12) for key in sums
    }
    assert trainer.progress.first == trainer.progress.last == logged


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_its_owner():
    run = tiny_run("bert", ("tlm",))
    trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
    with torch.no_grad():
        run.encoder.word_vectors().weight.fill_(float("nan"))
    trainer.step(run.planner.plan(0))
    named = r"loss of objective 'tlm' \(plugin 'tlm'\) on stream 'pairs', sequences \d"
    with pytest.raises(GuardStop, match=named):
        trainer.log()


def test_clipping_limits_the_update(tmp_path):
    run = tiny_run("bert", sets=["train.clip=0.01"])
    trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
    norms = []
    trainer.stepper.optimizer.register_step_pre_hook(
        lambda *_: norms.append(
            float(torch.stack([p.grad.norm() for p in run.encoder.parameters()]).norm())
        )
    )
    trainer.step(run.planner.plan(0))
    assert norms == [pytest.approx(0.01, rel=1e-3)]
    assert all(p.grad is None for p in run.encoder.parameters())


def test_learning_rates_follow_the_plan():
    run = tiny_run("bert", sets=["train.steps=10", "train.warmup=0.3", "train.lr=0.5"])
    trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
    rates = []
    for step in range(10):
        trainer.step(run.planner.plan(step))
        rates.append(trainer.stepper.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx(
        [0.5 * f for f in [1 / 3, 2 / 3, 1, *[n / 7 for n in range(7, 0, -1)]]]
    )
    assert learning_rate(2, 10, 0.3, "constant") == learning_rate(9, 10, 0.3, "constant") == 1.0


def test_tokens_are_those_of_the_rows_that_were_taken():
    run = tiny_run("bert")
    trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
    rows = run.reader().step_rows(run.planner.plan(0))
    expected = sum(len(run.collator.view([row])) for taken in rows.values() for row in taken)
    trainer.step(run.planner.plan(0))
    assert trainer.progress.tokens == expected
    taken = trainer.progress.taken
    assert sum(tokens for _, tokens in taken.values()) == expected
    for name, (count, _) in taken.items():
        stream, stratum = name.split("/")
        assert count == sum(row.stratum == stratum for row in rows[stream])
    assert trainer.progress.step == run.step == 1


# ---------------------------------------------------------------------------------------------
# Events, evaluation, checkpoints


@dataclass
class Listener:
    name: str = "listener"
    heard: list[Any] = field(default_factory=list)
    factor: float = 1.0

    @hookimpl
    def ptm_event(self, event):
        self.heard.append((event.kind, event.step))

    @hookimpl
    def ptm_schedule(self, context):
        return [Schedule(name="late", change=self._later, resource="mask_rate")]

    def _later(self, plan):
        return plan.changed(mask_rate=plan.mask_rate * (2 if plan.step >= 2 else 1))


def test_events_checkpoints_and_evaluations_come_when_they_should(tmp_path, monkeypatch):
    listener = Listener()
    sets = ["train.steps=4", "train.checkpoint_every=3", "train.evaluate_every=2", "train.keep=9"]
    with home_made(monkeypatch, listener) as names:
        trainer = fitted(names, sets=sets, output=tmp_path)
    assert listener.heard == [
        ("train_start", 0),
        ("stage_start", 0),
        ("after_step", 1),
        ("after_step", 2),
        ("evaluated", 2),
        ("after_step", 3),
        ("saving", 3),
        ("after_step", 4),
        ("evaluated", 4),
        ("saving", 4),
        ("train_end", 4),
    ]
    names = [path.name for path in checkpoints(tmp_path)]
    assert names == ["step-000000003", "step-000000004"]
    evaluations = [values for kind, values in trainer.watch.seen if kind == "evaluation"]
    assert [values["step"] for values in evaluations] == [2, 4]
    assert "text/mlm" in evaluations[0]["held_out"]
    assert trainer.run.encoder.training


@dataclass
class Guard:
    """Ends the run at an evaluation."""

    at: int
    name: str = "guard"
    heard: list[Any] = field(default_factory=list)

    @hookimpl
    def ptm_probes(self, context):
        return [Probe(name="guard", run=lambda context: {"value": 1.0}, at_start=True)]

    @hookimpl
    def ptm_event(self, event):
        if event.kind in ("train_start", "after_step", "evaluated"):
            self.heard.append((event.kind, event.step))
        if event.kind == "evaluated":
            assert event.figures["guard"] == {"value": 1.0}
            if event.step == self.at:
                raise GuardStop("enough")


def test_a_probe_for_the_start_is_heard_before_the_first_step(tmp_path, monkeypatch):
    guard = Guard(at=-1)
    with home_made(monkeypatch, guard) as names:
        fitted(names, sets=["train.steps=1"], output=tmp_path)
    assert guard.heard == [("train_start", 0), ("evaluated", 0), ("after_step", 1)]


def test_what_a_guard_stops_is_saved_and_goes_on_as_if_nothing_was(tmp_path, monkeypatch):
    sets = ["train.steps=4", "train.checkpoint_every=9", "train.evaluate_every=3"]
    whole = fitted(sets=sets, output=tmp_path / "whole")
    guard = Guard(at=3)
    with home_made(monkeypatch, guard) as names:
        with pytest.raises(GuardStop, match="enough"):
            fitted(names, sets=sets, output=tmp_path / "run")
        assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-000000003"]
        guard.at = 0
        run = tiny_run("bert", names, sets=sets, output=tmp_path / "run")
        trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
        trainer.resume()
        trainer.fit()
    assert trainer.watch.losses() == whole.watch.losses()[3:]
    for name, value in weights(whole).items():
        assert weights(trainer)[name].equal(value), name


def test_a_guard_that_stops_before_the_first_step_leaves_nothing(tmp_path, monkeypatch):
    with home_made(monkeypatch, Guard(at=0)) as names, pytest.raises(GuardStop):
        fitted(names, output=tmp_path)
    assert checkpoints(tmp_path) == []


def test_evaluation_between_steps_changes_nothing(tmp_path):
    values = {"model.dropout": 0.2}
    one = fitted(BOTH, output=tmp_path / "a", **values)
    sets = ["train.evaluate_every=2"]
    same(fitted(BOTH, output=tmp_path / "b", sets=sets, **values), one)


def test_schedules_change_the_plan_that_the_step_uses(monkeypatch):
    with home_made(monkeypatch, Listener()) as names:
        run = tiny_run("bert", names)
    trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
    counts = []
    for step in range(4):
        before = dict(trainer.progress.tally.counts)
        trainer.step(run.planner.plan(step))
        trainer.settle()
        after = trainer.progress.tally.counts
        counts.append(sum(after.values()) - sum(before.values()))
    assert min(counts[2:]) > 1.4 * max(counts[:2])

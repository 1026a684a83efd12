"""Checkpoints are whole or not there, and a resumed run is the unbroken one."""

from __future__ import annotations

import errno
import json
import threading
from concurrent.futures import wait
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tiny import BOTH, Recorder, home_made, tiny_run

from ptm_plus import (
    DataError,
    EnvironmentProblem,
    PluginError,
    StopRequested,
    checkpoint,
    hookimpl,
    sealed,
)
from ptm_plus import checkpoint_writer as module
from ptm_plus.checkpoint import load_checkpoint, newest_whole, read_state
from ptm_plus.digest import digests_ahead
from ptm_plus.processes import make_accelerator
from ptm_plus.run_folder import checkpoints
from ptm_plus.sealed import MANIFEST, damage
from ptm_plus.train import Trainer

TENSORS = ("backbone", "parts", "optimizer", "plugins")
FILES = set(checkpoint.FILES)
LANGUAGES = {"tlm": {"language_embeddings": True}}


def trainer_of(output, plugins=(), watch=None, **values):
    run = tiny_run("bert", plugins, output=output, **values)
    return Trainer(run, watch or Recorder(), make_accelerator("fp32", "cpu"))


def train_to(trainer, step):
    while trainer.progress.step < step:
        trainer.step(trainer.run.planner.plan(trainer.progress.step))
        trainer.log()
    return trainer


def save(trainer):
    trainer.save()
    trainer.writer.finish()


def saved(output, *steps, plugins=(), **values):
    """Save checkpoints at some steps."""
    trainer = trainer_of(output, plugins, **values)
    for step in steps:
        save(train_to(trainer, step))
    return trainer


# ---------------------------------------------------------------------------------------------
# Resuming


@pytest.mark.parametrize(
    ("dropout", "optimizer"),
    [(0.0, "adamw"), (0.1, "adamw"), (0.0, "stable-adamw"), (0.0, "muon")],
)
def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(tmp_path, dropout, optimizer):
    values = {"plugin": LANGUAGES, "model.dropout": dropout, "train.optimizer": optimizer}
    values |= {"train.decay": "wsd", "train.cooldown": 0.5, "masking.final_rate": 0.1}
    unbroken = train_to(trainer_of(tmp_path / "a", BOTH, **values), 6)
    first = saved(tmp_path / "b", 3, plugins=BOTH, **values)
    torch.manual_seed(123)  # whatever happened in between
    second = trainer_of(tmp_path / "b", BOTH, **values)
    second.resume()
    assert second.progress.step == second.run.step == 3
    train_to(second, 6)
    for name, value in unbroken.run.encoder.state_dict().items():
        assert torch.equal(value, second.run.encoder.state_dict()[name]), name
    assert states_of(unbroken) == states_of(second)
    losses = first.watch.losses() + second.watch.losses()
    assert losses == unbroken.watch.losses()
    assert second.reader.cursors == unbroken.reader.cursors
    assert second.progress.first == unbroken.progress.first
    assert second.progress.tokens == unbroken.progress.tokens


def test_a_run_resumed_among_changing_shares_is_the_unbroken_one(tmp_path):
    values = {
        "batch.alpha": {"text": [[0, 1.0], [0.5, 0.0]], "pairs": 0.3},
        "batch.joins": {"text": {"de": 0.7}},
        "batch.max_epochs": 40,
        "batch.exhausted": "limit",
        "train.steps": 10,
    }
    unbroken = train_to(trainer_of(tmp_path / "a", ("tlm",), **values), 10)
    saved(tmp_path / "b", 4, plugins=("tlm",), **values)
    second = trainer_of(tmp_path / "b", ("tlm",), **values)
    second.resume(verify=6)
    train_to(second, 10)
    assert second.reader.cursors == unbroken.reader.cursors
    for name, value in unbroken.run.encoder.state_dict().items():
        assert torch.equal(value, second.run.encoder.state_dict()[name]), name
    assert unbroken.reader.cursors["text"]["de"] > (0, 0)


def states_of(trainer):
    """Return the optimizer's state by parameter name, as lists."""
    return {
        f"{name}/{key}": value.tolist()
        for name, parameter in trainer.run.encoder.named_parameters()
        for key, value in trainer.stepper.optimizer.state[parameter].items()
    }


def test_a_request_to_stop_saves_and_says_how_to_go_on(tmp_path, monkeypatch):
    from contextlib import contextmanager

    from ptm_plus import train

    trainer = trainer_of(tmp_path, watch=Recorder())

    @contextmanager
    def asked():
        yield lambda: trainer.progress.step >= 2

    monkeypatch.setattr(train, "stop_requests", asked)
    with pytest.raises(StopRequested, match="stopped after step 2 of 6") as error:
        trainer.fit()
    assert error.value.exit_code == 75
    assert newest_whole(tmp_path)[0].name == "step-000000002"


def test_fit_goes_on_where_it_stopped(tmp_path):
    whole = trainer_of(tmp_path / "a")
    whole.fit()
    saved(tmp_path / "b", 4)
    again = trainer_of(tmp_path / "b")
    again.resume()
    again.fit()
    assert torch.equal(
        whole.run.encoder.word_vectors().weight, again.run.encoder.word_vectors().weight
    )
    assert [p.name for p in checkpoints(tmp_path / "a")] == [
        "step-000000005",
        "step-000000006",
    ]


@pytest.mark.parametrize(
    ("plugins", "values", "message"),
    [
        (("tlm",), {}, "plugins kg-fusion: 0.1.0 then, none now"),
        (BOTH, {"prepare.max_length": 48}, "data text: "),
    ],
)
def test_another_run_s_checkpoint_is_refused(tmp_path, plugins, values, message):
    saved(tmp_path, 1, plugins=BOTH)
    with pytest.raises(DataError, match="belongs to another run") as error:
        trainer_of(tmp_path, plugins, **values).resume()
    assert message in error.value.message


def test_other_vectors_are_refused(tmp_path):
    trainer = saved(tmp_path, 1, plugins=("kg-fusion",))
    table = trainer.run.tables[0]
    other = replace(table, component=replace(table.component, sha256="0" * 64))
    trainer.run.tables[0] = other
    with pytest.raises(DataError, match=r"tables kg-fusion.vectors: \w+ then, 0000"):
        load_checkpoint(trainer.run)


def test_weights_of_another_shape_are_refused(tmp_path):
    saved(tmp_path, 1)
    wider = trainer_of(tmp_path, sets=["model.config.intermediate_size=64"])
    with pytest.raises(DataError, match=r"tensors do not fit the run: .*intermediate"):
        wider.resume(allow_changes=True)


# ---------------------------------------------------------------------------------------------
# Files


def test_what_is_in_a_checkpoint(tmp_path):
    trainer = saved(tmp_path, 2, plugins=BOTH)
    (folder,) = checkpoints(tmp_path)
    assert {path.name for path in folder.iterdir()} == FILES | {MANIFEST}
    manifest = json.loads((folder / MANIFEST).read_text())["files"]
    assert manifest.keys() == FILES
    optimizer = load_file(folder / "optimizer.safetensors")
    trainable = [n for n, p in trainer.run.encoder.named_parameters() if p.requires_grad]
    assert {name for name in optimizer if name.startswith("exp_avg/")} == {
        f"exp_avg/{name}" for name in trainable
    }
    state = read_state(folder)
    assert state.progress["step"] == 2
    assert state.cursors == trainer.reader.cursors
    assert damage(folder) == ""


def test_only_the_newest_are_kept(tmp_path):
    saved(tmp_path, 1, 2, 3, sets=["train.keep=2"])
    names = [path.name for path in checkpoints(tmp_path)]
    assert names == ["step-000000002", "step-000000003"]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == names


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", sorted(FILES | {MANIFEST}))
@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_named_and_an_older_one_is_taken(tmp_path, one_save, name, harm):
    for path in one_save.rglob("*"):
        if path.is_file():
            copy = tmp_path / path.relative_to(one_save)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    victim = tmp_path / "checkpoints" / "step-000000002" / name
    if harm == "flip":
        flip(victim)
    elif harm == "truncate":
        victim.write_bytes(victim.read_bytes()[:-7])
    else:
        victim.unlink()
    folder, skipped = newest_whole(tmp_path)
    assert folder.name == "step-000000001"
    assert len(skipped) == 1
    assert "step-000000002" in skipped[0]
    if name != MANIFEST:
        assert name in skipped[0]


@pytest.fixture(scope="module")
def one_save(tmp_path_factory):
    home = tmp_path_factory.mktemp("saved")
    saved(home, 1, 2)
    return home


def test_resuming_takes_the_older_whole_one_and_says_so(tmp_path):
    saved(tmp_path, 1, 2)
    flip(tmp_path / "checkpoints" / "step-000000002" / "backbone.safetensors")
    watch = Recorder()
    trainer = trainer_of(tmp_path, watch=watch)
    trainer.resume()
    assert trainer.progress.step == 1
    assert any("step-000000002" in note and "backbone.safetensors" in note for note in watch.notes)


def test_no_whole_checkpoint_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="no whole checkpoint here"):
        newest_whole(tmp_path)
    saved(tmp_path, 1)
    (tmp_path / "checkpoints" / "step-000000001" / "state.json").unlink()
    with pytest.raises(DataError, match=r"skipped damaged checkpoint step-000000001: .*state.json"):
        newest_whole(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"cursors": 3}', '{"cursors": {}, "progress": {}}'])
def test_a_state_that_is_none_is_a_data_error(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(DataError, match="not a checkpoint state"):
        read_state(tmp_path)


# ---------------------------------------------------------------------------------------------
# A full disk


@pytest.mark.parametrize("calls", range(len(TENSORS) + 1))
def test_a_full_disk_leaves_earlier_checkpoints_whole(tmp_path, monkeypatch, calls):
    """The write fails at the first tensor file, or a later one, or when the folder is flushed."""
    trainer = saved(tmp_path, 1)
    train_to(trainer, 2)
    real, done = module.save_file, []

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def save_file(tensors, path):
        if len(done) == calls:
            path.write_bytes(b"half")
            full()
        done.append(path)
        real(tensors, path)

    monkeypatch.setattr(module, "save_file", save_file)
    if calls == len(TENSORS):
        monkeypatch.setattr(sealed, "flush", full)
    with pytest.raises(EnvironmentProblem, match="No space left on device") as error:
        save(trainer)
    assert error.value.exit_code == 5
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000001"]
    assert damage(tmp_path / "checkpoints" / "step-000000001") == ""


def test_a_writer_of_tensors_that_fails_in_its_own_way_counts_as_a_full_disk(tmp_path, monkeypatch):
    """safetensors raises its own error, which is no OSError."""
    from safetensors import SafetensorError

    trainer = saved(tmp_path, 1)
    train_to(trainer, 2)

    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(EnvironmentProblem, match="No space left on device"):
        save(trainer)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000001"]


def test_what_an_interrupted_save_left_is_no_checkpoint(tmp_path):
    saved(tmp_path, 1)
    half = tmp_path / "checkpoints" / ".step-000000002.partial"
    half.mkdir()
    (half / "backbone.safetensors").write_bytes(b"half")
    assert newest_whole(tmp_path)[0].name == "step-000000001"
    saved(tmp_path, 2)
    assert not half.exists()


class Counting:
    """A plugin that counts steps and keeps a queue."""

    name = "counting"

    def __init__(self):
        self.steps = 0
        self.queue = torch.zeros(3)

    @hookimpl
    def ptm_event(self, event):
        if event.kind == "saving":
            self.steps = event.step
            self.queue = torch.arange(3) + float(event.step)

    def state_dict(self):
        return {"steps": self.steps, "queue": self.queue}

    def load_state_dict(self, state):
        self.steps, self.queue = state["steps"], state["queue"]


def test_a_plugin_s_own_state_comes_back(tmp_path, monkeypatch):
    with home_made(monkeypatch, Counting()) as names:
        save(train_to(trainer_of(tmp_path, names), 2))
    later = Counting()
    with home_made(monkeypatch, later) as names:
        trainer_of(tmp_path, names).resume()
    assert later.steps == 2
    assert later.queue.tolist() == [2.0, 3.0, 4.0]


# ---------------------------------------------------------------------------------------------
# Between log lines, beside training, and what stays


def test_a_checkpoint_between_two_log_lines_loses_no_figure(tmp_path):
    """Sums since the last line, of losses, metrics and data, are in the checkpoint."""
    sets = ["train.log_every=4", "train.steps=8"]

    def steps(trainer, first, last):
        for number in range(first, last):
            trainer.step(trainer.run.planner.plan(number))
            if (number + 1) % 4 == 0:
                trainer.log()
        return trainer

    unbroken = steps(trainer_of(tmp_path / "a", BOTH, sets=sets), 0, 8)
    first = steps(trainer_of(tmp_path / "b", BOTH, sets=sets), 0, 6)
    save(first)
    second = trainer_of(tmp_path / "b", BOTH, sets=sets)
    second.resume(verify=2)
    steps(second, 6, 8)

    def logged(*trainers):
        return [
            {name: value for name, value in figures.items() if name != "seconds"}
            for trainer in trainers
            for kind, figures in trainer.watch.seen
            if kind == "step"
        ]

    assert logged(first, second) == logged(unbroken)
    assert "pairs/dea/accuracy_both" in logged(unbroken)[0]["metrics"]


def test_other_data_are_noticed_before_a_step_is_taken(tmp_path):
    trainer = saved(tmp_path, 2)
    state = read_state(checkpoints(tmp_path)[0])
    assert state.ahead == digests_ahead(trainer.run, trainer.reader, 2, 8)
    again = trainer_of(tmp_path)
    again.run.collator._seed += 1  # other masks
    with pytest.raises(DataError, match="the data of step 3 are not those of the saved run"):
        again.resume(verify=1)
    trainer_of(tmp_path).resume(verify=4)


def test_changes_are_listed_and_go_through_when_asked_for(tmp_path):
    saved(tmp_path, 1)
    watch = Recorder()
    changed = trainer_of(tmp_path, watch=watch, sets=["train.lr=0.02", "train.steps=9"])
    with pytest.raises(DataError, match=r"train\.lr: 0\.0005 then, 0\.02 now") as error:
        changed.resume()
    assert "train.steps: 6 then, 9 now" in error.value.message
    assert "--allow-changes" in error.value.hint
    changed.resume(allow_changes=True)
    assert any("changed: settings train.lr: 0.0005 then" in note for note in watch.notes)
    assert changed.progress.step == 1


@pytest.mark.parametrize(
    ("before", "after"), [("adamw", "muon"), ("muon", "stable-adamw"), ("adamw", "stable-adamw")]
)
def test_another_optimizer_is_another_run_and_takes_over_what_both_keep(tmp_path, before, after):
    saved(tmp_path, 2, sets=[f"train.optimizer={before}"])
    trainer = trainer_of(tmp_path, sets=[f"train.optimizer={after}"])
    with pytest.raises(DataError, match=f"train.optimizer: {before} then, {after} now"):
        trainer.resume()
    trainer.resume(allow_changes=True)
    state = trainer.stepper.optimizer.state
    named = dict(trainer.run.encoder.named_parameters())
    inside = named["backbone.bert.encoder.layer.0.intermediate.dense.weight"]
    assert state[named["backbone.bert.embeddings.word_embeddings.weight"]]["step"] == 2
    assert bool(state.get(inside)) == ("muon" not in (before, after))
    train_to(trainer, 3)
    assert all(torch.isfinite(parameter).all() for parameter in named.values())


def test_settings_that_weights_do_not_depend_on_may_change(tmp_path):
    saved(tmp_path, 1)
    free = ["train.keep=5", "train.log_every=3", "batch.micro_rows=1", "guards.nonfinite=skip"]
    trainer = trainer_of(tmp_path, sets=free)
    trainer.resume()
    assert trainer.progress.step == 1


def test_other_versions_are_told_and_not_refused(tmp_path, monkeypatch):
    saved(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "versions", lambda: {"torch": "9.9"})
    watch = Recorder()
    trainer_of(tmp_path, watch=watch).resume()
    assert any("version of torch: " in note and "9.9 now" in note for note in watch.notes)


def test_the_step_waits_for_copying_only(tmp_path, monkeypatch):
    """What training changes afterwards is not in the checkpoint, however late it is written."""
    gate = threading.Event()
    real = module.save_file

    def slow(tensors, path):
        assert gate.wait(30)
        real(tensors, path)

    monkeypatch.setattr(module, "save_file", slow)
    trainer = train_to(trainer_of(tmp_path), 1)
    expected = {name: p.detach().clone() for name, p in trainer.run.encoder.named_parameters()}
    trainer.save()
    assert not list(tmp_path.glob("checkpoints/step-*"))
    train_to(trainer, 3)
    gate.set()
    trainer.writer.finish()
    found = load_file(newest_whole(tmp_path)[0] / "backbone.safetensors")
    for name, value in found.items():
        assert torch.equal(value, expected[f"backbone.{name}"])


def test_a_write_that_failed_stops_the_next_step(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    trainer = train_to(trainer_of(tmp_path), 1)
    trainer.save()
    wait([trainer.writer._writing])
    with pytest.raises(EnvironmentProblem, match="No space left on device"):
        trainer.step(trainer.run.planner.plan(1))


def test_a_disk_without_room_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    trainer = saved(tmp_path, 1)
    train_to(trainer, 2)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    written = []
    monkeypatch.setattr(module, "save_file", lambda *given: written.append(given))
    with pytest.raises(EnvironmentProblem, match=r"it takes \d+ MiB, 1 MiB are free") as error:
        trainer.save()
    assert "ptm-plus resume" in error.value.hint
    assert written == []
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000000001"]


def test_milestones_and_the_best_stay(tmp_path):
    sets = ["train.keep=1", "train.keep_every=4", "train.keep_best=2", "train.steps=99"]
    trainer = trainer_of(tmp_path, sets=sets)
    for step, score in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 5.0), (5, 2.5), (6, None), (7, 9.0)):
        train_to(trainer, step)
        trainer.progress.score = score
        save(trainer)
    kept = [int(path.name[-9:]) for path in checkpoints(tmp_path)]
    assert kept == [2, 3, 4, 7]  # the two best, the milestone, the newest
    assert not list(tmp_path.glob("checkpoints/.*"))


def test_the_best_step_is_saved_when_it_is_measured(tmp_path):
    sets = ["train.keep_best=1", "train.keep=1", "train.evaluate_every=2", "train.lr=0.01"]
    sets += ["train.steps=7", "train.checkpoint_every=100"]
    trainer = trainer_of(tmp_path, sets=sets)
    trainer.fit()
    assert [int(path.name[-9:]) for path in checkpoints(tmp_path)] == [6, 7]
    best = read_state(checkpoints(tmp_path)[0]).progress
    assert best["score"] == best["best"] == trainer.progress.best


def test_a_damaged_checkpoint_further_on_costs_no_new_one(tmp_path):
    saved(tmp_path, 1, 3, sets=["train.keep=2"])
    flip(tmp_path / "checkpoints" / "step-000000003" / "parts.safetensors")
    trainer = trainer_of(tmp_path, sets=["train.keep=1"])
    trainer.resume()
    save(train_to(trainer, 2))
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000000002"]
    assert damage(checkpoints(tmp_path)[0]) == ""


class Growing(Counting):
    """A plugin whose state goes on changing while it is written."""

    name = "growing"

    def __init__(self):
        self.seen = []

    @hookimpl
    def ptm_event(self, event):
        if event.kind == "after_step":
            self.seen.append(event.step)

    def state_dict(self):
        return {"seen": self.seen, "turned": torch.arange(6.0).reshape(2, 3).T}

    def load_state_dict(self, state):
        self.seen = state["seen"]
        assert state["turned"].shape == (3, 2)


def test_state_is_that_of_the_step_however_late_it_is_written(tmp_path, monkeypatch):
    gate, growing = threading.Event(), Growing()
    real = module.save_file
    monkeypatch.setattr(module, "save_file", lambda *given: gate.wait(30) and real(*given))
    with home_made(monkeypatch, growing) as names:
        trainer = trainer_of(tmp_path, names)
        for number in range(2):
            trainer.step(trainer.run.planner.plan(number))
            trainer._tell("after_step")
        trainer.log()
        first = dict(trainer.progress.first)
        trainer.save()
        trainer.step(trainer.run.planner.plan(2))
        trainer._tell("after_step")
        trainer.progress.first["more"] = 1.0
        gate.set()
        trainer.writer.finish()
        later = trainer_of(tmp_path, names)
        later.resume()
    assert growing.seen == [1, 2]
    assert later.progress.first == first


class Unwritable(Counting):
    name = "unwritable"

    def state_dict(self):
        return {"when": object()}


def test_state_that_cannot_be_saved_names_its_plugin(tmp_path, monkeypatch):
    with home_made(monkeypatch, Unwritable()) as names:
        trainer = trainer_of(tmp_path, names)
    with pytest.raises(PluginError, match=r"plugin 'unwritable' .* its state cannot be saved"):
        trainer.save()


def test_a_plugin_that_saved_nothing_is_told_nothing(tmp_path, monkeypatch):
    saved(tmp_path, 1)
    with home_made(monkeypatch, Counting()) as names:
        trainer = trainer_of(tmp_path, names)
        trainer.resume(allow_changes=True, verify=8)
    assert trainer.progress.step == 1


def test_fewer_rows_in_the_settings_win_over_what_memory_allowed(tmp_path):
    trainer = train_to(trainer_of(tmp_path), 1)
    trainer.progress.micro_rows = 4
    save(trainer)
    again = trainer_of(tmp_path, sets=["batch.micro_rows=2"])
    again.resume()
    plan = again.run.planner.plan(1)
    rows = again.reader.step_rows(plan)
    batches = again.stepper.batches(rows, plan, again.progress.micro_rows)
    assert max(len(one.rows) for one in batches) == 2

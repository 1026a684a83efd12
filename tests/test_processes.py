"""Several processes: one run whatever their number, disagreement and loss told, sharding."""

from __future__ import annotations

import json
import signal
import sys
import time

import numpy as np
import pytest
import torch
from many import HEAD, TAIL, ends, run_program, start
from safetensors.torch import load_file
from tiny import BOTH, Recorder, tiny_run

from ptm_plus.evaluation import evaluate
from ptm_plus.probes import Difference
from ptm_plus.processes import World, launcher_note, make_accelerator
from ptm_plus.train import Trainer

pytestmark = [pytest.mark.kg_fusion, pytest.mark.tlm]

TRAIN = """
import json, os
from pathlib import Path
from safetensors.torch import load_file
from tiny import BOTH, Recorder, tiny_run
from ptm_plus.processes import make_accelerator
from ptm_plus.train import Trainer

def trained(output, until, resume, **values):
    run = tiny_run("bert", BOTH, output=Path(output), **values)
    watch = Recorder()
    trainer = Trainer(run, watch, make_accelerator("fp32", "cpu"))
    if resume:
        trainer.resume(verify=2)
    while trainer.progress.step < until:
        trainer.step(run.planner.plan(trainer.progress.step))
        trainer.log()
    trainer.save()
    trainer.writer.finish()
    trainer.world.wait()
    return trainer, watch
"""
STAGE = (
    TRAIN
    + """
trainer, watch = trained({output!r}, {until}, {resume}, **{values!r})
steps = [values for kind, values in watch.seen if kind == "step"]
if trainer.world.is_main:
    Path({output!r}, "steps-{until}.json").write_text(json.dumps([steps, watch.notes]))
"""
)


def stages(output, sizes, **values):
    """Train two steps with each number of processes in turn; return the logged steps and notes."""
    steps, notes = [], []
    for place, size in enumerate(sizes):
        until = 2 * place + 2
        given = {"output": str(output), "until": until, "resume": place > 0, "values": values}
        run_program(STAGE.format(**given), size)
        more, told = json.loads((output / f"steps-{until}.json").read_text())
        steps += more
        notes += told
    return steps, notes


@pytest.mark.parametrize(
    ("parallel", "sizes"), [("ddp", (1, 2, 4, 1)), ("fsdp", (2, 4, 1))], ids=["ddp", "fsdp"]
)
def test_another_number_of_processes_sees_the_same_data(tmp_path, parallel, sizes):
    """Across restarts, against one process throughout; losses are equal but for rounding."""
    values = {"sets": ["train.steps=8", "batch.micro_rows=2", f"train.parallel={parallel}"]}
    changing, notes = stages(tmp_path / "changing", sizes, **values)
    run = tiny_run("bert", BOTH, output=tmp_path / "alone", **values)
    trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
    for step in range(2 * len(sizes)):
        trainer.step(run.planner.plan(step))
        trainer.log()
    alone = [figures for kind, figures in trainer.watch.seen if kind == "step"]
    assert [one["data"] for one in changing] == [one["data"] for one in alone]
    assert len({one["data"] for one in alone}) == 2 * len(sizes)
    for mine, theirs in zip(changing, alone, strict=True):
        assert mine["losses"] == pytest.approx(theirs["losses"], rel=1e-6)
        assert mine["metrics"] == pytest.approx(theirs["metrics"], rel=1e-6)
    assert "verified: the data of the next 2 steps are as recorded" in notes
    assert any("saved by 2 processes, resumed by 4" in note for note in notes)


SHARDED = (
    TRAIN
    + """
from torch.distributed.fsdp import FSDPModule
from ptm_plus.evaluation import evaluate
from ptm_plus.processes import is_sharded

trainer, watch = trained({output!r}, 2, False, **{values!r})
assert isinstance(trainer.stepper.root, FSDPModule), type(trainer.stepper.root)
assert trainer.stepper.root is trainer.run.root
named = list(trainer.run.encoder.named_parameters())
whole = [name for name, parameter in named if not is_sharded(parameter)]
assert whole == ["parts.kg-fusion/head.scale"], whole
own = sum(parameter.to_local().numel() for _, parameter in named if is_sharded(parameter))
figures = evaluate(trainer.run)
if trainer.world.is_main:
    share = own / sum(parameter.numel() for _, parameter in named)
    Path({output!r}, "figures.json").write_text(json.dumps([figures, share]))
"""
)


def test_a_sharded_model_is_evaluated_as_a_whole_one(tmp_path):
    run = tiny_run("bert", BOTH, output=tmp_path)
    trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
    for step in range(2):
        trainer.step(run.planner.plan(step))
    expected = evaluate(run)
    values = {"train.parallel": "fsdp"}
    run_program(SHARDED.format(output=str(tmp_path), values=values), 2)
    figures, share = json.loads((tmp_path / "figures.json").read_text())
    assert 0.45 < share < 0.55
    assert figures.keys() == expected.keys()
    assert figures["held_out"] == pytest.approx(expected["held_out"], rel=1e-9)
    assert len(expected["held_out"]) > 4


def test_a_sharded_run_is_evaluated_saved_and_rolled_back(tmp_path):
    """A gradient that is not finite at step 5, after evaluations and checkpoints on the way."""
    run_program(
        TRAIN
        + f"""
sets = ["train.parallel=fsdp", "train.evaluate_every=2", "train.checkpoint_every=2"]
sets += ["train.keep_best=1", "guards.nonfinite=roll_back", "train.steps=6"]
run = tiny_run("bert", BOTH, output=Path({str(tmp_path)!r}), sets=sets)
watch = Recorder()
trainer = Trainer(run, watch, make_accelerator("fp32", "cpu"))
real = run.root.losses
def losses(batch, *others, **options):
    loss, sums, metrics = real(batch, *others, **options)
    rotten = run.step == 4 and not trainer.progress.rolled_back
    return (loss * float("nan") if rotten else loss), sums, metrics
run.root.losses = losses
trainer.fit()
assert trainer.progress.step == 6, trainer.progress
assert trainer.progress.rolled_back == 1
assert any("back to step 4" in note for note in watch.notes), watch.notes
from ptm_plus.processes import whole
for name, parameter in run.encoder.named_parameters():
    assert torch.isfinite(whole(parameter)).all(), name
""",
        2,
    )


def test_a_sharded_step_that_ends_with_a_stream_without_losses_is_complete(tmp_path):
    """The gradient of the stream before it is neither lost nor added to the next step's."""
    counted = """
def without_text(run):
    real = run.root.count
    run.root.count = lambda host: {} if host.view.stream == "text" else real(host)
    return run
"""
    run_program(
        TRAIN
        + counted
        + f"""
from ptm_plus.processes import whole
from safetensors.torch import save_file
sets = ["train.parallel=fsdp", "batch.micro_rows=2"]
run = without_text(tiny_run("bert", ("tlm",), output=Path({str(tmp_path)!r}), sets=sets))
trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
for step in range(3):
    trainer.step(run.planner.plan(step))
found = {{name: whole(parameter).clone() for name, parameter in run.encoder.named_parameters()}}
if trainer.world.is_main:
    save_file(found, Path({str(tmp_path)!r}, "found"))
""",
        2,
    )
    run = tiny_run("bert", ("tlm",), output=tmp_path)
    real = run.root.count
    run.root.count = lambda host: {} if host.view.stream == "text" else real(host)
    trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
    for step in range(3):
        trainer.step(run.planner.plan(step))
    found = load_file(tmp_path / "found")
    for name, parameter in run.encoder.named_parameters():
        torch.testing.assert_close(found[name], parameter.detach(), rtol=1e-9, atol=1e-11)


# ---------------------------------------------------------------------------------------------
# Messages, disagreement, loss


def test_messages_of_any_length_arrive_in_order():
    run_program(
        """
import os
from ptm_plus.processes import World, make_accelerator
world = World(make_accelerator("fp32", "cpu"))
found = world.gather({"rank": world.rank, "text": "ä" * (1000 * world.rank)})
assert found == [{"rank": n, "text": "ä" * (1000 * n)} for n in range(3)], found
assert world.sum(torch.tensor([1.0, float(world.rank)])).tolist() == [3.0, 3.0]
""",
        3,
    )


def test_one_process_needs_no_group():
    world = World(make_accelerator("fp32", "cpu"))
    assert (world.rank, world.size, world.is_main) == (0, 1, True)
    assert world.gather([1, "a"]) == [[1, "a"]]
    figures = {"a": np.float32(0.5), "b": torch.tensor(2), "c": Difference(0.5, 0.25, 3)}
    plain = {"a": 0.5, "b": 2, "c": {"mean": 0.5, "error": 0.25, "count": 3}}
    assert world.gather(figures) == [plain]
    assert world.sum(torch.ones(2)).tolist() == [1.0, 1.0]


def test_processes_that_differ_stop_at_once_and_say_in_what():
    run_program(
        """
import os
from tiny import tiny_run
from ptm_plus.errors import EnvironmentProblem
from ptm_plus.processes import make_accelerator
from ptm_plus.progress import Silent
from ptm_plus.train import Trainer

accelerator = make_accelerator("fp32", "cpu")
for plugins, values, said in (
    ((), {"sets": ["train.lr=0.02"]}, "process 1 has settings train.lr 0.02 for 0.0005"),
    ((), {"sets": ["prepare.max_length=48"]}, "process 1 has data halves "),
    (("tlm",), {}, "plugins tlm '0.1.0' for None"),
):
    run = tiny_run("bert", plugins, **values) if os.environ["RANK"] == "1" else tiny_run("bert")
    try:
        Trainer(run, Silent(), accelerator)
    except EnvironmentProblem as error:
        assert said in error.message, error.message
    else:
        raise AssertionError("nothing was noticed")
""",
        2,
    )


def training(program):
    """Start a program as two processes and return them once both train."""
    processes = start([[sys.executable, "-c", program]] * 2)
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    time.sleep(1)
    return processes


def test_when_a_process_is_killed_the_others_stop_within_a_minute_and_say_why(tmp_path):
    program = (
        HEAD
        + TRAIN
        + f"""
from ptm_plus.errors import EnvironmentProblem
run = tiny_run("bert", BOTH, output=Path({str(tmp_path)!r}), sets=["train.steps=100000"])
trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
print("ready", flush=True)
try:
    trainer.fit()
except EnvironmentProblem as error:
    print(error, flush=True)
    code = error.exit_code
"""
        + TAIL
        + "sys.exit(code)"
    )
    first, second = training(program)
    second.send_signal(signal.SIGKILL)
    began = time.monotonic()
    (end,) = ends([first], 90)
    second.communicate()
    assert time.monotonic() - began < 60
    assert end.code == 5, end.err[-2000:]
    assert "process 0 of 2: another process of this run has ended" in end.out
    assert "ptm-plus resume" in end.out


def test_a_stop_that_one_process_is_asked_for_is_a_stop_of_all(tmp_path):
    program = (
        HEAD
        + TRAIN
        + f"""
from ptm_plus.errors import StopRequested
sets = ["train.steps=100000", "train.log_every=1000"]
run = tiny_run("bert", output=Path({str(tmp_path)!r}), sets=sets)
trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
print("ready", flush=True)
try:
    trainer.fit()
except StopRequested as error:
    print(trainer.progress.step, flush=True)
    code = error.exit_code
"""
        + TAIL
        + "sys.exit(code)"
    )
    first, second = training(program)
    second.send_signal(signal.SIGUSR1)
    found = ends([first, second], 60)
    assert [one.code for one in found] == [75, 75], found
    assert found[0].out == found[1].out
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [
        f"step-{int(found[0].out):09d}"
    ]


def test_a_guard_hears_the_same_in_all_processes_and_stops_them_all(tmp_path):
    program = (
        HEAD
        + TRAIN
        + f"""
from pytest import MonkeyPatch
from ptm_plus import GuardStop, Probe, hookimpl
from tiny import home_made

class Guard:
    name = "guard"
    @hookimpl
    def ptm_probes(self, context):
        return [Probe(name="guard", run=lambda context: {{"rank": int(os.environ["RANK"])}})]
    @hookimpl
    def ptm_event(self, event):
        if event.kind == "evaluated" and event.figures["guard"]["rank"] == 0:
            raise GuardStop("rank 0 says so")

sets = ["train.steps=4", "train.evaluate_every=2", "train.checkpoint_every=9"]
with home_made(MonkeyPatch(), Guard()) as names:
    run = tiny_run("bert", names, output=Path({str(tmp_path)!r}), sets=sets)
    trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
    try:
        trainer.fit()
    except GuardStop as error:
        print(trainer.progress.step, error, flush=True)
"""
        + TAIL
    )
    found = ends(start([[sys.executable, "-c", program]] * 2), 90)
    assert [(one.code, one.out.strip()) for one in found] == [(0, "2 rank 0 says so")] * 2, found
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000002"]


def test_memory_that_runs_out_in_one_process_halves_the_micro_batches_of_all(tmp_path):
    """The gradient of the step is the same as with enough memory."""
    values = {"sets": ["batch.rows=8", "batch.micro_rows=4"], "plugin": {}}
    run_program(
        TRAIN
        + f"""
def weights(limit):
    run = tiny_run("bert", BOTH, output=Path({str(tmp_path)!r}), **{values!r})
    trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
    real = run.root.losses
    def losses(batch, *others, **options):
        rows = 0 if batch is None else len(batch)
        if limit and trainer.world.rank == 1 and rows > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(batch, *others, **options)
    run.root.losses = losses
    for step in range(2):
        trainer.step(run.planner.plan(step))
    return trainer, {{n: p.detach().clone() for n, p in run.encoder.named_parameters()}}

short, found = weights(100)
enough, expected = weights(0)
assert short.progress.micro_rows in (1, 2), short.progress.micro_rows
assert enough.progress.micro_rows == 0
assert any("out of memory at step 0" in note for note in short.watch.notes)
for name, value in expected.items():
    assert torch.allclose(found[name], value, rtol=1e-9, atol=1e-12), name
""",
        2,
    )


def test_a_launcher_that_started_too_few_processes_is_told_of(monkeypatch):
    import psutil

    class Parent:
        def __init__(self, pid):
            pass

        def cmdline(self):
            return ["python", "accelerate", "launch", "--num_processes", "4", "-m", "ptm_plus"]

    monkeypatch.setattr(psutil, "Process", Parent)
    world = World(make_accelerator("fp32", "cpu"))
    assert launcher_note(world) == ""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert "asked for 4 processes, but this run has one" in launcher_note(world)
    assert "torchrun --nproc_per_node 4" in launcher_note(world)

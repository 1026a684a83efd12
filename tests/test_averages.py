"""Moving averages of weights, passes on them and on given vectors, and what a step keeps."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from many import run_program
from tiny import FAMILIES, Recorder, home_made, perturb, step_gradients, tiny_run
from torch import nn

from ptm_plus import (
    Event,
    MovingAverage,
    Objective,
    Outcome,
    Part,
    PluginError,
    Tap,
    hookimpl,
)
from ptm_plus.evaluation import evaluate
from ptm_plus.initialisation import start_from
from ptm_plus.microbatch import to_device
from ptm_plus.processes import make_accelerator
from ptm_plus.selfcheck import self_check
from ptm_plus.step import Passes
from ptm_plus.train import Trainer

TEXT = {"data.pairs": []}


def rising(step: int) -> float:
    return (1 + step) / (10 + step)


@dataclass
class Slow:
    """A head on the last states, read through a tap; its target is the slow weights' own."""

    name: str = "slow"
    of: tuple[str, ...] = ("backbone", "parts.slow/head")
    average: str = "behind"
    events: list[Event] = field(default_factory=list)

    @hookimpl
    def ptm_parts(self, context: Any) -> list[Any]:
        width = context.model_config.hidden_size
        return [
            Part(name="head", build=lambda: nn.Linear(width, 4), taps=self.taps),
            MovingAverage(name=self.average, momentum=rising, of=self.of),
        ]

    def taps(self, head: nn.Module) -> list[Tap]:
        def read(context: Any, block: int, states: torch.Tensor) -> None:
            context.states["seen", 0] = head(states[context.batch.offsets[:-1]])

        return [Tap(site="block_out", blocks=(-1,), run=read)]

    @hookimpl
    def ptm_objectives(self, context: Any) -> list[Objective]:
        return [Objective(name="slow", count=self.count, compute=self.loss, streams=("text",))]

    def count(self, columns: Any) -> float:
        return float(len(columns["predicted"]))

    def loss(self, batch: Any, encode: Any, parts: Any) -> Outcome:
        own = encode(batch).left["slow"]["seen", 0]
        target = encode(batch, weights=self.average).left["slow"]["seen", 0]
        first = batch.ids[batch.offsets[:-1] + 1]
        return Outcome((own - target - 1).square().sum(), kept={"seen": target, "first": first})

    @hookimpl
    def ptm_event(self, event: Event) -> None:
        self.events.append(event)


def trainer_of(run: Any) -> Trainer:
    return Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))


def batch_of(run: Any, stream: str = "text") -> Any:
    rows = run.reader().step_rows(run.planner.plan(0))[stream]
    return to_device(run.collator.batch(rows, rows, 0.3), run.device, torch.float64)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_average_follows_by_its_formula(family, monkeypatch):
    with home_made(monkeypatch, Slow()) as names:
        run = tiny_run(family, names, **TEXT)
        trainer = trainer_of(run)
    average = run.encoder.averages["slow/behind"]
    expected = {name: value.clone() for name, value in average.named().items()}
    known = dict(run.encoder.named_parameters())
    assert expected.keys() == known.keys()  # tied ones once
    assert all(torch.equal(expected[name], known[name]) for name in known)
    for step in range(3):
        trainer.step(run.planner.plan(step))
        m = rising(step)
        expected = {n: m * value + (1 - m) * known[n].detach() for n, value in expected.items()}
    for name, value in average.named().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-14)
        moved = known[name].detach() - value
        assert bool(moved.abs().max() > 0) or name.endswith("token_type_embeddings.weight")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_on_the_average_is_a_pass_of_a_model_with_its_weights(family, monkeypatch):
    with home_made(monkeypatch, Slow()) as names:
        run = tiny_run(family, names, **TEXT)
        other = tiny_run(family, names, **TEXT)
    perturb(run)
    perturb(other, seed=2)
    for own, theirs in zip(
        run.encoder.averages["slow/behind"].named().values(),
        other.encoder.parameters(),
        strict=True,
    ):
        own.copy_(theirs.detach())
    batch = batch_of(run)
    before = {name: value.clone() for name, value in run.encoder.state_dict().items()}
    encode = Passes(run.encoder, "slow")
    found = encode(batch, weights="behind")
    expected = other.encoder.encode(batch)
    assert torch.equal(found.top, expected.top)
    assert torch.equal(found.left["slow"]["seen", 0], expected.left["slow"]["seen", 0])
    hidden = found.top[batch.predicted]
    assert torch.equal(found.logits(hidden), expected.logits(hidden))
    assert torch.equal(found.project(hidden), expected.project(hidden))
    assert not found.top.requires_grad
    assert not found.logits(hidden).requires_grad
    assert encode(batch, weights="behind") is found
    assert encode(batch) is not found
    assert not torch.allclose(encode(batch).top, found.top)
    for name, value in run.encoder.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_pass_without_gradient_takes_none_from_others_under_autocast(monkeypatch):
    """Autocast keeps lower-precision copies of weights, with or without their gradient."""
    with home_made(monkeypatch, Slow(of=("backbone",))) as names:
        run = tiny_run("bert", names, **TEXT, **{"train.precision": "fp32"})
    rows = run.reader().step_rows(run.planner.plan(0))["text"]
    batch = to_device(run.collator.batch(rows, rows, 0.3), run.device)
    encode = Passes(run.encoder, "slow")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encode(batch, weights="behind")
        encode(batch).left["slow"]["seen", 0].square().sum().backward()
        assert torch.is_autocast_cache_enabled()
    assert bool(run.encoder.parts_of("slow")["head"].weight.grad.abs().sum() > 0)


def test_an_update_that_is_left_out_moves_no_average(monkeypatch):
    with home_made(monkeypatch, Slow()) as names:
        run = tiny_run("bert", names, **TEXT)
    perturb(run)
    average = run.encoder.averages["slow/behind"]
    before = {name: value.clone() for name, value in average.named().items()}
    average.follow(run.encoder, 0, torch.ones(()))
    assert all(torch.equal(value, before[name]) for name, value in average.named().items())
    average.follow(run.encoder, 0, torch.zeros(()))
    assert not all(torch.equal(value, before[name]) for name, value in average.named().items())


def test_an_average_rests_in_the_stages_of_others(monkeypatch):
    stages = '[{name="own", plugins=["core", "slow"]}, {name="others", plugins=["core"]}]'
    with home_made(monkeypatch, Slow()) as names:
        run = tiny_run("bert", names, sets=[f"train.stages={stages}"], **TEXT)
        trainer = trainer_of(run)
    average, seen = run.encoder.averages["slow/behind"], []
    for step in range(6):
        trainer.step(run.planner.plan(step))
        seen.append({name: value.clone() for name, value in average.named().items()})
    moves = [any(not torch.equal(a[n], b[n]) for n in a) for a, b in pairwise(seen)]
    assert moves == [True, True, False, False, False]


@pytest.mark.parametrize("family", FAMILIES)
def test_given_vectors_stand_for_the_words(family):
    run = tiny_run(family, ("tlm",), plugin={"tlm": {"language_embeddings": True}})
    perturb(run)
    encode = Passes(run.encoder, "any")
    for stream in ("text", "pairs"):
        batch = batch_of(run, stream)
        words = encode.words(batch.ids).detach().requires_grad_()
        given = encode(batch, vectors=words)
        torch.testing.assert_close(given.top, encode(batch).top)  # what others add is added
        assert encode(batch, vectors=words) is not given
        torch.testing.assert_close(encode(batch, vectors=words).top, given.top)
        given.top.square().sum().backward()
        assert bool((words.grad.abs().sum(1) > 0).all())
        moved = encode(batch, vectors=words.detach().flip(0))
        assert not torch.allclose(moved.top, given.top)


def test_a_step_brings_back_what_was_kept_once_whatever_its_split(monkeypatch):
    seen = []
    for micro in (8, 2):
        slow = Slow()
        with home_made(monkeypatch, slow) as names:
            run = tiny_run("bert", names, sets=[f"batch.micro_rows={micro}"], **TEXT)
            self_check(run)
            evaluate(run)
            trainer = trainer_of(run)
            trainer.fit()
        steps = [event for event in slow.events if event.kind == "after_step"]
        assert len(steps) == 6
        assert all(not e.kept for e in slow.events if e.kind != "after_step")
        rows = run.reader().step_rows(run.planner.plan(0))["text"]
        assert len(steps[0].kept["text/slow"]["seen"]) == sum(len(row.numbers) for row in rows)
        seen.append([event.kept["text/slow"] for event in steps])
    for one, other in zip(*seen, strict=True):
        order, theirs = (kept["seen"][:, 0].argsort() for kept in (one, other))
        torch.testing.assert_close(one["seen"][order], other["seen"][theirs])
        assert sorted(one["first"].tolist()) == sorted(other["first"].tolist())
        assert not one["seen"].requires_grad


def test_averages_are_saved_and_a_resumed_run_is_the_unbroken_one(tmp_path, monkeypatch):
    with home_made(monkeypatch, Slow()) as names:
        whole = trainer_of(tiny_run("bert", names, output=tmp_path / "a", **TEXT))
        whole.fit()
        run = tiny_run("bert", names, output=tmp_path / "b", **TEXT)
        first = trainer_of(run)
        for step in range(3):
            first.step(run.planner.plan(step))
        first.save()
        first.writer.finish()
        again = trainer_of(tiny_run("bert", names, output=tmp_path / "b", **TEXT))
        again.resume()
        again.fit()
    expected = whole.run.encoder.state_dict()
    assert [name for name in expected if "behind" in name]
    for name, value in again.run.encoder.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_a_run_that_starts_from_another_s_weights_averages_from_there(tmp_path, monkeypatch):
    source = tiny_run("bert", (), output=tmp_path / "a", sets=["train.steps=20"], **TEXT)
    trainer_of(source).fit()
    with home_made(monkeypatch, Slow()) as names:
        run = tiny_run("bert", names, output=tmp_path / "b", **TEXT)
        start_from(run, tmp_path / "a", Recorder())
    known = source.encoder.backbone.state_dict()
    for name, value in run.encoder.averages["slow/behind"].named().items():
        if name.startswith("backbone."):
            assert torch.equal(value, known[name.removeprefix("backbone.")])


def test_a_path_that_leads_nowhere_and_a_name_twice_are_refused(monkeypatch):
    for slow, message in (
        (Slow(of=("backbones",)), "'behind' follows 'backbones', which the model does not have"),
        (Slow(average="head"), "slow/head: a part and a moving average"),
    ):
        with home_made(monkeypatch, slow) as names, pytest.raises(PluginError, match=message):
            tiny_run("bert", names, **TEXT)


def test_gradients_do_not_depend_on_the_split(monkeypatch):
    found = []
    for micro in (8, 2):
        with home_made(monkeypatch, Slow()) as names:
            run = tiny_run("bert", names, sets=[f"batch.micro_rows={micro}"], **TEXT)
            perturb(run)
            found.append(step_gradients(run))
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-9, atol=1e-12)


PROGRAM = """
import json, os
import pytest
from test_averages import Slow, TEXT, trainer_of
from tiny import home_made, tiny_run
from ptm_plus import SettingsError

slow = Slow()
with home_made(pytest.MonkeyPatch(), slow) as names:
    run = tiny_run("bert", names, output={output!r}, **TEXT)
    trainer_of(run).fit()
    sharded = tiny_run("bert", names, **TEXT, **{{"train.parallel": "fsdp"}})
    if "RANK" in os.environ:
        with pytest.raises(SettingsError, match="moving average"):
            trainer_of(sharded)
kept = [e.kept["text/slow"] for e in slow.events if e.kind == "after_step"]
values = run.encoder.averages["slow/behind"].named().values()
sums = [float(value.double().sum()) for value in values]
sums += [float(one["seen"].double().sum()) for one in kept]
print("SUMS", json.dumps([*sums, *(len(one["first"]) for one in kept)]))
"""


def test_two_processes_keep_what_one_keeps(tmp_path):
    alone, first, second = (
        json.loads(ended.out.partition("SUMS")[2].splitlines()[0])
        for size in (1, 2)
        for ended in run_program(PROGRAM.format(output=str(tmp_path / str(size))), size)
    )
    assert first == second
    assert first == pytest.approx(alone, rel=1e-8, abs=1e-10)

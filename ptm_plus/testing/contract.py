"""Checks of what a plugin says of itself: imports, settings, hooks, needs, claims."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import tomli_w
import torch
from pydantic import BaseModel

from ptm_plus.ablation.arms import placebos_of
from ptm_plus.components import Claim, Objective
from ptm_plus.compose import Contribution
from ptm_plus.discovery import discover, find, load_object
from ptm_plus.errors import PluginError, PtmPlusError
from ptm_plus.launch import launch
from ptm_plus.microbatch import MicroBatch, to_device
from ptm_plus.selfcheck import self_check
from ptm_plus.step import Passes
from ptm_plus.testing.failing import NotApplicable, expect, several
from ptm_plus.testing.subject import Recorder, Subject, train, trainer_of, weights
from ptm_plus.train import Trainer

_HEAVY = ("torch", "transformers", "tensorflow", "jax", "pykeen", "sklearn", "pandas")
INPUTS = ("text", "pairs", "graph", "labels", "vectors")


def light_import(subject: Subject) -> None:
    """The module of its PluginInfo imports nothing heavy: listing plugins stays quick."""
    if subject.is_file:
        raise NotApplicable("a plugin in a file is imported only when it is asked for")
    code = (
        f"import importlib, json, sys; importlib.import_module({subject.module!r}); "
        f"print(json.dumps([name for name in {_HEAVY!r} if name in sys.modules]))"
    )
    heavy = json.loads(output_of(code))
    expect(
        not heavy,
        f"importing {subject.module} imports {several(heavy)}: name hooks and settings by text in "
        'its PluginInfo ("module:Class"), and import the rest there',
    )


def settings(subject: Subject) -> None:
    """Its settings have defaults, survive being written as TOML, and describe every key."""
    model = _settings_model(subject)
    given = dict(subject.tables.get(subject.instance, {}))
    missing = [n for n, one in model.model_fields.items() if one.is_required() and n not in given]
    if missing:
        raise AssertionError(
            f"no default and no value: {several(missing)}; give the kit one "
            f"(--set plugin.{subject.instance}.{missing[0]}=…, or settings={{…}})"
        )
    default = model(**given)
    tree = tomllib.loads(tomli_w.dumps(default.model_dump(mode="json", exclude_none=True)))
    expect(model.model_validate(tree) == default, "settings written as TOML are read as others")
    silent = [name for name, one in model.model_fields.items() if not one.description]
    silent = [name for name in silent if not _is_section(model, name)]
    expect(not silent, f"keys without a description: {several(silent)}")


def hooks(subject: Subject) -> None:
    """Its hooks are marked, known, and return what they may; a run with it passes the self-check.

    The self-check compares packed rows with each sequence alone, and parts with their declarations.
    """
    self_check(subject.run())


def two_instances(subject: Subject) -> None:
    """Two instances of it live in one run: what it names is named by its instance."""
    names = [f"{subject.request}:one", f"{subject.request}:two"]
    given = subject.tables.get(subject.instance, {})
    tables = {f"{subject.instance}:{one}": dict(given) for one in ("one", "two")}
    subject.run(names, {"plugin": tables})


def needs(subject: Subject) -> None:
    """It runs without every input that it does not declare, and is refused without one it does."""
    declared = {one for one in subject.info.needs if one in INPUTS}
    for kind in INPUTS:
        refused = _refusal(partial(subject.run, without=kind))
        if kind in declared:
            words = f"needs {kind!r}, but a run without it is composed all the same"
            expect(refused is not None, words)
        elif refused is not None:
            raise AssertionError(
                f"a run without {kind} fails ({refused}), and the PluginInfo does not name it: "
                f'add needs=("{kind}",), or do without'
            )


def claims(subject: Subject) -> None:
    """It claims the backbone as it uses it: shared where it trains it, kept where it may not."""
    info = subject.info
    run = subject.run()
    keeps = Claim(resource="backbone", mode="keep") in info.claims
    shares = any(one.resource == "backbone" and one.mode in ("share", "own") for one in info.claims)
    backbone = set(run.encoder.backbone.parameters())
    trainer = trainer_of(run, Recorder())
    if keeps:
        stage = next(one for one in run.stages if subject.instance in one.instances)
        train(trainer, stage.first)
        before = weights(run)
        train(trainer, stage.first + stage.steps)
        moved = [
            name
            for name, p in run.encoder.named_parameters()
            if p in backbone and not p.detach().equal(before[name])
        ]
        expect(not moved, f"keeps the backbone, and changes {several(moved)}")
        return
    trained = _trains_backbone(subject, trainer)
    expect(
        shares or not trained,
        'trains the backbone without claiming it: add claims=(Claim(resource="backbone"),)',
    )


def placebos(subject: Subject) -> None:
    """Each of its placebos is a run of its own that can be launched, with the plugin in it."""
    settings = subject.settings()
    found = placebos_of(settings, Recorder())[subject.instance]
    if not found:
        raise NotApplicable("it has no placebo")
    for one in found:
        changed = one.change(settings, subject.scratch / one.name, 0)
        expect(changed != settings, f"placebo {one.name!r} changes nothing")
        expect(changed.plugins == settings.plugins, f"placebo {one.name!r} takes the plugin away")
        expect(changed.train == settings.train, f"placebo {one.name!r} trains in another way")
        launch(changed, Recorder())


def _trains_backbone(subject: Subject, trainer: Trainer) -> bool:
    """Return whether one of the plugin's objectives reaches the backbone with a gradient."""
    run = trainer.run
    backbone = [p for p in run.encoder.backbone.parameters() if p.requires_grad]
    for owner, batch in own_batches(subject, trainer):
        passes = Passes(run.encoder, owner.instance)
        total = owner.component.compute(batch, passes, run.encoder.parts_of(owner.instance)).sum
        if total.requires_grad:
            found = torch.autograd.grad(total, backbone, allow_unused=True)
            if any(one is not None and bool(one.any()) for one in found):
                return True
    return False


def own_batches(
    subject: Subject, trainer: Trainer
) -> Iterator[tuple[Contribution[Objective], MicroBatch]]:
    """Yield the plugin's objectives with micro-batches of a run's steps that they count in."""
    run = trainer.run
    for step in range(run.settings.train.steps):
        plan = run.planner.plan(step)
        for stream, rows in trainer.reader.step_rows(plan).items():
            host = run.collator.batch(rows, rows, plan.mask_rate)
            counts = run.root.count(host)
            for owner in run.objectives[stream]:
                if owner.instance == subject.instance and counts.get(
                    (stream, owner.component.name)
                ):
                    yield owner, to_device(host, run.device, run.float_dtype())


def _settings_model(subject: Subject) -> type[BaseModel]:
    info = subject.info
    if info.settings is None:
        raise NotApplicable("it has no settings")
    if isinstance(info.settings, str):
        found = find(subject.request, discover())
        model: type[BaseModel] = load_object(info.settings, found)
        return model
    return info.settings


def _is_section(model: type[BaseModel], name: str) -> bool:
    kind = model.model_fields[name].annotation
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _refusal(launch: Callable[[], Any]) -> str | None:
    """Return why a launch is refused, ``None`` where it is not; a crash is no refusal."""
    try:
        launch()
    except PluginError as error:
        if error.__cause__ is not None and not isinstance(error.__cause__, PtmPlusError):
            raise
        return error.message
    except PtmPlusError as error:
        return error.message
    return None


def output_of(code: str) -> str:
    """Run code in a process of its own, and return the last line that it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    expect(not done.returncode, f"a fresh process fails: {done.stderr.strip()[-800:]}")
    return done.stdout.strip().splitlines()[-1]

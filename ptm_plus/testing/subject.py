"""A plugin under test, and the small runs that are made with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ptm_plus.components import PluginInfo
from ptm_plus.discovery import Request, discover, find, read_file, read_info
from ptm_plus.launch import launch
from ptm_plus.plugins import load
from ptm_plus.processes import make_accelerator
from ptm_plus.progress import Silent
from ptm_plus.run import Run
from ptm_plus.settings import RunSettings
from ptm_plus.settings_files import resolve
from ptm_plus.stages import one_after_the_other
from ptm_plus.testing.world import SMALL, World
from ptm_plus.train import Trainer

STEPS = 4

NO_CHANGES: Mapping[str, Any] = MappingProxyType({})


class Recorder(Silent):
    """A watch that keeps notes and figures."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.seen: list[tuple[str, Mapping[str, Any]]] = []

    def note(self, text: str) -> None:
        """Keep a note."""
        self.notes.append(text)

    def figures(self, kind: str, values: Mapping[str, Any]) -> None:
        """Keep figures."""
        self.seen.append((kind, dict(values)))

    def losses(self) -> list[Mapping[str, float]]:
        """Return the losses of every logged step."""
        return [values["losses"] for kind, values in self.seen if kind == "step"]

    def digests(self) -> list[str]:
        """Return the digest of the data of every logged step."""
        return [values["data"] for kind, values in self.seen if kind == "step"]


@dataclass(frozen=True)
class Subject:
    """A plugin under test.

    Attributes:
        request: as after ``--plugin``, without an instance.
        world: the files that runs read.
        tables: settings by plugin instance.
        sets: further settings, as after ``--set``.
        scratch: folder for runs.
    """

    request: str
    world: World
    scratch: Path
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sets: Sequence[str] = ()
    _numbers: Iterator[int] = field(default_factory=count, repr=False)

    @property
    def is_file(self) -> bool:
        """Whether it is a Python file, and not installed."""
        return Request.parse(self.request).is_file

    @property
    def info(self) -> PluginInfo:
        """Its static data."""
        if self.is_file:
            return read_file(Path(self.request))[1]
        return read_info(find(self.request, discover()))

    @property
    def module(self) -> str:
        """The module of its static data, of an installed one."""
        return find(self.request, discover()).target.partition(":")[0]

    @property
    def files(self) -> Path:
        """Its file, or the folder of its package."""
        if self.is_file:
            return Path(self.request).resolve()
        home = Path(str(import_module(self.module).__file__))
        return home.parent if home.name == "__init__.py" else home

    @property
    def instance(self) -> str:
        """Its name in runs."""
        return self.info.name

    def settings(
        self,
        plugins: Sequence[str] | None = None,
        changes: Mapping[str, Any] = NO_CHANGES,
        *,
        without: str = "",
    ) -> RunSettings:
        """Return the settings of a small run in float64.

        Args:
            plugins: its plugins; the one under test by default.
            changes: other values, by dotted key.
            without: an input to leave out: ``text``, ``pairs``, ``graph``, ``labels``, ``vectors``.
        """
        world = self.world
        inputs: dict[str, Any] = {
            "data.text": [str(world.text), str(world.documents)],
            "data.pairs": [str(world.pairs)],
            "data.kg": [str(world.triples)],
            "data.labels": [str(world.labels)],
            "data.vectors": str(world.vectors),
        }
        left_out = {"graph": "data.kg"}.get(without, f"data.{without}")
        flags: dict[str, Any] = {
            "plugins": [self.request] if plugins is None else list(plugins),
            "model.config": dict(SMALL),
            "tokenizer.vocabulary": 320,
            **{name: value for name, value in inputs.items() if name != left_out},
            "data.held_out": 0.1,
            "data.duplicates": True,
            "prepare.workers": 1,
            "prepare.max_length": 64,
            "prepare.cache": str(world.cache),
            "batch.row_tokens": 96,
            "batch.rows": 8,
            "batch.micro_rows": 8,
            "batch.max_epochs": 1000.0,
            "masking.rate": 0.3,
            "train.steps": STEPS,
            "train.precision": "fp64",
            "train.log_every": 1,
            "train.checkpoint_every": 1000,
            "train.threads": 1,
            "evaluate.sequences": 32,
            "output": str(self.scratch / f"run-{next(self._numbers)}"),
            **changes,
        }
        settings = resolve(None, flags, self.sets).settings
        own = self.tables if self.request in settings.plugins else {}
        tables = {**own, **settings.plugin}
        settings = settings.model_copy(update={"plugin": tables})
        return self._staged(settings)

    def _staged(self, settings: RunSettings) -> RunSettings:
        """Let plugins that keep the backbone train after everybody else, as on the sample."""
        stages = settings.train.stages or one_after_the_other(
            load(settings.plugins, settings.plugin).instances
        )
        train = settings.train.model_copy(update={"stages": stages})
        return settings.model_copy(update={"train": train})

    def run(
        self,
        plugins: Sequence[str] | None = None,
        changes: Mapping[str, Any] = NO_CHANGES,
        *,
        without: str = "",
    ) -> Run:
        """Launch a small run; see :meth:`settings`."""
        return launch(self.settings(plugins, changes, without=without), Silent())

    def trained(self, steps: int = STEPS) -> tuple[Trainer, Recorder]:
        """Train a small run for some steps."""
        watch = Recorder()
        trainer = trainer_of(self.run(), watch)
        train(trainer, steps)
        return trainer, watch


def trainer_of(run: Run, watch: Recorder) -> Trainer:
    """Return a trainer on the CPU."""
    return Trainer(run, watch, make_accelerator("fp32", "cpu"))


def train(trainer: Trainer, until: int) -> None:
    """Train up to a step, as the loop of a run does; every one is logged."""
    trainer.start()
    while trainer.progress.step < until:
        trainer.step(trainer.run.planner.plan(trainer.progress.step))
        trainer.after_step()
    trainer.writer.finish()


def weights(run: Run) -> dict[str, torch.Tensor]:
    """Return a copy of all parameters, by name."""
    return {name: p.detach().clone() for name, p in run.encoder.named_parameters()}


def own_parameters(run: Run, instance: str) -> dict[str, torch.nn.Parameter]:
    """Return the parameters of an instance's parts, by name."""
    return {
        f"{name}.{key}": parameter
        for name, part in run.encoder.parts_of(instance).items()
        for key, parameter in part.named_parameters()
    }

"""Tiny worlds for tests of the model side: files, settings, runs; nothing is downloaded.

Sentences are made of a few words in two languages; every sentence mentions one or two places.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from ptm_plus import plugins
from ptm_plus.components import PluginInfo
from ptm_plus.launch import launch
from ptm_plus.plugins import LoadedPlugin, Plugins
from ptm_plus.processes import make_accelerator, whole
from ptm_plus.progress import Silent
from ptm_plus.run import Run
from ptm_plus.settings import RunSettings
from ptm_plus.settings_files import resolve
from ptm_plus.testing.subject import Recorder
from ptm_plus.testing.world import PLACES, SMALL, write_world
from ptm_plus.train import Trainer

__all__ = ["PLACES", "SMALL", "Recorder"]  # of the kit, for tests

torch.set_num_threads(1)  # the machine's cores are for other tests; equal sums need equal threads

FAMILIES = ("bert", "roberta", "xlm-roberta", "modernbert")
BOTH = ("kg-fusion", "tlm")
WINDOW = {"local_attention": 8, "global_attn_every_n_layers": 2}
"""ModernBERT's window sees 4 tokens to each side, so that it matters in short sequences."""


@lru_cache
def folder() -> Path:
    """Return a folder that all tests of a process share: inputs, and a cache of prepared data."""
    given = os.environ.get("TINY_WORLD")  # a process started by a test shares the test's
    if given:
        return Path(given)
    home = Path(tempfile.mkdtemp(prefix="tiny-world-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    write_world(home)
    return home


def tiny_settings(
    family: str = "bert",
    plugins: Sequence[str] = (),
    *,
    output: Path | None = None,
    sets: Sequence[str] = (),
    **values: Any,
) -> RunSettings:
    """Return the settings of a tiny run in float64; ``sets`` are as after ``--set``."""
    home = folder()
    knows = any(one.partition(":")[0] == "kg-fusion" for one in plugins)
    if knows and find_spec("pykeen") is None:
        pytest.skip("needs the extra kg-fusion")
    config = {**SMALL, **(WINDOW if family == "modernbert" else {})}
    flags = {
        "plugins": list(plugins),
        "model.family": family,
        "model.config": config,
        "tokenizer.vocabulary": 320,
        "data.text": [str(home / "text.jsonl")],
        "data.pairs": [str(home / "pairs.jsonl")],
        "data.kg": [str(home / "triples.tsv")] if knows else None,
        "data.vectors": str(home / "vectors.safetensors") if knows else None,
        "data.held_out": 0.1,
        "data.duplicates": True,
        "prepare.workers": 1,
        "prepare.max_length": 64,
        "prepare.cache": str(home / "cache"),
        "batch.row_tokens": 96,
        "batch.rows": 8,
        "batch.micro_rows": 8,
        "masking.rate": 0.3,
        "train.steps": 6,
        "train.precision": "fp64",
        "train.log_every": 1,
        "train.clip": 0.0,
        "output": str(output or home / "run"),
        **values,
    }
    return resolve(None, flags, sets).settings


def tiny_run(
    family: str = "bert", plugins: Sequence[str] = (), *, sets: Sequence[str] = (), **values: Any
) -> Run:
    """Launch a tiny run on the CPU."""
    return launch(tiny_settings(family, plugins, sets=sets, **values), Silent())


def perturb(run: Run, seed: int = 1, size: float = 0.1) -> None:
    """Move every part (and the backbone's biases) away from its start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (*run.encoder.parts.parameters(), *_vectors(run.encoder.backbone)):
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(size * noise)


def _vectors(module: torch.nn.Module) -> Iterator[torch.nn.Parameter]:
    return (parameter for parameter in module.parameters() if parameter.ndim == 1)


def step_gradients(run: Run) -> dict[str, torch.Tensor]:
    """Return the gradient of the first optimizer step, as the trainer computes it, by name."""
    trainer = Trainer(run, Silent(), make_accelerator("fp32", "cpu"))
    trainer.stepper.optimizer.step = trainer.stepper.optimizer.zero_grad = lambda *_, **__: None
    trainer.step(run.planner.plan(0))
    return {
        name: torch.zeros(p.shape, dtype=p.dtype) if p.grad is None else whole(p.grad).clone()
        for name, p in run.encoder.named_parameters()
    }


def relative_difference(
    found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> float:
    """Return the norm of the difference over the norm of what is expected."""
    assert found.keys() == expected.keys()
    apart = sum(float((found[name] - expected[name]).pow(2).sum()) for name in expected)
    return (apart / sum(float(value.pow(2).sum()) for value in expected.values())) ** 0.5


def info_of(hook: Any) -> PluginInfo:
    """Return the static data of a hook object with a ``name`` and, if it has any, ``claims``."""
    return PluginInfo(name=hook.name, hooks=type(hook), claims=getattr(hook, "claims", ()))


@contextmanager
def home_made(monkeypatch: Any, *hooks: Any) -> Iterator[tuple[str, ...]]:
    """Let runs load plugins made of hook objects; gives their names.

    Args:
        monkeypatch: pytest's.
        *hooks: objects with hook implementations and a ``name``.
    """
    real = plugins.load
    own = {hook.name: hook for hook in hooks}

    def loaded(requests: Sequence[str], tables: Mapping[str, Any]) -> Plugins:
        others = real([name for name in requests if name not in own], tables)
        made = [
            LoadedPlugin(info_of(hook), name, None, "test", "1", hook)
            for name, hook in own.items()
            if name in requests
        ]
        return Plugins([*others.instances, *made])

    with monkeypatch.context() as patch:
        for module in list(sys.modules.values()):  # wherever the launch got it from
            name = getattr(module, "__name__", "")  # some of what others put there has none
            if name.startswith("ptm_plus.") and getattr(module, "load", None) is real:
                patch.setattr(module, "load", loaded)
        yield tuple(own)

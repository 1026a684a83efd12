"""Checks of what a plugin does in training: finite, repeatable, exact, without leaving traces."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ptm_plus.components import Event, EventKind
from ptm_plus.data import HostBatch
from ptm_plus.digest import batch_digest
from ptm_plus.evaluation import evaluate
from ptm_plus.exporting.export import export
from ptm_plus.launch import launch
from ptm_plus.microbatch import to_device
from ptm_plus.progress import Silent
from ptm_plus.run import Run
from ptm_plus.run_folder import TOKENIZER, write_settings
from ptm_plus.settings_paths import anchored
from ptm_plus.testing.failing import NotApplicable, expect, several
from ptm_plus.testing.subject import (
    STEPS,
    Recorder,
    Subject,
    own_parameters,
    train,
    trainer_of,
    weights,
)
from ptm_plus.train import Trainer
from ptm_plus.trials import perturbed

_EXACT = 1e-9
"""What another order of sums in float64 may do, relative to the whole gradient."""

_WAITING = frozenset(
    {
        *("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__"),
        *("nonzero", "argwhere", "masked_select", "unique", "unique_consecutive"),
    }
)
"""What a GPU is waited for: numbers that are read off it, shapes that depend on values."""


def finite_steps(subject: Subject) -> None:
    """It trains: every loss is finite, and each of its objectives counts something."""
    trainer, watch = subject.trained()
    losses = watch.losses()
    bad = {name for one in losses for name, value in one.items() if not np.isfinite(value)}
    expect(not bad, f"losses that are not finite: {several(sorted(bad))}")
    alone = subject.run([]).planner.objective_weights
    own = set(trainer.run.planner.objective_weights) - set(alone)
    seen = {name.partition("/")[2] for one in losses for name in one}
    words = f"objectives that never count anything: {several(sorted(own - seen))}"
    expect(own <= seen, f"{words}; do they name their streams?")


def same_seed(subject: Subject) -> None:
    """The same seed gives the same data, losses and weights."""
    (one, first), (other, second) = subject.trained(), subject.trained()
    expect(first.digests() == second.digests(), "the same seed gives other rows, masks or columns")
    expect(first.losses() == second.losses(), "the same seed gives other losses")
    _expect_equal(weights(one.run), weights(other.run), "the same seed gives other weights")


def stateless_access(subject: Subject) -> None:
    """A micro-batch is the same whenever it is made, and making it touches no global generator."""
    run = subject.run()
    rows = run.reader().step_rows(run.planner.plan(0))
    before = _random_states()
    first, again = (
        [_content(run.collator.batch(of, of, 0.3)) for of in rows.values()] for _ in range(2)
    )
    expect(first == again, "the same rows give other masks or columns the second time")
    expect(
        _random_states() == before,
        "masks or columns draw from a global generator: draw by key (view.token_draws, draws)",
    )


def gradients(subject: Subject) -> None:
    """A gradient reaches every parameter of its parts that is to be trained."""
    run = subject.run()
    trainer = trainer_of(run, Recorder())
    own = own_parameters(run, subject.instance)
    if not own:
        raise NotApplicable("it has no parameters")
    reached: set[str] = set()
    trained: set[str] = set()
    for name, parameter in own.items():
        rests = not parameter.requires_grad
        parameter.requires_grad_(True).register_post_accumulate_grad_hook(
            partial(_note, reached, name)
        )
        parameter.requires_grad_(not rests)
    with perturbed(run.encoder.parts):  # parts that begin as nothing hide what is behind them
        for step in range(STEPS):
            train(trainer, step + 1)
            trained |= {name for name, p in own.items() if p.requires_grad}
    missed = sorted(trained - reached)
    expect(not missed, f"no gradient in {STEPS} steps: {several(missed)}")


def _note(reached: set[str], name: str, parameter: Tensor) -> None:
    if parameter.grad is not None and bool(parameter.grad.any()):
        reached.add(name)


def split(subject: Subject) -> None:
    """A step's gradient does not depend on how it is split into micro-batches."""
    runs = (subject.run(changes={"batch.micro_rows": size}) for size in (8, 2))
    whole, parts = map(_step_gradient, runs)
    _expect_close(parts, whole, "the gradient depends on the size of the micro-batches")


def resume(subject: Subject) -> None:
    """A run that is broken off and resumed ends as one that never was."""
    whole, watch = subject.trained()
    settings = subject.settings()
    first = trainer_of(launch(settings, Silent()), Recorder())
    train(first, STEPS // 2)
    first.save()
    first.writer.finish()
    told = Recorder()
    second = trainer_of(launch(settings, Silent()), told)
    second.resume()
    train(second, STEPS)
    expect(
        told.losses() == watch.losses()[STEPS // 2 :],
        "losses after resuming are others: what your object remembers needs state_dict and "
        "load_state_dict",
    )
    _expect_equal(weights(second.run), weights(whole.run), "weights after resuming are others")


def exported(subject: Subject) -> None:
    """What it exports is loaded by plain transformers, with the same logits."""
    settings = subject.settings()
    write_settings(anchored(settings))
    trainer = trainer_of(launch(settings, Silent()), Recorder())
    trainer.run.prepared.tokenizer.save_pretrained(settings.output / TOKENIZER)
    train(trainer, STEPS)
    trainer.save()
    trainer.writer.finish()
    target = settings.output.with_name(f"{settings.output.name}-exported")
    export(settings.output, target, verify=True, allow_code=True)


def events(subject: Subject) -> None:
    """Hearing an event changes no parameter and no buffer."""
    trainer, _ = subject.trained(steps=1)
    run = trainer.run
    before = {name: value.clone() for name, value in run.encoder.state_dict().items()}
    evaluated = evaluate(run)
    kinds: tuple[EventKind, ...] = get_args(EventKind)
    for kind in kinds:
        figures = evaluated if kind == "evaluated" else {}
        run.plugins.event(Event(kind, 1, figures), run.prepared.context)
        for name, value in run.encoder.state_dict().items():
            expect(value.equal(before[name]), f"at {kind} it changes {name}")


def no_waiting(subject: Subject) -> None:
    """What runs on the device reads no number off it, and no shape depends on its values."""
    trainer = trainer_of(subject.run(), Recorder())
    watch = _Waiting(subject.files)
    with watch:
        for host in _batches(trainer):
            _loss(trainer.run, host)
    found = [f"{what} in {place}" for what, place in sorted(watch.seen)]
    expect(not found, f"on a GPU, a step would wait for the device: {several(found)}")


class _Waiting(TorchFunctionMode):
    """Notes what would wait for a GPU, where it is called from a plugin's own files.

    Args:
        files: the plugin's file, or the folder of its package.
    """

    def __init__(self, files: Path) -> None:
        super().__init__()
        self._files = files
        self.seen: set[tuple[str, str]] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Note a call, and make it."""
        name = getattr(func, "__name__", "")
        chosen = name == "__getitem__" and _by_mask(args[1])
        if name in _WAITING or chosen or (name == "where" and len(args) == 1):
            place = self._caller()
            if place:
                self.seen.add(("a boolean index" if chosen else f"{name}()", place))
        return func(*args, **(kwargs or {}))

    def _caller(self) -> str:
        """Return file and line of the innermost caller outside of torch, if it is the plugin's."""
        frame = sys._getframe(2)
        torch_home = str(Path(torch.__file__).parent)
        while frame.f_back is not None and frame.f_code.co_filename.startswith(torch_home):
            frame = frame.f_back
        path = Path(frame.f_code.co_filename)
        mine = path == self._files or self._files in path.parents
        return f"{path.name}:{frame.f_lineno}" if mine else ""


def _by_mask(index: object) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(one, Tensor) and one.dtype == torch.bool for one in parts)


# ---------------------------------------------------------------------------------------------
# Batches and losses


def _content(host: HostBatch) -> tuple[int, dict[str, bytes]]:
    """Return what is in a micro-batch: digest of rows and masks, and all columns."""
    return batch_digest(host), {name: one.tobytes() for name, one in host.columns.items()}


def _batches(trainer: Trainer) -> Iterator[HostBatch]:
    """Yield the micro-batches of a run's steps, of all streams."""
    run = trainer.run
    for step in range(run.settings.train.steps):
        plan = run.planner.plan(step)
        for rows in trainer.reader.step_rows(plan).values():
            yield run.collator.batch(rows, rows, plan.mask_rate)


def _loss(run: Run, host: HostBatch) -> Tensor:
    """Return the loss of a micro-batch, of all objectives together."""
    batch = to_device(host, run.device, run.float_dtype())
    loss: Tensor = run.root.losses(batch, run.root.count(host), run.planner.objective_weights)[0]
    return loss


# ---------------------------------------------------------------------------------------------
# Comparing


def _step_gradient(run: Run) -> dict[str, Tensor]:
    """Return the gradient of a run's first step, by name."""
    trainer = trainer_of(run, Recorder())
    with perturbed(run.encoder.parts):
        trainer.start()
        optimizer = trainer.stepper.optimizer
        optimizer.step = optimizer.zero_grad = lambda *_, **__: None
        trainer.step(run.planner.plan(0))
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for name, p in run.encoder.named_parameters()
        }


def _expect_close(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], words: str) -> None:
    whole = sum(float(one.pow(2).sum()) for one in wanted.values()) ** 0.5
    apart = {
        name: float((found[name] - one).norm()) / max(whole, 1e-30) for name, one in wanted.items()
    }
    far = sorted((name for name, size in apart.items() if size > _EXACT), key=lambda n: -apart[n])
    expect(not far, f"{words}: {several([f'{n} by {apart[n]:.1e}' for n in far])}; return sums")


def _expect_equal(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], words: str) -> None:
    others = [name for name, one in wanted.items() if not found[name].equal(one)]
    expect(not others, f"{words}: {several(others)}")


def _random_states() -> tuple[Any, ...]:
    """Return the states of the global generators, to be compared."""
    numpy = str(np.random.get_state(legacy=False))
    return random.getstate(), numpy, tuple(torch.get_rng_state().tolist())

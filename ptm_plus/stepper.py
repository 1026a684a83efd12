"""One optimizer step: micro-batches forward and backward, one update; nothing is read back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ptm_plus.components import ParameterRule
from ptm_plus.data import Row
from ptm_plus.errors import SettingsError
from ptm_plus.keyed import derive_key
from ptm_plus.local_batches import LocalBatch, local_batches
from ptm_plus.microbatch import to_device
from ptm_plus.mixture import StepPlan
from ptm_plus.optimizer import (
    apply_rules,
    build_optimizer,
    keep_rows,
    limit_norm,
    set_mode,
    set_rate,
)
from ptm_plus.processes import World, unsynchronised
from ptm_plus.run import Run
from ptm_plus.settings import PASS_ROWS
from ptm_plus.stages import Stage
from ptm_plus.step import Kept, LossKey, Tally, add_outcome, joined

CAREFUL_STEPS = 8
"""Steps after a start in which several processes agree that memory sufficed, before they sum
gradients; later ones sum them while the last micro-batch is still under way."""


@dataclass(frozen=True)
class Done:
    """A step that was computed and whose figures nobody has read yet.

    Attributes:
        plan: its plan.
        rows: its rows, all processes together.
        divisors: its counts.
        tally: this process's sums.
        loss: this process's share of the loss.
        bad: 1 where the gradient was not finite and the update was left out, otherwise 0.
        kept: by ``stream/objective`` and name, what objectives kept, all processes together.
    """

    plan: StepPlan
    rows: Mapping[str, Sequence[Row]]
    divisors: Mapping[LossKey, float]
    tally: Tally
    loss: Tensor
    bad: Tensor
    kept: Mapping[str, Mapping[str, Tensor]]


class Stepper:
    """Takes optimizer steps.

    Args:
        run: the composed run; its parameters are sharded where the settings say so.
        world: the processes of the run.

    Attributes:
        stage: the stage that it is in; the first one at its start.
        rules: rule by parameter name.
        root: the run's root, or what spreads it over processes.
        optimizer: the optimizer.

    Raises:
        SettingsError: weights are averaged in a sharded model, or Muon is asked for in one.
    """

    stage: Stage
    rules: Mapping[str, ParameterRule]
    optimizer: Optimizer

    def __init__(self, run: Run, world: World) -> None:
        train = run.settings.train
        sharded = world.size > 1 and train.parallel == "fsdp"
        if run.averages and sharded:
            raise SettingsError(
                f"plugin {run.averages[0].instance!r} keeps a moving average of weights, which "
                "sharded models cannot",
                'set train.parallel = "ddp", or leave the plugin out',
            )
        if train.optimizer == "muon" and sharded:
            raise SettingsError(
                'train.optimizer = "muon" needs whole matrices, which sharded models do not have',
                'set train.parallel = "ddp", or another optimizer',
            )
        self.run = run
        self.world = world
        self.root: Any = None
        self.enter(run.stages[0])

    def enter(self, stage: Stage) -> None:
        """Let a stage's parameters be trained, and no others, by an optimizer that knows nothing.

        Args:
            stage: one of the run's.
        """
        run, parallel = self.run, self.run.settings.train.parallel
        self.stage = stage
        self.rules = apply_rules(run.encoder, run.rules_in(stage), run.encoder.fixed)
        set_mode(run.encoder, training=True)
        if self.root is None or parallel == "ddp":  # which knows what was trained as it was made
            self.root = None  # the old one takes its hooks along
            blocks = run.encoder.card.block_list(run.encoder.backbone)
            self.root = self.world.spread(run.root, blocks, parallel)
        self.optimizer = build_optimizer(run.encoder, self.rules, run.settings.train)
        self._careful = CAREFUL_STEPS

    @property
    def most_rows(self) -> int:
        """Rows of a micro-batch while memory suffices."""
        batch = self.run.settings.batch
        if batch.micro_rows:
            return batch.micro_rows
        own = math.ceil(batch.rows / self.world.size)
        return own if self.run.device.type == "cuda" else min(own, PASS_ROWS)

    def batches(
        self, rows: Mapping[str, Sequence[Row]], plan: StepPlan, micro_rows: int
    ) -> list[LocalBatch]:
        """Return this process's micro-batches of a step.

        Args:
            rows: rows of the step by stream, all processes together.
            plan: the step's plan.
            micro_rows: most rows of a micro-batch, if fewer than ``most_rows``; 0 for these.
        """
        settings, world = self.run.settings, self.world
        level = settings.train.parallel == "fsdp" and world.size > 1
        size = min(micro_rows or self.most_rows, self.most_rows)
        return local_batches(self.run, rows, plan, size, world.rank, world.size, level=level)

    def take(
        self,
        rows: Mapping[str, Sequence[Row]],
        batches: Sequence[LocalBatch],
        divisors: Mapping[LossKey, float],
        plan: StepPlan,
    ) -> Done | None:
        """Take a step, or return ``None``, with nothing changed, when memory ran out.

        Args:
            rows: rows of the step by stream, all processes together.
            batches: this process's micro-batches of them.
            divisors: count of each loss over the whole step, all processes together.
            plan: the step's plan.

        Raises:
            OutOfMemoryError: memory ran out where other processes cannot be told in time.
        """
        set_rate(self.optimizer, self.run.settings.train.lr, plan.lr)
        kept: Kept = {}
        outcome = self._accumulate(batches, divisors, plan, kept)
        if outcome is None:
            return None
        tally, loss = outcome
        bad = self._update()
        for average in self.run.encoder.averages.values():
            if average.owner.instance in self.stage.instances:
                average.follow(self.run.encoder, plan.step - self.stage.first, bad)
        return Done(plan, rows, divisors, tally, loss, bad, joined(kept, self.world))

    def _accumulate(
        self,
        batches: Sequence[LocalBatch],
        divisors: Mapping[LossKey, float],
        plan: StepPlan,
        kept: Kept,
    ) -> tuple[Tally, Tensor] | None:
        """Run all micro-batches forward and backward; ``None`` when memory ran out somewhere."""
        several = self.world.size > 1
        careful = several and self._careful > 0 and self.run.settings.train.parallel == "ddp"
        tally, losses, short = Tally(), [], False
        work: list[LocalBatch | None] = [*batches] or [None]
        try:
            for number, one in enumerate(work):
                self._seed_device(plan.step, number)
                together = several and not careful and number == len(work) - 1
                with nullcontext() if together else unsynchronised(self.root):
                    losses.append(self._pass(one, divisors, plan, tally, kept, touch=together))
        except torch.OutOfMemoryError:
            if several and not careful:
                raise
            short = True
        if careful:  # every process must have got here before gradients can be summed
            short = bool(self.world.sum(torch.tensor([float(short)])))
            if not short:
                self._pass(None, divisors, plan, tally, kept, touch=True)
            self._careful -= 1
        if short:
            self.optimizer.zero_grad(set_to_none=True)
            if self.run.device.type == "cuda":
                torch.cuda.empty_cache()
            return None
        return tally, torch.stack(losses).sum()

    def _pass(
        self,
        one: LocalBatch | None,
        divisors: Mapping[LossKey, float],
        plan: StepPlan,
        tally: Tally,
        kept: Kept,
        touch: bool,
    ) -> Tensor:
        """Run one micro-batch forward and backward and return its share of the loss."""
        run = self.run
        batch = None if one is None else to_device(one.host, run.device, run.float_dtype())
        share = 1.0 if one is None or one.real else 0.0
        weights = plan.objective_weights
        work = partial(
            run.root.losses, batch, divisors, weights, touch=touch, share=share, kept=kept
        )
        with self.world.accelerator.autocast():
            loss, sums, metrics = self.root(work)
        if loss.requires_grad:
            (loss * self.world.size).backward()  # gradients are averaged over processes
        add_outcome(tally, sums, metrics)
        return loss.detach()

    def _update(self) -> Tensor:
        """Clip and apply the gradient; return 1 where it is not finite and was left out."""
        trainable = [p for p in self.run.encoder.parameters() if p.requires_grad]
        self.world.average_whole(trainable)
        keep_rows(self.run.encoder, self.rules)
        counted = [p for p in trainable if p.grad is not None]
        norm = limit_norm(counted, self.run.settings.train.clip)
        bad = (~torch.isfinite(norm)).to(torch.float32)
        self.optimizer.found_inf = bad  # then there is no update; nobody waits to know
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return bad

    def _seed_device(self, step: int, number: int) -> None:
        """Reseed device randomness (dropout), so that a resumed run draws the same.

        ``torch.manual_seed`` does the same to every device there may be, in a millisecond.
        """
        run = self.run
        key = derive_key(run.settings.train.seed, "device", step, number, self.world.rank) % 2**63
        torch.default_generator.manual_seed(key)
        if run.device.type == "cuda":
            torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(key)

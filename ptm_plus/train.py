"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from accelerate import Accelerator
from torch.optim import Optimizer

from ptm_plus.checkpoint import State, load_checkpoint, take_snapshot
from ptm_plus.checkpoint_writer import CheckpointWriter
from ptm_plus.components import Event, EventKind
from ptm_plus.data import Reader
from ptm_plus.digest import add_digests, batch_digest, digests_ahead, joined, split
from ptm_plus.errors import DataError, GuardStop, StopRequested
from ptm_plus.evaluation import evaluate, held_out_loss
from ptm_plus.guards import find_culprits, is_spike
from ptm_plus.identity import identity
from ptm_plus.local_batches import LocalBatch
from ptm_plus.mixture import StepPlan
from ptm_plus.optimizer import set_mode
from ptm_plus.processes import World
from ptm_plus.progress import Watch
from ptm_plus.run import Run
from ptm_plus.run_folder import checkpoints
from ptm_plus.stages import Stage, stage_at
from ptm_plus.step import (
    LossKey,
    Progress,
    Tally,
    add_counts,
    add_outcome,
    all_metrics,
    float64,
    shares,
)
from ptm_plus.stepper import Done, Stepper
from ptm_plus.stopping import stop_requests

NOTHING_KEPT: Mapping[str, Mapping[str, torch.Tensor]] = MappingProxyType({})


class Trainer:
    """Trains a run.

    Args:
        run: the composed run.
        watch: where progress goes.
        accelerator: devices and processes.

    Raises:
        EnvironmentProblem: the processes of the run do not start from the same facts.
    """

    def __init__(self, run: Run, watch: Watch, accelerator: Accelerator) -> None:
        self.run = run
        self.watch = watch
        self.accelerator = accelerator
        self.world = World(accelerator)
        self.world.check_agreement(_flat(identity(run)))
        self.stepper = Stepper(run, self.world)
        self.writer = CheckpointWriter(run.output, run.settings.train)
        self.progress = Progress()
        self.reader: Reader = run.reader()
        self._done: Done | None = None
        self._asked: Callable[[], bool] = lambda: False
        self._all_asked = False

    def fit(self) -> Progress:
        """Train to the last step.

        Raises:
            GuardStop: the loss or the gradient is not finite, or the loss spiked.
            StopRequested: a signal asked to stop; a checkpoint was written.
            EnvironmentProblem: a checkpoint cannot be written, or another process has ended.
        """
        steps = self.run.settings.train.steps
        self.start()
        with (
            self.world.lost_processes(),
            self.writer,
            stop_requests() as self._asked,
            self.watch.task("train", self.progress.step) as task,
        ):
            self._evaluate_at_start()
            while self.progress.step < steps:
                if self.step(self.run.planner.plan(self.progress.step)):
                    self.after_step()
                    task.update(self.progress.step, steps, self._detail())
            self.writer.finish()
            self.world.wait()
        self._tell("train_end")
        return self.progress

    def start(self) -> None:
        """Make ready for the first step, and tell the plugins."""
        self._check_place()
        set_mode(self.run.encoder, training=True)
        self._enter(stage_at(self.run.stages, self.progress.step))
        self._tell("train_start")
        self._tell("stage_start")

    def _evaluate_at_start(self) -> None:
        """Run the probes that ask for the time before the first step."""
        asked = any(one.component.at_start for one in self.run.probes)
        if not self.progress.step and (asked or self.run.settings.evaluate.text):
            figures = evaluate(self.run, at_start=True)
            set_mode(self.run.encoder, training=True)
            self.tell_evaluated(figures)

    def _check_place(self) -> None:
        """Check that every process goes on from the same step and the same data."""
        cursors = {
            f"row of {stream} {stratum}": list(at)
            for stream, strata in self.reader.cursors.items()
            for stratum, at in strata.items()
        }
        self.world.check_agreement({"step": self.progress.step, **cursors})

    # -----------------------------------------------------------------------------------------
    # A step

    def step(self, plan: StepPlan) -> bool:
        """Do one optimizer step: rows, counts, sums, update.

        Returns:
            Whether it was done; otherwise training went back to a checkpoint.
        """
        began = time.perf_counter()
        self.writer.check()
        if plan.stage != self.stepper.stage.name:
            if self.settle():
                return False
            self._enter(stage_at(self.run.stages, plan.step))
            self._tell("stage_start")
        rows = self.reader.step_rows(plan)
        batches = self.stepper.batches(rows, plan, self.progress.micro_rows)
        divisors, digest = self._exchange(batches)
        if self.settle():  # the host has worked ahead; now it waits for the step before
            return False
        while (done := self.stepper.take(rows, batches, divisors, plan)) is None:
            self._halve()
            batches = self.stepper.batches(rows, plan, self.progress.micro_rows)
        self._done = done
        progress = self.progress
        for stream, taken in rows.items():
            lengths = self.run.prepared.streams[stream].maker.lengths
            progress.add_rows(taken, (int(lengths[row.numbers].sum()) for row in taken))
        progress.data = add_digests((progress.data, digest))
        progress.score = None
        progress.step = self.run.step = plan.step + 1
        progress.seconds += time.perf_counter() - began
        return True

    def _enter(self, stage: Stage) -> None:
        """Begin a stage, unless training stands in it."""
        if stage != self.stepper.stage:
            self.stepper.enter(stage)
            self.progress.recent = []  # other losses, of another size

    def _exchange(self, batches: Sequence[LocalBatch]) -> tuple[dict[LossKey, float], int]:
        """Sum over processes what must be known before the first pass: counts, data, stops."""
        keys = self.run.loss_keys(self.stepper.stage)
        real = [one.host for one in batches if one.real]
        digest = add_digests(batch_digest(host) for host in real)
        own = add_counts([self.run.root.count(host) for host in real], keys)
        summed = self.world.sum(
            torch.tensor([*own, *split(digest), float(self._asked())], dtype=torch.float64)
        ).tolist()
        *counts, low, high, asked = summed
        self._all_asked = asked > 0
        return dict(zip(keys, counts, strict=True)), joined(low, high)

    def _halve(self) -> None:
        """Make micro-batches half as large, after memory ran out."""
        most = self.stepper.most_rows
        size = min(self.progress.micro_rows or most, most)
        if size == 1:
            raise torch.OutOfMemoryError("one row alone does not fit; lower batch.row_tokens")
        self.progress.micro_rows = size // 2
        self.watch.note(
            f"out of memory at step {self.progress.step}: going on with micro-batches of "
            f"{size // 2} rows (set batch.micro_rows={size // 2} for the next run)"
        )

    # -----------------------------------------------------------------------------------------
    # What a step has brought

    def settle(self) -> bool:
        """Take in the figures of the last step, all processes together.

        Returns:
            Whether training went back to a checkpoint.

        Raises:
            GuardStop: something was wrong with them, and the settings say to stop.
        """
        done, self._done = self._done, None
        if done is None:
            return False
        keys = [key for key, count in done.divisors.items() if count]
        nothing = torch.zeros((), dtype=torch.float64, device=done.loss.device)
        own = [done.tally.sums.get(key, nothing) for key in keys]
        figures = torch.stack([*own, done.loss.double(), done.bad.to(nothing)])
        *sums, loss, bad = self.world.sum(figures.cpu()).tolist()
        guards, progress = self.run.settings.guards, self.progress
        if bad or not all(map(math.isfinite, (*sums, loss))):
            return self._trouble(guards.nonfinite, self._not_finite(done))
        if guards.spike != "ignore" and is_spike(
            loss, progress.recent, guards.spike_size, guards.spike_window
        ):
            words = f"the loss jumped to {loss:.4g} at step {done.plan.step + 1}"
            return self._trouble(guards.spike, words)
        progress.recent = [*progress.recent, loss][-guards.spike_window :]
        tally = progress.tally
        add_outcome(
            tally,
            {key: float64(value) for key, value in zip(keys, sums, strict=True)},
            done.tally.metrics,
        )
        for key in keys:
            tally.counts[key] = tally.counts.get(key, 0.0) + done.divisors[key]
        return False

    def _not_finite(self, done: Done) -> str:
        """Say what is not finite; the step's update was left out, so it can be computed again."""
        set_mode(self.run.encoder, training=True)
        found = find_culprits(self.run, done.rows, done.plan, done.divisors, self.world)
        where = "; ".join(found) or "no row by itself: their sum overflows"
        return f"not finite at step {done.plan.step + 1}: {where}"

    def _trouble(self, policy: str, words: str) -> bool:
        """Follow a policy; return whether training went back to a checkpoint."""
        progress, guards = self.progress, self.run.settings.guards
        progress.troubles += 1
        hint = (
            "lower train.lr, or look at the rows with ptm-plus preview; guards.nonfinite and "
            "guards.spike say what else to do (docs/settings.md)"
        )
        if policy == "stop":
            raise GuardStop(words, hint)
        if progress.troubles > guards.tries:
            raise GuardStop(f"{words}; {guards.tries} tries since the last checkpoint", hint)
        if policy == "skip":
            progress.skipped += 1
            self.watch.note(f"{words}; it is left out")
            return False
        self._roll_back(words, hint)
        return True

    def _roll_back(self, words: str, hint: str) -> None:
        """Go back to the last checkpoint's weights, and on with the data that come next."""
        self.writer.finish()
        self.world.wait()
        if not checkpoints(self.run.output):
            raise GuardStop(f"{words}; there is no checkpoint to go back to", hint)
        before = self.progress
        self._load(allow_changes=True)  # whatever has changed was settled when the run began
        progress = self.progress
        progress.troubles, progress.rolled_back = before.troubles, before.rolled_back + 1
        progress.micro_rows, progress.skipped = before.micro_rows, before.skipped
        progress.tokens, progress.seconds = before.tokens, before.seconds
        progress.taken = before.taken
        self._check_place()
        self.watch.note(f"{words}; back to step {progress.step}, the data go on")

    def after_step(self) -> None:
        """Log, evaluate, save and stop where they are due."""
        settings, progress = self.run.settings.train, self.progress
        step, last = progress.step, progress.step == settings.steps
        kept = self._done.kept if self._done else {}
        every = settings.checkpoint_every or max(1, math.ceil(settings.steps / 10))
        stop = self._all_asked if self.world.size > 1 else self._asked()
        logged = last or step % settings.log_every == 0
        evaluated = bool(settings.evaluate_every) and step % settings.evaluate_every == 0
        saved = last or stop or step % every == 0
        if (logged or evaluated or saved) and self.settle():
            return
        if logged:
            self.log()
        self._tell("after_step", kept=kept)
        if evaluated:
            saved = self._evaluate() or saved
        if saved:
            self.save()
        if stop and not last:
            self.writer.finish()
            self.world.wait()  # a launcher ends all processes with the first
            raise StopRequested(
                f"stopped after step {step} of {settings.steps}; "
                f"everything is saved in {self.run.output}",
                f"go on with: ptm-plus resume {self.run.output}",
            )

    def log(self) -> None:
        """Write one record of everything since the last one."""
        self.settle()
        progress, tally = self.progress, self.progress.tally
        losses = {
            "/".join(key): float(total) / tally.counts[key]
            for key, total in sorted(tally.sums.items())
        }
        progress.metrics.update(shares(all_metrics(tally, self.world)))
        progress.last.update(losses)
        for name, value in losses.items():
            progress.first.setdefault(name, value)
        self.watch.figures(
            "step",
            {
                "step": progress.step,
                "stage": self.stepper.stage.name,
                "lr": self.stepper.optimizer.param_groups[0]["lr"],
                "losses": losses,
                "metrics": dict(progress.metrics),
                "data": f"{progress.data:016x}",
                "tokens": progress.tokens,
                "taken": {name: rows for name, (rows, _) in sorted(progress.taken.items())},
                "seconds": round(progress.seconds, 3),
            },
        )
        progress.tally, progress.data = Tally(), 0

    def _evaluate(self) -> bool:
        """Run all probes; return whether the held-out loss is worth a checkpoint."""
        figures = evaluate(self.run)
        set_mode(self.run.encoder, training=True)
        progress = self.progress
        score = self.world.gather(held_out_loss(figures))[0]  # one for all: it decides on saving
        progress.score = score if score is not None and math.isfinite(score) else None
        better = progress.score is not None and (
            progress.best is None or progress.score < progress.best
        )
        if better:
            progress.best = progress.score
        self.tell_evaluated(figures)
        return better and self.run.settings.train.keep_best > 0

    # -----------------------------------------------------------------------------------------
    # Checkpoints

    def save(self) -> None:
        """Start to write a checkpoint; the step waits only until everything is copied."""
        self.settle()
        self._tell("saving")
        self.progress.troubles = 0
        self.writer.finish()  # before the next copy is made: memory holds one at a time
        snapshot = take_snapshot(
            self.run, self.stepper.optimizer, self.reader, self.progress, self.world
        )
        if snapshot is not None:
            self.writer.start(snapshot)

    def resume(self, *, allow_changes: bool = False, verify: int = 0) -> None:
        """Go on from the newest whole checkpoint of the run folder.

        Args:
            allow_changes: also where plugins, data, tables or settings are others.
            verify: check the data of so many steps against the digests in the checkpoint.

        Raises:
            DataError: there is none, it belongs to another run, or the data are others.
        """
        state = self._load(allow_changes)
        self.reader = self.run.reader(state.cursors)
        if state.processes != self.world.size:
            self.watch.note(
                f"saved by {state.processes} processes, resumed by {self.world.size}: the same "
                "rows and masks; sums are rounded and dropout is drawn differently"
            )
        if verify:
            self._verify(state, verify)

    def _load(self, allow_changes: bool = False) -> State:
        state = load_checkpoint(
            self.run, self._optimizer_for, self.watch, allow_changes=allow_changes
        )
        self.run.step = self.progress.step
        self.watch.figures("resumed", {"step": self.progress.step})
        return state

    def _optimizer_for(self, state: State) -> Optimizer:
        """Stand where a checkpoint was written, and return the optimizer of that stage."""
        self.progress = Progress.from_json(state.progress, self.world.is_main)
        self.stepper.enter(stage_at(self.run.stages, max(self.progress.step - 1, 0)))
        return self.stepper.optimizer

    def _verify(self, state: State, count: int) -> None:
        step, recorded = self.progress.step, state.ahead[:count]
        found = digests_ahead(self.run, self.reader, step, len(recorded))
        for number, (then, now) in enumerate(zip(recorded, found, strict=False), start=step + 1):
            if then != now:
                raise DataError(
                    f"the data of step {number} are not those of the saved run: digest {then} "
                    f"then, {now} now",
                    "the prepared data, the graph or a plugin that masks has changed",
                    path=self.run.output,
                )
        self.watch.note(f"verified: the data of the next {len(found)} steps are as recorded")

    # -----------------------------------------------------------------------------------------
    # Telling

    def tell_evaluated(self, figures: Mapping[str, Any]) -> None:
        """Pass the figures of an evaluation, the first process's, on to the watch and to plugins.

        Raises:
            GuardStop: a plugin will not go on; the state is saved.
        """
        one_for_all = self.world.gather(figures)[0]  # it decides on saving and stopping
        self.watch.figures("evaluation", {"step": self.progress.step, **one_for_all})
        try:
            self._tell("evaluated", one_for_all)
        except GuardStop:
            if 0 < self.progress.step < self.run.settings.train.steps:
                self.save()
                self.writer.finish()
                self.world.wait()
            raise

    def _tell(
        self,
        kind: EventKind,
        figures: Mapping[str, Any] | None = None,
        kept: Mapping[str, Mapping[str, torch.Tensor]] = NOTHING_KEPT,
    ) -> None:
        known = self.progress.last if figures is None else figures
        event = Event(kind, self.progress.step, dict(known), self.stepper.stage.name, kept)
        self.run.plugins.event(event, self.run.prepared.context)

    def _detail(self) -> str:
        speed = self.progress.tokens / max(self.progress.seconds, 1e-9)
        last, stage = self.progress.last, self.stepper.stage
        names = map("/".join, self.run.loss_keys(stage))
        losses = "  ".join(f"{name} {last[name]:.3f}" for name in sorted(names) if name in last)
        several = f"stage {stage.name}  " if len(self.run.stages) > 1 else ""
        return f"{several}{losses}  {speed:,.0f} tokens/s"


def _flat(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{part} {name}": value for part, of in parts.items() for name, value in of.items()}

"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim import AdamW

from ptm_plus.checkpoint import load_checkpoint, save_checkpoint
from ptm_plus.components import Event, EventKind
from ptm_plus.data import HostBatch, Reader
from ptm_plus.errors import GuardStop, StopRequested
from ptm_plus.evaluation import evaluate
from ptm_plus.keyed import derive_key
from ptm_plus.microbatch import to_device
from ptm_plus.mixture import StepPlan
from ptm_plus.optimizer import apply_rules, build_optimizer, set_mode, set_rate
from ptm_plus.progress import Watch
from ptm_plus.run import Run
from ptm_plus.step import Progress, Tally, add_counts, add_outcome, shares
from ptm_plus.stopping import stop_requests


class Trainer:
    """Trains a run.

    Args:
        run: the composed run.
        watch: where progress goes.
        accelerator: devices and processes.
    """

    def __init__(self, run: Run, watch: Watch, accelerator: Accelerator) -> None:
        self.run = run
        self.watch = watch
        self.accelerator = accelerator
        self.rules = apply_rules(run.encoder, [one.component for one in run.rules])
        self.optimizer: AdamW = build_optimizer(run.encoder, self.rules, run.settings.train)
        self.progress = Progress()
        self.reader: Reader = run.reader()
        self.root = self._wrapped()

    def fit(self) -> Progress:
        """Train to the last step.

        Raises:
            GuardStop: the loss or the gradient is not finite.
            StopRequested: a signal asked to stop; a checkpoint was written.
        """
        settings, progress = self.run.settings.train, self.progress
        every = settings.checkpoint_every or max(1, math.ceil(settings.steps / 10))
        set_mode(self.run.encoder, training=True)
        self._tell("train_start")
        self._tell("stage_start")
        with stop_requests() as asked, self.watch.task("train") as task:
            while progress.step < settings.steps:
                self.step(self.run.planner.plan(progress.step))
                last = progress.step == settings.steps
                if last or progress.step % settings.log_every == 0:
                    self.log()
                self._tell("after_step")
                task.update(progress.step, settings.steps, self._detail())
                if settings.evaluate_every and progress.step % settings.evaluate_every == 0:
                    self._evaluate()
                if last or progress.step % every == 0 or asked():
                    self.save()
                if asked() and not last:
                    raise StopRequested(
                        f"stopped after step {progress.step} of {settings.steps}; "
                        f"everything is saved in {self.run.output}",
                        f"go on with: ptm-plus resume {self.run.output}",
                    )
        self._tell("train_end")
        return progress

    def step(self, plan: StepPlan) -> None:
        """Do one optimizer step: rows, counts, sums, update."""
        began = time.perf_counter()
        run, accelerator = self.run, self.accelerator
        rank, world = accelerator.process_index, accelerator.num_processes
        rows = self.reader.step_rows(plan)
        own = list(run.host_batches(rows, plan, rank, world))
        counts = [run.root.count(batch) for batch in own]
        divisors = add_counts(counts, self._sum_over_processes, run.loss_keys())
        set_rate(self.optimizer, run.settings.train.lr, plan.lr)
        batches: list[HostBatch | None] = [*own] or [None]  # every process synchronises once
        for number, host in enumerate(batches):
            self._seed_device(plan.step, number, rank)
            batch = None if host is None else to_device(host, run.device, run.float_dtype())
            last = number == len(batches) - 1
            sync = nullcontext() if last or world == 1 else self.root.no_sync()
            with sync, accelerator.autocast():
                loss, sums, metrics = self.root(
                    batch, divisors, plan.objective_weights, touch=last and world > 1
                )
                (loss * world).backward()  # DDP averages over processes
            add_outcome(self.progress.tally, sums, metrics)
        self._update()
        for key, count in divisors.items():
            tally = self.progress.tally
            tally.counts[key] = tally.counts.get(key, 0.0) + count
        self.progress.tokens += sum(
            int(run.prepared.streams[row.stream].maker.lengths[row.numbers].sum())
            for of_stream in rows.values()
            for row in of_stream
        )
        self.progress.step = run.step = plan.step + 1
        self.progress.seconds += time.perf_counter() - began

    def log(self) -> None:
        """Read the sums since the last log line and write one record."""
        tally, progress = self.progress.tally, self.progress
        losses = {}
        for key in sorted(tally.sums.keys() | {k for k, c in tally.counts.items() if c}):
            total = self._sum_over_processes(tally.sums.get(key, torch.zeros(())).double().cpu())
            if not math.isfinite(float(total)):
                owner = next(
                    one.instance
                    for one in self.run.objectives[key[0]]
                    if one.component.name == key[1]
                )
                raise GuardStop(
                    f"the loss {key[1]!r} of plugin {owner!r} on stream {key[0]!r} is "
                    f"{float(total)} at step {progress.step}",
                    "lower train.lr, or look at the rows with `ptm-plus preview`",
                )
            losses["/".join(key)] = float(total) / tally.counts[key]
        progress.metrics.update(shares(tally))  # of this process's rows only
        progress.last.update(losses)
        for name, value in losses.items():
            progress.first.setdefault(name, value)
        progress.tally = Tally()
        self.watch.figures(
            "step",
            {
                "step": progress.step,
                "lr": self.optimizer.param_groups[0]["lr"],
                "losses": losses,
                "metrics": dict(progress.metrics),
                "tokens": progress.tokens,
                "seconds": round(progress.seconds, 3),
            },
        )

    def save(self) -> None:
        """Write a checkpoint from the main process."""
        self._tell("saving")
        if self.accelerator.is_main_process:
            save_checkpoint(self.run, self.optimizer, self.reader.cursors, self.progress)
        self.accelerator.wait_for_everyone()

    def resume(self) -> None:
        """Go on from the newest whole checkpoint of the run folder."""
        state = load_checkpoint(self.run, self.optimizer, self.watch)
        self.reader = self.run.reader(state.cursors)
        self.progress = Progress(**state.progress)
        self.run.step = self.progress.step

    def _wrapped(self) -> Any:
        set_mode(self.run.encoder, training=True)
        if self.accelerator.num_processes == 1:
            return self.run.root
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(
            self.run.root, broadcast_buffers=False, gradient_as_bucket_view=True
        )

    def _update(self) -> None:
        clip = self.run.settings.train.clip
        if clip:
            trainable = [p for p in self.run.encoder.parameters() if p.requires_grad]
            torch.nn.utils.clip_grad_norm_(trainable, clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _seed_device(self, step: int, number: int, rank: int) -> None:
        """Reseed device randomness (dropout), so that a resumed run draws the same."""
        torch.manual_seed(
            derive_key(self.run.settings.train.seed, "device", step, number, rank) % 2**63
        )

    def _sum_over_processes(self, values: Tensor) -> Tensor:
        if self.accelerator.num_processes == 1:
            return values
        moved = values.to(self.accelerator.device)
        torch.distributed.all_reduce(moved)
        return moved.cpu()

    def tell_evaluated(self, figures: Mapping[str, Any]) -> None:
        """Pass the figures of an evaluation on to the watch and to plugins."""
        self.watch.figures("evaluation", {"step": self.progress.step, **figures})
        self._tell("evaluated", figures)

    def _tell(self, kind: EventKind, figures: Mapping[str, Any] | None = None) -> None:
        known = self.progress.last if figures is None else figures
        event = Event(kind, self.progress.step, dict(known))
        self.run.plugins.event(event, self.run.prepared.context)

    def _evaluate(self) -> None:
        figures = evaluate(self.run)
        set_mode(self.run.encoder, training=True)
        self.tell_evaluated(figures)

    def _detail(self) -> str:
        speed = self.progress.tokens / max(self.progress.seconds, 1e-9)
        last = sorted(self.progress.last.items())
        losses = "  ".join(f"{name} {value:.3f}" for name, value in last)
        return f"{losses}  {speed:,.0f} tokens/s"


def make_accelerator(precision: str, device: str = "auto") -> Accelerator:
    """Return the accelerator: devices, processes, autocast."""
    cpu = device == "cpu" or not torch.cuda.is_available()
    bf16 = precision == "bf16" or (
        precision == "auto" and not cpu and torch.cuda.is_bf16_supported()
    )
    return Accelerator(cpu=cpu, mixed_precision="bf16" if bf16 else "no")

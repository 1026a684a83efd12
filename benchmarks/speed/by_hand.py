"""A training loop written by hand, over micro-batches that are there already.

What a plain transformers model, a loss, clipping and an optimizer take when nothing else is done:
no plugins, no counts over processes, no digests, no guards, no log.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from transformers import AutoModelForMaskedLM

from ptm_plus import attention
from ptm_plus.microbatch import MicroBatch, to_device
from ptm_plus.train import Trainer


class Loop:
    """Steps of a BERT.

    Args:
        trainer: of a run without plugins, which gives configuration, rates and micro-batches.
        steps: how many have micro-batches of their own; they are taken again and again.
    """

    def __init__(self, trainer: Trainer, steps: int) -> None:
        run, chosen = trainer.run, trainer.run.settings.train
        self.model = AutoModelForMaskedLM.from_config(
            run.encoder.backbone.config, attn_implementation=attention.NAME
        )
        decays: dict[bool, list[Tensor]] = {True: [], False: []}
        for parameter in self.model.parameters():
            decays[parameter.ndim > 1].append(parameter)
        self.optimizer = AdamW(
            [
                {"params": decays[True], "weight_decay": chosen.weight_decay},
                {"params": decays[False], "weight_decay": 0.0},
            ],
            lr=chosen.lr,
            betas=chosen.betas,
            fused=True,
        )
        self.clip = chosen.clip
        self.steps = itertools.cycle([_batches(trainer, step) for step in range(steps)])
        self._only: Tensor | None = None
        tail = self.model.get_submodule("bert.encoder.layer")[-1].attention.output
        tail.register_forward_pre_hook(self._narrowed)

    def step(self) -> int:
        """Take a step; return its tokens."""
        batches = next(self.steps)
        count: Counter[str] = Counter()
        for batch in batches:
            count[batch.stream] += len(batch.labels)
        for batch in batches:
            self._only = batch.predicted
            states = self.model.bert(
                input_ids=batch.ids[None],
                position_ids=batch.positions[None],
                token_type_ids=batch.types[None],
                ptm_packing=attention.Packing(batch),
            )[0][0]
            logits = self.model.cls(states)
            loss = cross_entropy(logits, batch.labels, reduction="sum")
            (loss / count[batch.stream]).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return sum(map(len, batches))

    def _narrowed(self, module: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Keep the predicted tokens alone behind the last attention, as the product does."""
        return tuple(states[:, self._only] for states in arguments)


def _batches(trainer: Trainer, step: int) -> list[MicroBatch]:
    """Return the micro-batches of a step; the trainer's data go on."""
    plan = trainer.run.planner.plan(step)
    rows = trainer.reader.step_rows(plan)
    device = trainer.run.device
    return [to_device(one.host, device) for one in trainer.stepper.batches(rows, plan, 0)]

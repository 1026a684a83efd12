"""A plain training step of masked language modelling, each of whose parts can be done in two ways.

All ways read the same sequences with the same rate of masking, and compute the same loss: nothing
is approximated. What a way costs is all that differs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerBase,
)

from ptm_plus import attention
from ptm_plus.microbatch import Block

RATE, IGNORED = 0.15, -100


@dataclass(frozen=True)
class Ways:
    """Which of the two ways each part is done in: ``False`` is the plain one.

    Attributes:
        layout: sequences end to end instead of padded to the longest.
        head: the vocabulary's logits at predicted tokens instead of everywhere.
        masking: one draw for all tokens of a step as array work, instead of transformers' collator
            over lists.
        attention: padded: torch's fused attention; end to end: a dense call for each length that
            occurs. Instead of one matrix of scores over everything, with a mask.
        compiled: the encoder through torch.compile.
        optimizer: AdamW as one fused operation instead of a loop over parameters.
    """

    layout: bool = False
    head: bool = False
    masking: bool = False
    attention: bool = False
    compiled: bool = False
    optimizer: bool = False

    def with_(self, name: str) -> Ways:
        """Return the same with one part done in the other way."""
        return replace(self, **{name: True})


@dataclass(frozen=True)
class Batch:
    """What a step reads.

    Attributes:
        ids: ``[S, L]`` padded, or ``[1, T]`` end to end.
        labels: likewise; -100 where nothing is predicted.
        positions: likewise.
        lengths: of the sequences, the shortest first.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    lengths: NDArray[np.int64]


class Rung:
    """A model and an optimizer, and steps over the same sequences.

    Args:
        ways: how each part is done.
        config: of the model; drawn from one seed.
        tokenizer: of the sequences.
        sequences: token ids.
        size: sequences of a step.
        lr: learning rate.
    """

    def __init__(
        self,
        ways: Ways,
        config: BertConfig,
        tokenizer: PreTrainedTokenizerBase,
        sequences: Sequence[Sequence[int]],
        size: int,
        lr: float,
    ) -> None:
        torch.manual_seed(0)
        attention.register()
        own = {False: "sdpa", True: attention.NAME}[ways.layout]
        self.ways, self.tokenizer = ways, tokenizer
        self.model = BertForMaskedLM._from_config(
            deepcopy(config),  # which is where the model keeps its attention
            attn_implementation=own if ways.attention else "eager",
        )
        self.encoder = torch.compile(self.model.bert) if ways.compiled else self.model.bert
        self.optimizer = AdamW(self.model.parameters(), lr=lr, fused=ways.optimizer, foreach=False)
        self.collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=RATE)
        self.rng = np.random.default_rng(0)
        self.batches = _forever(sequences, size)

    def step(self) -> int:
        """Take a step; return its tokens, without padding."""
        chosen = next(self.batches)
        batch = self.masked(chosen)
        loss = self.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return sum(map(len, chosen))

    def masked(self, sequences: Sequence[Sequence[int]]) -> Batch:
        """Return sequences laid out and masked."""
        ordered = sorted(sequences, key=len)
        lengths = np.array([len(one) for one in ordered])
        if self.ways.masking:
            ids, labels = self._by_arrays(np.concatenate(ordered))
        else:
            made = self.collator([{"input_ids": list(one)} for one in ordered])
            real = torch.arange(made["input_ids"].shape[1]) < torch.tensor(lengths)[:, None]
            ids, labels = made["input_ids"][real], made["labels"][real]
        inside = torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))
        if self.ways.layout:
            return Batch(ids[None], labels[None], inside[None], lengths)
        row = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))
        padding = (self.tokenizer.pad_token_id, IGNORED, 0)
        padded = [
            torch.full((len(lengths), int(lengths.max())), pad).index_put((row, inside), flat)
            for pad, flat in zip(padding, (ids, labels, inside), strict=True)
        ]
        return Batch(padded[0], padded[1], padded[2], lengths)

    def _by_arrays(self, ids: NDArray[Any]) -> tuple[Tensor, Tensor]:
        special = np.isin(ids, self.tokenizer.all_special_ids)
        chosen = ~special & (self.rng.random(len(ids)) < RATE)
        labels = np.where(chosen, ids, IGNORED)
        how = self.rng.random(len(ids))
        mask = chosen & (how < 0.8)
        other = chosen & (how >= 0.9)
        drawn = self.rng.integers(0, len(self.tokenizer), len(ids))
        ids = np.where(mask, self.tokenizer.mask_token_id, np.where(other, drawn, ids))
        return torch.from_numpy(ids), torch.from_numpy(labels)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of the predicted tokens."""
        states = self.encoder(
            input_ids=batch.ids, position_ids=batch.positions, **self._visibility(batch)
        )[0]
        labels = batch.labels
        if self.ways.head:
            predicted = labels != IGNORED
            states, labels = states[predicted], labels[predicted]
        logits = self.model.cls(states)
        return cross_entropy(
            logits.view(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORED
        )

    def _visibility(self, batch: Batch) -> dict[str, Any]:
        lengths = batch.lengths
        if not self.ways.layout:
            real = torch.arange(batch.ids.shape[1]) < torch.from_numpy(lengths)[:, None]
            return {"attention_mask": real.long()}
        if self.ways.attention:
            return {"ptm_packing": attention.Packing(_runs(batch))}
        sequence = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))
        apart = sequence[:, None] != sequence[None, :]
        mask = torch.zeros(apart.shape).masked_fill(apart, torch.finfo(torch.float32).min)
        return {"attention_mask": mask[None, None]}


def _runs(batch: Batch) -> Any:
    """Return what the product's attention reads of a micro-batch: runs of equal length."""
    lengths, counts = np.unique(batch.lengths, return_counts=True)
    starts = np.cumsum([0, *(lengths * counts)[:-1]])
    blocks = tuple(
        Block(int(start), int(count), int(length))
        for start, count, length in zip(starts, counts, lengths, strict=True)
    )
    return SimpleNamespace(blocks=blocks, ids=batch.ids[0])


def _forever(sequences: Sequence[Sequence[int]], size: int) -> Iterator[list[Sequence[int]]]:
    endless = itertools.cycle(sequences)
    while True:
        yield list(itertools.islice(endless, size))

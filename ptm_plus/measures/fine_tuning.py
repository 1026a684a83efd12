"""A standard head on an encoder, fine-tuned with a fixed budget."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, gelu

from ptm_plus.measures.plain_model import Encoded, PlainModel
from ptm_plus.measures.task_files import Question

_BASE_RATE, _BASE_WIDTH = 5e-5, 768
_NEIGHBOURS = 32
"""Batches among which sentences are sorted by length."""

_DROPOUT, _WARMUP, _DECAY, _CLIP = 0.1, 0.1, 0.01, 1.0


@dataclass(frozen=True)
class Budget:
    """What fine-tuning may spend; fixed, and never chosen by a score.

    Attributes:
        epochs: passes over the training sentences.
        batch: sentences of a step.
        rate: peak learning rate; 0 takes BERT's 5e-5 times 768 over the model's width.
    """

    epochs: int = 3
    batch: int = 32
    rate: float = 0.0

    def rate_for(self, width: int) -> float:
        """Return the peak learning rate for a model."""
        return self.rate or _BASE_RATE * _BASE_WIDTH / width


@dataclass(frozen=True)
class Asked:
    """Questions as numbers.

    Attributes:
        encoded: the sentences as tokens.
        places: per sentence and item, per range, the places of its tokens.
        answers: per sentence, ``[items, classes]`` float, 1 for the right ones; where items point
            at each other, ``[items, 1 + items]``, the first column for none of them.
        unread: items of which no token of some range is read.
        pointing: whether items point at each other.
    """

    encoded: Encoded
    places: list[list[list[list[int]]]]
    answers: list[Tensor]
    unread: int
    pointing: bool = False


def ask(model: PlainModel, questions: Sequence[Question], classes: Sequence[str] | None) -> Asked:
    """Return questions as numbers; an answer that is no class is nowhere right.

    Args:
        model: gives the tokenizer.
        questions: the questions.
        classes: labels, by number; ``None`` where answers are numbers of items, 0 for none.
    """
    encoded = model.encode([one.text for one in questions])
    given = {name: number for number, name in enumerate(classes or ())}
    places, answers, unread = [], [], 0
    for question, spans in zip(questions, encoded.spans, strict=True):
        starts, ends = np.array(spans, np.int64).reshape(-1, 2).T
        found = [[_within(starts, ends, r) for r in item] for item in question.items]
        unread += sum(not all(of_item) for of_item in found)
        places.append(found)
        items = len(question.items)
        index = given if classes is not None else {str(n): n for n in range(items + 1)}
        right = torch.zeros(items, len(index))
        for row, labels in enumerate(question.answers):
            for label in labels:
                if label in index:
                    right[row, index[label]] = 1
        answers.append(right)
    return Asked(encoded, places, answers, unread, pointing=classes is None)


def _within(
    starts: NDArray[np.int64], ends: NDArray[np.int64], wanted: tuple[int, int]
) -> list[int]:
    """Return the places of the tokens that share characters with a range."""
    start, end = wanted
    return np.flatnonzero((starts < end) & (ends > start) & (ends > starts)).tolist()


@dataclass(frozen=True)
class Pool:
    """Which tokens' states are averaged into which ranges; ranges of one item are neighbours.

    Attributes:
        token: ``[N]`` number of a token in the batch, row after row.
        range: ``[N]`` number of the range that takes it.
        share: ``[N]`` one over the range's tokens.
        ranges: how many ranges there are; one without tokens gets zeros.
        sentence: ``[items]`` row of each item.
    """

    token: Tensor
    range: Tensor
    share: Tensor
    ranges: int
    sentence: Tensor


class Body(nn.Module):
    """What a head reads: an encoder's last states, or those of its readers side by side.

    Args:
        model: its encoder is copied, without its masked-LM head.

    Attributes:
        width: of the states.
    """

    def __init__(self, model: PlainModel) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(model.base)
        self.readers = nn.ModuleList(read(self.encoder) for read in model.readers)
        self.width = int(model.model.config.hidden_size) * max(1, len(self.readers))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return ``[B, L, width]`` states."""
        if len(self.readers):
            return torch.cat([read(**inputs) for read in self.readers], dim=-1)
        states: Tensor = self.encoder(**inputs).last_hidden_state
        return states


def _pooled(body: Body, inputs: dict[str, Tensor], pool: Pool) -> Tensor:
    """Return ``[ranges, d]`` mean states of ranges."""
    states = body(inputs)
    taken = states.reshape(-1, states.shape[-1])[pool.token] * pool.share[:, None]
    return Tensor(taken.new_zeros(pool.ranges, taken.shape[1]).index_add(0, pool.range, taken))


class Pointer(nn.Module):
    """Items that point at each other, or at none: a biaffine map of their states.

    As the parser of Dozat and Manning (2017, equations 3 to 6), with one linear map on either side.

    Args:
        body: what is read.
    """

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body, width = body, body.width
        self.dropout = nn.Dropout(_DROPOUT)
        self.own, self.other = nn.Linear(width, width), nn.Linear(width, width)
        self.pair = nn.Linear(width, width, bias=False)
        self.prior = nn.Linear(width, 1)
        self.none = nn.Parameter(torch.zeros(1, width))

    def forward(self, inputs: dict[str, Tensor], pool: Pool) -> Tensor:
        """Return logits ``[items, 1 + items]``, the first for none; other sentences' are out.

        Args:
            inputs: of the encoder, ``[B, L]``.
            pool: whose states an item takes.
        """
        read = self.dropout(_pooled(self.body, inputs, pool))
        own = gelu(self.own(read))
        other = gelu(self.other(torch.cat([self.none, read])))
        logits: Tensor = self.pair(own) @ other.T + self.prior(other).T
        apart = pool.sentence[:, None] != pool.sentence[None]
        apart = torch.cat([apart.new_zeros(len(own), 1), apart], dim=1)
        return logits.masked_fill(apart, torch.finfo(logits.dtype).min)


class Classifier(nn.Module):
    """Labels off the mean states of ranges: dropout and one linear map.

    Args:
        body: what is read.
        ranges: ranges of an item.
        classes: number of labels.
    """

    def __init__(self, body: Body, ranges: int, classes: int) -> None:
        super().__init__()
        self.body = body
        self.dropout = nn.Dropout(_DROPOUT)
        self.out = nn.Linear(body.width * ranges, classes)

    def forward(self, inputs: dict[str, Tensor], pool: Pool) -> Tensor:
        """Return logits ``[items, classes]``.

        Args:
            inputs: of the encoder, ``[B, L]``.
            pool: whose states a range takes.
        """
        read = _pooled(self.body, inputs, pool)
        logits: Tensor = self.out(self.dropout(read.reshape(-1, self.out.in_features)))
        return logits


def fine_tuned(
    model: PlainModel,
    train: Asked,
    test: Asked,
    seed: int,
    budget: Budget,
    *,
    several: bool,
    progress: Callable[[int, int], None],
) -> list[Tensor]:
    """Fine-tune a copy of an encoder; return logits per test sentence, shaped as its answers.

    Args:
        model: left as it is.
        train: what is learned from.
        test: what is asked afterwards.
        seed: of the head, the order and dropout.
        budget: what may be spent.
        several: an item has any number of labels, instead of one.
        progress: told of steps done, and of all.
    """
    torch.manual_seed(seed)
    body, rate = Body(model), budget.rate_for(int(model.model.config.hidden_size))
    head: nn.Module
    if train.pointing:
        head = Pointer(body)
    else:
        ranges, classes = len(train.places[0][0]), train.answers[0].shape[1]
        head = Classifier(body, ranges, classes)
    tuned = head.to(model.device).train()
    optimizer = torch.optim.AdamW(tuned.parameters(), lr=rate, weight_decay=_DECAY)
    lengths = [len(ids) for ids in train.encoded.ids]
    batches = list(training_batches(lengths, budget.epochs, budget.batch, seed))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: _factor(n, len(batches)))
    for step, numbers in enumerate(batches, start=1):
        inputs, pool, answers = _batch(model, train, numbers)
        logits = tuned(inputs, pool)
        loss = (
            binary_cross_entropy_with_logits(logits, answers)
            if several
            else cross_entropy(logits, answers.argmax(-1))
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(tuned.parameters(), _CLIP)
        optimizer.step()
        schedule.step()
        progress(step, len(batches))
    return _answers(model, tuned.eval(), test)


def training_batches(
    lengths: Sequence[int], epochs: int, size: int, seed: int
) -> Iterator[list[int]]:
    """Yield batches, each sentence once an epoch; those of a batch are of like length.

    Sentences are shuffled, sorted by length among some dozens of batches, and the batches shuffled.

    Args:
        lengths: of the sentences, in tokens.
        epochs: passes over them.
        size: sentences of a batch; the last ones of an epoch may be fewer.
        seed: of the order.
    """
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        batches: list[list[int]] = []
        for near in torch.randperm(len(lengths), generator=order).split(size * _NEIGHBOURS):
            by_length = sorted(near.tolist(), key=lambda number: lengths[number])
            batches += [by_length[at : at + size] for at in range(0, len(by_length), size)]
        for number in torch.randperm(len(batches), generator=order).tolist():
            yield batches[number]


def _factor(step: int, steps: int) -> float:
    warm = max(1, int(_WARMUP * steps))
    return min((step + 1) / warm, (steps - step) / max(1, steps - warm))


@torch.no_grad()
def _answers(model: PlainModel, tuned: nn.Module, test: Asked) -> list[Tensor]:
    found = [torch.zeros(0)] * len(test.encoded)
    for numbers in test.encoded.batches():
        inputs, pool, _ = _batch(model, test, numbers)
        sizes = [len(test.places[n]) for n in numbers]
        first = 0
        for n, logits in zip(numbers, tuned(inputs, pool).cpu().split(sizes), strict=True):
            if test.pointing:  # at none, and at the sentence's own items
                own = logits[:, 1 + first : 1 + first + len(logits)]
                logits = torch.cat([logits[:, :1], own], dim=1)
            first += len(logits)
            found[n] = logits
    return found


def _batch(
    model: PlainModel, asked: Asked, numbers: Sequence[int]
) -> tuple[dict[str, Tensor], Pool, Tensor]:
    """Return inputs, pooling and answers of some sentences."""
    inputs = model.padded(asked.encoded, numbers)
    length = inputs["input_ids"].shape[1]
    ranges = [
        [row * length + place for place in places]
        for row, n in enumerate(numbers)
        for item in asked.places[n]
        for places in item
    ]
    sizes = torch.tensor([len(one) for one in ranges])
    owner = torch.arange(len(ranges)).repeat_interleave(sizes)
    token = torch.tensor([place for one in ranges for place in one], dtype=torch.long)
    given = [asked.answers[n] for n in numbers]
    if asked.pointing:
        none = torch.cat([one[:, :1] for one in given])
        answers = torch.cat([none, torch.block_diag(*(one[:, 1:] for one in given))], dim=1)
    else:
        answers = torch.cat(given)
    items = torch.tensor([len(one) for one in given])
    sentence = torch.arange(len(numbers)).repeat_interleave(items)
    token, owner, share, answers, sentence = (
        one.to(model.device) for one in (token, owner, (1 / sizes)[owner], answers, sentence)
    )
    return inputs, Pool(token, owner, share, len(ranges), sentence), answers

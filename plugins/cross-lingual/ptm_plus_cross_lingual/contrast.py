"""Contrast of translations against a queue of keys (Chi et al. 2021, InfoXLM, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from ptm_plus import (
    ContextView,
    Encode,
    MicroBatch,
    MovingAverage,
    Objective,
    Outcome,
    Part,
    PassContext,
    Tap,
    loss_sum,
)
from ptm_plus_cross_lingual.apart import HALF
from ptm_plus_cross_lingual.settings import ContrastSettings, compared_block

KEYS = "keys"
_EMPTY = -1


class Queue:
    """The keys of past steps, first in, first out, each with the number of its pair.

    A slot without a key is no negative; while the queue fills there are fewer. Neither is a key of
    the pair itself, which a queue larger than the corpus holds.

    Args:
        size: number of keys.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.place = 0
        self._centre: Tensor | None = None
        self._keys: Tensor | None = None
        self._pairs: Tensor | None = None

    def negatives(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys ``[Q, d]`` and pairs ``[Q]`` (-1 for an empty slot), on a tensor's device."""
        if self._keys is None or self._pairs is None:
            self._keys = torch.zeros(self.size, like.shape[1])
            self._pairs = torch.full((self.size,), _EMPTY)
        self._keys = self._keys.to(like)
        self._pairs = self._pairs.to(like.device)
        return self._keys, self._pairs

    @property
    def is_centred(self) -> bool:
        """Whether a step has given a mean."""
        return self._centre is not None

    def centred(self, vectors: Tensor) -> Tensor:
        """Take the running mean of the vectors of past steps off new ones ``[N, d]``.

        All sentences have much in common, and that changes with the encoder: left in, it would tell
        the newest key, that of the translation, from older ones by its age.
        """
        if self._centre is None:
            return vectors
        self._centre = self._centre.to(vectors)
        return vectors - self._centre

    def follow(self, vectors: Tensor) -> None:
        """Move the mean by a tenth towards that of the vectors ``[N, d]`` of a step."""
        mean = vectors[torch.isfinite(vectors).all(1)].mean(0)
        known = mean if self._centre is None else self._centre.to(mean)
        self._centre = torch.where(torch.isfinite(mean), known + 0.1 * (mean - known), known)

    def put(self, keys: Tensor, pairs: Tensor, order: Tensor) -> None:
        """Take the keys of a step, the oldest out; nothing waits for the device.

        Args:
            keys: ``[N, d]``.
            pairs: ``[N]`` number of each key's pair.
            order: ``[N]`` what they are sorted by, whatever the order in which they come.
        """
        own, numbers = self.negatives(keys)
        newest = order.argsort(stable=True)[-self.size :]
        slots = (torch.arange(len(newest), device=own.device) + self.place) % self.size
        keys = keys[newest]
        whole = torch.isfinite(keys).all(1)
        own[slots] = torch.where(whole[:, None], keys, 0)
        numbers[slots] = torch.where(whole, pairs[newest], _EMPTY)
        self.place = (self.place + len(newest)) % self.size

    def state_dict(self) -> dict[str, Any]:
        """Return keys, pairs, mean and the next slot."""
        held = {"keys": self._keys, "pairs": self._pairs, "centre": self._centre}
        known = {name: value for name, value in held.items() if value is not None}
        return {**known, "place": self.place}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned; a queue of another size begins empty."""
        self.place, self._keys, self._pairs, self._centre = 0, None, None, state.get("centre")
        if "keys" in state and len(state["keys"]) == self.size:
            self.place = int(state["place"])
            self._keys, self._pairs = state["keys"].clone(), state["pairs"].clone()


def contrast_loss(
    queries: Tensor, keys: Tensor, pairs: Tensor, queue: tuple[Tensor, Tensor], temperature: float
) -> tuple[Tensor, Tensor]:
    """Return the sum of InfoNCE over both directions, and how many keys are closer than all others.

    ``-log(exp(q·k / τ) / (exp(q·k / τ) + Σ exp(q·n / τ)))`` for each query q, with k the key of its
    translation and n the keys in the queue that are not of its own pair.

    Args:
        queries: ``[2 S, d]``: both sentences of each pair, one after the other.
        keys: ``[2 S, d]``, likewise.
        pairs: ``[S]`` numbers of the pairs.
        queue: keys ``[Q, d]`` and pairs ``[Q]``, -1 for an empty slot.
        temperature: τ.
    """
    others, numbers = queue
    translated = keys.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    positive = (queries * translated).sum(1, keepdim=True)
    own = pairs.repeat_interleave(2)[:, None] == numbers[None]
    negative = (queries @ others.T).masked_fill(own | (numbers < 0), -torch.inf)
    logits = torch.cat((positive, negative), 1) / temperature
    target = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    return loss_sum(logits, target), (positive[:, 0] > negative.amax(1)).sum()


def sentence_states(states: Tensor, batch: MicroBatch, instance: str, state: str) -> Tensor:
    """Return ``[2 S, d]`` the state of each sentence: the first token's, or the words' mean."""
    if state == "first":
        return states[batch.column(instance, "first")]
    words = (batch.languages >= 0).to(states.dtype)
    sentence = 2 * batch.sequence + batch.column(instance, HALF)
    total = states.new_zeros(len(batch.column(instance, "first")), states.shape[1])
    count = states.new_zeros(len(total)).index_add(0, sentence, words)
    return total.index_add(0, sentence, states * words[:, None]) / count.clamp(min=1)[:, None]


class Projection(nn.Linear):
    """The map of all languages' queries, and (its moving average) of all keys."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, bias=False)
        nn.init.normal_(self.weight, std=0.02)


@dataclass
class Contrast:
    """The objective: parts, taps, loss and queue.

    Attributes:
        settings: its settings.
        instance: the plugin's instance.
        name: the objective's name.
        stream: the stream of pairs, apart.
        queue: the keys.
    """

    settings: ContrastSettings
    instance: str
    name: str
    stream: str
    queue: Queue = field(init=False)

    def __post_init__(self) -> None:
        self.queue = Queue(self.settings.queue)

    def parts(self, context: ContextView) -> list[Part | MovingAverage]:
        """Return the projection, read behind a block, and the key encoder."""
        config = context.model_config
        block = compared_block(self.settings, config.num_hidden_layers)
        taps = partial(self._taps, block=block)
        momentum = self.settings.momentum
        followed = ("backbone", f"parts.{self.instance}/projection")
        return [
            Part(name="projection", build=partial(Projection, config.hidden_size), taps=taps),
            MovingAverage(name=KEYS, momentum=lambda step: momentum, of=followed),
        ]

    def objective(self) -> Objective:
        """Return the objective."""
        return Objective(
            name=self.name,
            count=self._count,
            compute=self._loss,
            weight=self.settings.weight,
            streams=(self.stream,),
        )

    def after_step(self, kept: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Put the keys of a step into the queue."""
        found = kept.get(f"{self.stream}/{self.name}")
        if found:
            if self.queue.is_centred:  # the first step gives the mean alone
                self.queue.put(found["keys"], found["pairs"], found["order"])
            self.queue.follow(found["plain"])

    def _taps(self, projection: nn.Module, block: int) -> list[Tap]:
        return [Tap(site="block_out", blocks=(block,), run=partial(self._read, projection))]

    def _read(
        self, projection: nn.Module, context: PassContext, block: int, states: Tensor
    ) -> None:
        if context.batch.stream == self.stream:
            read = sentence_states(states, context.batch, self.instance, self.settings.state)
            projected = projection(read)
            context.states[self.name, 0] = projected

    def _count(self, columns: Mapping[str, NDArray[Any]]) -> float:
        return float(len(columns[f"{self.instance}.first"]))

    def _loss(self, batch: MicroBatch, encode: Encode, parts: Mapping[str, nn.Module]) -> Outcome:
        queries = encode(batch).left[self.instance][self.name, 0]
        plain = encode(batch, weights=KEYS).left[self.instance][self.name, 0]
        keys = self.queue.centred(plain)
        if self.settings.similarity == "cosine":
            queries, keys = normalize(queries), normalize(keys)
        pairs = batch.column(self.instance, "pair")
        loss, found = contrast_loss(
            queries, keys, pairs, self.queue.negatives(keys), self.settings.temperature
        )
        order = 2 * batch.column(self.instance, "order")
        kept = {
            "keys": keys,
            "plain": plain,
            "pairs": pairs.repeat_interleave(2),
            "order": torch.stack((order, order + 1), 1).flatten(),
        }
        accuracy = (found, found.new_full((), len(queries)))
        return Outcome(loss, {"accuracy": accuracy}, kept)

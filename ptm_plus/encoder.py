"""Passes of the encoder: taps, inputs, and the states that objectives read.

The backbone stays a plain transformers model. Taps are forward hooks that act only while one of
our passes runs and that get that pass's own context: during the forward from a cell, during a
checkpoint's recomputation from the context that the checkpoint captured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ptm_plus.attention import Packing, Rule
from ptm_plus.averages import Average
from ptm_plus.components import (
    EmbeddingDelta,
    EmbeddingReplacement,
    MovingAverage,
    Tap,
    Visibility,
)
from ptm_plus.compose import Contribution
from ptm_plus.errors import GuardStop, PluginError, SettingsError
from ptm_plus.families import FamilyCard
from ptm_plus.microbatch import MicroBatch

Inputs = EmbeddingDelta | EmbeddingReplacement | Visibility


@dataclass(frozen=True)
class PassContext:
    """One pass of the encoder: what a tap may read and write.

    Attributes:
        batch: the micro-batch of the pass.
        parts: parts of the tap's own plugin, by name.
        states: tensors that the plugin's taps leave for later taps and for objectives, keyed by
            (name, block): write block i, read block i - 1, never one mutable "current" state.
    """

    batch: MicroBatch
    parts: Mapping[str, nn.Module]
    states: dict[tuple[str, int], Tensor]


@dataclass(frozen=True)
class States:
    """What a pass computed.

    Attributes:
        top: ``[T, d]`` last states.
        blocks: ``[T, d]`` output of every block, taps included.
        left: by plugin instance, what its taps left in ``PassContext.states``.
        logits: the family's masked-LM head: states ``[K, d]`` to logits ``[K, V]``.
        project: the head's last map alone (tied word vectors and bias), for heads of plugins.
    """

    top: Tensor
    blocks: Sequence[Tensor]
    left: Mapping[str, Mapping[tuple[str, int], Tensor]]
    logits: Callable[[Tensor], Tensor]
    project: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Pass:
    """A running pass: hooks find it in the encoder's cell."""

    batch: MicroBatch
    taps: bool
    silent: frozenset[str]
    only: Tensor | None
    outputs: dict[int, Tensor] = field(default_factory=dict)
    left: dict[str, dict[tuple[str, int], Tensor]] = field(default_factory=dict)


class Encode(Protocol):
    """The ``encode`` that objectives receive."""

    def __call__(
        self,
        batch: MicroBatch,
        *,
        taps: bool = True,
        rules: Sequence[Rule] = (),
        weights: str = "",
        vectors: Tensor | None = None,
    ) -> States:
        """Run a pass, or return the one that already ran with the same arguments.

        Args:
            batch: the micro-batch.
            taps: whether taps run.
            rules: further visibility rules.
            weights: name of one of the plugin's moving averages, to run without gradient on them.
            vectors: ``[T, d]`` word vectors in place of those of ``batch.ids``; what other plugins
                put in their place is left out, what they add is added. Such a pass is run anew.
        """
        ...

    def words(self, ids: Tensor) -> Tensor:
        """Return ``[n, d]`` word vectors of ``[n]`` token ids, with their gradient."""
        ...


class Encoder(nn.Module):
    """Backbone, parts and the hooks between them.

    Args:
        backbone: masked-LM model of transformers.
        card: its family card.
        parts: modules by instance and name.
        taps: taps by instance, in chain order.
        inputs: input components with their owners.
        averages: moving averages with their owners.

    Attributes:
        inputs: the input components.
        fixed: names of parameters that are never trained.
    """

    def __init__(
        self,
        backbone: nn.Module,
        card: FamilyCard,
        parts: Mapping[str, Mapping[str, nn.Module]] | None = None,
        taps: Sequence[Contribution[Tap]] = (),
        inputs: Sequence[Contribution[Inputs]] = (),
        averages: Sequence[Contribution[MovingAverage]] = (),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.card = card
        self.parts = nn.ModuleDict(
            {
                part_key(instance, name): module
                for instance, modules in sorted((parts or {}).items())
                for name, module in sorted(modules.items())
            }
        )
        self._by_instance = {name: dict(modules) for name, modules in (parts or {}).items()}
        self.averages = {
            part_key(owner.instance, owner.component.name): Average(self, owner)
            for owner in averages
        }
        for key in self.averages.keys() & self.parts.keys():
            raise PluginError(f"{key}: a part and a moving average of a plugin have one name")
        self.parts.update(self.averages)
        self.inputs = tuple(inputs)
        self.fixed = frozenset(n for n, p in self.named_parameters() if not p.requires_grad)
        self._silent: frozenset[str] = frozenset()
        self._offset = card.position_offset(backbone.config)
        self._types = card.types(backbone.config)
        self._cell: list[_Pass] = []
        self._top: list[Contribution[Tap]] = []
        self._hook(taps)

    def parts_of(self, instance: str) -> Mapping[str, nn.Module]:
        """Return a plugin's modules by name."""
        return self._by_instance.get(instance, {})

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.card.block_list(self.backbone))

    def encode(
        self,
        batch: MicroBatch,
        *,
        taps: bool = True,
        rules: Sequence[Rule] = (),
        weights: str = "",
        vectors: Tensor | None = None,
        only: Tensor | None = None,
    ) -> States:
        """Run one pass.

        Args:
            batch: the micro-batch.
            taps: whether taps run.
            rules: further visibility rules.
            weights: key of a moving average to run it on, without gradient.
            vectors: ``[T, d]`` word vectors in place of those of ``batch.ids``.
            only: ``[K]`` tokens whose states are wanted; the others' may be zero after the last
                block.
        """
        given = batch, taps, rules, vectors, only
        if not weights:
            return self._encode(*given)
        average = self.averages[weights].named()

        def with_average(work: Callable[..., Any], *arguments: Any) -> Any:
            with torch.no_grad():
                return functional_call(self, average, (partial(work, *arguments),))

        states: States = with_average(self._encode, *given)
        return replace(
            states,
            logits=partial(with_average, states.logits),
            project=partial(with_average, states.project),
        )

    def forward(self, work: Callable[[], Any]) -> Any:
        """Do a piece of work with the parameters at hand."""
        return work()

    def _encode(
        self,
        batch: MicroBatch,
        taps: bool,
        rules: Sequence[Rule],
        vectors: Tensor | None,
        only: Tensor | None,
    ) -> States:
        running = _Pass(batch, taps, self._silent, only if self._narrows else None)
        active = [
            c
            for c in self.inputs
            if _applies(c.component.streams, batch.stream) and c.instance not in self._silent
        ]
        visible = [c.component.rule for c in active if isinstance(c.component, Visibility)]
        packing = Packing(batch, [*visible, *rules])
        arguments = {"ptm_packing": packing, **self.places(batch)}
        embedded = self._embed(batch, active, vectors)
        if embedded is None:
            arguments["input_ids"] = batch.ids[None]
        else:
            arguments["inputs_embeds"] = embedded[None]
        with self._running(running):
            output = self.card.encoder(self.backbone)(**arguments)
            top = output[0][0]
            for owner in self._top:
                if self._runs(owner):
                    top = self._run_tap(owner, running, self.blocks, top)
        outputs = [running.outputs[place] for place in range(self.blocks)]
        if running.only is not None and not self.card.tail_returns:
            top = _at(running.only, top, len(batch))
            outputs[-1] = _at(running.only, outputs[-1], len(batch))
        project = self.backbone.get_output_embeddings()
        return States(top, outputs, running.left, self.logits, project)

    def places(self, batch: MicroBatch) -> dict[str, Any]:
        """Return the encoder's arguments beside the words: positions and types, ``[1, T]``."""
        arguments = {}
        if self.card.takes_positions:
            arguments["position_ids"] = (batch.positions + self._offset)[None]
        if self._types > 1:
            arguments["token_type_ids"] = batch.types[None]
        return arguments

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the masked-LM logits ``[K, V]`` of states ``[K, d]``."""
        return self.card.head(self.backbone, hidden)

    def word_vectors(self) -> nn.Module:
        """Return the word embedding."""
        module = self.backbone.get_input_embeddings()
        assert isinstance(module, nn.Module)
        return module

    def _embed(
        self, batch: MicroBatch, active: Sequence[Contribution[Inputs]], given: Tensor | None
    ) -> Tensor | None:
        """Return edited word embeddings ``[T, d]``, or ``None`` when nobody edits them."""
        edits = [c for c in active if not isinstance(c.component, Visibility)]
        if not edits:
            return given
        vectors: Tensor
        if given is None:
            vectors = self._replaced(self.word_vectors()(batch.ids), batch, edits)
        else:
            vectors = given
        for owner in edits:
            if isinstance(owner.component, EmbeddingDelta):
                vectors = vectors + owner.component.delta(batch, self.parts_of(owner.instance))
        return vectors

    def _replaced(
        self, vectors: Tensor, batch: MicroBatch, edits: Sequence[Contribution[Inputs]]
    ) -> Tensor:
        owners = [c for c in edits if isinstance(c.component, EmbeddingReplacement)]
        owner_of = torch.full((len(batch),), -1, device=vectors.device) if len(owners) > 1 else None
        for number, owner in enumerate(owners):
            assert isinstance(owner.component, EmbeddingReplacement)
            places, rows = owner.component.replace(batch, self.parts_of(owner.instance))
            if owner_of is not None:
                if bool((owner_of[places] >= 0).any()):
                    names = ", ".join(repr(c.instance) for c in owners)
                    raise GuardStop(f"plugins {names} replace the vector of the same token")
                owner_of[places] = number
            vectors = vectors.index_copy(0, places, rows.to(vectors.dtype))
        return vectors

    @contextmanager
    def _running(self, running: _Pass) -> Iterator[None]:
        self._cell.append(running)
        try:
            yield
        finally:
            self._cell.pop()

    def _runs(self, owner: Contribution[Tap]) -> bool:
        """Whether a tap acts now: during a pass with taps, unless its plugin is silenced."""
        current = self._cell[-1] if self._cell else None
        return current is not None and current.taps and owner.instance not in current.silent

    @contextmanager
    def without(self, instances: Iterable[str]) -> Iterator[None]:
        """Run passes as if the taps and inputs of some plugins were not there."""
        before, self._silent = self._silent, self._silent | frozenset(instances)
        try:
            yield
        finally:
            self._silent = before

    def enable_checkpointing(self) -> None:
        """Have transformers recompute blocks in the backward pass instead of keeping them."""
        name = "activation_checkpointing_enable"  # gradient_… before transformers 5.23
        enable = getattr(self.backbone, name, None) or self.backbone.gradient_checkpointing_enable
        enable({"use_reentrant": False, "context_fn": self.checkpoint_contexts})

    def checkpoint_contexts(
        self,
    ) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return the contexts of a checkpointed block: its recomputation sees its own pass."""
        current = self._cell[-1] if self._cell else None
        return _nothing(), self._running(current) if current else _nothing()

    def _hook(self, taps: Sequence[Contribution[Tap]]) -> None:
        """Register forward hooks for taps, and readers of block outputs."""
        blocks = self.card.block_list(self.backbone)
        for owner in taps:
            tap = owner.component
            if tap.site == "top":
                self._top.append(owner)
            elif tap.site == "embeddings":
                module = self.card.encoder(self.backbone).get_submodule(self.card.embeddings)
                module.register_forward_hook(self._after(owner, -1))
            else:
                if tap.site not in self.card.sites:
                    raise SettingsError(
                        f"plugin {owner.instance!r} needs site {tap.site!r}, which family "
                        f"{self.card.name!r} does not have",
                        f"sites of the family: {', '.join(sorted(self.card.sites))}",
                    )
                path, moment = self.card.sites[tap.site]
                for index in tap.blocks:
                    self._check_block(owner, index, len(blocks))
                    place = index % len(blocks)
                    module = blocks[place].get_submodule(path)
                    if moment == "input":
                        module.register_forward_pre_hook(self._before(owner, place))
                    else:
                        module.register_forward_hook(self._after(owner, place))
        for place, block in enumerate(blocks):
            block.register_forward_hook(self._keeper(place))
        last = len(blocks) - 1
        tapped = any(t.component.site == "top" or last in _places(t, len(blocks)) for t in taps)
        self._narrows = bool(self.card.tail) and not tapped
        if self._narrows:
            tail = blocks[last].get_submodule(self.card.tail)
            tail.register_forward_pre_hook(self._narrowed)
            if self.card.tail_returns:
                tail.register_forward_hook(self._widened)

    def _narrowed(self, module: nn.Module, arguments: tuple[Any, ...]) -> Any:
        """Take the wanted tokens' states alone into the last block's tail."""
        only = self._cell[-1].only if self._cell else None
        return None if only is None else tuple(states[:, only] for states in arguments)

    def _widened(self, module: nn.Module, arguments: Any, output: Tensor) -> Any:
        running = self._cell[-1] if self._cell else None
        if running is None or running.only is None:
            return None
        return _at(running.only, output[0], len(running.batch))[None]

    @staticmethod
    def _check_block(owner: Contribution[Tap], index: int, blocks: int) -> None:
        if not -blocks <= index < blocks:
            raise SettingsError(
                f"plugin {owner.instance!r} taps block {index}, but the model has {blocks} blocks",
                f"choose blocks from 0 to {blocks - 1}",
            )

    def _run_tap(
        self, owner: Contribution[Tap], running: _Pass, place: int, hidden: Tensor
    ) -> Tensor:
        left = running.left.setdefault(owner.instance, {})
        own = PassContext(running.batch, self.parts_of(owner.instance), left)
        changed = owner.component.run(own, place, hidden)
        return hidden if changed is None or not owner.component.writes else changed

    def _after(self, owner: Contribution[Tap], place: int) -> Callable[..., Any]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
            if not self._runs(owner):
                return None
            hidden = output[0] if isinstance(output, tuple) else output
            changed = self._run_tap(owner, self._cell[-1], place, hidden[0])[None]
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return hook

    def _before(self, owner: Contribution[Tap], place: int) -> Callable[..., Any]:
        def hook(module: nn.Module, arguments: tuple[Any, ...]) -> Any:
            if not self._runs(owner):
                return None
            changed = self._run_tap(owner, self._cell[-1], place, arguments[0][0])[None]
            return (changed, *arguments[1:])

        return hook

    def _keeper(self, place: int) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            if self._cell:
                hidden = output[0] if isinstance(output, tuple) else output
                self._cell[-1].outputs[place] = hidden[0]

        return hook


def part_key(instance: str, name: str) -> str:
    """Return the key of a part in state dicts."""
    return f"{instance}/{name}"


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _at(places: Tensor, states: Tensor, count: int) -> Tensor:
    """Return ``[count, d]`` states at their places, zero elsewhere."""
    return states.new_zeros(count, states.shape[1]).index_copy(0, places, states)


def _places(owner: Contribution[Tap], blocks: int) -> set[int]:
    return {index % blocks for index in owner.component.blocks}


def _applies(streams: tuple[str, ...], stream: str) -> bool:
    return not streams or stream in streams

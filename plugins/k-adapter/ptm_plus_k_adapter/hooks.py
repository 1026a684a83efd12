"""The hooks of the k-adapter plugin."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ptm_plus import (
    ContextView,
    DataError,
    Encode,
    Event,
    Example,
    Exporter,
    Feature,
    FeatureInput,
    MicroBatch,
    Objective,
    Outcome,
    ParameterRule,
    Part,
    PassContext,
    Placebo,
    Probe,
    ProbeContext,
    Refused,
    SettingsError,
    States,
    Stream,
    Tap,
    View,
    attend_within,
    file_sha256,
    hookimpl,
    loss_sum,
)
from ptm_plus_k_adapter.adapter import Adapter
from ptm_plus_k_adapter.dependencies import WORD, DependencyColumns, read_dependencies
from ptm_plus_k_adapter.files import adapted, write_adapter
from ptm_plus_k_adapter.heads import PointerHead, RelationHead, relation_keys
from ptm_plus_k_adapter.placebos import OtherLabels
from ptm_plus_k_adapter.relations import (
    HEAD,
    read_relations,
    relation_columns,
    relations_left_out,
)
from ptm_plus_k_adapter.settings import KAdapterSettings

Read = Callable[[str], Iterator[Example | Refused]]
Columns = Callable[[View], Mapping[str, NDArray[Any]]]

_NOTHING = np.iinfo(np.int64).min
"""What is no answer."""

_EMBEDDED = ("embedded", -1)
"""Where the states after the embeddings are left."""


@dataclass
class KAdapter:
    """An adapter beside the frozen encoder (Wang et al. 2021)."""

    settings: KAdapterSettings
    instance: str
    _counted: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)
    _relations: tuple[str, ...] = field(default=(), init=False)
    _dependencies: DependencyColumns = field(default=DependencyColumns.of(()), init=False)

    @property
    def _tasks(self) -> dict[str, tuple[str, ...]]:
        given = {"relation": self.settings.relations, "dependency": self.settings.dependencies}
        return {task: files for task, files in given.items() if files}

    @hookimpl
    def ptm_streams(self, context: ContextView) -> list[Stream]:
        """Return the labelled sentences: read as they are, nothing is masked."""
        if not self._tasks:
            raise SettingsError(
                f"plugin {self.instance!r} has nothing to learn from",
                f'give plugin.{self.instance}.relations = ["FILE"], or dependencies',
            )
        readers: dict[str, Read] = {"relation": read_relations, "dependency": read_dependencies}
        limit = context.settings.data.max_examples
        return [
            Stream(
                name=self._name(task),
                examples=partial(_examples, readers[task], files, limit),
                fingerprint=_fingerprint(files),
                objectives=(self._name(task),),
                weight=self.settings.stream_weight,
                masked=False,
            )
            for task, files in self._tasks.items()
        ]

    @hookimpl
    def ptm_features(self, context: ContextView) -> list[Feature]:
        """Return the columns that carry the labels."""
        self._dependencies = DependencyColumns.of(context.labels.get(WORD, ()))
        return [
            Feature(
                name=task,
                compute=partial(_of_view, self._columns(task)),
                streams=(self._name(task),),
            )
            for task in self._tasks
        ]

    @hookimpl
    def ptm_parts(self, context: ContextView) -> list[Part]:
        """Return the adapter and the heads of its tasks."""
        hidden, dropout = context.model_config.hidden_size, self.settings.dropout
        size = self.settings.size or min(hidden, 768)
        heads = self.settings.heads or max(1, size // 64)
        if size % heads:
            raise SettingsError(
                f"plugin.{self.instance}.heads is {heads}, which does not divide the size, {size}",
                "choose size and heads so that it does",
            )
        shape = {"places": len(self._places(context)), "size": size, "heads": heads}
        build = partial(Adapter, hidden, layers=self.settings.layers, dropout=dropout, **shape)
        self._relations = tuple(context.labels.get(HEAD, ()))
        made: dict[str, Callable[[], nn.Module]] = {
            "relation": partial(RelationHead, hidden, self._relations, dropout),
            "dependency": partial(PointerHead, hidden),
        }
        parts = [Part(name="adapter", build=build, taps=self._taps)]
        return parts + [Part(name=task, build=made[task]) for task in self._tasks]

    @hookimpl
    def ptm_parameters(self, context: ContextView) -> list[ParameterRule]:
        """Return that the encoder is frozen, and the rate of the rest."""
        own = ("adapter", *self._tasks)
        return [
            ParameterRule(path="backbone", frozen=True),
            *(
                ParameterRule(path=f"parts.{self.instance}/{name}", lr=self.settings.lr)
                for name in own
            ),
        ]

    @hookimpl
    def ptm_objectives(self, context: ContextView) -> list[Objective]:
        """Return the losses of the tasks."""
        computes = {"relation": self._relation_loss, "dependency": self._dependency_loss}
        places = self._places(context)
        return [
            Objective(
                name=self._name(task),
                count=partial(self._count, task),
                compute=partial(computes[task], places),
            )
            for task in self._tasks
        ]

    @hookimpl
    def ptm_probes(self, context: ContextView) -> list[Probe]:
        """Return accuracy on held-out sentences, beside that of the most frequent answer."""
        return [Probe(name=f"{self.instance}_tasks", run=self._accuracy)]

    @hookimpl
    def ptm_export(self, context: ContextView) -> list[Exporter]:
        """Return the writer of the adapter's own file."""
        names = list(context.labels.get(HEAD, ()))
        write = partial(
            write_adapter,
            name=self.instance,
            encoder=context.card.encoder(context.backbone),
            sites={"embeddings": context.card.embeddings, "blocks": context.card.blocks},
            places=self._places(context),
            labels={"relation": names} if "relation" in self._tasks else {},
        )
        return [Exporter(name="adapter", write=write, read=adapted)]

    @hookimpl
    def ptm_event(self, event: Event, context: ContextView) -> None:
        """Refuse weights that were trained on other relations: their rows mean something else.

        Raises:
            DataError: the weights of another run were loaded, and its relations are others.
        """
        if event.kind == "train_start" and "relation" in self._tasks:
            keys = context.parts[self.instance]["relation"].relations
            if keys.tolist() != relation_keys(self._relations).tolist():
                raise DataError(
                    f"the weights of plugin {self.instance!r} belong to other relations than the "
                    f"{len(self._relations)} of this run",
                    "name the files that it was trained on, too, and only those",
                )

    @hookimpl
    def ptm_placebos(self, context: ContextView) -> list[Placebo]:
        """Return the same sentences with other labels."""
        chosen = self.settings
        change = OtherLabels(self.instance, chosen.relations, chosen.dependencies)
        words = "the same sentences with permuted relations and trees"
        return [Placebo(name="other-labels", summary=words, change=change)]

    # -----------------------------------------------------------------------------------------

    def _name(self, task: str) -> str:
        return task if self.instance == "k-adapter" else f"{task}:{self.instance.partition(':')[2]}"

    def _places(self, context: ContextView) -> tuple[int, ...]:
        try:
            return self.settings.places(context.model_config.num_hidden_layers)
        except ValueError as error:
            raise SettingsError(f"plugin.{self.instance}.{error}") from error

    def _taps(self, module: nn.Module) -> list[Tap]:
        return [Tap(site="embeddings", run=_leave)]

    def _states(
        self,
        places: tuple[int, ...],
        batch: MicroBatch,
        encode: Encode,
        parts: Mapping[str, nn.Module],
    ) -> Tensor:
        """Return ``[T, d]`` states of encoder and adapter together."""
        states = encode(batch)
        read = [self._at(states, place) for place in places]
        within = partial(attend_within, batch=batch)
        joined: Tensor = parts["adapter"](read, states.top, within)
        return joined

    def _at(self, states: States, place: int) -> Tensor:
        return states.blocks[place - 1] if place else states.left[self.instance][_EMBEDDED]

    def _column(self, batch: MicroBatch, name: str) -> Tensor:
        return batch.column(self.instance, name)

    def _count(self, task: str, columns: Mapping[str, NDArray[Any]]) -> float:
        asked = {"relation": "relation", "dependency": "target"}[task]
        return float(len(columns[f"{self.instance}.{asked}"]))

    def _relation_loss(
        self,
        places: tuple[int, ...],
        batch: MicroBatch,
        encode: Encode,
        parts: Mapping[str, nn.Module],
    ) -> Outcome:
        states = self._states(places, batch, encode, parts)
        head, tail = (states[self._column(batch, name)] for name in ("head", "tail"))
        return _outcome(parts["relation"](head, tail), self._column(batch, "relation"))

    def _dependency_loss(
        self,
        places: tuple[int, ...],
        batch: MicroBatch,
        encode: Encode,
        parts: Mapping[str, nn.Module],
    ) -> Outcome:
        states = self._states(places, batch, encode, parts)
        table, asked = (self._column(batch, name) for name in ("table", "asked"))
        return _outcome(parts["dependency"](states, table, asked), self._column(batch, "target"))

    def _columns(self, task: str) -> Columns:
        return relation_columns if task == "relation" else self._dependencies

    def _accuracy(self, context: ProbeContext) -> dict[str, Any]:
        figures = {}
        for task in self._tasks:
            name = self._name(task)
            right, asked = context.metrics(name, name).get("accuracy", (0.0, 0.0))
            accuracy = {"accuracy": right / asked} if asked else {}
            figures[task] = {**accuracy, **self._beside(task, context)}
        return figures

    def _beside(self, task: str, context: ProbeContext) -> dict[str, Any]:
        """Return what accuracy is judged by; the data are counted once in a run."""
        if task not in self._counted:
            self._counted[task] = self._count_data(task, context)
        return self._counted[task]

    def _count_data(self, task: str, context: ProbeContext) -> dict[str, Any]:
        stream, columns, trained = self._name(task), self._columns(task), Counter[int]()
        left_out = Counter[str]()
        for held_out in (False, True):
            for view in context.views(stream, held_out=held_out):
                left_out.update(self._left_out(task, view))
                if not held_out:
                    trained.update(_answers(task, columns(view)).tolist())
        found = (_answers(task, columns(host.view)) for host in context.held_out(stream))
        asked = np.concatenate([np.zeros(0, dtype=np.int64), *found])
        commonest = max(trained, key=lambda one: (trained[one], -one), default=_NOTHING)
        unseen = {"unseen": sum(answer not in trained for answer in asked.tolist())}
        most_frequent = {"most_frequent": float(np.mean(asked == commonest))} if len(asked) else {}
        return {
            **most_frequent,
            "asked": len(asked),
            **(unseen if task == "relation" else {}),
            **left_out,
        }

    def _left_out(self, task: str, view: View) -> dict[str, int]:
        left_out = relations_left_out if task == "relation" else self._dependencies.left_out
        return left_out(view)


def _of_view(columns: Columns, given: FeatureInput) -> Mapping[str, NDArray[Any]]:
    return columns(given.view)


def _answers(task: str, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """Return right answers: relations, or how many words on a head stands."""
    if task == "relation":
        return columns["relation"]
    return columns["target"] - columns["asked"] % columns["table"].shape[1]


def _leave(context: PassContext, block: int, hidden: Tensor) -> None:
    context.states[_EMBEDDED] = hidden


def _outcome(logits: Tensor, labels: Tensor) -> Outcome:
    right = (logits.argmax(-1) == labels).sum()
    return Outcome(loss_sum(logits, labels), {"accuracy": (right, right.new_full((), len(labels)))})


def _examples(read: Read, files: tuple[str, ...], limit: int) -> Iterator[Example | Refused]:
    rows = itertools.chain.from_iterable(map(read, files))
    return itertools.islice(rows, limit) if limit else rows


def _fingerprint(files: tuple[str, ...]) -> str:
    hashes = " ".join(["k-adapter 2", *map(file_sha256, files)])
    return hashlib.sha256(hashes.encode()).hexdigest()[:24]

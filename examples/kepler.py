"""Knowledge embedding from descriptions (Wang et al. 2021, KEPLER, sections 3.2 and 3.4).

The encoder reads the descriptions of a triple's entities; its states of their first tokens, with a
vector for the relation, are trained as TransE is, beside masked words. Descriptions come from a
file, triples from the run's graph (``--kg``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from ptm_plus import (
    Claim,
    ContextView,
    DataError,
    Draws,
    Encode,
    Example,
    Feature,
    FeatureInput,
    LaidOut,
    Layout,
    LayoutInput,
    MicroBatch,
    Objective,
    Outcome,
    Part,
    PluginInfo,
    Section,
    Segment,
    Stream,
    Visibility,
    field_segment,
    file_sha256,
    hookimpl,
    json_row,
    open_lines,
    special_segment,
)
from ptm_plus.knowledge import Graph, read_graph

FIELDS = ("head", "tail", "other_head", "other_tail")
"""What is read of a triple: its entities, and one to put in the place of each."""

WHICH = "which"


class KeplerSettings(Section):
    """``[plugin.kepler]``."""

    descriptions: list[str] = Field(description='Lines {"id": "Q1", "text": "…"}.', min_length=1)
    weight: float = Field(1.0, ge=0, description="Factor on the loss.")
    stream_weight: float = Field(1.0, gt=0, description="Rows against the other streams'.")
    margin: float = Field(4.0, gt=0, description="γ: distance that true and other triples part at.")


def descriptions(graph: Graph, files: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the graph's entities with their descriptions.

    Raises:
        DataError: a line is not of the form.
    """
    for file in files:
        for number, line in open_lines(file):
            row = json_row(line, file, number)
            if not all(isinstance(row.get(name), str) for name in ("id", "text")):
                hint = 'write {"id": "Q1", "text": "…"}'
                raise DataError("no id or no text", hint, path=file, line=number)
            if row["id"] in graph.index:
                yield graph.index[row["id"]], row["text"]


def triples(graph: Graph, files: Sequence[str], draws: Draws) -> Iterator[Example]:
    """Yield triples whose entities are described, with another entity for either place."""
    texts = dict(descriptions(graph, files))
    known = np.array(sorted(texts), dtype=np.int64)
    place = {entity: number for number, entity in enumerate(known.tolist())}
    for number, (head, relation, tail) in enumerate(graph.triples.tolist()):
        if head not in texts or tail not in texts or len(known) < 2:
            continue
        steps = draws.integers("other", len(known) - 1, number, np.arange(2)) + 1
        others = [
            int(known[(place[entity] + step) % len(known)])  # any but itself
            for entity, step in zip((head, tail), steps.tolist(), strict=True)
        ]
        read = zip(FIELDS, (head, tail, *others), strict=True)
        fields = {name: texts[entity] for name, entity in read}
        languages = dict.fromkeys(FIELDS, "und")
        yield Example(f"triple-{number}", fields, languages, labels={"relation": relation})


def side_by_side(given: LayoutInput) -> list[LaidOut]:
    """Lay out the descriptions one behind the other, positions anew at each, a mark on each."""
    template, pieces = given.template, given.pieces
    frame = len(template.prefix) + len(template.suffix)
    room = given.max_length // len(FIELDS) - frame
    segments: list[Segment] = []
    for number, name in enumerate(FIELDS):
        own = [
            special_segment(template.prefix),
            field_segment(pieces[name], name, given.example.languages[name], 0, room),
            special_segment(template.suffix),
        ]
        own = [replace(one, columns={WHICH: np.full(len(one), number, np.uint8)}) for one in own]
        segments += [replace(own[0], restart=number > 0), *own[1:]]
    cut = sum(max(0, len(piece) - room) for piece in pieces.values())
    return [LaidOut(tuple(segments), given.example.labels, truncated=cut)]


def columns(given: FeatureInput) -> Mapping[str, NDArray[Any]]:
    """Return marks ``[T]``, the first token of every description ``[4 S]``, relations ``[S]``."""
    which = given.view.columns[WHICH].astype(np.int64)
    key = given.view.sequence * len(FIELDS) + which
    first = np.flatnonzero(np.diff(key, prepend=-1))
    return {WHICH: which, "first": first, "relation": given.view.labels["relation"]}


def parting(true: Tensor, others: Tensor, margin: float) -> Tensor:
    """Return equation 4 over distances ``[S]`` of triples and ``[n, S]`` of changed ones."""
    return -(logsigmoid(margin - true) + logsigmoid(others - margin).mean(0)).sum()


@dataclass
class Kepler:
    """A stream of triples, read as they are."""

    settings: KeplerSettings
    instance: str

    @hookimpl
    def ptm_streams(self, context: ContextView) -> list[Stream]:
        data, files = context.settings.data, self.settings.descriptions
        graph = read_graph(data.kg, data.links)
        draws = Draws(context.settings.train.seed, self.instance, self.instance)
        read = [file_sha256(Path(file)) for file in (*data.kg, *data.links, *files)]
        return [
            Stream(
                name=self.instance,
                examples=partial(triples, graph, files, draws),
                fingerprint=f"triples-1 {draws.seed} {read}",
                layout=self.instance,
                objectives=(self.instance,),
                weight=self.settings.stream_weight,
                masked=False,
            )
        ]

    @hookimpl
    def ptm_layouts(self, context: ContextView) -> list[Layout]:
        marks = {WHICH: "u1"}
        return [Layout(name=self.instance, lay_out=side_by_side, fingerprint="1", columns=marks)]

    @hookimpl
    def ptm_features(self, context: ContextView) -> list[Feature]:
        return [Feature(name="triples", compute=columns, streams=(self.instance,))]

    @hookimpl
    def ptm_inputs(self, context: ContextView) -> list[Visibility]:
        return [Visibility(name="apart", rule=self.apart, streams=(self.instance,))]

    @hookimpl
    def ptm_parts(self, context: ContextView) -> list[Part]:
        shape = (len(context.graph.relations), context.model_config.hidden_size)
        return [Part(name="relations", build=partial(nn.Embedding, *shape))]

    @hookimpl
    def ptm_objectives(self, context: ContextView) -> list[Objective]:
        return [
            Objective(
                name=self.instance,
                count=lambda columns: float(len(columns[f"{self.instance}.relation"])),
                compute=self.loss,
                weight=self.settings.weight,
            )
        ]

    def apart(self, query: Tensor, key: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        """Let a token see its own description alone."""
        marks = columns[f"{self.instance}.{WHICH}"]
        return marks[query] == marks[key]

    def loss(self, batch: MicroBatch, encode: Encode, parts: Mapping[str, nn.Module]) -> Outcome:
        first, relation = (batch.column(self.instance, name) for name in ("first", "relation"))
        entities = encode(batch).top[first].unflatten(0, (-1, len(FIELDS)))
        head, tail, other_head, other_tail = entities.unbind(1)
        vector = parts["relations"](relation)
        true, *others = (
            torch.linalg.vector_norm(start + vector - end, ord=1, dim=-1)
            for start, end in ((head, tail), (other_head, tail), (head, other_tail))
        )
        nearer = true < torch.stack(others)
        accuracy = (nearer.sum(), torch.ones_like(nearer).sum())
        loss = parting(true, torch.stack(others), self.settings.margin)
        return Outcome(loss, {"accuracy": accuracy})


plugin = PluginInfo(
    name="kepler",
    summary="Train descriptions of entities as knowledge embeddings (KEPLER)",
    hooks=Kepler,
    settings=KeplerSettings,
    needs=("graph",),
    claims=(Claim(resource="backbone"),),
)

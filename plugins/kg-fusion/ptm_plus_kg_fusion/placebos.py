"""Vectors that know nothing of their entities: of others, or drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptm_plus import ContextView, Placebo, RunSettings, load_graph, shuffled_graph
from ptm_plus.knowledge import write_table
from ptm_plus_kg_fusion.settings import TrainedVectors
from ptm_plus_kg_fusion.tables import table_of

Floats = NDArray[np.float32]
Draw = Callable[[Floats, np.random.Generator], Floats]


def placebos(context: ContextView, chosen: TrainedVectors) -> list[Placebo]:
    """Return the placebos of a run: with a graph, its own is first."""
    made = []
    if context.settings.data.kg:
        words = "objects of each relation permuted"
        made.append(Placebo(name="shuffled-graph", summary=words, change=shuffled_graph))
    vectors = partial(OtherVectors, context, chosen)
    return [
        *made,
        Placebo(
            name="other-entities",
            summary="each entity with the vector of another",
            change=vectors("other-entities", permuted),
        ),
        Placebo(
            name="random-vectors",
            summary="random vectors of the same norms",
            change=vectors("random-vectors", random_of_same_norm),
        ),
    ]


@dataclass(frozen=True)
class OtherVectors:
    """Gives a run another table for the same entities; its graph stays, so mentions are the same.

    Attributes:
        context: of the launch.
        chosen: how the true vectors are trained where none are given.
        name: of the file.
        draw: true vectors to the others.
    """

    context: ContextView
    chosen: TrainedVectors
    name: str
    draw: Draw

    def __call__(self, settings: RunSettings, folder: Path, seed: int) -> RunSettings:
        """Return the settings with the other table."""
        table = table_of(self.context, settings, load_graph(settings), self.chosen)
        vectors = np.array(table.vectors, dtype=np.float32)
        path = folder / f"{self.name}.safetensors"
        write_table(path, table.labels, self.draw(vectors, np.random.default_rng(seed)))
        data = settings.data.model_copy(update={"vectors": str(path)})
        return settings.model_copy(update={"data": data})


def permuted(vectors: Floats, rng: np.random.Generator) -> Floats:
    """Return ``[n, e]`` the same vectors, none of them at its own entity if there are two."""
    order = rng.permutation(len(vectors))
    found = np.empty_like(vectors)
    found[order] = vectors[np.roll(order, 1)]
    return found


def random_of_same_norm(vectors: Floats, rng: np.random.Generator) -> Floats:
    """Return ``[n, e]`` random directions, each as long as the true vector."""
    drawn = rng.standard_normal(vectors.shape)
    drawn *= np.linalg.norm(vectors, axis=1, keepdims=True) / np.linalg.norm(
        drawn, axis=1, keepdims=True
    )
    return drawn.astype(np.float32)

"""The run's entity vectors: a given file, or trained on the graph and kept in the cache."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from ptm_plus import ContextView, PluginError, RunSettings, cache_folder
from ptm_plus.knowledge import Graph, VectorTable, write_table
from ptm_plus_kg_fusion.settings import TrainedVectors


def open_table(context: ContextView, settings: TrainedVectors) -> VectorTable:
    """Return the run's table of entity vectors.

    Raises:
        PluginError: there is neither a file of vectors nor a graph to train them on.
        DataError: the file is damaged or belongs to another graph.
    """
    table = table_of(context, context.settings, context.graph, settings)
    if context.vectors:
        table.require_overlap(context.graph.entities if context.graph else context.labels["entity"])
    return table


def table_of(
    context: ContextView, settings: RunSettings, graph: Graph | None, chosen: TrainedVectors
) -> VectorTable:
    """Return the table that settings name, or one that is trained on their graph.

    Args:
        context: of the launch.
        settings: of a run.
        graph: its graph.
        chosen: how vectors are trained.

    Raises:
        PluginError: there is neither a file of vectors nor a graph.
        DataError: the file is damaged.
    """
    if settings.data.vectors:
        return _opened(Path(settings.data.vectors))
    if graph is None:
        raise PluginError(
            "plugin 'kg-fusion' needs entity vectors, or a graph to train them on",
            "give --kg TRIPLES.tsv or --vectors VECTORS.safetensors",
        )
    path = _cached_path(settings, graph, chosen)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            _train(context, graph, chosen, path)
    return _opened(path)


@lru_cache(maxsize=4)
def _opened(path: Path) -> VectorTable:
    return VectorTable.open(path)


def _cached_path(settings: RunSettings, graph: Graph, chosen: TrainedVectors) -> Path:
    words = json.dumps([graph.fingerprint, chosen.model_dump()], sort_keys=True)
    name = hashlib.sha256(words.encode()).hexdigest()[:16]
    return cache_folder(settings) / "vectors" / f"{name}.safetensors"


def _train(context: ContextView, graph: Graph, chosen: TrainedVectors, path: Path) -> None:
    from ptm_plus_kg_fusion.vectors import train_vectors

    with context.watch.task(f"{chosen.model} vectors") as task:

        def progress(done: int, total: int, loss: float) -> None:
            task.update(done, total, f"loss {loss:.3f}")

        vectors = train_vectors(graph, progress=progress, **chosen.model_dump())
    write_table(path, graph.entities, vectors, {"graph": graph.fingerprint, "model": chosen.model})

"""The run's entity vectors: a given file, or trained on the graph and kept in the cache."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from ptm_plus import ContextView, PluginError, cache_folder
from ptm_plus.knowledge import VectorTable, write_table
from ptm_plus_kg_fusion.settings import TrainedVectors


def open_table(context: ContextView, settings: TrainedVectors) -> VectorTable:
    """Return the run's table of entity vectors.

    Raises:
        PluginError: there is neither a file of vectors nor a graph to train them on.
        DataError: the file is damaged or belongs to another graph.
    """
    if context.vectors:
        table = _opened(Path(context.vectors))
        known = context.graph.entities if context.graph else context.labels["entity"]
        table.require_overlap(known)
        return table
    if context.graph is None:
        raise PluginError(
            "plugin 'kg-fusion' needs entity vectors, or a graph to train them on",
            "give --kg TRIPLES.tsv or --vectors VECTORS.safetensors",
        )
    path = _cached_path(context, settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            _train(context, settings, path)
    return _opened(path)


@lru_cache(maxsize=4)
def _opened(path: Path) -> VectorTable:
    return VectorTable.open(path)


def _cached_path(context: ContextView, settings: TrainedVectors) -> Path:
    words = json.dumps([context.graph.fingerprint, settings.model_dump()], sort_keys=True)
    name = hashlib.sha256(words.encode()).hexdigest()[:16]
    return cache_folder(context.settings) / "vectors" / f"{name}.safetensors"


def _train(context: ContextView, settings: TrainedVectors, path: Path) -> None:
    from ptm_plus_kg_fusion.vectors import train_vectors

    graph = context.graph
    with context.watch.task(f"{settings.model} vectors") as task:

        def progress(done: int, total: int, loss: float) -> None:
            task.update(done, total, f"loss {loss:.3f}")

        vectors = train_vectors(graph, progress=progress, **settings.model_dump())
    write_table(
        path, graph.entities, vectors, {"graph": graph.fingerprint, "model": settings.model}
    )

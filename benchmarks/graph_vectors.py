"""Entity vectors: ``kg train``'s shared negatives beside PyKEEN's own pipeline, in one run.

    python -m benchmarks.graph_vectors --kg train.tsv --test valid.tsv --json graph_vectors.json
    python -m benchmarks.graph_vectors --model RotatE --dimension 64 --epochs 60

Both train the same PyKEEN model with the same width, epochs, batch size, learning rate, number of
negatives and loss (softmax cross-entropy: PyKEEN's InfoNCE with margin 0 and temperature 1); PyKEEN
draws negatives for every triple of its own, ``kg train`` once a step. Both are ranked by PyKEEN's
filtered evaluation, with a baseline of popularity beside. Without files: PyKEEN's bundled UMLS.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptm_plus.knowledge import Graph, read_graph
from ptm_plus_kg_fusion.pykeen_session import pykeen_session
from ptm_plus_kg_fusion.ranking import HITS, popularity, read_held_out
from ptm_plus_kg_fusion.vectors import train_and_rank


def read(arguments: argparse.Namespace) -> tuple[Graph, Any]:
    """Return the graph and the triples to rank, in its numbers."""
    if arguments.kg:
        graph = read_graph(arguments.kg)
        return graph, read_held_out(arguments.test, (), graph).triples
    with pykeen_session():
        from pykeen.datasets import UMLS

        data = UMLS()
        graph = Graph.build(map(tuple, data.training.label_triples(data.training.mapped_triples)))
        asked = data.testing.label_triples(data.testing.mapped_triples)
    kinds = {name: number for number, name in enumerate(graph.relations)}
    rows = [(graph.index[h], kinds[r], graph.index[t]) for h, r, t in asked]
    return graph, np.array(rows, dtype=np.int64)


def ours(graph: Graph, asked: Any, arguments: argparse.Namespace) -> dict[str, float]:
    """Train and rank as ``kg train`` does."""
    done: list[float] = []
    began = time.process_time()
    trained = train_and_rank(
        graph,
        test=asked,
        progress=lambda *_: done.append(time.process_time()),
        **_settings(arguments),
    )
    return {**trained.figures, "training_cpu_seconds": done[-1] - began}


def pipeline(graph: Graph, asked: Any, arguments: argparse.Namespace) -> dict[str, float]:
    """Train and rank by ``pykeen.pipeline``."""
    with pykeen_session():
        from pykeen.pipeline import pipeline as run
        from pykeen.training import TrainingCallback
        from pykeen.triples import TriplesFactory

        done: list[float] = []

        class Clock(TrainingCallback):  # type: ignore[misc]
            def post_epoch(self, **_: Any) -> None:
                done.append(time.process_time())

        train, test = (
            TriplesFactory(
                mapped_triples=torch.from_numpy(triples.copy()),
                entity_to_id=dict(graph.index),
                relation_to_id={name: number for number, name in enumerate(graph.relations)},
            )
            for triples in (graph.triples, asked)
        )
        began = time.process_time()
        result = run(
            training=train,
            testing=test,
            model=arguments.model,
            model_kwargs={"embedding_dim": arguments.dimension},
            loss="infonce",
            loss_kwargs={"margin": 0.0, "log_adversarial_temperature": 0.0},
            optimizer="Adam",
            optimizer_kwargs={"lr": arguments.learning_rate},
            training_loop="slcwa",
            negative_sampler_kwargs={"num_negs_per_pos": arguments.negatives},
            training_kwargs={
                "num_epochs": arguments.epochs,
                "batch_size": arguments.batch_size,
                "use_tqdm": False,
                "callbacks": Clock,
            },
            evaluation_kwargs={"use_tqdm": False, "batch_size": 256},
            random_seed=arguments.seed,
            device="cpu",
        ).metric_results
    names = {"mrr": "inverse_harmonic_mean_rank", **{f"hits_at_{k}": f"hits@{k}" for k in HITS}}
    figures = {ours: float(result.get_metric(theirs)) for ours, theirs in names.items()}
    return {**figures, "training_cpu_seconds": done[-1] - began}


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("model", "dimension", "epochs", "batch_size", "learning_rate", "negatives", "seed")
    return {name: getattr(arguments, name) for name in names}


def main() -> None:
    """Train both, rank both, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kg", action="append", metavar="FILE", help="triples to train on")
    parser.add_argument("--test", action="append", metavar="FILE", help="triples to rank")
    parser.add_argument("--model", default="TransE")
    parser.add_argument("--dimension", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--negatives", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if bool(arguments.kg) != bool(arguments.test):
        parser.error("--kg and --test belong together")
    torch.set_num_threads(1)
    graph, asked = read(arguments)
    document: dict[str, Any] = {
        "machine": platform.platform(),
        "torch": torch.__version__,
        "settings": _settings(arguments),
        "triples": len(graph.triples),
        "entities": len(graph.entities),
        "ranked": len(asked),
        "popularity": popularity(graph.triples, asked, [], len(graph.entities)),
        "kg_train": ours(graph, asked, arguments),
        "pykeen_pipeline": pipeline(graph, asked, arguments),
    }
    for name in ("popularity", "kg_train", "pykeen_pipeline"):
        print(f"{name:16}", *(f"{key} {value:.3f}" for key, value in document[name].items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

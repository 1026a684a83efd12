"""``ptm-plus kg train``: entity vectors of a graph, trained with PyKEEN."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ptm_plus import SettingsError
from ptm_plus.commands import OutputFlags, named_rows, open_outlet, spread, stoppable

Triples = Annotated[
    list[str] | None, typer.Option("--kg", metavar="FILE", help="Triples (TSV). Repeatable.")
]
Links = Annotated[
    list[str] | None, typer.Option("--links", metavar="FILE", help="Ids that are one (TSV).")
]
Target = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write (.safetensors).")
]
Model = Annotated[str, typer.Option(metavar="NAME", help="Any PyKEEN model.")]
Dimension = Annotated[int, typer.Option(metavar="N", min=1, help="Width of a vector.")]
Epochs = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Passes; default: by the triples' number.")
]
BatchSize = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Triples a step; default: likewise.")
]
Rate = Annotated[float, typer.Option(metavar="RATE", help="Adam's learning rate.")]
Negatives = Annotated[
    int,
    typer.Option(
        metavar="N", min=1, help="Entities that the triples of a step are ranked against."
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Seed.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda.")]
Valid = Annotated[
    list[str] | None,
    typer.Option("--valid", metavar="FILE", help="Held-out triples, to stop early by."),
]
Test = Annotated[
    list[str] | None, typer.Option("--test", metavar="FILE", help="Held-out triples to rank.")
]
Patience = Annotated[
    int,
    typer.Option(
        metavar="N", min=0, help="Evaluations without a better rank to stop after; 0 never."
    ),
]
Evaluate = Annotated[
    bool, typer.Option("--evaluate", help="First rank held-out triples, on a training of its own.")
]


@spread
def train(
    context: typer.Context,
    output: Target,
    flags: OutputFlags,
    kg: Triples = None,
    links: Links = None,
    model: Model = "TransE",
    dimension: Dimension = 100,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: Rate = 0.01,
    negatives: Negatives = 128,
    seed: Seed = 0,
    device: Device = "auto",
    evaluate: Evaluate = False,
    valid: Valid = None,
    test: Test = None,
    patience: Patience = 0,
) -> None:
    """Train entity vectors of a graph, for --vectors.

    With --valid and --test, the vectors are those of --kg alone, and the others are ranked.

    ptm-plus kg train --kg train.tsv --valid valid.tsv --patience 5 -o vectors.safetensors
    """
    outlet = open_outlet(context, flags)
    if output.suffix != ".safetensors":
        raise SettingsError(f"--output {output}: must end in .safetensors")
    if not kg:
        raise SettingsError("no graph was given", "give --kg FILE")
    from ptm_plus.knowledge import read_graph, write_table
    from ptm_plus_kg_fusion.ranking import popularity, read_held_out
    from ptm_plus_kg_fusion.vectors import evaluate_vectors, train_and_rank

    graph = read_graph(kg, links or ())
    options: dict[str, Any] = {
        "model": model,
        "dimension": dimension,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "negatives": negatives,
        "seed": seed,
        "device": _device(device),
    }
    asked = {
        name: read_held_out(files, links or (), graph)
        for name, files in (("valid", valid), ("test", test))
        if files
    }
    parts = {name: one.triples for name, one in asked.items()}
    with stoppable("training vectors"):
        figures = _work(outlet.watch, evaluate_vectors, graph, options) if evaluate else {}
        trained = _work(
            outlet.watch, train_and_rank, graph, options | {"patience": patience} | parts
        )
        if parts:
            ranked, *others = reversed(parts.values())
            common = popularity(graph.triples, ranked, others, len(graph.entities))
            figures = {**trained.figures, "held_out": len(ranked)}
            figures |= {f"popularity_{name}": value for name, value in common.items()}
            figures["unknown"] = sum(one.unknown for one in asked.values())
        vectors = trained.vectors
        facts = {"graph": graph.fingerprint, "model": model}
        table = write_table(output, graph.entities, vectors, facts)
    document = {
        "output": str(output),
        "model": model,
        "entities": len(table),
        "relations": len(graph.relations),
        "triples": len(graph.triples),
        "dimension": table.dimension,
        "epochs": trained.epochs,
        "sha256": table.fingerprint,
        "evaluation": figures or None,
    }
    outlet.show(document, lambda: named_rows(f"{model} vectors in {output}", _rows(document)))


def _device(name: str) -> str:
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _work(watch: Any, work: Callable[..., Any], graph: Any, options: dict[str, Any]) -> Any:
    what = "vectors" if work.__name__ == "train_and_rank" else "on all but the held-out triples"
    with watch.task(f"{options['model']} {what}") as task:

        def progress(done: int, total: int, loss: float) -> None:
            task.update(done, total, f"loss {loss:.3f}")

        return work(graph, progress=progress, **options)


def _rows(document: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        (name, f"{document[name]:,}")
        for name in ("entities", "relations", "triples", "dimension", "epochs")
    ]
    for name, value in (document["evaluation"] or {}).items():
        rows.append((name.replace("_", " "), f"{value:,.4g}"))
    return rows

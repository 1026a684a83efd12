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
Negatives = Annotated[int, typer.Option(metavar="N", min=1, help="Corrupted triples per true one.")]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Seed.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="cpu or cuda.")]
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
    negatives: Negatives = 16,
    seed: Seed = 0,
    device: Device = "cpu",
    evaluate: Evaluate = False,
) -> None:
    """Train entity vectors of a graph, for --vectors."""
    outlet = open_outlet(context, flags)
    if output.suffix != ".safetensors":
        raise SettingsError(f"--output {output}: must end in .safetensors")
    if not kg:
        raise SettingsError("no graph was given", "give --kg FILE")
    from ptm_plus.knowledge import read_graph, write_table
    from ptm_plus_kg_fusion.vectors import evaluate_vectors, train_vectors

    graph = read_graph(kg, links or ())
    options: dict[str, Any] = {
        "model": model,
        "dimension": dimension,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "negatives": negatives,
        "seed": seed,
        "device": device,
    }
    with stoppable("training vectors"):
        figures = _work(outlet.watch, evaluate_vectors, graph, options) if evaluate else {}
        vectors = _work(outlet.watch, train_vectors, graph, options)
        facts = {"graph": graph.fingerprint, "model": model}
        table = write_table(output, graph.entities, vectors, facts)
    document = {
        "output": str(output),
        "model": model,
        "entities": len(table),
        "relations": len(graph.relations),
        "triples": len(graph.triples),
        "dimension": table.dimension,
        "sha256": table.fingerprint,
        "evaluation": figures or None,
    }
    outlet.show(document, lambda: named_rows(f"{model} vectors in {output}", _rows(document)))


def _work(watch: Any, work: Callable[..., Any], graph: Any, options: dict[str, Any]) -> Any:
    what = "vectors" if work.__name__ == "train_vectors" else "on all but the held-out triples"
    with watch.task(f"{options['model']} {what}") as task:

        def progress(done: int, total: int, loss: float) -> None:
            task.update(done, total, f"loss {loss:.3f}")

        return work(graph, progress=progress, **options)


def _rows(document: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        (name, f"{document[name]:,}") for name in ("entities", "relations", "triples", "dimension")
    ]
    for name, value in (document["evaluation"] or {}).items():
        rows.append((name.replace("_", " "), f"{value:,.4g}"))
    return rows

"""``kg link`` and ``kg check``; plugins add more, such as ``kg train``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptm_plus.cli.external import OpenGroup
from ptm_plus.cli.flags import Names, OutputFlags, spread
from ptm_plus.cli.outlet import open_outlet, stoppable
from ptm_plus.cli.rendering import named_rows

if TYPE_CHECKING:
    from ptm_plus.cli.kg_commands import LinkRequest

app = typer.Typer(
    cls=OpenGroup,
    help="Knowledge graphs: link text, check what fits together, train vectors.",
    no_args_is_help=True,
)

Ambiguity = Annotated[
    str | None,
    typer.Option("--ambiguity", help="A name of several: skip, most_connected or first."),
]


@dataclass(frozen=True, kw_only=True)
class GraphFlags:
    """Graph, names and text."""

    text: Annotated[Names, typer.Option("--text", help="Text; en=FILE. Repeatable.")] = None
    kg: Annotated[Names, typer.Option("--kg", help="Triples (TSV). Repeatable.")] = None
    labels: Annotated[Names, typer.Option("--labels", help="Names of entities.")] = None
    links: Annotated[Names, typer.Option("--links", help="Ids that are one (TSV).")] = None
    ambiguity: Ambiguity = None
    min_length: Annotated[
        int, typer.Option("--min-length", min=1, help="Shortest name, in characters.")
    ] = 3
    lower_case: Annotated[
        bool, typer.Option("--lower-case", help="Also names without an upper-case letter.")
    ] = False


@app.command()
@spread
def link(
    context: typer.Context,
    graph: GraphFlags,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write (.jsonl).")],
    out: OutputFlags,
) -> None:
    """Find entities in text by their names, and write the text with the mentions.

    Mentions that come with the text are kept as they are. With --kg, only entities of the graph.
    """
    outlet = open_outlet(context, out)
    from ptm_plus.cli.kg_commands import link_files

    with stoppable("linking"):
        counts = link_files(_request(graph), output, outlet.watch)
    document = {"output": str(output), **counts}
    rows = [(name.replace("_", " "), f"{value:,}") for name, value in counts.items()]
    outlet.show(document, lambda: named_rows(f"linked text in {output}", rows))


@app.command()
@spread
def check(
    context: typer.Context,
    graph: GraphFlags,
    out: OutputFlags,
    vectors: Annotated[
        Path | None, typer.Option("--vectors", help="Entity vectors (.safetensors).")
    ] = None,
    fail_below: Annotated[
        float,
        typer.Option(
            "--fail-below",
            min=0.0,
            max=1.0,
            help="Exit 4 where a smaller share of linked mentions is in the graph.",
        ),
    ] = 0.0,
) -> None:
    """Show how well graph, names, text and vectors fit together."""
    outlet = open_outlet(context, out)
    from ptm_plus.cli.kg_commands import check_files, require
    from ptm_plus.cli.kg_tables import ledger_rows

    with stoppable("checking"):
        ledger = check_files(_request(graph), vectors, outlet.watch)
    outlet.show(ledger.to_json(), lambda: named_rows("graph and text", ledger_rows(ledger)))
    if graph.text:
        require(ledger, fail_below)


def _request(flags: GraphFlags) -> LinkRequest:
    from ptm_plus.cli.kg_commands import LinkRequest

    return LinkRequest(
        text=tuple(flags.text or ()),
        kg=tuple(flags.kg or ()),
        labels=tuple(flags.labels or ()),
        links=tuple(flags.links or ()),
        ambiguity=flags.ambiguity,
        min_length=flags.min_length,
        lower_case=flags.lower_case,
    )

"""``kg link``, ``check``, ``score``, ``stats``, ``import``, ``neighbours``; plugins add more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptm_plus.bar_chart import check_suffix
from ptm_plus.cli.external import OpenGroup
from ptm_plus.cli.flags import Names, OutputFlags, spread
from ptm_plus.cli.outlet import open_outlet, stoppable
from ptm_plus.cli.rendering import named_rows
from ptm_plus.errors import SettingsError

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
    common_words: Annotated[
        bool,
        typer.Option(
            "--common-words/--no-common-words",
            help="Leave out aliases of one word that the text mostly writes in lower case.",
        ),
    ] = True


@app.command()
@spread
def link(
    context: typer.Context,
    graph: GraphFlags,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write (.jsonl).")],
    out: OutputFlags,
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Processes; 0 takes the number of cores.")
    ] = 0,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="FOLDER", help="Keeps parts; default: the user's."),
    ] = None,
) -> None:
    """Find entities in text by their names, and write the text with the mentions.

    Mentions that come with the text are kept as they are. With --kg, only entities of the graph.
    The text is linked in parts; a command that is broken off goes on with the part it was at, and
    what was linked with the same names before is not linked again.
    """
    outlet = open_outlet(context, out)
    from ptm_plus.cli.kg_linking import link_files
    from ptm_plus.inputs import cache_folder
    from ptm_plus.settings import RunSettings

    kept = cache or cache_folder(RunSettings())
    with stoppable("linking", goes_on=True):
        counts = link_files(_request(graph), output, workers, kept, outlet.watch)
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
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            metavar="PATH",
            help="Folder or hub name; counts the mentions that ends of sequences cut.",
        ),
    ] = None,
    max_length: Annotated[
        int, typer.Option("--max-length", min=8, help="Longest sequence in tokens, with it.")
    ] = 128,
    fail_below: Annotated[
        float,
        typer.Option(
            "--fail-below",
            min=0.0,
            max=1.0,
            help="Exit 4 where a smaller share of linked mentions is in the graph.",
        ),
    ] = 0.0,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="How often entities are linked, as .svg."),
    ] = None,
) -> None:
    """Show how well graph, names, text and vectors fit together."""
    outlet = open_outlet(context, out)
    check_suffix(plot)
    from ptm_plus.cli.kg_commands import check_files, cut_counter, require
    from ptm_plus.cli.kg_tables import ledger_rows, write_frequencies

    with stoppable("checking"):
        cutting = cut_counter(tokenizer, max_length) if tokenizer else None
        ledger = check_files(_request(graph), vectors, cutting, outlet.watch)
        if plot is not None:
            write_frequencies(ledger, plot)
    outlet.show(ledger.to_json(), lambda: named_rows("graph and text", ledger_rows(ledger)))
    if graph.text:
        require(ledger, fail_below)


@app.command()
@spread
def score(
    context: typer.Context,
    graph: GraphFlags,
    out: OutputFlags,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Most frequent mistakes shown.")
    ] = 12,
) -> None:
    """Compare what names find with the mentions that the text comes with, by file and language.

    A link is right on the same characters with the same entity; beside stand the figures for the
    characters alone. Where not every mention of the text is marked, precision is at least what is
    shown; accuracy, among links on marked characters, does not depend on that.

    ptm-plus kg score --text gold.jsonl --labels labels.jsonl
    """
    outlet = open_outlet(context, out)
    from ptm_plus.cli.kg_scoring import score_document, score_files, score_table

    with stoppable("linking"):
        scores = score_files(_request(graph), outlet.watch)
    outlet.show(score_document(scores), lambda: score_table(scores, limit))


@app.command()
@spread
def stats(
    context: typer.Context,
    out: OutputFlags,
    kg: Annotated[Names, typer.Option("--kg", help="Triples (TSV). Repeatable.")] = None,
    labels: Annotated[Names, typer.Option("--labels", help="Names of entities.")] = None,
    links: Annotated[Names, typer.Option("--links", help="Ids that are one (TSV).")] = None,
    relation_labels: Annotated[
        Names, typer.Option("--relation-labels", help="Names of relations, as --labels.")
    ] = None,
    language: Annotated[str, typer.Option("--language", help="Of those names.")] = "en",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Relations shown.")] = 20,
) -> None:
    """Show what a graph and its names are like: sizes, degrees, parts, relations, ambiguity."""
    outlet = open_outlet(context, out)
    from ptm_plus.cli.kg_tables import relation_names, stats_table
    from ptm_plus.knowledge.graph import read_graph
    from ptm_plus.knowledge.labels import read_labels
    from ptm_plus.knowledge.stats import graph_stats

    if not kg:
        raise SettingsError("no graph was given", "give --kg FILE")
    with stoppable("counting"), outlet.watch.task("count"):
        names = read_labels(labels, links or ()) if labels else None
        found = graph_stats(read_graph(kg, links or ()), names)
        known = read_labels(relation_labels) if relation_labels else None
    called = None if known is None else relation_names(found.by_relation, known, language)
    document = {**found.to_json(), "relation_names": called}
    outlet.show(document, lambda: stats_table(found, called, limit))


@app.command("import")
@spread
def import_vectors(
    context: typer.Context,
    vectors: Annotated[
        Path, typer.Argument(metavar="FILE", help=".npy, .safetensors, or word2vec's text.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write (.safetensors).")],
    out: OutputFlags,
    ids: Annotated[
        Path | None, typer.Option("--ids", help="One id per row: .txt, .tsv or .json.")
    ] = None,
    tensor: Annotated[
        str, typer.Option("--tensor", help="Which one, where a file holds several.")
    ] = "",
    kg: Annotated[
        Names, typer.Option("--kg", help="Say how many entities of the graph have a vector.")
    ] = None,
) -> None:
    """Take over entity vectors that were trained elsewhere, for --vectors.

    ptm-plus kg import transe.npy --ids entities.txt -o vectors.safetensors
    """
    outlet = open_outlet(context, out)
    from ptm_plus.knowledge.foreign import read_vectors
    from ptm_plus.knowledge.graph import read_graph
    from ptm_plus.knowledge.table import write_table

    if output.suffix != ".safetensors":
        raise SettingsError(f"--output {output}: must end in .safetensors")
    with stoppable("importing"), outlet.watch.task("import vectors"):
        given = read_vectors(vectors, ids, tensor)
        graph = read_graph(kg) if kg else None
        table = write_table(output, given.ids, given.vectors, {"source": vectors.name})
    document = {
        "output": str(output),
        "entities": len(table),
        "dimension": table.dimension,
        "sha256": table.fingerprint,
        "in_graph": None if graph is None else len(table.index(graph.entities)),
        "graph_entities": None if graph is None else len(graph.entities),
    }
    rows = [("entities", f"{len(table):,}"), ("dimension", f"{table.dimension:,}")]
    if graph is not None:
        rows.append(("of the graph", f"{document['in_graph']:,} of {len(graph.entities):,}"))
    outlet.show(document, lambda: named_rows(f"vectors in {output}", rows))
    if graph is not None:
        table.require_overlap(graph.entities)


@app.command("neighbours")
@spread
def show_neighbours(
    context: typer.Context,
    entity: Annotated[str, typer.Argument(metavar="ENTITY", help="Its id, or a name of it.")],
    out: OutputFlags,
    kg: Annotated[Names, typer.Option("--kg", help="Triples (TSV). Repeatable.")] = None,
    labels: Annotated[Names, typer.Option("--labels", help="Names of entities.")] = None,
    language: Annotated[str, typer.Option("--language", help="Of the names shown.")] = "en",
    hops: Annotated[int, typer.Option("--hops", min=1, max=4, help="How far.")] = 1,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most rows of the table.")] = 40,
) -> None:
    """Show what the graph says about an entity."""
    outlet = open_outlet(context, out)
    from ptm_plus.cli.kg_lookup import lookup
    from ptm_plus.cli.kg_tables import neighbour_table
    from ptm_plus.knowledge.graph import read_graph
    from ptm_plus.knowledge.labels import read_labels

    if not kg:
        raise SettingsError("no graph was given", "give --kg FILE")
    with stoppable("looking up"):
        names = read_labels(labels) if labels else None
        document = lookup(entity, read_graph(kg), names, language, hops)
    outlet.show(document, lambda: neighbour_table(document, limit))


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
        common_words=flags.common_words,
    )

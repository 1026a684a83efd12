"""What ``kg`` tells, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from ptm_plus.bar_chart import Panel, write_bars
from ptm_plus.cli.kg_commands import mention_share
from ptm_plus.cli.rendering import columns, named_rows
from ptm_plus.knowledge.labels import EntityLabels
from ptm_plus.knowledge.ledger import Ledger, MentionCuts
from ptm_plus.knowledge.stats import GraphStats


def ledger_rows(ledger: Ledger) -> list[tuple[str, str]]:
    """Return the ledger as (name, figures) for a table."""
    entities = max(1, ledger.entities)
    rows = [
        (
            "graph",
            f"{ledger.entities:,} entities · {ledger.relations:,} relations · "
            f"{ledger.triples:,} triples",
        ),
        *(
            (
                f"names {language}".replace(" any", ""),
                f"{count:,} entities ({count / entities:.1%})",
            )
            for language, count in ledger.labelled.items()
            if ledger.labelled["any"]
        ),
    ]
    if ledger.mentions["found"]:
        rows += [
            (
                "mentions",
                f"{ledger.mentions['found']:,} found · {ledger.mentions['linked']:,} linked · "
                f"{ledger.mentions['ambiguous']:,} ambiguous · "
                f"{ledger.mentions['common']:,} common words",
            ),
            ("  in the graph", f"{ledger.mentions_in_graph:,} ({mention_share(ledger):.1%})"),
            ("entities linked", f"{ledger.ids_linked:,} · {ledger.ids_in_graph:,} in the graph"),
            ("linked how often", _buckets(ledger.frequency)),
        ]
    if ledger.cuts is not None:
        rows.append((f"cut at {ledger.cuts.max_length:,} tokens", _cuts(ledger.cuts)))
    if ledger.vectors is not None:
        rows.append(("vectors", _vectors(ledger)))
    return rows


def _vectors(ledger: Ledger) -> str:
    parts = [f"{ledger.vectors:,}"]
    if ledger.ids_without_vector is not None:
        parts.append(f"{ledger.ids_without_vector:,} linked entities have none")
    if ledger.vectors_without_label is not None:
        parts.append(f"{ledger.vectors_without_label:,} have no name")
    return " · ".join(parts)


def _cuts(cuts: MentionCuts) -> str:
    def share(count: int) -> str:
        return f"{count:,} ({count / max(1, cuts.mentions):.2%})"

    parts = [f"{share(cuts.split)} by splitting", f"{share(cuts.truncated)} by truncation"]
    if cuts.without_tokens:
        parts.append(f"{cuts.without_tokens:,} without tokens")
    return " · ".join(parts)


def _buckets(frequency: Mapping[str, int]) -> str:
    return ", ".join(f"{_reach(first)}: {count:,}" for first, count in frequency.items())


def _reach(first: str) -> str:
    """Write out which counts a bucket holds: from its name to below the next power of two."""
    low = int(first)
    return f"{first}×" if low < 2 else f"{low}–{2 * low - 1}×"


def write_frequencies(ledger: Ledger, path: Path) -> None:
    """Draw how many entities of the graph are linked how often.

    Raises:
        EnvironmentProblem: the file cannot be written.
    """
    panel = Panel("entities", [list(ledger.frequency.values())])
    title = f"how often the graph's {ledger.entities:,} entities are linked in the text"
    write_bars(path, [title], [_reach(first) for first in ledger.frequency], [panel])


def relation_names(relations: Iterable[str], labels: EntityLabels, language: str) -> dict[str, str]:
    """Return the names of those relations that have one in a language.

    Raises:
        DataError: the language is no language code.
    """
    found = {relation: labels.label(relation, language) for relation in relations}
    return {relation: name for relation, name in found.items() if name}


def stats_table(stats: GraphStats, names: Mapping[str, str] | None, limit: int) -> RenderableType:
    """Return what a graph is like as tables.

    Args:
        stats: the figures.
        names: names of relations; ``None`` for no column of them.
        limit: most relations shown.
    """
    degree = " · ".join(f"{name} {value:,.4g}" for name, value in stats.degree.items())
    more = len(stats.by_relation) - limit
    about = [
        ("entities", f"{stats.entities:,}"),
        ("triples", f"{stats.triples:,} · {stats.loops:,} loops"),
        ("joined both ways", f"{stats.inverse_pairs:,} pairs of entities"),
        ("degree", degree),
        ("parts", f"{stats.components:,} · {stats.largest_component:,} entities in the largest"),
        *(
            (
                f"names {language}",
                f"{one.names:,} of {one.entities:,} entities ({one.entities / stats.entities:.1%}) "
                f"· {one.ambiguous:,} ambiguous",
            )
            for language, one in stats.names.items()
        ),
        *(
            [("without a name", f"{stats.without_name:,}")]
            if stats.without_name is not None
            else []
        ),
        ("relations", f"{stats.relations:,}" + (f", {more:,} not shown" if more > 0 else "")),
    ]
    rows = [
        (
            relation,
            *([] if names is None else [names.get(relation, "")]),
            f"{count:,}",
            f"{count / stats.triples:.1%}",
        )
        for relation, count in list(stats.by_relation.items())[:limit]
    ]
    headings = ("relation", *([] if names is None else ["name"]), "triples", "share")
    return Group(
        named_rows("graph", about),
        columns(headings, rows, right=("triples", "share")),
    )


def neighbour_table(document: Mapping[str, Any], limit: int) -> RenderableType:
    """Return an entity and its neighbours as a table of at most so many rows."""
    found = document["neighbours"]
    title = f"{document['label'] or document['id']} ({document['id']})"
    more = [("not shown", f"{len(found) - limit:,}; --limit {len(found)}")][: len(found) > limit]
    about = [("degree", f"{document['degree']:,}"), ("neighbours", f"{len(found):,}"), *more]
    rows = [
        (" ".join(one["path"]), one["id"], one["label"], f"{one['degree']:,}")
        for one in found[:limit]
    ]
    headings = ("relation (^ leads here)", "entity", "name", "degree")
    return Group(named_rows(title, about), columns(headings, rows, right=("degree",)))

"""The ledger of a graph as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType

from ptm_plus.cli.kg_commands import mention_share
from ptm_plus.cli.rendering import columns, named_rows
from ptm_plus.knowledge.ledger import Ledger


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
                f"{ledger.mentions['ambiguous']:,} ambiguous",
            ),
            ("  in the graph", f"{ledger.mentions_in_graph:,} ({mention_share(ledger):.1%})"),
            ("entities linked", f"{ledger.ids_linked:,} · {ledger.ids_in_graph:,} in the graph"),
            ("linked how often", _buckets(ledger.frequency)),
        ]
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


def _buckets(frequency: Mapping[str, int]) -> str:
    words = []
    for first, count in frequency.items():
        low = int(first)
        reach = first if low < 2 else f"{low}–{2 * low - 1}"
        words.append(f"{reach}×: {count:,}")
    return ", ".join(words)


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

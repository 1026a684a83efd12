"""What ``kg`` tells, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from rich.console import Group, RenderableType

from ptm_plus.cli.kg_commands import mention_share
from ptm_plus.cli.rendering import columns, named_rows
from ptm_plus.knowledge.ledger import Ledger
from ptm_plus.knowledge.scores import LinkScores

_SHARES = ("precision", "recall", "f1", "accuracy")


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


def score_document(scores: Mapping[str, LinkScores]) -> dict[str, Any]:
    """Return the scores by language as plain values."""
    names = [one.name for one in fields(LinkScores)] + list(_SHARES)
    return {
        language: {name: getattr(one, name) for name in names} for language, one in scores.items()
    }


def score_table(scores: Mapping[str, LinkScores], limit: int) -> RenderableType:
    """Return the scores as a table, with the most frequent mistakes of each language."""
    counts = ("gold", "without_name", "ambiguous", "linked", "right")
    rows = [
        (
            language,
            *(f"{getattr(one, name):,}" for name in counts),
            *(f"{getattr(one, name):.3f}" for name in _SHARES),
        )
        for language, one in scores.items()
    ]
    headings = [name.replace("_", " ") for name in ("language", *counts, *_SHARES)]
    mistakes = [
        (f"{language}, {kind}", ", ".join(f"{word} {n:,}×" for word, n in most))
        for language, one in scores.items()
        for kind, words in (("wrong", one.wrong), ("missed", one.missed))
        if (most := _most(words, limit))
    ]
    return Group(columns(headings, rows, right=headings[1:]), named_rows("most often", mistakes))


def _most(words: Mapping[str, int], limit: int) -> list[tuple[str, int]]:
    return sorted(words.items(), key=lambda item: (-item[1], item[0]))[:limit]


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

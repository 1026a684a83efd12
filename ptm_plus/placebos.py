"""Placebos that plugins share: a graph of other facts, translations of other sentences."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ptm_plus.errors import SettingsError
from ptm_plus.examples import Example, Span
from ptm_plus.inputs import load_graph, pairs_stream
from ptm_plus.knowledge.shuffling import shuffled_triples
from ptm_plus.settings import RunSettings
from ptm_plus.word_draws import draw


def shuffled_graph(settings: RunSettings, folder: Path, seed: int) -> RunSettings:
    """Return the settings with a graph whose objects are permuted within each relation.

    Every entity keeps its degree, so the linker links as before. Vectors that were given belong to
    the true graph and are left out: the plugin trains others.

    Args:
        settings: of a run with a graph.
        folder: gets the graph.
        seed: another graph for each.

    Raises:
        SettingsError: there is no graph.
    """
    graph = load_graph(settings)
    if graph is None:
        raise SettingsError("there is no graph to shuffle", "give --kg TRIPLES.tsv")
    ends, kinds = graph.entities, graph.relations
    triples = ((ends[h], kinds[r], ends[t]) for h, r, t in graph.triples.tolist())
    path = folder / "shuffled.tsv"
    lines = ("\t".join(triple) + "\n" for triple in shuffled_triples(triples, seed))
    _write(path, lines)
    return _with_data(settings, kg=(str(path),), vectors="")


def mispaired(settings: RunSettings, folder: Path, seed: int) -> RunSettings:
    """Return the settings with pairs whose second halves belong to other first halves.

    Permuted within each two languages, so that no half stays with its own; what the filters of
    pairs refuse is left out before, and what is left is not filtered again.

    Args:
        settings: of a run with pairs.
        folder: gets the pairs.
        seed: another permutation for each.

    Raises:
        SettingsError: there are no pairs.
    """
    if not settings.data.pairs:
        raise SettingsError("there are no pairs to part", "give --pairs en-fr=FILE")
    stream = pairs_stream(settings, name="pairs", layout="text", objectives=())
    groups: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for row in stream.examples():
        if isinstance(row, Example):
            groups[row.languages["src"], row.languages["tgt"]].append(row)
    path = folder / "mispaired.jsonl"
    _write(path, (line for group in groups.values() for line in _parted(group, seed)))
    return _with_data(settings, pairs=(str(path),), length_ratio=0.0, duplicates=True, swapped=True)


def _parted(group: list[Example], seed: int) -> Iterable[str]:
    """Yield rows in which each first half stands beside the next one's second half."""
    order = sorted(group, key=lambda one: (draw(seed, "part", *one.fields.values()), one.id))
    for first, second in zip(order, [*order[1:], order[0]], strict=True):
        row: dict[str, Any] = {}
        for half, source in (("src", first), ("tgt", second)):
            row |= {
                half: source.fields[half],
                f"{half}_lang": source.languages[half],
                f"{half}_spans": [_mark(one) for one in source.spans if one.field == half],
            }
        yield json.dumps(row, ensure_ascii=False) + "\n"


def _mark(span: Span) -> dict[str, Any]:
    return {"start": span.start, "end": span.end, "kind": span.kind, "id": span.id}


def _write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)


def _with_data(settings: RunSettings, **changes: Any) -> RunSettings:
    return settings.model_copy(update={"data": settings.data.model_copy(update=changes)})

"""Sentences that look for their translations among all of a language pair, both ways."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ptm_plus.components import Refused
from ptm_plus.errors import DataError
from ptm_plus.measures.geometry import alignment, uniformity
from ptm_plus.measures.neighbours import crowding, nearer_wrong
from ptm_plus.measures.plain_model import PlainModel
from ptm_plus.measures.translations import translations, turned
from ptm_plus.progress import Watch
from ptm_plus.sources import parse_source, read_pairs

Pairs = Mapping[str, Sequence[tuple[str, str]]]
"""Pairs of texts by language pair, ``de-en``."""

_SPREAD = 10_000
"""Most vectors of a language pair whose spread is measured: it takes the square of their number."""


def read_language_pairs(sources: Sequence[str], limit: int = 0) -> tuple[Pairs, dict[str, int]]:
    """Return the pairs of files by language pair, and how many rows were refused, by reason.

    Args:
        sources: what ``--pairs`` takes.
        limit: most pairs of a language pair; 0 for all.

    Raises:
        DataError: a file cannot be read, or a language pair has fewer than two different pairs.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    refused: dict[str, int] = {}
    for source in sources:
        for one in read_pairs(parse_source(source)):
            if isinstance(one, Refused):
                refused[one.reason] = refused.get(one.reason, 0) + 1
                continue
            pairs = found.setdefault("-".join(one.languages[half] for half in ("src", "tgt")), [])
            if not limit or len(pairs) < limit:
                pairs.append((one.fields["src"], one.fields["tgt"]))
    for languages, pairs in found.items():
        if len(set(pairs)) < 2:
            raise DataError(
                f"only one pair of {languages}",
                "a sentence has to look for its translation among several",
                path=", ".join(sources),
            )
    return found, refused


def retrieval(
    model: PlainModel, pairs: Pairs, layers: Sequence[int], neighbours: int, watch: Watch
) -> list[dict[str, Any]]:
    """Return, layer by layer, how often the nearest sentence is a translation.

    Sentences are encoded alone, the states of a block averaged over their tokens, and compared by
    cosine; with ``neighbours`` also by CSLS. Each different sentence asks once and is a candidate
    once; one that stands in several pairs has several right answers.

    Args:
        model: the model.
        pairs: by language pair.
        layers: blocks from 1; 0 for the embeddings.
        neighbours: CSLS's K; 0 leaves it out.
        watch: where progress goes.
    """
    found: list[dict[str, Any]] = [{"layer": layer, "pairs": {}} for layer in layers]
    for languages, rows in pairs.items():
        texts = translations(rows)
        vectors = [model.pooled(half, layers, watch) for half in (texts.first, texts.second)]
        told = {"sentences": len(rows), "chance": texts.chance}
        with watch.task("compare") as task:
            for place, one in enumerate(found):
                first, second = (half[place].to(model.device) for half in vectors)
                figures = of_pair(first, second, texts.pairs.to(model.device), neighbours)
                one["pairs"][languages] = {**told, **figures}
                task.update(place + 1, len(found), "blocks")
    names = ("accuracy", "csls") if neighbours else ("accuracy",)
    for one in found:
        for name in names:
            one[name] = statistics.mean(each[name] for each in one["pairs"].values())
    return found


def of_pair(first: Tensor, second: Tensor, pairs: Tensor, neighbours: int) -> dict[str, Any]:
    """Return the figures of a language pair.

    Args:
        first: ``[n, d]`` vectors of unit length, of different sentences.
        second: ``[m, d]`` those of their translations.
        pairs: ``[2, e]`` which stand beside each other, in order.
        neighbours: CSLS's K; 0 leaves it out.
    """
    ways = ((first, second, pairs), (second, first, turned(pairs)))
    spread = torch.cat((first[: _SPREAD // 2], second[: _SPREAD // 2]))
    found: dict[str, Any] = {
        "candidates_forward": len(second),
        "candidates_backward": len(first),
        **_both_ways("accuracy", *(_share(*way) for way in ways)),
    }
    if neighbours:
        found |= _both_ways("csls", *(_share(*way, neighbours) for way in ways))
    return {
        **found,
        "alignment": alignment(first[pairs[0]], second[pairs[1]]),
        "uniformity": uniformity(spread),
    }


def _both_ways(name: str, forward: float, backward: float) -> dict[str, float]:
    mean = (forward + backward) / 2
    return {name: mean, f"{name}_forward": forward, f"{name}_backward": backward}


def _share(queries: Tensor, candidates: Tensor, right: Tensor, neighbours: int = 0) -> float:
    """Return the share of queries whose nearest candidate is right."""
    penalty = crowding(candidates, queries, neighbours) if neighbours else None
    hits = nearer_wrong(queries, candidates, right, penalty) < 1
    return float(hits.double().mean())

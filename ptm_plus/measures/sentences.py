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
from ptm_plus.measures.neighbours import crowding, found_within
from ptm_plus.measures.plain_model import PlainModel
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
        DataError: a file cannot be read, or a language pair has fewer than two pairs.
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
        if len(pairs) < 2:
            raise DataError(
                f"only one pair of {languages}",
                "a sentence has to look for its translation among several",
                path=", ".join(sources),
            )
    return found, refused


def retrieval(
    model: PlainModel, pairs: Pairs, layers: Sequence[int], neighbours: int, watch: Watch
) -> list[dict[str, Any]]:
    """Return, layer by layer, how often the nearest sentence is the translation.

    Sentences are encoded alone, the states of a block averaged over their tokens, and compared by
    cosine; with ``neighbours`` also by CSLS. A sentence that occurs in several pairs has several
    right answers. A right one has to be strictly nearer than all wrong ones.

    Args:
        model: the model.
        pairs: by language pair.
        layers: blocks from 1; 0 for the embeddings.
        neighbours: CSLS's K; 0 leaves it out.
        watch: where progress goes.
    """
    found: list[dict[str, Any]] = [{"layer": layer, "pairs": {}} for layer in layers]
    for languages, rows in pairs.items():
        halves = [list(half) for half in zip(*rows, strict=True)]
        vectors = [model.pooled(half, layers, watch) for half in halves]
        meant, meant_second = map(_numbered, halves)
        for place, one in enumerate(found):
            first, second = (half[place] for half in vectors)
            one["pairs"][languages] = of_pair(first, second, meant, meant_second, neighbours)
    names = ("accuracy", "csls") if neighbours else ("accuracy",)
    for one in found:
        for name in names:
            one[name] = statistics.mean(each[name] for each in one["pairs"].values())
    return found


def of_pair(
    first: Tensor, second: Tensor, meant: Tensor, meant_second: Tensor, neighbours: int
) -> dict[str, Any]:
    """Return the figures of a language pair.

    Args:
        first: ``[n, d]`` vectors of unit length.
        second: ``[n, d]`` those of the translations.
        meant: ``[n]`` the sentence that each of the first is; equal ones have one number.
        meant_second: ``[n]`` the same of the translations.
        neighbours: CSLS's K; 0 leaves it out.
    """
    there = (first, second, meant, meant_second)
    back = (second, first, meant_second, meant)
    spread = torch.cat((first[: _SPREAD // 2], second[: _SPREAD // 2]))
    found: dict[str, Any] = {
        "sentences": len(first),
        "chance": 1 / len(meant_second.unique()),
        **_both_ways("accuracy", _share(*there), _share(*back)),
    }
    if neighbours:
        ways = _share(*there, neighbours), _share(*back, neighbours)
        found |= _both_ways("csls", *ways)
    return {**found, "alignment": alignment(first, second), "uniformity": uniformity(spread)}


def _both_ways(name: str, forward: float, backward: float) -> dict[str, float]:
    mean = (forward + backward) / 2
    return {name: mean, f"{name}_forward": forward, f"{name}_backward": backward}


def _share(
    queries: Tensor, candidates: Tensor, own: Tensor, meanings: Tensor, neighbours: int = 0
) -> float:
    """Return the share of queries whose nearest candidate is a translation of theirs."""
    penalty = crowding(candidates, queries, neighbours) if neighbours else None
    answers = _answers(own, meanings)
    hits = found_within(queries, candidates, answers, meanings, penalty=penalty)
    return float(hits.double().mean())


def _answers(own: Tensor, meanings: Tensor) -> Tensor:
    """Return ``[n, a]`` all meanings that stand beside each query's sentence somewhere."""
    beside: dict[int, dict[int, None]] = {}
    for mine, theirs in zip(own.tolist(), meanings.tolist(), strict=True):
        beside.setdefault(mine, {})[theirs] = None
    most = max(map(len, beside.values()))
    rows = [list(beside[mine]) for mine in own.tolist()]
    return torch.tensor([[*row, *[-1] * (most - len(row))] for row in rows])


def _numbered(texts: Sequence[str]) -> Tensor:
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(text, len(numbers)) for text in texts])

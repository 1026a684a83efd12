"""Words that look for their translations in a dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ptm_plus.measures.neighbours import crowding, found_within
from ptm_plus.measures.plain_model import PlainModel
from ptm_plus.measures.sentences import Pairs
from ptm_plus.progress import Watch

DEPTHS = (1, 5)
"""Ranks within which an answer counts."""


def word_retrieval(
    model: PlainModel, pairs: Pairs, layers: Sequence[int], neighbours: int, watch: Watch
) -> list[dict[str, Any]]:
    """Return, layer by layer, how often a word's translation is among its nearest words.

    Each word is encoded alone, the states of its pieces averaged, and compared with every word of
    the other language in the dictionary, by cosine; with ``neighbours`` by CSLS too. Any of several
    translations is right.

    Args:
        model: the model.
        pairs: pairs of words by language pair.
        layers: blocks from 1; 0 for the embeddings.
        neighbours: CSLS's K; 0 leaves it out.
        watch: where progress goes.
    """
    found: list[dict[str, Any]] = [{"layer": layer, "pairs": {}} for layer in layers]
    for languages, rows in pairs.items():
        ways = {"forward": rows, "backward": [(second, first) for first, second in rows]}
        for way, directed in ways.items():
            words = _translations(directed)
            candidates = list(dict.fromkeys(second for _, second in directed))
            queries = model.pooled(list(words), layers, watch)
            vectors = model.pooled(candidates, layers, watch)
            answers = _answers(words, candidates)
            for place, one in enumerate(found):
                figures = one["pairs"].setdefault(languages, {})
                figures[way] = _figures(queries[place], vectors[place], answers, neighbours)
    return found


def _translations(rows: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for first, second in rows:
        found.setdefault(first, []).append(second)
    return found


def _answers(words: Mapping[str, Sequence[str]], candidates: Sequence[str]) -> torch.Tensor:
    """Return ``[n, a]`` places of each word's translations among the candidates; -1 for fewer."""
    places = {word: place for place, word in enumerate(candidates)}
    most = max(map(len, words.values()))
    rows = [[places[one] for one in right] for right in words.values()]
    return torch.tensor([[*row, *[-1] * (most - len(row))] for row in rows])


def _figures(
    queries: torch.Tensor, vectors: torch.Tensor, answers: torch.Tensor, neighbours: int
) -> dict[str, Any]:
    own = torch.arange(len(vectors))
    found: dict[str, Any] = {"words": len(queries), "candidates": len(vectors)}
    ways = {"": None}
    if neighbours:
        ways["csls_"] = crowding(vectors, queries, neighbours)
    for name, penalty in ways.items():
        for depth in DEPTHS:
            hits = found_within(queries, vectors, answers, own, depth, penalty)
            found[f"{name}within_{depth}"] = float(hits.double().mean())
    return found

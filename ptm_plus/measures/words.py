"""Words that look for their translations in a dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ptm_plus.measures.neighbours import DEPTHS, crowding, nearer_wrong
from ptm_plus.measures.plain_model import PlainModel
from ptm_plus.measures.sentences import Pairs
from ptm_plus.measures.translations import translations, turned
from ptm_plus.progress import Watch


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
        texts = translations(rows)
        vectors = [model.pooled(half, layers, watch) for half in (texts.first, texts.second)]
        right = texts.pairs.to(model.device)
        with watch.task("compare") as task:
            for place, one in enumerate(found):
                first, second = (half[place].to(model.device) for half in vectors)
                one["pairs"][languages] = {
                    "forward": _figures(first, second, right, neighbours),
                    "backward": _figures(second, first, turned(right), neighbours),
                }
                task.update(place + 1, len(found), "blocks")
    return found


def _figures(words: Tensor, candidates: Tensor, right: Tensor, neighbours: int) -> dict[str, Any]:
    found: dict[str, Any] = {"words": len(words), "candidates": len(candidates)}
    ways = {"": None}
    if neighbours:
        ways["csls_"] = crowding(candidates, words, neighbours)
    for name, penalty in ways.items():
        wrong = nearer_wrong(words, candidates, right, penalty)
        for depth in DEPTHS:
            found[f"{name}within_{depth}"] = float((wrong < depth).double().mean())
    return found

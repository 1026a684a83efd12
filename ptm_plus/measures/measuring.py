"""Every probe that was asked for, on one model."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from ptm_plus.errors import SettingsError
from ptm_plus.measures.cloze import ask_facts, read_facts
from ptm_plus.measures.few_shot import few_shot
from ptm_plus.measures.fine_tuning import Budget
from ptm_plus.measures.neighbours import middle
from ptm_plus.measures.perplexity import of_languages, of_pairs, read_languages
from ptm_plus.measures.plain_model import PlainModel
from ptm_plus.measures.sentences import read_language_pairs, retrieval
from ptm_plus.measures.tasks import measure_task
from ptm_plus.measures.words import word_retrieval
from ptm_plus.progress import Watch

_PREDICTING = {"perplexity": "perplexity", "facts": "answers to facts"}
"""Probes that need a head for masked words."""


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Attributes:
        probes: names.
        text: sources of text.
        pairs: sources of sentence pairs.
        words: sources of word pairs.
        facts: facts and their patterns, ``FACTS,PATTERNS``.
        few_shot: sentences of relations to be told apart from a few examples.
        task: tasks, ``KIND=TRAIN,TEST``.
        layer: number of a block, ``all``, or empty for the middle one.
        csls: neighbours of CSLS; 0 leaves it out.
        limit: most lines or pairs of a language; 0 for all.
        seed: of the masks.
        seeds: how often a task is learned.
        budget: what learning it may spend.
        chosen: whether somebody asked for these probes, or they follow from the files.
    """

    probes: tuple[str, ...]
    text: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    few_shot: tuple[str, ...] = ()
    task: tuple[str, ...] = ()
    layer: str = ""
    csls: int = 0
    limit: int = 0
    seed: int = 0
    seeds: int = 3
    budget: Budget = field(default_factory=Budget)
    chosen: bool = True

    def told(self) -> dict[str, Any]:
        """Return what was asked, for the document; each task tells its own budget and seeds."""
        inner = ("chosen", "seeds", "budget")
        return {name: value for name, value in asdict(self).items() if name not in inner}


def measure(request: Request, model: PlainModel, watch: Watch) -> dict[str, Any]:
    """Return the figures of each probe by its name, and the rows refused.

    Raises:
        SettingsError: a layer is asked for that is not there, or perplexity of a model without a
            head for masked words.
        DataError: a file cannot be read, or holds too little.
    """
    layers = chosen_layers(request.layer, model.layers)
    probes = _answerable(request, model, watch)
    found: dict[str, Any] = {}
    pairs, of_sentences = read_language_pairs(request.pairs, request.limit)
    refused = Counter(of_sentences)
    if "retrieval" in probes:
        found["retrieval"] = retrieval(model, pairs, layers, request.csls, watch)
    if "perplexity" in probes:
        texts, of_texts = read_languages(request.text, request.limit)
        refused.update(of_texts)
        languages = of_languages(model, texts, request.seed, watch)
        found["perplexity"] = {
            "languages": languages,
            "pairs": of_pairs(model, pairs, request.seed, watch),
        }
    if "words" in probes:
        words, of_words = read_language_pairs(request.words, request.limit)
        refused.update(of_words)
        found["words"] = word_retrieval(model, words, layers, request.csls, watch)
    if "facts" in probes:
        found["facts"] = [_facts(request, one, model, watch) for one in request.facts]
    if "few-shot" in probes:
        found["few_shot"] = [
            few_shot(model, one, layers, request.seed, watch) for one in request.few_shot
        ]
    if "tasks" in probes:
        found["tasks"] = [
            measure_task(model, one, request.seeds, request.budget, watch) for one in request.task
        ]
    return {**found, "refused": dict(refused)}


def _facts(request: Request, argument: str, model: PlainModel, watch: Watch) -> dict[str, Any]:
    relations, without = read_facts(argument, request.limit)
    found = ask_facts(model, relations, watch)
    return {"files": argument, "without_pattern": without, **found}


def _answerable(request: Request, model: PlainModel, watch: Watch) -> tuple[str, ...]:
    """Return the probes without those that predict words, where they were not asked for by name.

    Raises:
        SettingsError: one was asked for, or nothing remains, and the model predicts none.
    """
    if model.has_head or not set(_PREDICTING) & set(request.probes):
        return request.probes
    others = tuple(name for name in request.probes if name not in _PREDICTING)
    names = " and ".join(_PREDICTING[name] for name in request.probes if name in _PREDICTING)
    reason = f"the model has no weights for predicting masked words, so it has no {names}"
    if request.chosen or not others:
        raise SettingsError(
            reason,
            "give a model that was saved with its masked-LM head, or ask for --probe retrieval",
        )
    watch.note(reason)
    return others


def chosen_layers(layer: str, blocks: int) -> list[int]:
    """Return the blocks whose states are compared.

    Raises:
        SettingsError: there is no such block.
    """
    if not layer:
        return [middle(blocks)]
    if layer == "all":
        return list(range(blocks + 1))
    if not layer.isdecimal() or int(layer) > blocks:
        raise SettingsError(
            f"--layer {layer}: the model has {blocks} blocks",
            f"0 (embeddings) to {blocks}, or all",
        )
    return [int(layer)]

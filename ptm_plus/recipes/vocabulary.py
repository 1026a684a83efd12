"""What a recipe decides about the vocabulary, carried out on its corpus for a model."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import tomli_w

from ptm_plus.errors import DataError, SettingsError
from ptm_plus.files import write_whole
from ptm_plus.hub import as_path
from ptm_plus.progress import Watch
from ptm_plus.recipes.recipe import RECIPE, Vocabulary, read_recipe
from ptm_plus.recipes.training import TRAINING, rows_of
from ptm_plus.settings_paths import absolute
from ptm_plus.vocabulary.extension import Extension, extend
from ptm_plus.vocabulary.folders import new_folder, write_tokenizer
from ptm_plus.vocabulary.training import Training, train

MODEL, TOKENIZER = "model", "tokenizer"
"""Folders in the corpus: an extended model, or a tokenizer that was trained on it."""

_ENTRIES = {"extend": 1_000, "train": 16_000}
"""Where a recipe names no number."""


def settle_vocabulary(
    corpus: Path, model: str, family: str, characters: int, watch: Watch
) -> dict[str, Any]:
    """Keep, extend or train a vocabulary, as the recipe of a corpus says.

    Its ``train.toml`` then names the model, or the family and the tokenizer of a new one.

    Args:
        corpus: folder of a built corpus.
        model: the model to go on with, for ``keep`` and ``extend``.
        family: model type of the model to be, for ``train``.
        characters: how much of the text is looked at.
        watch: where progress goes.

    Returns:
        The decision, what was made, and its figures.

    Raises:
        SettingsError: no model or family is given where the decision needs it, or it was carried
            out before.
        DataError: the folder holds no finished corpus, or nothing in it is worth an entry.
        EnvironmentProblem: the model cannot be loaded, or the folder not be written.
    """
    if not (corpus / TRAINING).is_file():
        raise DataError(
            f"holds no {TRAINING}: no corpus was finished here",
            "build it first: ptm-plus recipe build RECIPE --output DIR",
            path=corpus,
        )
    decided = read_recipe(corpus / RECIPE).vocabulary
    needed = "--family" if decided.decision == "train" else "--model"
    if not (family if decided.decision == "train" else model):
        raise SettingsError(
            f"the recipe's decision is {decided.decision!r}, which needs {needed}",
            f"give {needed}, or change [vocabulary] in {corpus / RECIPE}",
        )
    for made in (corpus / MODEL, corpus / TOKENIZER):
        if decided.decision != "keep" and made.exists():
            raise SettingsError(
                f"{made}: the vocabulary is settled already",
                f"go on with ptm-plus train {corpus / TRAINING}, or remove the folder first",
            )
    text = (str(rows_of(corpus)),)
    found: dict[str, Any] = {"decision": decided.decision, "why": decided.why}
    if decided.decision == "train":
        given = Training(
            text=text, family=family, vocabulary=_entries(decided), characters=characters
        )
        found |= {"trained": _train(given, corpus / TOKENIZER, watch)}
        changes = {
            "model": {"family": family},
            "tokenizer": {"path": absolute(str(corpus / TOKENIZER))},
        }
    elif decided.decision == "extend":
        more = Extension(source=model, text=text, pieces=_entries(decided), characters=characters)
        found |= {"extended": extend(more, corpus / MODEL, watch)}
        changes = {"model": {"path": absolute(str(corpus / MODEL))}}
    else:
        changes = {"model": {"path": model if as_path(model) is None else absolute(model)}}
    _change(corpus / TRAINING, changes)
    return {**found, "settings": str(corpus / TRAINING)}


def _entries(decided: Vocabulary) -> int:
    return decided.entries or _ENTRIES[decided.decision]


def _train(given: Training, target: Path, watch: Watch) -> dict[str, Any]:
    tokenizer, figures = train(given, watch)
    with new_folder(target) as draft:
        write_tokenizer(tokenizer, tokenizer.backend_tokenizer, draft)
    return {"output": str(target), **figures}


def _change(path: Path, changes: dict[str, dict[str, str]]) -> None:
    """Set values in a settings file; whatever else was written there stays."""
    tree = tomllib.loads(path.read_text(encoding="utf-8"))
    for section, values in changes.items():
        tree[section] = {**tree.get(section, {}), **values}
    write_whole(path, tomli_w.dumps(tree))

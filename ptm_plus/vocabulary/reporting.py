"""Tokenizers side by side on the text of each language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ptm_plus.prepare.tokenization import load_tokenizer
from ptm_plus.progress import Watch
from ptm_plus.vocabulary.corpus import Corpus, plan_draws
from ptm_plus.vocabulary.measures import Splits, measure


def make_report(
    paths: Sequence[str], text: Sequence[str], characters: int, seed: int, watch: Watch
) -> dict[str, Any]:
    """Return what tokenizers do to text.

    Args:
        paths: folders or hub names of the tokenizers.
        text: as after ``--text``.
        characters: how much of it is looked at; every language by its size.
        seed: of the draw.
        watch: where progress goes.

    Returns:
        ``tokenizers``, one entry each with ``name``, ``vocabulary``, ``languages`` (counts and
        rates by code) and ``all``; ``refused`` rows.

    Raises:
        SettingsError: no text, or no such folder.
        DataError: the text cannot be read, or holds nothing.
        EnvironmentProblem: a tokenizer cannot be loaded.
    """
    corpus = Corpus(text)
    tokenizers = [load_tokenizer(path) for path in paths]
    with watch.task("count the text"):
        draws = plan_draws(corpus.count(), 1.0, "characters", characters)
    with watch.task("split the text"):
        found = measure(tokenizers, corpus.draw(draws, seed))
    return {
        "tokenizers": [
            {
                "name": path,
                "vocabulary": len(tokenizer),
                "languages": {language: one.to_json() for language, one in splits.items()},
                "all": _together(splits).to_json(),
            }
            for path, tokenizer, splits in zip(paths, tokenizers, found, strict=True)
        ],
        "refused": corpus.refused,
    }


def _together(splits: dict[str, Splits]) -> Splits:
    total = Splits()
    for one in splits.values():
        total.add(one)
    return total

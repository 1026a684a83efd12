"""Tokenizers trained on a run's own text, kept by what they were trained on."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from ptm_plus.files import refuse_links
from ptm_plus.keyed import derive_key
from ptm_plus.prepare.tokenization import load_tokenizer
from ptm_plus.prepare.tokenizer_training import train_tokenizer
from ptm_plus.progress import Watch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def cached_tokenizer(
    texts: Iterable[str],
    vocabulary: int,
    family: str,
    sources: Sequence[str],
    cache: Path,
    watch: Watch,
) -> PreTrainedTokenizerFast:
    """Return the tokenizer trained on some sources.

    Args:
        texts: the sources' text; read only when there is nothing in the cache.
        vocabulary: number of pieces.
        family: model type that it is for.
        sources: fingerprints of the sources.
        cache: cache folder.
        watch: where training it is told.
    """
    folder = cache / "tokenizers" / f"{derive_key(family, vocabulary, *sources):016x}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f"{folder.name}.lock")
    refuse_links([lock])
    with FileLock(lock):  # a run and its baseline may start together
        if not folder.exists():
            with watch.task("tokenizer"):
                draft = folder.with_suffix(".partial")
                refuse_links([draft])
                shutil.rmtree(draft, ignore_errors=True)
                train_tokenizer(texts, vocabulary, family).save_pretrained(draft)
                draft.rename(folder)
    return load_tokenizer(str(folder))

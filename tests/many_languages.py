"""A little text in three scripts, and tokenizers of every kind trained on it."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path
from typing import Any

from ptm_plus.prepare.tokenizer_training import (
    byte_level,
    finished,
    special_tokens,
    word_piece,
)
from ptm_plus.vocabulary.sentencepieces import train_pieces

KINDS = ("unigram", "unigram-bytes", "bpe", "bpe-bytes", "byte-bpe", "wordpiece")
FAMILY = {"byte-bpe": "roberta", "wordpiece": "bert"}

_STEMS = {
    "en": ["river", "walk", "light", "stone", "great", "house", "under", "water"],
    "ru": ["река", "город", "вода", "дом", "свет", "камень", "лес"],
    "zh": ["北京", "河流", "城市", "水", "山", "石头"],
    "eo": ["ĝardeno", "ŝipo", "ĉevalo", "birdo", "monto", "akvo", "domo"],
}
_ENDS = {
    "en": ["", "s", "ing", "ed", "er"],
    "ru": ["", "а", "ом", "ы", "ской"],
    "zh": ["", "的", "里"],
    "eo": ["", "j", "jn", "n", "eto", "eton"],
}


@lru_cache
def sentences(language: str, number: int = 150) -> tuple[str, ...]:
    """Return sentences of made-up inflections."""
    draw = random.Random(f"{language}{number}")
    space = "" if language == "zh" else " "
    return tuple(
        space.join(draw.choice(_STEMS[language]) + draw.choice(_ENDS[language]) for _ in range(9))
        + draw.choice([".", "!", ", 42."])
        for _ in range(number)
    )


def old_text() -> list[str]:
    """Return the text that the tokenizers are trained on; eo is not among it."""
    return [text for name in ("en", "ru", "zh") for text in sentences(name)]


@lru_cache
def tokenizer_of(kind: str, vocabulary: int = 0) -> Any:
    """Return a tokenizer of a kind, for the family that usually has it."""
    family = FAMILY.get(kind, "xlm-roberta")
    special = special_tokens(family)
    if kind == "byte-bpe":
        core = byte_level(old_text(), vocabulary or 300, special)
    elif kind == "wordpiece":
        letters = sorted(set("".join(old_text())) - {" "})
        core = word_piece(old_text(), vocabulary or 200, special, letters)
    else:
        name, _, fallback = kind.partition("-")
        size = vocabulary or (380 if fallback else 130)
        core = train_pieces(old_text(), size, special, name, 1.0, bool(fallback))  # type: ignore[arg-type]
    return finished(core, family)


def write_text(folder: Path, *languages: str) -> list[str]:
    """Write a file per language, and return what stands after ``--text``."""
    arguments = []
    for language in languages:
        path = folder / f"{language}.txt"
        path.write_text("\n\n".join(sentences(language)), encoding="utf-8")
        arguments.append(f"{language}={path}")
    return arguments

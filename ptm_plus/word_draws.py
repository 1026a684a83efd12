"""Keyed choices: the same seed and words give the same number on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def draw(seed: int, *words: str) -> int:
    """Return 64 bits that depend on the seed and the words only.

    Python's ``hash`` differs from process to process, and a generator's numbers depend on how many
    were taken before; a keyed hash does neither, so one more fact moves no other choice.
    """
    text = "\x1f".join(words).encode()
    digest = hashlib.blake2b(text, digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "big")


def pick(seed: int, options: Sequence[T], *words: str) -> T:
    """Return one of the options, chosen by the words."""
    return options[draw(seed, *words) % len(options)]

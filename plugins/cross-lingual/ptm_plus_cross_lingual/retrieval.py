"""Sentences that look like translations and are none: the closest other sentence of a pool."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptm_plus import Example, Refused
from ptm_plus_cross_lingual.grouping import HeldOut, Rows, grouped

OTHER = "other"
"""Field of the sentence that is no translation."""

ALONE = "no other sentence of its languages to tell its translation from"

_BUCKETS = 4096
_SCALE = 127
_MIX = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D], dtype=np.uint64)
_NOT_A_LETTER = re.compile(r"[\W_]+")


def with_others(rows: Rows, held_out: HeldOut, pool: int) -> Iterator[Example | Refused]:
    """Yield pairs with a third field: the target of another pair, the closest one of a pool.

    A pool is so many consecutive pairs of the same languages, all held out or none. Neither the
    translation nor an equal of it (but for case, spaces and punctuation) is taken, nor the target
    of an equal source.

    Args:
        rows: pairs, with the fields ``src`` and ``tgt``.
        held_out: whether a pair is held out.
        pool: pairs of a pool.
    """
    for group in grouped(rows, pool, held_out):
        if isinstance(group, Refused):
            yield group
        else:
            yield from _answered(group)


def _answered(pool: Sequence[Example]) -> Iterator[Example | Refused]:
    sources, targets = ([one.fields[name] for one in pool] for name in ("src", "tgt"))
    for example, other in zip(pool, closest_others(sources, targets).tolist(), strict=True):
        if other < 0:
            yield Refused(ALONE)
            continue
        fields = {**example.fields, OTHER: targets[other]}
        languages = {**example.languages, OTHER: example.languages["tgt"]}
        spans = [replace(span, field=OTHER) for span in pool[other].spans if span.field == "tgt"]
        yield replace(example, fields=fields, languages=languages, spans=[*example.spans, *spans])


def closest_others(sources: Sequence[str], targets: Sequence[str]) -> NDArray[np.int64]:
    """Return, for each pair, the number of the pair with the closest other target, -1 for none.

    Args:
        sources: sources of the pairs.
        targets: their targets.
    """
    vectors = trigram_vectors(targets)
    closeness = vectors @ vectors.T  # of whole numbers: exact in any order of summation
    for texts in (sources, targets):
        same = np.unique([_plain(text) for text in texts], return_inverse=True)[1]
        closeness[same[:, None] == same[None]] = -1
    found = closeness.argmax(axis=1).astype(np.int64)
    best = closeness[np.arange(len(found)), found]
    for row in np.flatnonzero(best == 0):  # nothing in common with any: the next one that may be
        allowed = np.flatnonzero(closeness[row] == 0)
        found[row] = allowed[np.searchsorted(allowed, row) % len(allowed)]
    return np.where(best < 0, -1, found)


def trigram_vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    """Return ``[n, 4096]`` vectors of hashed trigrams of characters, weighed by TF-IDF.

    They have one length and hold whole numbers, so that products of them are exact in any order.
    """
    counts = np.zeros((len(texts), _BUCKETS), np.float32)
    for row, text in enumerate(texts):
        counts[row] = np.bincount(_trigrams(text), minlength=_BUCKETS)
    rarity = np.log((1 + len(texts)) / (1 + np.count_nonzero(counts, axis=0)))
    weighed = np.log1p(counts) * rarity
    norm = np.sqrt(np.square(weighed).sum(axis=1, keepdims=True))
    return np.rint(_SCALE * weighed / np.maximum(norm, 1e-9)).astype(np.float32)


def _trigrams(text: str) -> NDArray[np.int64]:
    plain = f" {' '.join(text.casefold().split())} "
    codes = np.frombuffer(plain.encode("utf-32-le"), np.uint32).astype(np.uint64)
    mixed = codes[:-2] * _MIX[0] + codes[1:-1] * _MIX[1] + codes[2:] * _MIX[2]
    mixed ^= mixed >> np.uint64(29)
    return ((mixed * _MIX[0]) >> np.uint64(20)).astype(np.int64) % _BUCKETS


def _plain(text: str) -> str:
    return _NOT_A_LETTER.sub("", text.casefold()) or text

"""What a tokenizer does to the text of each language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptm_plus.prepare.tokenization import backend, literal, special_ids, unknown_id
from ptm_plus.prepare.word_units import character_words

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerFast

_TOGETHER = 256


@dataclass
class Splits:
    """How text was split; all counts.

    Attributes:
        texts: number of texts.
        characters: their length.
        words: runs of letters and digits; in scripts without spaces every character is one.
        tokens: pieces, without special tokens.
        pieces: pieces with a share in a word, and marks of a space that stand alone: all but
            punctuation.
        continued: words that more than one piece has a share in.
        unknown: tokens that stand for something without a piece.
        partial: tokens that are a part of a character (single bytes).
    """

    texts: int = 0
    characters: int = 0
    words: int = 0
    tokens: int = 0
    pieces: int = 0
    continued: int = 0
    unknown: int = 0
    partial: int = 0

    def add(self, other: Splits) -> None:
        """Add the counts of other text."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    def to_json(self) -> dict[str, Any]:
        """Return counts and rates; a rate without anything to count over is ``None``."""
        return {
            **asdict(self),
            "fertility": _rate(self.pieces, self.words),
            "continued_share": _rate(self.continued, self.words),
            "unknown_rate": _rate(self.unknown, self.tokens),
            "partial_rate": _rate(self.partial, self.tokens),
            "characters_per_token": _rate(self.characters, self.tokens),
        }


def measure(
    tokenizers: Sequence[PreTrainedTokenizerFast], texts: Iterable[tuple[str, str]]
) -> list[dict[str, Splits]]:
    """Return for each tokenizer how it splits the text of each language, by code, in order.

    Args:
        tokenizers: fast tokenizers.
        texts: (language, text), read once; taken literally, as in training.
    """
    found: list[dict[str, Splits]] = [{} for _ in tokenizers]
    waiting = iter(texts)
    while batch := list(islice(waiting, _TOGETHER)):
        for so_far, tokenizer in zip(found, tokenizers, strict=True):
            for language, splits in _split_all(tokenizer, batch):
                so_far.setdefault(language, Splits()).add(splits)
    return [dict(sorted(one.items())) for one in found]


def _split_all(
    tokenizer: PreTrainedTokenizerFast, batch: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, Splits]]:
    core = backend(tokenizer)
    nothing = np.array([unknown_id(core), *special_ids(core)])
    with literal(core):
        encodings = core.encode_batch([text for _, text in batch], add_special_tokens=False)
    for (language, text), encoding in zip(batch, encodings, strict=True):
        yield language, _splits(text, encoding, nothing)


def _splits(text: str, encoding: Encoding, nothing: NDArray[np.int64]) -> Splits:
    ids = np.array(encoding.ids, np.int64)
    start, end = np.array(encoding.offsets, np.int64).reshape(-1, 2).T
    words = character_words(text)
    count = int(words.max(initial=-1)) + 1
    first, last = _words_of(words, start, end)
    touches = last >= first
    # One more piece from the first word of each on, one less after the last.
    ends = np.zeros(count + 1, np.int64)
    np.add.at(ends, first[touches], 1)
    np.add.at(ends, last[touches] + 1, -1)
    partial = np.zeros(len(ids), bool)
    overlaps = start[1:] < end[:-1]
    partial[1:] |= overlaps
    partial[:-1] |= overlaps
    return Splits(
        texts=1,
        characters=len(text),
        words=count,
        tokens=len(ids),
        pieces=int((touches | _blank(text, start, end)).sum()),
        continued=int((np.cumsum(ends[:-1]) > 1).sum()),
        unknown=int(np.isin(ids, nothing).sum()),
        partial=int(partial.sum()),
    )


def _words_of(
    words: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ``[n]`` the first and last word of character ranges; last < first where none is."""
    inside = words >= 0
    begins = inside & (np.concatenate(([-1], words[:-1])) != words)
    seen = np.concatenate(([0], np.cumsum(begins)))
    # A range that starts within a word belongs to it; one that starts outside, to the next.
    within = np.concatenate((inside & ~begins, [False]))
    return seen[start] - within[start], seen[end] - 1


def _blank(text: str, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which ranges hold nothing but white space, or nothing at all."""
    solid = np.array([not character.isspace() for character in text], bool)
    seen = np.concatenate(([0], np.cumsum(solid)))
    return seen[end] == seen[start]


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None

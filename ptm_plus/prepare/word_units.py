"""Which tokens are masked as one unit: words, from what the pre-tokenizer and the text say.

The word numbers of a fast tokenizer are a start, not the answer: a Metaspace that does not split
calls a whole text one word, and a word of a script without spaces may be a whole sentence. Here a
unit ends where the pre-tokenizer's word ends, at white space, between letters and punctuation, and
around every character of a script without spaces; a word of many tokens falls apart.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_WORD_TOKENS = 10
"""A word of more tokens (a URL, a number, an unknown script) is masked token by token."""

_UNKNOWN, _OTHER, _SPACE, _PUNCTUATION, _CJK = range(5)
# Han, kana, and the South-East Asian scripts that are written without spaces between words.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # half-width Katakana
    (0x20000, 0x3FFFF),
)
_classes = np.zeros(0x110000, np.uint8)  # Filled in as characters are met.


def character_classes(text: str) -> NDArray[np.uint8]:
    """Return the class of every character: other, white space, punctuation, unspaced script."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    classes = _classes[codes]
    new = codes[classes == _UNKNOWN]
    if len(new):
        for code in np.unique(new):
            _classes[code] = _classify(int(code))
        classes = _classes[codes]
    return classes


def _classify(code: int) -> int:
    character = chr(code)
    if character.isspace():
        return _SPACE
    if any(first <= code <= last for first, last in _UNSPACED):
        return _CJK
    return _PUNCTUATION if unicodedata.category(character)[0] in "PS" else _OTHER


def character_words(text: str) -> NDArray[np.int64]:
    """Return for every character the number of its word in the text, or -1.

    A word is a run of characters that are neither white space nor punctuation; a character of a
    script without spaces is a word by itself. No tokenizer has a say in this.
    """
    classes = character_classes(text)
    inside = (classes == _OTHER) | (classes == _CJK)
    begins = inside.copy()
    begins[1:] &= (classes[1:] != classes[:-1]) | (classes[1:] == _CJK)
    return np.where(inside, np.cumsum(begins) - 1, -1)


class Characters:
    """The characters of several texts, one after the other, with what is needed to group tokens.

    Args:
        texts: the texts; character ``i`` of text ``t`` has the number ``starts[t] + i``.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.starts = np.cumsum([0, *(len(text) for text in texts)])
        self._classes = character_classes("".join(texts))
        self._solid = np.flatnonzero(self._classes != _SPACE)
        self._seen = {
            kind: np.concatenate(([0], np.cumsum(self._classes == kind)))
            for kind in (_SPACE, _PUNCTUATION, _CJK)
        }

    def trim(self, start: NDArray[np.int64], end: NDArray[np.int64]) -> None:
        """Take white space off both ends of character ranges, in place.

        A range of nothing but white space becomes empty, at its end.
        """
        spaced = np.flatnonzero(self._count(_SPACE, start, end) > 0)
        first, last = start[spaced], end[spaced]
        solid = np.append(self._solid, len(self._classes))
        after = solid[np.searchsorted(self._solid, first)]
        before = np.append(0, self._solid + 1)[np.searchsorted(self._solid, last)]
        empty = after >= last
        start[spaced] = np.where(empty, last, after)
        end[spaced] = np.where(empty, last, before)

    def units(
        self,
        text: NDArray[np.int64],
        start: NDArray[np.int64],
        end: NDArray[np.int64],
        word: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Return ``[n]`` unit numbers that rise by one where a new unit begins.

        Args:
            text: ``[n]`` number of the text that a token belongs to.
            start: ``[n]`` first character, trimmed.
            end: ``[n]`` one past the last character.
            word: ``[n]`` the pre-tokenizer's word within its text.
        """
        if not len(start):
            return np.zeros(0, np.int64)
        unspaced = self._count(_CJK, start, end) > 0
        punctuation = (self._count(_PUNCTUATION, start, end) == end - start) & (end > start)
        gap = self._count(_SPACE, end[:-1], np.maximum(start[1:], end[:-1])) > 0
        begins = np.diff(word) != 0
        begins |= unspaced[1:] | unspaced[:-1] | (np.diff(punctuation.astype(np.int8)) != 0) | gap
        # A part of a character (byte-level tokens) or a lone space mark goes with its neighbour.
        mark = (start[:-1] == end[:-1]) & (start[1:] == end[:-1])
        tied = (start[1:] < end[:-1]) | mark
        new_text = np.diff(text) != 0
        begins = np.concatenate(([True], (begins & ~tied) | new_text))
        units = np.cumsum(begins) - 1
        long = (np.bincount(units) > MAX_WORD_TOKENS)[units]
        begins[1:] |= long[1:] & ~tied
        return np.cumsum(begins) - 1

    def _count(
        self, kind: int, start: NDArray[np.int64], end: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        seen = self._seen[kind]
        return seen[end] - seen[start]

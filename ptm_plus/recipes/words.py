"""Words and sentences without a model, as datatrove's filters ask for them.

datatrove's own tokenizers download data (NLTK) or bring large packages (spaCy, Stanza); these need
nothing. A word is a run of letters, digits and joining marks; each character of a script that is
written without spaces, and each other mark, is a word of its own. Sentences are Punkt's with a list
of abbreviations, and end at the full stops of other scripts also where no blank follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import regex
from datatrove.utils.word_tokenizers import WordTokenizer

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
"""Thai, Lao, Myanmar, Khmer, kana, Han."""

_WORD = re.compile(rf"[^\W{_UNSPACED}]+(?:['’][^\W{_UNSPACED}]+)*|\S")
_SPACED = re.compile(rf"[^\s{_UNSPACED}]+|[{_UNSPACED}]")
_COMBINING = regex.compile(r"\p{M}")
# Three times slower; only the module regex counts vowel signs and accents as parts of words.
_WORD_WITH_MARKS = regex.compile(
    rf"(?:[^\W{_UNSPACED}]\p{{M}}*)+(?:['’](?:[^\W{_UNSPACED}]\p{{M}}*)+)*"
    r"|[^\s\x1c-\x1f]\p{M}*"  # separators, which are no white space to the module regex
)
_FULL_STOP = regex.compile(r"[。！？｡]+[」』”’）)]*\s*|[।؟۔]+\s+|\n+")

_ABBREVIATIONS = """
    abb abs al anm approx art artt az bd bzgl bzw ca cf co corp dr ed eds e.g eg eq est et etc evtl
    fa ff fig figs gem ggf h hon i.e inc jr ltd m.e max min mio mr mrs ms no nos nr p para paras pp
    prof r ref refs resp rn s sec sect sog sr st subpara tab tel u.a u.s usw v vgl vol vs z.b ziff
"""


class Words(WordTokenizer):
    """A word tokenizer for any language; all instances are equal."""

    def __init__(self) -> None:
        super().__init__("any")

    def __eq__(self, other: object) -> bool:
        return type(other) is Words

    def __hash__(self) -> int:
        return hash(Words)

    def word_tokenize(self, text: str) -> list[str]:
        """Return the words and marks of a text."""
        return _pattern(text).findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        """Return the sentences of a text without the blanks around them."""
        return [text[start:end] for start, end in self.span_tokenize(text)]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Return where the sentences of a text start and end, blanks around them left out."""
        return list(self._spans(text))

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        start = 0
        for match in [*_FULL_STOP.finditer(text), None]:
            end = len(text) if match is None else match.end()
            piece = text[start:end]
            for first, last in self._punkt.span_tokenize(piece):
                inside = piece[first:last]
                left = len(inside) - len(inside.lstrip())
                stripped = inside.strip()
                if stripped:
                    yield start + first + left, start + first + left + len(stripped)
            start = end

    @cached_property
    def _punkt(self) -> Any:
        from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

        parameters = PunktParameters()
        parameters.abbrev_types = set(_ABBREVIATIONS.split())
        return PunktSentenceTokenizer(parameters)


class SpacedWords(Words):
    """Words as the rules of Gopher count them: what stands between blanks, marks included."""

    def __hash__(self) -> int:
        return hash(SpacedWords)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SpacedWords)

    def word_tokenize(self, text: str) -> list[str]:
        """Return the words of a text."""
        return _SPACED.findall(text)


WORDS = Words()
SPACED_WORDS = SpacedWords()


def count_words(text: str) -> int:
    """Return how many words and marks a text has: what this package calls tokens."""
    return len(_pattern(text).findall(text))


def _pattern(text: str) -> Any:
    return _WORD_WITH_MARKS if _COMBINING.search(text) else _WORD

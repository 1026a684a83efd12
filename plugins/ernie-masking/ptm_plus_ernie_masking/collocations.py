"""Words that the corpus holds together: bigrams of high normalised PMI, joined again and again.

The score is that of Bouma 2009, as gensim's ``Phrases`` computes it::

    npmi(a, b) = ln(p(ab) / (p(a) p(b))) / -ln p(ab),   p(x) = count(x) / count of all words

A pass finds pairs of neighbouring units; the next one counts over text in which they are joined,
so that phrases of three and four words are found.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

Phrase = tuple[str, ...]

MOST = 2_000_000
"""Pairs that are counted at once; beyond that, the rarest are forgotten (as gensim does)."""

_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")


def words(text: str) -> list[tuple[int, int]]:
    """Return start and end of every word: letters and digits, with apostrophes and hyphens."""
    return [found.span() for found in _WORD.finditer(text)]


def runs(text: str, spans: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """Yield the numbers of words with nothing but white space between them."""
    run: list[int] = []
    for number, (start, _) in enumerate(spans):
        if run and text[spans[number - 1][1] : start].strip():
            yield run
            run = []
        run.append(number)
    if run:
        yield run


def npmi(first: int, second: int, both: int, total: int) -> float:
    """Return the normalised PMI of two units, from -1 to 1.

    Args:
        first: occurrences of the first unit.
        second: occurrences of the second.
        both: occurrences of the one right before the other.
        total: occurrences of all units.
    """
    chance = both / total
    if chance >= 1:
        return 1.0
    return math.log(chance * total * total / (first * second)) / -math.log(chance)


def find_collocations(
    sentences: Sequence[Sequence[str]], threshold: float, min_count: int, longest: int
) -> dict[Phrase, float]:
    """Return phrases with their scores.

    Args:
        sentences: words, in lower case, that follow each other.
        threshold: least normalised PMI.
        min_count: least occurrences.
        longest: most words of a phrase.
    """
    found: dict[Phrase, float] = {}
    units: list[list[Phrase]] = [[(word,) for word in sentence] for sentence in sentences]
    for _ in range(math.ceil(math.log2(longest))):
        new = _pass(units, threshold, min_count, longest)
        if not new:
            break
        found |= new
        units = [list(_joined(sentence, new)) for sentence in units]
    return found


def _pass(
    units: Iterable[Sequence[Phrase]], threshold: float, min_count: int, longest: int
) -> dict[Phrase, float]:
    single: Counter[Phrase] = Counter()
    pairs: Counter[tuple[Phrase, Phrase]] = Counter()
    forgotten = 1
    for sentence in units:
        single.update(sentence)
        pairs.update(pairwise(sentence))
        if len(pairs) > MOST:
            pairs = Counter({pair: count for pair, count in pairs.items() if count > forgotten})
            forgotten += 1
    total = single.total()
    scored = {
        first + second: npmi(single[first], single[second], count, total)
        for (first, second), count in pairs.items()
        if count >= min_count and len(first) + len(second) <= longest
    }
    return {phrase: score for phrase, score in scored.items() if score > threshold}


def _joined(sentence: Sequence[Phrase], phrases: dict[Phrase, float]) -> Iterator[Phrase]:
    """Yield the units of a sentence, from the left, with pairs that are phrases joined."""
    place = 0
    while place < len(sentence):
        pair = sentence[place] + (sentence[place + 1] if place + 1 < len(sentence) else ())
        if place + 1 < len(sentence) and pair in phrases:
            yield pair
            place += 2
        else:
            yield sentence[place]
            place += 1


def longest_matches(
    sentence: Sequence[str], phrases: frozenset[Phrase]
) -> Iterator[tuple[int, int]]:
    """Yield (first word, end) of phrases in a sentence, from the left, the longest first."""
    most = max(map(len, phrases), default=0)
    place = 0
    while place < len(sentence):
        for length in range(min(most, len(sentence) - place), 1, -1):
            if tuple(sentence[place : place + length]) in phrases:
                yield place, place + length
                place += length
                break
        else:
            place += 1

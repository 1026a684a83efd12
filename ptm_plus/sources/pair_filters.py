"""Which pairs are worth training on: lengths that fit together, and each pair once.

Lengths are compared in characters, relative to what is usual for the two languages: the median
over the head of the source. Chinese needs a third of English's characters, and a limit that knows
nothing of that would refuse good pairs or let bad ones pass.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from statistics import median

from ptm_plus.components import Refused
from ptm_plus.examples import Example
from ptm_plus.sources.readers import Placed
from ptm_plus.sources.swapped import SWAPPED, Languages, SwapJudge, languages_of

UNEQUAL_LENGTHS = "halves of unequal length"
DUPLICATE = "duplicate pair"

HEAD_ROWS = 10_000
HEAD_CHARACTERS = 20_000_000
"""How much of a source is looked at before its first pair is used."""

_FEWEST = 20
_SLACK = 15  # characters: "Yes." may well be "Ja, natürlich."


@dataclass(frozen=True)
class PairFilters:
    """What is asked of a pair.

    Attributes:
        length_ratio: how many times longer than usual one half may be against the other; 0 for any.
        duplicates: whether a pair that was there before is used again.
        swapped: whether halves in each other's language are looked for.
    """

    length_ratio: float
    duplicates: bool
    swapped: bool

    def over(self, sources: Iterable[Iterator[Placed]]) -> Iterator[Example | Refused]:
        """Yield the rows of some sources, those that are not wanted as refusals.

        Raises:
            DataError: most pairs of a source have their halves in each other's language.
        """
        seen = PairSet()
        for rows in sources:
            head = _head(rows)
            pairs = [(row, path, line) for row, path, line in head if isinstance(row, Example)]
            usual = usual_ratios([pair for pair, _, _ in pairs])
            judge = SwapJudge(pairs) if self.swapped else None
            for row, path, line in chain(head, rows):
                if isinstance(row, Refused):
                    yield row
                elif judge is not None and judge.swapped(row, path, line):
                    yield Refused(SWAPPED, path, line)  # before lengths, which it explains
                else:
                    why = self._refusal(row, usual, seen)
                    yield Refused(why, path, line) if why else row

    def _refusal(
        self,
        pair: Example,
        usual: Mapping[Languages, float],
        seen: PairSet,
    ) -> str:
        if self.length_ratio:
            apart = abs(_log_ratio(pair) - usual.get(languages_of(pair), 0.0))
            if apart > math.log(self.length_ratio):
                return UNEQUAL_LENGTHS
        # Last, so that what is refused for other reasons is no first occurrence.
        return "" if self.duplicates or seen.add(pair) else DUPLICATE


def usual_ratios(pairs: Iterable[Example]) -> dict[Languages, float]:
    """Return the median logarithm of the lengths' ratio, by languages with enough pairs."""
    found: dict[Languages, list[float]] = {}
    for pair in pairs:
        found.setdefault(languages_of(pair), []).append(_log_ratio(pair))
    return {pair: median(ratios) for pair, ratios in found.items() if len(ratios) >= _FEWEST}


class PairSet:
    """Which pairs were there: 64 bits of a hash each, in a table that is at most two thirds full.

    Two different pairs are taken for one with a chance of n² / 2⁶⁵: 3 in a million for ten million.
    """

    def __init__(self) -> None:
        self._table = array("Q", bytes(8 << 10))
        self._count = 0

    def add(self, pair: Example) -> bool:
        """Add a pair; return whether it is new."""
        text = "\0".join((*languages_of(pair), *(half.strip() for half in pair.fields.values())))
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        key = int.from_bytes(digest, "little") or 1  # 0 is an empty place
        if not _insert(self._table, key):
            return False
        self._count += 1
        if 3 * self._count > 2 * len(self._table):
            larger = array("Q", bytes(16 * len(self._table)))
            for known in filter(None, self._table):
                _insert(larger, known)
            self._table = larger
        return True

    def __len__(self) -> int:
        return self._count


def _insert(table: array[int], key: int) -> bool:
    """Put a key into an open-addressed table whose length is a power of two."""
    at = key & (len(table) - 1)
    while table[at]:
        if table[at] == key:
            return False
        at = (at + 1) & (len(table) - 1)
    table[at] = key
    return True


def _head(rows: Iterator[Placed]) -> list[Placed]:
    head: list[Placed] = []
    characters = 0
    for placed in rows:
        head.append(placed)
        if isinstance(placed[0], Example):
            characters += sum(map(len, placed[0].fields.values()))
        if len(head) == HEAD_ROWS or characters > HEAD_CHARACTERS:
            break
    return head


def _log_ratio(pair: Example) -> float:
    src, tgt = (len(pair.fields[half].strip()) + _SLACK for half in ("src", "tgt"))
    return math.log(src / tgt)

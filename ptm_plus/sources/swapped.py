"""Pairs whose halves stand in each other's column: told by script, and by what the columns hold.

A row looks swapped when both halves fit the other's language better than their own. Where the two
languages have scripts of their own, the script decides. Elsewhere the trigrams of each language's
column do, learned from the head of the source: a minority of swapped rows is found so, whole files
in one script are not.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice

from ptm_plus.errors import DataError
from ptm_plus.examples import Example

SWAPPED = "halves in each other's language"

_SCRIPTS = {
    "Latn": "LATIN",
    "Cyrl": "CYRILLIC",
    "Grek": "GREEK",
    "Arab": "ARABIC",
    "Hebr": "HEBREW",
    "Deva": "DEVANAGARI",
    "Beng": "BENGALI",
    "Thai": "THAI",
    "Geor": "GEORGIAN",
    "Armn": "ARMENIAN",
    "Taml": "TAMIL",
    "Telu": "TELUGU",
    "Hans": "CJK",
    "Hant": "CJK",
    "Jpan": "CJK",
    "Kore": "HANGUL",
}
_KANA = {"HIRAGANA": "CJK", "KATAKANA": "CJK"}
_LETTERS = 60  # of a half, for its script
_CHARACTERS = 400  # of a half, for its trigrams
_FEWEST_ROWS = 50
_PROFILED_ROWS = 2_000
_MARGIN = 20.0  # nats by which a row must fit better the other way round
_JUDGED = 20  # pairs of a language pair, before a file can be called swapped


class SwapJudge:
    """Tells which pairs of a source look swapped.

    Args:
        head: its first pairs, each with file and line.

    Raises:
        DataError: most pairs of some languages do.
    """

    def __init__(self, head: Sequence[tuple[Example, str, int]]) -> None:
        self._profiles = _profiles([pair for pair, _, _ in head])
        found: dict[tuple[str, str], list[tuple[str, int]]] = {}
        counts: Counter[tuple[str, str]] = Counter()
        for pair, path, line in head:
            languages = pair.languages["src"], pair.languages["tgt"]
            counts[languages] += 1
            if self._looks_swapped(pair):
                found.setdefault(languages, []).append((path, line))
        for languages, places in found.items():
            if counts[languages] >= _JUDGED and 2 * len(places) > counts[languages]:
                _refuse_file(languages, places, counts[languages])
        # A source without one in its head is not looked through any further.
        self._suspect = frozenset(found)

    def swapped(self, pair: Example) -> bool:
        """Tell whether a pair looks swapped."""
        languages = pair.languages["src"], pair.languages["tgt"]
        return languages in self._suspect and self._looks_swapped(pair)

    def _looks_swapped(self, pair: Example) -> bool:
        src, tgt = pair.languages["src"], pair.languages["tgt"]
        expected = script_of_language(src), script_of_language(tgt)
        if all(expected) and expected[0] != expected[1]:
            found = script_of_text(pair.fields["src"]), script_of_text(pair.fields["tgt"])
            return found == expected[::-1]
        if src not in self._profiles or tgt not in self._profiles:
            return False
        one, other = self._profiles[src], self._profiles[tgt]
        gains = (
            _score(pair.fields["src"], other, one),
            _score(pair.fields["tgt"], one, other),
        )
        return min(gains) > 0 and sum(gains) > _MARGIN


def _refuse_file(languages: tuple[str, str], places: Sequence[tuple[str, int]], count: int) -> None:
    path, line = places[0]
    src, tgt = languages
    raise DataError(
        f"{len(places):,} of the first {count:,} pairs of {src} and {tgt} have their halves in "
        "each other's language",
        f"swap the languages ({tgt}-{src}=FILE, or the columns), or set data.swapped=true to use "
        "them as they are",
        path=path,
        line=line,
    )


@lru_cache(maxsize=1024)
def script_of_language(tag: str) -> str:
    """Return the script that a language is usually written in; empty where it is not known."""
    import langcodes

    return _SCRIPTS.get(langcodes.Language.get(tag).maximize().script or "", "")


def script_of_text(text: str) -> str:
    """Return the script of most letters at the start of a text; empty where there are none."""
    letters = islice((character for character in text if character.isalpha()), _LETTERS)
    found = Counter(_script(letter) for letter in letters)
    return found.most_common(1)[0][0] if found else ""


@lru_cache(maxsize=1 << 14)
def _script(letter: str) -> str:
    first = unicodedata.name(letter, "?").split(" ", 1)[0]
    return _KANA.get(first, first)


class _Profile:
    """Trigrams of a language."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.total = 0
        self.rows = 0

    def add(self, text: str) -> None:
        grams = list(_trigrams(text))
        self.counts.update(grams)
        self.total += len(grams)
        self.rows += 1

    def log(self, gram: str) -> float:
        """Return the logarithm of a smoothed frequency."""
        return math.log((self.counts.get(gram, 0) + 0.5) / (self.total + 50_000))


def _profiles(pairs: Sequence[Example]) -> dict[str, _Profile]:
    found: dict[str, _Profile] = {}
    for pair in pairs:
        for half, language in pair.languages.items():
            profile = found.setdefault(language, _Profile())
            if profile.rows < _PROFILED_ROWS:
                profile.add(pair.fields[half])
    return {language: one for language, one in found.items() if one.rows >= _FEWEST_ROWS}


def _trigrams(text: str) -> Iterator[str]:
    padded = f" {text[:_CHARACTERS].lower()} "
    return (padded[at : at + 3] for at in range(len(padded) - 2))


def _score(text: str, better: _Profile, worse: _Profile) -> float:
    """Return by how many nats a text fits one profile better than another."""
    return sum(better.log(gram) - worse.log(gram) for gram in _trigrams(text))

"""Pairs whose halves stand in each other's column: told by script, and by language.

A row looks swapped when both halves fit the other's language better than their own. Where the two
languages have scripts of their own, the script decides; elsewhere py3langid, of its languages the
two alone. For languages that it does not know, the trigrams of each one's column do, learned from
the head of the source: a minority of swapped rows is found so, whole files are not.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import islice

from ptm_plus.errors import DataError
from ptm_plus.examples import Example
from ptm_plus.languages import language_identifier

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
_CHARACTERS = 200  # of a half, for its language
_FEWEST_ROWS = 50
_PROFILED_ROWS = 2_000
_MARGIN = 20.0  # nats by which a row must fit better the other way round
_JUDGED = 20  # pairs of a language pair, before a file can be called swapped
_LATER = 200  # the same where they come after the head
_LOOKED = 2_000  # pairs of a language pair, after which one without a swapped one is trusted

Languages = tuple[str, str]


class SwapJudge:
    """Tells which pairs of a source look swapped.

    Languages of which none does, among the first thousands, are not looked at any further.

    Args:
        head: its first pairs, each with file and line; they are asked about first, in their order.

    Raises:
        DataError: most pairs of some languages do.
    """

    def __init__(self, head: Sequence[tuple[Example, str, int]]) -> None:
        self._profiles = _profiles([pair for pair, _, _ in head])
        self._judged: Counter[Languages] = Counter()
        self._found: dict[Languages, list[tuple[str, int]]] = {}
        self._verdicts = deque(self._judge(*one) for one in head)
        for languages in self._found:
            self._refuse_most(languages)

    def swapped(self, pair: Example, path: str, line: int) -> bool:
        """Tell whether a pair looks swapped.

        Raises:
            DataError: most of the first pairs of its languages, which come after the head, do.
        """
        if self._verdicts:
            return self._verdicts.popleft()
        languages = languages_of(pair)
        if self._judged[languages] >= _LOOKED:
            return languages in self._found and self._looks_swapped(pair)
        found = self._judge(pair, path, line)
        if self._judged[languages] == _LATER:
            self._refuse_most(languages)
        return found

    def _judge(self, pair: Example, path: str, line: int) -> bool:
        languages, found = languages_of(pair), self._looks_swapped(pair)
        self._judged[languages] += 1
        if found:
            self._found.setdefault(languages, []).append((path, line))
        return found

    def _refuse_most(self, languages: Languages) -> None:
        count, places = self._judged[languages], self._found.get(languages, ())
        if count >= _JUDGED and 2 * len(places) > count:
            _refuse_file(languages, places, count)

    def _looks_swapped(self, pair: Example) -> bool:
        src, tgt = languages_of(pair)
        expected = script_of_language(src), script_of_language(tgt)
        if all(expected) and expected[0] != expected[1]:
            found = script_of_text(pair.fields["src"]), script_of_text(pair.fields["tgt"])
            return found == expected[::-1]
        gain = self._gain(src, tgt)
        if gain is None:
            return False
        gains = gain(pair.fields["src"]), -gain(pair.fields["tgt"])
        return min(gains) > 0 and sum(gains) > _MARGIN

    def _gain(self, src: str, tgt: str) -> Callable[[str], float] | None:
        """Return what tells by how many nats a text fits the target's language better."""
        one, other = (label_of_language(tag) for tag in (src, tgt))
        if one and other and one != other:
            return partial(_identified, own=one, other=other)
        if src not in self._profiles or tgt not in self._profiles:
            return None
        return partial(_score, better=self._profiles[tgt], worse=self._profiles[src])


def languages_of(pair: Example) -> Languages:
    """Return the languages of a pair's halves."""
    return pair.languages["src"], pair.languages["tgt"]


def _refuse_file(languages: Languages, places: Sequence[tuple[str, int]], count: int) -> None:
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


def _identified(text: str, own: str, other: str) -> float:
    """Return by how many nats py3langid finds a text likelier in another language than its own."""
    found = dict(language_identifier(probabilities=False).rank(text[:_CHARACTERS]))
    return float(found[other] - found[own])


@lru_cache(maxsize=1024)
def label_of_language(tag: str) -> str:
    """Return what py3langid calls a language; empty where it does not know it."""
    import langcodes

    language = langcodes.Language.get(tag).language or ""
    return language if language in language_identifier(probabilities=False).labels else ""


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

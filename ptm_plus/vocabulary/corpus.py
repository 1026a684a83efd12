"""Text by language: what is there, and a share of it that does not follow size alone.

Languages are drawn as p ∝ n^α over their characters or words n (XLM: α 0.5; mBERT and mmBERT: 0.7
for the vocabulary; XLM-R: 0.3). Text is read twice, once to count and once to draw, and never held
whole: a language with q times its size as quota gets every text ⌊q⌋ times, and once more with
probability q - ⌊q⌋, drawn by the text's number. Equal files give equal draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ptm_plus.components import Refused
from ptm_plus.errors import DataError, SettingsError
from ptm_plus.examples import Example
from ptm_plus.keyed import derive_key, uniform
from ptm_plus.languages import valid_language
from ptm_plus.prepare.word_units import character_words
from ptm_plus.sources import SourceSpec, parse_source, read_text

Unit = Literal["characters", "words"]


@dataclass
class LanguageText:
    """What there is of one language.

    Attributes:
        texts: number of texts.
        characters: their length.
        words: runs of letters and digits; in scripts without spaces every character is one.
    """

    texts: int = 0
    characters: int = 0
    words: int = 0

    def add(self, text: str) -> None:
        """Count one more text."""
        self.texts += 1
        self.characters += len(text)
        self.words += int(character_words(text).max(initial=-1)) + 1


@dataclass(frozen=True)
class Draw:
    """How much of a language is looked at.

    Attributes:
        share: of the whole draw, by the formula.
        copies: how often each of its texts is drawn, on average.
    """

    share: float
    copies: float


class Corpus:
    """Text of several languages, read from its sources as often as need be.

    Args:
        arguments: as after ``--text``.

    Raises:
        SettingsError: there are none, or one names nothing.
        DataError: a file is missing, or a language code is none.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        if not arguments:
            raise SettingsError("no text was given", "give --text en=FILE")
        self.sources = [parse_source(argument) for argument in arguments]
        for source in self.sources:
            _language(source.text_language(), source)
        self.refused = 0

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield (language, text); rows without text are counted in ``refused``.

        Raises:
            DataError: a row is broken, or its language code is none.
        """
        self.refused = 0
        for source in self.sources:
            known: dict[str, str] = {}
            for row in read_text(source):
                if isinstance(row, Refused):
                    self.refused += 1
                    continue
                tag = row.languages.get("text", "und")
                if tag not in known:
                    known[tag] = _language(tag, source, row)
                yield known[tag], row.fields["text"]

    def count(self) -> dict[str, LanguageText]:
        """Return what there is by language, in the order of their codes.

        Raises:
            DataError: there is no text.
        """
        found: dict[str, LanguageText] = {}
        for language, text in self.texts():
            found.setdefault(language, LanguageText()).add(text)
        if not any(one.words for one in found.values()):
            raise DataError("the text holds no words", "check the files after --text")
        return dict(sorted(found.items()))

    def draw(self, draws: Mapping[str, Draw], seed: int) -> Iterator[tuple[str, str]]:
        """Yield (language, text) as often as each text is drawn, in the order of the files."""
        keys = {language: derive_key(seed, "vocabulary", language) for language in draws}
        numbers = dict.fromkeys(draws, 0)
        for language, text in self.texts():
            chance = float(uniform(keys[language], np.int64(numbers[language])))
            numbers[language] += 1
            whole = math.floor(draws[language].copies)
            for _ in range(whole + (chance < draws[language].copies - whole)):
                yield language, text


def plan_draws(
    found: Mapping[str, LanguageText], alpha: float, unit: Unit, characters: int
) -> dict[str, Draw]:
    """Return how often the text of each language is drawn.

    Args:
        found: what there is.
        alpha: exponent of the sizes; 1 leaves them as they are, 0 makes all languages equal.
        unit: what the sizes are counted in.
        characters: length of the whole draw; what there is, if that is less.
    """
    sizes = {language: getattr(one, unit) for language, one in found.items() if one.words}
    total = sum(size**alpha for size in sizes.values())
    shares = {language: size**alpha / total for language, size in sizes.items()}
    # One unit of each language is so many characters; all units together make up the draw.
    width = {language: found[language].characters / size for language, size in sizes.items()}
    there = sum(found[language].characters for language in sizes)
    mean = sum(shares[language] * width[language] for language in sizes)
    units = min(characters, there) / mean
    return {
        language: Draw(shares[language], units * shares[language] / size)
        for language, size in sizes.items()
    } | {language: Draw(0.0, 0.0) for language in found if language not in sizes}


def drawn_figures(
    found: Mapping[str, LanguageText], draws: Mapping[str, Draw], drawn: Mapping[str, LanguageText]
) -> dict[str, Any]:
    """Return what there is and what was drawn, by language, as plain values."""
    return {
        language: {
            **asdict(found[language]),
            **asdict(draws[language]),
            "drawn": asdict(drawn.get(language, LanguageText())),
        }
        for language in found
    }


def _language(tag: str, source: SourceSpec, row: Example | None = None) -> str:
    try:
        return valid_language(tag)
    except DataError as error:
        place = repr(source.argument) if row is None else f"text {row.id}"
        kind = SettingsError if row is None else DataError
        raise kind(f"{error.message} (in {place})", error.hint) from error

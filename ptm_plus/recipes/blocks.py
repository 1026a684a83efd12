"""The blocks of a pipeline, made of a recipe's steps: datatrove's, and what it lacks."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import ftfy
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.formatters.base import BaseFormatter
from datatrove.utils.text import ngrams, split_into_words

from ptm_plus.languages import language_identifier
from ptm_plus.recipes import steps
from ptm_plus.recipes.words import SPACED_WORDS, WORDS, count_words


class NormaliseText(BaseFormatter):
    """Unicode form, mended encodings, blanks, control characters."""

    type, name = "FORMAT", "normalise"

    def __init__(self, settings: steps.Normalise) -> None:
        super().__init__()
        self.settings = settings

    def format(self, text: str) -> str:
        """Return the text in its normal form."""
        if self.settings.mend and not text.isascii():
            text = ftfy.fix_text(text, _MEND)
        if self.settings.unicode != "none" and not text.isascii():
            text = unicodedata.normalize(self.settings.unicode, text)
        text = _CONTROL.sub("", _LINE_END.sub("\n", text))
        if self.settings.space:
            text = _BLANKS.sub(" ", text)
            text = _AROUND_LINE_END.sub("\n", text)
            text = _EMPTY_LINES.sub("\n\n", text).strip()
        return text


# Only what was decoded wrongly: quotes, ligatures and widths are the text's own.
_MEND = ftfy.TextFixerConfig(
    normalization=None,
    unescape_html="auto",
    uncurl_quotes=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    fix_line_breaks=False,
    explain=False,
)
_LINE_END = re.compile(r"\r\n?|\u2028|\u2029|\x85")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\ufeff\u200b\u2060\ufffe\uffff]")
_BLANKS = re.compile(r"[ \t\u00a0\u2000-\u200a\u202f\u205f\u3000]+")
_AROUND_LINE_END = re.compile(r" ?\n ?")
_EMPTY_LINES = re.compile(r"\n{3,}")


class KeepLanguages(BaseFilter):
    """Keeps documents in some languages; the language goes into the row where none is named."""

    type, name = "FILTER", "language"

    def __init__(self, settings: steps.Language, languages: tuple[str, ...]) -> None:
        super().__init__()
        wanted = settings.keep or languages
        self.keep = {tag.partition("-")[0]: tag for tag in wanted}
        self.probability = settings.probability
        self.counts: Counter[str] = Counter()

    def filter(self, doc: Document) -> tuple[bool, str]:
        """Return whether a document is in one of the languages, surely enough."""
        found, probability = language_identifier(probabilities=True).classify(_excerpt(doc.text))
        self.counts[f"identified as {found}"] += 1
        if found not in self.keep:
            return False, f"language {found}"
        if probability < self.probability:
            return False, f"language unsure, perhaps {found}"
        doc.metadata["lang"] = doc.metadata["lang"] or self.keep[found]
        return True, ""


def _excerpt(text: str, size: int = 300) -> str:
    """Return start, middle and end of a long text: enough to tell its language."""
    if len(text) <= 3 * size:
        return text
    middle = (len(text) - size) // 2
    return f"{text[:size]} {text[middle : middle + size]} {text[-size:]}"


class KeepLengths(BaseFilter):
    """Keeps documents of some length."""

    type, name = "FILTER", "length"

    def __init__(self, settings: steps.Length) -> None:
        super().__init__()
        self.settings = settings

    def filter(self, doc: Document) -> tuple[bool, str]:
        """Return whether a document is neither too short nor too long."""
        words = doc.metadata["tokens"]
        if words < self.settings.min_words:
            return False, f"fewer than {self.settings.min_words} words"
        if self.settings.max_words and words > self.settings.max_words:
            return False, f"more than {self.settings.max_words} words"
        return True, ""


class KeepVaried(GopherRepetitionFilter):
    """Gopher's repetition rules, without the one on the top n-gram where no n-gram occurs twice.

    In a text of thirty words, each of its n-grams has more than the share that the rule allows.
    """

    top_n_grams: tuple[tuple[int, float], ...]

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._rules = self.top_n_grams

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Return whether a document repeats itself little enough, and the rule that says no."""
        words = split_into_words(doc.text, self.language)
        self.top_n_grams = tuple(
            (size, share)
            for size, share in self._rules
            if len(words) > _LONG or _repeats(words, size)
        )
        return super().filter(doc)


_LONG = 300
"""Words of a text in which a single n-gram is too small a share for any rule."""


def _repeats(words: list[str], size: int) -> bool:
    found = list(ngrams(words, size))
    return len(set(found)) < len(found)


class MaskPersons(BaseFormatter):
    """Puts placeholders in the place of what may identify a person."""

    type, name = "FORMAT", "mask"

    def __init__(self, settings: steps.Mask) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        kinds = (
            (settings.emails, "email", _EMAIL, None),
            (settings.addresses, "ip", _IP, _public),
            (settings.accounts, "account", _ACCOUNT, _checks_out),
            (settings.phones, "phone", _PHONE, None),
        )
        self.kinds: list[tuple[str, re.Pattern[str], Any]] = [
            (name, pattern, check) for wanted, name, pattern, check in kinds if wanted
        ]
        self.kinds += [(name, re.compile(p), None) for name, p in settings.patterns.items()]

    def format(self, text: str) -> str:
        """Return the text with placeholders."""
        for name, pattern, check in self.kinds:

            def placeholder(match: re.Match[str], name: str = name, check: Any = check) -> str:
                if check is not None and not check(match[0]):
                    return match[0]
                self.counts[f"masked {name}"] += 1
                return f"<{name}>"

            text = pattern.sub(placeholder, text)
        return text


_EMAIL = re.compile(r"\b[\w.%+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_IP = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]?\d)")
# With a plus sign: without one, numbers of trials, patents and cases look alike.
_PHONE = re.compile(
    r"(?<![\w+])\+[1-9]\d{0,2}[ /.-]?(?:\(0?\d{1,5}\)[ /.-]?|\d{1,5}[ /.-]?)"
    r"\d{2,5}(?:[ /.-]?\d{2,5}){0,4}\b"
)
_ACCOUNT = re.compile(
    r"(?<![\w/.-])(?:[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?"
    r"|[3-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{1,7})(?![\w/-])"
)


_SHORTEST_IBAN = 15


def _public(address: str) -> bool:
    """Tell an address that may be a person's from a version number, such as 3.1.9.2."""
    try:
        return ipaddress.ip_address(address).is_global and len(address) > len("1.2.3.4")
    except ValueError:
        return False


def _checks_out(number: str) -> bool:
    """Check an IBAN (ISO 13616, remainder of 97) or the number of a card (Luhn)."""
    plain = number.replace(" ", "").replace("-", "")
    if plain[0].isalpha():
        if len(plain) < _SHORTEST_IBAN:
            return False
        digits = "".join(str(int(one, 36)) for one in plain[4:] + plain[:4])
        return int(digits) % 97 == 1
    doubled = [int(one) * (1 + at % 2) for at, one in enumerate(reversed(plain))]
    return sum(one - 9 * (one > 9) for one in doubled) % 10 == 0 and len(set(plain)) > 1


class CutUnits(PipelineStep):
    """Cuts documents into paragraphs or sentences; mentions go with the unit that holds them."""

    type, name, splits = "FORMAT", "units", True

    def __init__(self, settings: steps.Units) -> None:
        super().__init__()
        self.unit = settings.unit

    def run(
        self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the units; their ids are the document's with a number."""
        for document in data or ():
            for number, (start, end) in enumerate(self._spans(document.text)):
                mentions = [
                    {**one, "start": one["start"] - start, "end": one["end"] - start}
                    for one in document.metadata["mentions"]
                    if start <= one["start"] and one["end"] <= end
                ]
                text = document.text[start:end]
                metadata = {
                    **document.metadata,
                    "mentions": mentions,
                    "tokens": count_words(text),
                }
                yield Document(text, f"{document.id}#{number}", metadata=metadata)

    def _spans(self, text: str) -> list[tuple[int, int]]:
        if self.unit == "sentence":
            return WORDS.span_tokenize(text)
        return [(m.start(), m.end()) for m in re.finditer(r"\S[^\n]*", text)]


def block_of(step: steps.Step, languages: tuple[str, ...]) -> PipelineStep | None:
    """Return the block of a step that sees one document at a time; ``None`` for one that is none.

    Args:
        step: any step but those that compare documents or need an index.
        languages: the recipe's.
    """
    given = step.model_dump(exclude={"kind", "why"})
    match step:
        case steps.Normalise():
            return NormaliseText(step)
        case steps.Language():
            return KeepLanguages(step, languages)
        case steps.Length():
            return KeepLengths(step)
        case steps.GopherQuality():
            given["stop_words"] = list(step.stop_words) or None
            return GopherQualityFilter(**given, language=SPACED_WORDS)
        case steps.GopherRepetition():
            return KeepVaried(**given, language=SPACED_WORDS)
        case steps.FinewebQuality():
            return FineWebQualityFilter(**given, language=SPACED_WORDS)
        case steps.C4Lines():
            return C4QualityFilter(**given, language=WORDS)
        case steps.Mask():
            return MaskPersons(step)
        case steps.Units(unit="paragraph" | "sentence"):
            return CutUnits(step)
    return None

"""The data of the benchmark on real languages, split by English sentence.

A Tatoeba pair belongs to the questions or to training by its English sentence alone, whatever the
other language, so that no English sentence is on both sides. A training pair of whatever origin
that shares a half with a question is left out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ptm_plus.files import open_lines

TEXTS = {
    "en": "en.simplewiki",
    "de": "de.dewiki2022",
    "fr": "fr.eltec",
    "es": "es.eltec",
}
"""Monolingual text by language."""

TEXT_BYTES = 4_000_000
"""Of each language, in UTF-8."""

TATOEBA = {
    "de": "deu",
    "fr": "fra",
    "es": "spa",
    "it": "ita",
    "nl": "nld",
    "pt": "por",
}
"""The languages that are asked about, and what Tatoeba calls them."""

TRAINED = ("de", "fr")
"""Languages with training pairs."""

GROUPS = {"pairs": TRAINED, "text": ("es",), "nothing": ("it", "nl", "pt")}
"""The languages asked about, by what training has of them: pairs and text, text alone, nothing."""

DOCUMENTATION = ("phpdoc", "pydocs")
"""Further training pairs, English first."""

QUESTIONS = 0.4
"""Share of the English sentences that go to the questions."""

_WORDS = re.compile(r"\w+")


@dataclass(frozen=True)
class Pair:
    """A sentence, its translation into English, and the sentence's language."""

    other: str
    english: str
    language: str

    @property
    def keys(self) -> tuple[str, str]:
        """Both halves, as they are compared."""
        return key(self.other), key(self.english)


def key(sentence: str) -> str:
    """Return the letters and digits of a sentence in lower case."""
    return "".join(_WORDS.findall(sentence.casefold()))


def is_asked(english: str) -> bool:
    """Return whether an English sentence belongs to the questions."""
    digest = hashlib.sha256(key(english).encode()).digest()
    return int.from_bytes(digest[:8], "big") < QUESTIONS * 2**64


def questions_of(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    """Return the pairs that are asked about, by language; each sentence of a language once."""
    found: dict[str, list[Pair]] = {language: [] for language in TATOEBA}
    seen: set[tuple[str, str]] = set()
    for pair in pairs:
        marks = {(pair.language, half) for half in pair.keys}
        if is_asked(pair.english) and not marks & seen:
            found[pair.language].append(pair)
            seen |= marks
    return found


def training_of(
    tatoeba: Iterable[Pair],
    documentation: Iterable[Pair],
    questions: Mapping[str, Iterable[Pair]],
    left_out: Counter[str],
) -> Iterator[Pair]:
    """Yield the pairs to train on: of the trained languages, without a half of any question.

    Args:
        tatoeba: the pairs that questions are taken from.
        documentation: other pairs.
        questions: what is asked, by language.
        left_out: counts what is not yielded, by reason.
    """
    asked = {half for pairs in questions.values() for pair in pairs for half in pair.keys}
    kept = (pair for pair in tatoeba if not is_asked(pair.english))
    for pair in chain(kept, documentation):
        if pair.language not in TRAINED:
            left_out["other language"] += 1
        elif asked.intersection(pair.keys):
            left_out["half of a question"] += 1
        else:
            yield pair


def read_tatoeba(folder: Path) -> Iterator[Pair]:
    """Yield Tatoeba's pairs in the languages that are asked about."""
    codes = {code: language for language, code in TATOEBA.items()}
    for other, english, code, _ in _cells(folder / "parallel" / "tatoeba.tsv.gz"):
        if code in codes:
            yield Pair(other, english, codes[code])


def read_documentation(folder: Path) -> Iterator[Pair]:
    """Yield the pairs of technical documentation in the trained languages."""
    for origin in DOCUMENTATION:
        for path in sorted((folder / "parallel").glob(f"{origin}.en-*.tsv.gz")):
            for english, other, _, language in _cells(path):
                if language in TRAINED:
                    yield Pair(other, english, language)


def read_text(folder: Path, language: str) -> Iterator[str]:
    """Yield documents of a language, in all as many bytes as are taken of each."""
    taken = 0
    for _, line in open_lines(str(folder / "text" / f"{TEXTS[language]}.jsonl.xz")):
        text = json.loads(line)["text"]
        taken += len(text.encode())
        if taken > TEXT_BYTES:
            return
        yield text


def write_inputs(data: Path, folder: Path) -> dict[str, Any]:
    """Write text, training pairs, their halves as text, and questions; return what was counted.

    Args:
        data: the folder of the data.
        folder: gets ``text.LANGUAGE.jsonl``, ``pairs.tsv``, ``halves.jsonl`` and
            ``questions.LANGUAGE.tsv``.
    """
    left_out: Counter[str] = Counter()
    tatoeba = list(read_tatoeba(data))
    questions = questions_of(tatoeba)
    pairs = list(training_of(tatoeba, read_documentation(data), questions, left_out))
    for language in TEXTS:
        rows = ({"text": text, "lang": language} for text in read_text(data, language))
        _write_rows(folder / f"text.{language}.jsonl", rows)
    for language, asked in questions.items():
        _write_pairs(folder / f"questions.{language}.tsv", asked)
    _write_pairs(folder / "pairs.tsv", pairs)
    halves = dict.fromkeys(
        half for pair in pairs for half in ((pair.other, pair.language), (pair.english, "en"))
    )
    _write_rows(folder / "halves.jsonl", ({"text": text, "lang": lang} for text, lang in halves))
    return {
        "questions": {language: len(asked) for language, asked in questions.items()},
        "pairs": dict(Counter(pair.language for pair in pairs)),
        "left_out": dict(left_out),
    }


def _cells(path: Path) -> Iterator[list[str]]:
    """Yield the first four cells of the lines below the header."""
    for number, line in open_lines(str(path)):
        if number > 1:
            yield line.split("\t")[:4]


def _write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("src\ttgt\tsrc_lang\ttgt_lang\n")
        file.writelines(f"{one.other}\t{one.english}\t{one.language}\ten\n" for one in pairs)

"""The annotator of phrases: Chinese words by jieba, collocations of the corpus in any language."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from ptm_plus import ContextView, Example, Refused, Span, Stream, cache_folder
from ptm_plus_ernie_masking.collocations import (
    Phrase,
    find_collocations,
    longest_matches,
    runs,
    words,
)
from ptm_plus_ernie_masking.settings import PhraseSettings

VERSION = 1
"""Raised whenever the same text and settings would give other phrases."""

UNSPACED = frozenset({"zh", "yue", "wuu", "ja", "th", "lo", "km", "my", "bo"})
"""Languages that are written without spaces between words."""

CHINESE = frozenset({"zh", "yue", "wuu"})

_EVERY = 2_000


def base(language: str) -> str:
    """Return the first subtag of a language code."""
    return language.partition("-")[0].lower()


class Phrases:
    """Annotates text with spans of kind ``phrase``; travels to worker processes.

    Args:
        collocations: phrases, in lower case, by language.
        segment: whether words of Chinese text are phrases.
        fingerprint: hash of everything that they come from.
    """

    def __init__(
        self, collocations: Mapping[str, frozenset[Phrase]], segment: bool, fingerprint: str
    ) -> None:
        self.collocations = dict(collocations)
        self.segment = segment
        self.fingerprint = fingerprint
        self._counts: Counter[str] = Counter()

    def __call__(self, examples: Sequence[Example]) -> list[list[Span]]:
        """Return the phrases of each example."""
        return [
            [
                Span(field, start, end, "phrase")
                for field, text in example.fields.items()
                for start, end in self.find(text, example.languages[field])
            ]
            for example in examples
        ]

    def find(self, text: str, language: str) -> list[tuple[int, int]]:
        """Return start and end of the phrases of a text."""
        code = base(language)
        if code in CHINESE and self.segment:
            found = _chinese(text)
            self._counts["segmented words"] += len(found)
            return found
        known = self.collocations.get(code, frozenset())
        if not known:
            return []
        spans = words(text)
        lower = [text[start:end].lower() for start, end in spans]
        found = [
            (spans[run[first]][0], spans[run[end - 1]][1])
            for run in runs(text, spans)
            for first, end in longest_matches([lower[number] for number in run], known)
        ]
        self._counts["collocations"] += len(found)
        return found

    def account(self) -> Mapping[str, int]:
        """Return what was found since the last call."""
        counts, self._counts = self._counts, Counter()
        return counts


def _chinese(text: str) -> list[tuple[int, int]]:
    """Return words of several characters, by jieba's dictionary and model of new words."""
    import rjieba

    return [
        (start, end)
        for word, start, end in rjieba.tokenize(text, "default", True)
        if end - start > 1 and all("\u3400" <= character <= "\u9fff" for character in word)
    ]


# ---------------------------------------------------------------------------------------------
# Counting, once for a corpus


def corpus_phrases(context: ContextView, settings: PhraseSettings) -> Phrases:
    """Return the annotator for the run's streams; collocations are kept in the cache.

    Args:
        context: gives streams, cache and progress.
        settings: how phrases are found.
    """
    streams = [context.streams[name] for name in sorted(context.streams)]
    sources = [one.fingerprint for one in streams]
    limit = context.settings.data.max_examples
    text = json.dumps([VERSION, sources, limit, settings.model_dump()], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:24]
    found: Mapping[str, frozenset[Phrase]] = {}
    if settings.collocations:
        path = cache_folder(context.settings) / "phrases" / f"{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                _write(path, _count(context, streams, settings))
        found = _read(path)
    return Phrases(found, settings.segment, key)


def _count(
    context: ContextView, streams: Iterable[Stream], settings: PhraseSettings
) -> dict[str, dict[Phrase, float]]:
    sentences: dict[str, list[list[str]]] = {}
    left: Counter[str] = Counter()
    with context.watch.task("phrases") as task:
        done = 0
        for stream in streams:
            for example in stream.examples():
                done += 1
                if done % _EVERY == 0:
                    task.update(done, None, "rows read")
                if isinstance(example, Refused):
                    continue
                for field, text in example.fields.items():
                    code = base(example.languages[field])
                    if code not in UNSPACED and left[code] < settings.sample:
                        left[code] += len(text)
                        sentences.setdefault(code, []).extend(_sentences(text))
        phrases = {}
        for code in sorted(sentences):
            task.update(done, None, f"counting {code}")
            phrases[code] = find_collocations(
                sentences.pop(code), settings.threshold, settings.min_count, settings.longest
            )
    return phrases


def _sentences(text: str) -> list[list[str]]:
    spans = words(text)
    lower = [text[start:end].lower() for start, end in spans]
    return [[lower[number] for number in run] for run in runs(text, spans)]


def _write(path: Path, phrases: Mapping[str, Mapping[Phrase, float]]) -> None:
    document = {
        code: {" ".join(phrase): round(score, 4) for phrase, score in sorted(of.items())}
        for code, of in phrases.items()
    }
    draft = path.with_suffix(".partial")
    draft.write_text(json.dumps(document, ensure_ascii=False, indent=0), encoding="utf-8")
    draft.replace(path)


def _read(path: Path) -> dict[str, frozenset[Phrase]]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {code: frozenset(tuple(p.split(" ")) for p in of) for code, of in document.items()}

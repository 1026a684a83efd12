"""How the streams write the aliases that may be common words, counted once and kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock

from ptm_plus.components import Refused, Stream
from ptm_plus.errors import DataError
from ptm_plus.examples import is_unicode
from ptm_plus.files import read_json, refuse_links
from ptm_plus.keyed import derive_key
from ptm_plus.knowledge.common_words import VERSION, WordCounter, add_up
from ptm_plus.knowledge.labels import EntityLabels
from ptm_plus.prepare.artifacts import disk_errors
from ptm_plus.progress import Watch

_EVERY = 2_000


def stream_word_counts(
    labels: EntityLabels, streams: Sequence[Stream], limit: int, cache: Path, watch: Watch
) -> dict[str, Counter[str]]:
    """Return the counts over all streams; each stream's are an artifact of the cache.

    Args:
        labels: the names.
        streams: what is counted.
        limit: read at most this many rows of each; 0 for all.
        cache: cache folder.
        watch: where counting is told.

    Raises:
        DataError: an input is wrong, or something else lies in the cache.
        EnvironmentProblem: the disk is full.
    """
    return add_up(*(_counts(labels, stream, limit, cache / "words", watch) for stream in streams))


def _counts(
    labels: EntityLabels, stream: Stream, limit: int, folder: Path, watch: Watch
) -> Mapping[str, Mapping[str, int]]:
    key = derive_key(VERSION, stream.fingerprint, limit, labels.fingerprint)
    path = folder / f"{key:016x}.json"
    lock, draft = path.with_suffix(".lock"), path.with_suffix(".partial")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    refuse_links([path, lock, draft])
    with FileLock(lock):  # a run and its baseline may start together
        if not path.exists():
            counts = _count(labels, stream, limit, watch)
            text = json.dumps(counts, ensure_ascii=False, indent=0, sort_keys=True)
            with disk_errors(folder):
                draft.write_text(text, encoding="utf-8")
                draft.replace(path)
    return _read(path)


def _count(
    labels: EntityLabels, stream: Stream, limit: int, watch: Watch
) -> dict[str, Counter[str]]:
    counter = WordCounter(labels)
    with watch.task(f"count words of {stream.name}") as task:
        number = 0
        for number, row in enumerate(islice(stream.examples(), limit or None), start=1):
            if not isinstance(row, Refused) and is_unicode(row):
                for field, text in row.fields.items():
                    counter.add(text, row.languages.get(field, "und"))
            if number % _EVERY == 0:
                task.update(number, None, f"{number:,} rows")
        task.update(number, None, f"{number:,} rows")
    return counter.counts


def _read(path: Path) -> Mapping[str, Mapping[str, int]]:
    document: Any = read_json(path)
    if not isinstance(document, dict) or not all(
        isinstance(counts, dict) and all(type(count) is int for count in counts.values())
        for counts in document.values()
    ):
        raise DataError("holds no counts of words", "delete it", path=path)
    return document

"""``kg link``: text with its mentions, made in parts that are kept and never made again.

Which aliases are common words shows only when all text has been read. So the parts hold the links
of all names, and how they write those aliases; the common ones are taken out when the parts are put
together. No other link depends on that: what a name hides it hides in either case.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ptm_plus.cli.kg_commands import (
    Common,
    LinkRequest,
    entity_spans,
    linked_spans,
    single_files,
)
from ptm_plus.crew import Job
from ptm_plus.errors import DataError, EnvironmentProblem, SettingsError
from ptm_plus.examples import Example, Span
from ptm_plus.files import flush, read_json, refuse_links
from ptm_plus.keyed import derive_key
from ptm_plus.knowledge.common_words import VERSION as COUNTING
from ptm_plus.knowledge.common_words import WordCounter, add_up, common_words
from ptm_plus.knowledge.linker import DictionaryLinker, LinkCounts
from ptm_plus.prepare.artifacts import (
    disk_errors,
    part_path,
    partial_folder,
    parts_folder,
    read_header,
    read_part,
    write_part,
)
from ptm_plus.prepare.chunk_pool import run_chunks
from ptm_plus.prepare.preparation import CHUNK_CHARACTERS, Chunk, chunked
from ptm_plus.progress import Task, Watch
from ptm_plus.sources import SourceSpec, read_text, source_fingerprint

VERSION = 1
"""Goes into the key of parts: raised whenever the same text and names would give others."""

PART_ROWS = 4_000
"""Most rows of a part."""

_WHOLE = "parts.json"


def link_files(
    request: LinkRequest, output: Path, workers: int, cache: Path, watch: Watch
) -> dict[str, int]:
    """Write the text with its mentions, whole or not at all.

    An example that comes with entities keeps them and gets no others, as in training. Parts that an
    earlier call finished are taken from the cache; the bytes depend neither on that nor on the
    number of workers.

    Args:
        request: text, names, and perhaps a graph that restricts them.
        output: ``.jsonl`` file, one object per text.
        workers: processes; 0 takes the number of cores.
        cache: cache folder.
        watch: where progress goes.

    Returns:
        What was counted: texts, refused, given mentions, names found, linked, ambiguous, common
        words, entities.

    Raises:
        SettingsError: no text, no names, or another suffix.
        DataError: an input is wrong.
        EnvironmentProblem: the file or the cache cannot be written, or a worker process died.
    """
    if output.suffix != ".jsonl":
        raise SettingsError(f"--output {output}: must end in .jsonl", "name a .jsonl file")
    if not request.text:
        raise SettingsError("no text was given", "give --text FILE")
    graph, names = request.graph(), request.names()
    if names is None:
        raise SettingsError("no names were given", "give --labels FILE")
    if graph is not None:
        names = names.restricted(set(graph.entities))
    linker = request.linker(names, graph)
    parts: list[Path] = []
    for name, spec in single_files(request.text):
        with watch.task(f"link {Path(name).name}") as task:
            parts += _parts(name, spec, linker, workers, cache, task)
    tally = _Tally()
    common: Common = {}
    if request.common_words:
        headers = (_kept(read_header, path, path.parents[1]) for path in parts)
        common = common_words(names, add_up(*(header["words"] for header in headers)))
    with watch.task("write") as task, _written(output) as file:
        for number, path in enumerate(parts, start=1):
            file.writelines(_lines(path, common, tally))
            task.update(number, len(parts))
    return tally.to_json()


# ---------------------------------------------------------------------------------------------
# Making parts


def _parts(
    name: str, spec: SourceSpec, linker: DictionaryLinker, workers: int, cache: Path, task: Task
) -> list[Path]:
    """Return the parts of one source, making those that are not in the cache."""
    from filelock import FileLock

    # The name is in the rows: a text without an id is called by file and line.
    source = source_fingerprint(spec, cache)
    key = derive_key(VERSION, COUNTING, name, source, linker.fingerprint)
    folder = cache / "links" / f"{key:016x}"
    lock = folder.with_suffix(".lock")
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    refuse_links([lock, folder, partial_folder(folder)])
    with FileLock(lock):  # another process that links the same is waited for
        if not folder.exists():
            _make_parts(spec, linker, workers, folder, task)
    count = _kept(_number, folder / _WHOLE, folder)
    return [folder / "parts" / part_path(folder, number).name for number in range(count)]


def _make_parts(
    spec: SourceSpec, linker: DictionaryLinker, workers: int, folder: Path, task: Task
) -> None:
    with disk_errors(folder):
        parts_folder(folder).mkdir(parents=True, exist_ok=True)
    job = Job(
        "kg link",
        partial(start_linking, linker, folder),
        "run the same command again: finished parts are kept; --workers 1 takes less memory",
    )
    chunks = chunked(read_text(spec), 0, PART_ROWS, CHUNK_CHARACTERS)
    count = run_chunks(job, chunks, [folder], workers, task.update)
    whole = partial_folder(folder) / _WHOLE
    with disk_errors(folder):
        whole.write_text(json.dumps({"parts": count}), encoding="utf-8")
        flush(whole)
        partial_folder(folder).rename(folder)


def start_linking(linker: DictionaryLinker, folder: Path) -> Callable[[Chunk], None]:
    """Return what makes the part of a chunk; for a crew."""
    return partial(_make_part, linker, WordCounter(linker.labels), folder)


def _make_part(linker: DictionaryLinker, counter: WordCounter, folder: Path, chunk: Chunk) -> None:
    counter.counts = {}
    part = _Tally(refused=sum(chunk.refused.values()))
    lines: list[bytes] = []
    doubtful: list[int] = []
    for _, example in chunk.examples:
        text, language = example.fields["text"], example.languages.get("text", "und")
        counter.add(text, language)
        mentions = entity_spans(example)
        part.given.update(one.id for one in mentions)
        if not mentions:
            mentions = linked_spans(example, linker, part.links)
            aliases = counter.aliases(language)
            if any(text[one.start : one.end] in aliases for one in mentions):
                doubtful.append(len(lines))
        lines.append(_line(_row(example, mentions)))
    part.texts = len(lines)
    arrays: dict[str, NDArray[Any]] = {
        "lines": np.frombuffer(b"".join(lines), np.uint8),
        "borders": np.cumsum([0, *map(len, lines)], dtype=np.int64),
        "doubtful": np.array(doubtful, np.int64),
    }
    header = {"first": chunk.first, "rows": chunk.rows, "words": counter.counts}
    write_part(part_path(folder, chunk.number), arrays, {**header, "tally": part.to_header()})


def _row(example: Example, mentions: Sequence[Span]) -> dict[str, Any]:
    others = [span for span in example.spans if span.kind != "entity"]
    row: dict[str, Any] = {
        "id": example.id,
        "lang": example.languages.get("text", "und"),
        "text": example.fields["text"],
        "mentions": [{"start": one.start, "end": one.end, "id": one.id} for one in mentions],
    }
    if others:
        row["spans"] = [
            {"start": one.start, "end": one.end, "kind": one.kind, "id": one.id} for one in others
        ]
    return row


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


# ---------------------------------------------------------------------------------------------
# Putting them together


def _number(path: Path) -> int:
    document = read_json(path)
    if not isinstance(document, dict) or type(document.get("parts")) is not int:
        raise DataError("holds no number of parts", path=path)
    return int(document["parts"])


def _kept(read: Callable[[Path], Any], path: Path, folder: Path) -> Any:
    """Read a file of the cache, or say which folder to delete."""
    try:
        return read(path)
    except DataError as error:
        raise DataError(error.message, f"delete {folder}: it is made again", path=path) from error


@dataclass
class _Tally:
    """What was seen: texts, rows that were refused, mentions that came with the text, links."""

    texts: int = 0
    refused: int = 0
    given: Counter[str] = field(default_factory=Counter)
    links: LinkCounts = field(default_factory=LinkCounts)

    def add(self, header: Mapping[str, Any]) -> None:
        """Add what :meth:`to_header` returned for a part."""
        links = header["links"]
        self.texts += header["texts"]
        self.refused += header["refused"]
        self.given.update(header["given"])
        self.links += LinkCounts(**{**links, "by_id": Counter(links["by_id"])})

    def to_header(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "texts": self.texts,
            "refused": self.refused,
            "given": self.given,
            "links": {one.name: getattr(self.links, one.name) for one in fields(LinkCounts)},
        }

    def to_json(self) -> dict[str, int]:
        """Return the counts by name."""
        return {
            "texts": self.texts,
            "refused": self.refused,
            "mentions_given": self.given.total(),
            "names_found": self.links.found,
            "linked": self.links.linked,
            "ambiguous": self.links.ambiguous,
            "common_words": self.links.common,
            "entities": len(self.given.keys() | (+self.links.by_id).keys()),
        }


def _lines(path: Path, common: Common, tally: _Tally) -> Iterator[bytes | memoryview]:
    """Yield the lines of a part without the links of common words, in long pieces."""
    arrays, header = _kept(read_part, path, path.parents[1])
    tally.add(header["tally"])
    content, borders = arrays["lines"].data, arrays["borders"].tolist()
    done = 0
    for number in arrays["doubtful"].tolist() if common else ():
        start, end = borders[number : number + 2]
        row = json.loads(bytes(content[start:end]))
        if _without_common(row, common.get(row["lang"], frozenset()), tally.links):
            yield content[done:start]
            yield _line(row)
            done = end
    yield content[done:]


def _without_common(row: dict[str, Any], words: frozenset[str], counts: LinkCounts) -> bool:
    """Take the links of common words out of a row, and tell whether there were any."""
    text, kept = row["text"], []
    for mention in row["mentions"]:
        if text[mention["start"] : mention["end"]] in words:
            counts.linked -= 1
            counts.common += 1
            counts.by_id[mention["id"]] -= 1
        else:
            kept.append(mention)
    changed = len(kept) < len(row["mentions"])
    row["mentions"] = kept
    return changed


@contextmanager
def _written(output: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name when all of it is on the disk."""
    draft = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(output)
    except OSError as error:
        raise EnvironmentProblem(
            f"{output}: cannot be written: {error.strerror or error}",
            "name another file, or make room",
        ) from error
    finally:
        draft.unlink(missing_ok=True)

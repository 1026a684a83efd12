"""The pipeline blocks around datatrove's own: reading, counting, writing."""

from __future__ import annotations

import gzip
import io
import json
import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from ptm_plus.files import flush, open_lines, write_whole
from ptm_plus.peak_memory import peak_resident
from ptm_plus.recipes.documents import read_documents
from ptm_plus.recipes.recipe import Recipe
from ptm_plus.recipes.shards import Inputs
from ptm_plus.recipes.tally import Measures, Tally
from ptm_plus.recipes.words import count_words

READING = -1
"""Number of the step in the tally of what was read."""

_OWN = ("source", "lang", "tokens", "kept", "mentions")
"""What a document's metadata holds in a pipeline; blocks of datatrove may add to it."""

_LEVEL = 4
"""Of gzip: a sixth larger than the default, in half its time."""


class ReadShard(PipelineStep):
    """Reads the shard with the task's number from its source file.

    Raises:
        DataError: the file has vanished or changed, or is not what its source says.
    """

    type, name = "READER", "source"

    def __init__(self, recipe: Recipe, inputs: Inputs, data: Path) -> None:
        super().__init__()
        self.recipe, self.inputs, self.data = recipe, inputs, data
        self.tally = Tally(READING)

    def run(
        self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents of a shard."""
        shard = self.inputs.shards[rank]
        file = self.inputs.files[shard.file]
        source = self.recipe.sources[file.source]
        file.check()
        begun = time.process_time()
        for number, raw in enumerate(read_documents(source, file.path, self.data)):
            if number % shard.parts != shard.part:
                continue
            self.tally.docs_in += 1
            tokens = count_words(raw.text)
            self.tally.tokens_in += tokens
            if not raw.text.strip():
                self.tally.drop("empty text", raw.id, source.name, "")
                continue
            self.tally.docs_out += 1
            self.tally.tokens_out += tokens
            self.tally.counts[f"documents of {source.name}"] += 1
            self.tally.counts[f"tokens of {source.name}"] += tokens
            metadata = {
                "source": source.name,
                "lang": raw.language,
                "tokens": tokens,
                "kept": raw.metadata,
                "mentions": raw.mentions,
            }
            self.tally.seconds += time.process_time() - begun
            yield Document(raw.text, raw.id, metadata=metadata)
            begun = time.process_time()
        self.tally.seconds += time.process_time() - begun
        file.check()  # what changed while it was read is not taken as whole


class ReadWork(PipelineStep):
    """Reads what an earlier stage wrote."""

    type, name = "READER", "work"

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__()
        self.folder = folder
        self.tally = Tally(step)

    def run(
        self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents of a shard."""
        begun = time.process_time()
        for _, line in open_lines(shard_path(self.folder, rank)):
            row = json.loads(line)
            metadata = {name: row[name] for name in _OWN}
            self.tally.seconds += time.process_time() - begun
            yield Document(row["text"], row["id"], metadata=metadata)
            begun = time.process_time()
        self.tally.seconds += time.process_time() - begun


class Drops:
    """Takes what a block of datatrove drops, in the place of its exclusion writer."""

    def __init__(self) -> None:
        self.reasons: dict[int, str] = {}

    def __enter__(self) -> Drops:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def write(self, document: Document, rank: int = 0) -> None:
        """Remember why a document is dropped."""
        self.reasons[id(document)] = str(document.metadata.get("filter_reason") or "")


class Timed(PipelineStep):
    """Another block, with the time that it takes; for those that only look at documents.

    Args:
        step: number of the step in the recipe.
        block: the block.
    """

    type, name = "TIMED", "step"

    def __init__(self, step: int, block: PipelineStep) -> None:
        super().__init__()
        self.block = block
        self.tally = Tally(step)
        self._upstream = 0.0

    def run(
        self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Pass the documents through the block."""
        begun = time.process_time()
        incoming = None if data is None else self._incoming(data)
        for document in self.block.run(incoming, rank, world_size) or ():
            self.tally.seconds += time.process_time() - begun
            self._leave(document)
            yield document
            begun = time.process_time()
        self.tally.seconds += time.process_time() - begun - self._upstream
        self._end()

    def _incoming(self, data: Iterable[Document]) -> Iterator[Document]:
        begun = time.process_time()
        for document in data:
            self._upstream += time.process_time() - begun
            self._enter(document)
            yield document
            begun = time.process_time()
        self._upstream += time.process_time() - begun

    def _enter(self, document: Document) -> None:
        """Take note of a document that comes."""

    def _leave(self, document: Document) -> None:
        """Take note of a document that goes on."""

    def _end(self) -> None:
        """Take note of the end."""


class Counted(Timed):
    """Another block, with a tally of what it lets through.

    Args:
        step: number of the step in the recipe.
        block: the block; it lets each document through, changed or not, or drops it, in order. One
            that makes several of a document says so by ``splits``.
        reason: why documents are dropped where the block does not say.
    """

    def __init__(self, step: int, block: PipelineStep, reason: str = "") -> None:
        super().__init__(step, block)
        self.reason = reason
        self.drops = Drops()
        if getattr(block, "exclusion_writer", self) is None:
            block.exclusion_writer = self.drops
        self._splits = getattr(block, "splits", False)
        self._waiting: deque[tuple[Document, str]] = deque()

    def _enter(self, document: Document) -> None:
        self.tally.docs_in += 1
        self.tally.tokens_in += document.metadata["tokens"]
        if not self._splits:
            self._waiting.append((document, document.text))

    def _leave(self, document: Document) -> None:
        if not self._splits:
            self._drop_until(document)
            _, before = self._waiting.popleft()
            if document.text != before:
                self._moved(document, before)
        self.tally.docs_out += 1
        self.tally.tokens_out += document.metadata["tokens"]

    def _moved(self, document: Document, before: str) -> None:
        self.tally.changed += 1
        document.metadata["tokens"] = count_words(document.text)
        if document.metadata["mentions"]:
            self.tally.mentions_lost += move_mentions(document, before)

    def _end(self) -> None:
        self._drop_until(None)
        self.tally.counts += getattr(self.block, "counts", Counter())

    def _drop_until(self, document: Document | None) -> None:
        while self._waiting and self._waiting[0][0] is not document:
            lost, text = self._waiting.popleft()
            reason = self.drops.reasons.pop(id(lost), "") or self.reason
            self.tally.drop(reason, str(lost.id), lost.metadata["source"], text)


def move_mentions(document: Document, before: str) -> int:
    """Find a document's mentions again in its changed text, by their words and in their order.

    Returns:
        How many were not found; they are gone.
    """
    cursor = lost = 0
    kept = []
    for one in sorted(document.metadata["mentions"], key=lambda mention: mention["start"]):
        words = before[one["start"] : one["end"]]
        place = document.text.find(words, cursor)
        if place < 0:
            words = " ".join(words.split())
            place = document.text.find(words, cursor) if words else -1
        if place < 0:
            lost += 1
            continue
        kept.append({**one, "start": place, "end": place + len(words)})
        cursor = place + len(words)
    document.metadata["mentions"] = kept
    return lost


class Write(PipelineStep):
    """Writes a shard: whole, or not at all.

    Args:
        folder: where.
        step: number of the step in the tally.
        final: whether these are the finished rows, which are also measured, or those of a stage.
    """

    type, name = "WRITER", "shard"

    def __init__(self, folder: Path, step: int, *, final: bool) -> None:
        super().__init__()
        self.folder, self.final = folder, final
        self.tally = Tally(step)
        self.measures = Measures() if final else None

    def run(
        self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Write all documents; yield none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        target = shard_path(self.folder, rank)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as stream, _packed(stream) as packed:
                for document in data or ():
                    begun = time.process_time()
                    row = self._row(document)
                    packed.write(json.dumps(row, ensure_ascii=False) + "\n")
                    self.tally.seconds += time.process_time() - begun
            flush(part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        yield from ()

    def _row(self, document: Document) -> dict[str, Any]:
        metadata = document.metadata
        if self.measures is None:
            own = {name: metadata[name] for name in _OWN}
            return {"id": document.id, "text": document.text, **own}
        mentions = metadata["mentions"]
        self.measures.take(
            metadata["lang"],
            metadata["source"],
            metadata["tokens"],
            len(document.text),
            len(mentions),
        )
        row = {"id": document.id, "text": document.text, "lang": metadata["lang"] or "und"}
        row |= {"source": metadata["source"]}
        row |= {key: value for key, value in metadata["kept"].items() if key not in row}
        return row | ({"mentions": mentions} if mentions else {})


class Report(PipelineStep):
    """The end of a pipeline: draws the documents through it, then writes its tallies."""

    type, name = "REPORT", "tallies"

    def __init__(self, folder: Path, blocks: list[PipelineStep]) -> None:
        super().__init__()
        self.folder, self.blocks = folder, blocks

    def run(
        self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> None:
        """Run the pipeline before it."""
        for _ in data or ():
            pass
        measures = [one.measures for one in self.blocks if getattr(one, "measures", None)]
        document = {
            "tallies": [one.tally.to_json() for one in self.blocks if hasattr(one, "tally")],
            "measures": [one.to_json() for one in measures],
            "peak_bytes": peak_resident(),
        }
        write_json(self.folder / f"{rank:05d}.json", document)


def shard_path(folder: Path, rank: int) -> Path:
    """Return where a shard lies."""
    return folder / f"{rank:05d}.jsonl.gz"


def write_json(target: Path, document: Any) -> None:
    """Write a JSON document, whole or not at all."""
    text = json.dumps(document, ensure_ascii=False, indent=1)
    write_whole(target, f"{text}\n")


def _packed(stream: IO[bytes]) -> io.TextIOWrapper:
    """Return a text stream that is compressed; the same text gives the same bytes."""
    packed = gzip.GzipFile("", "wb", _LEVEL, stream, mtime=0)
    return io.TextIOWrapper(packed, encoding="utf-8", newline="\n", write_through=False)

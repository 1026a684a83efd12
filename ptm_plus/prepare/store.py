"""Sequences and span tables on disk: plain arrays, mapped into memory, and one JSON file.

An artifact is a folder of ``.npy`` files with a ``meta.json``. It is written under another name
(``KEY.partial``), flushed and renamed, so that a folder with its final name is always whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptm_plus.errors import DataError
from ptm_plus.prepare.accounts import Account, SpanAccount
from ptm_plus.prepare.mapped import borders, mapped
from ptm_plus.prepare.meta import META, read_meta

NO_WORD = 65535
"""Word number of tokens that are never masked."""

NO_FIELD = 255
"""Field number of special tokens."""

NO_LANGUAGE = 65535
"""Language number of special tokens."""

MOVABLE, RESTART = 1, 2
"""Bits of ``segment_flags``."""


class SpanStore:
    """The span table of one annotator, R spans over S sequences.

    Attributes:
        folder: where it lies.
        meta: the content of ``meta.json``.
        kinds: names that ``kind`` indexes.
        ids: labels that ``id`` indexes.
        offsets: ``[S+1]`` first span of each sequence.
        start: ``[R]`` first token within the sequence, in stored order.
        length: ``[R]`` number of tokens.
        segment: ``[R]`` number of the segment within the sequence.
        kind: ``[R]`` index into ``kinds``.
        id: ``[R]`` index into ``ids``, -1 for none.
    """

    def __init__(self, folder: Path, meta: dict[str, Any]) -> None:
        self.folder = folder
        self.meta = meta
        self.kinds: tuple[str, ...] = tuple(meta["kinds"])
        self.ids: tuple[str, ...] = tuple(meta["ids"])
        rows = meta["rows"]
        self.offsets = borders(folder, "offsets", meta["sequences"], rows)
        self.start: NDArray[np.uint16] = mapped(folder, "start", rows, "u2")
        self.length: NDArray[np.uint16] = mapped(folder, "length", rows, "u2")
        self.segment: NDArray[np.uint8] = mapped(folder, "segment", rows, "u1")
        self.kind: NDArray[np.uint8] = mapped(folder, "kind", rows, "u1")
        self.id: NDArray[np.int32] = mapped(folder, "id", rows, "i4")

    @classmethod
    def open(cls, folder: str | PathLike[str]) -> SpanStore:
        """Open a span table.

        Raises:
            DataError: the folder is not a whole artifact of this version.
        """
        meta = read_meta(folder, "spans")
        return cls(Path(folder), meta)

    def __len__(self) -> int:
        return len(self.start)


class SequenceStore:
    """The sequences of one stream: N tokens, S sequences, G segments; see the attributes' shapes.

    Attributes:
        folder: where the token arrays lie.
        meta: the content of ``meta.json``.
        fields: names that ``segment_field`` indexes.
        languages: codes that ``segment_language`` indexes.
        strata: names that ``stratum`` indexes.
        labels: per sequence label the strings that it indexes, or ``None`` where it is a number.
        ids: ``[N]`` token ids (uint16 or uint32).
        words: ``[N]`` word within its sequence, 65535 for tokens that are never masked.
        char_start: ``[N]`` first character in the segment's field.
        char_end: ``[N]`` one past the last character.
        position: ``[N]`` position relative to the segment's start, or ``None`` for plain order.
        offsets: ``[S+1]`` first token of each sequence.
        segments: ``[S+1]`` first segment of each sequence.
        segment_length: ``[G]`` tokens.
        segment_flags: ``[G]`` bit 0 movable, bit 1 positions restart at this slot.
        segment_type: ``[G]`` token type id of the slot.
        segment_field: ``[G]`` index into ``fields``, 255 for special tokens.
        segment_language: ``[G]`` index into ``languages``, 65535 for special tokens.
        example: ``[S]`` number of the example in the stream.
        identity: ``[S]`` hash of the example's first text, before rewriting.
        version: ``[S]`` which edited copy of the example it is, or ``None`` if there is only one.
        stratum: ``[S]`` index into ``strata``.
        columns: the layout's extra token columns, ``[N]`` each.
        label: sequence labels, ``[S]`` int64 each, -1 where a sequence has none.
        spans: span tables by annotator name.
        account: what became of the stream's rows and spans.
    """

    def __init__(self, folder: Path, meta: dict[str, Any], spans: dict[str, SpanStore]) -> None:
        self.folder = folder
        self.meta = meta
        self.fields: tuple[str, ...] = tuple(meta["fields"])
        self.languages: tuple[str, ...] = tuple(meta["languages"])
        self.strata: tuple[str, ...] = tuple(meta["strata"])
        self.labels: dict[str, tuple[str, ...] | None] = {
            name: None if values is None else tuple(values)
            for name, values in meta["labels"].items()
        }
        self.spans = spans
        self.account = Account.from_json(meta["account"])
        self.account.spans = {
            name: SpanAccount.from_json(table.meta["account"]) for name, table in spans.items()
        }
        self._map_tokens(meta["tokens"])
        self._map_sequences(meta["sequences"])
        self._map_segments(meta["segments"])

    @classmethod
    def open(
        cls,
        folder: str | PathLike[str],
        spans: Mapping[str, str | PathLike[str]] | None = None,
    ) -> SequenceStore:
        """Open the sequences of a stream with some span tables.

        Args:
            folder: the tokens artifact.
            spans: folders of span artifacts by annotator name.

        Raises:
            DataError: a folder is not a whole artifact of this version, or a span table belongs
                to other sequences.
        """
        meta = read_meta(folder, "tokens")
        tables = {name: SpanStore.open(path) for name, path in sorted((spans or {}).items())}
        for name, table in tables.items():
            if table.meta.get("tokens_key") != meta.get("key"):
                raise DataError(
                    f"the span table {name!r} was made for other sequences",
                    "prepare the stream again",
                    path=table.folder,
                )
        return cls(Path(folder), meta, tables)

    def __len__(self) -> int:
        return len(self.stratum)

    def _map_tokens(self, tokens: int) -> None:
        folder, columns = self.folder, self.meta["columns"]
        self.ids: NDArray[np.unsignedinteger[Any]] = mapped(folder, "ids", tokens, "u2", "u4")
        self.words: NDArray[np.uint16] = mapped(folder, "words", tokens, "u2")
        self.char_start: NDArray[np.uint32] = mapped(folder, "char_start", tokens, "u4")
        self.char_end: NDArray[np.uint32] = mapped(folder, "char_end", tokens, "u4")
        self.position: NDArray[np.uint16] | None = (
            mapped(folder, "position", tokens, "u2") if self.meta["position"] else None
        )
        self.columns: dict[str, NDArray[Any]] = {
            name: mapped(folder, f"column.{name}", tokens, dtype) for name, dtype in columns.items()
        }

    def _map_sequences(self, size: int) -> None:
        folder = self.folder
        self.offsets = borders(folder, "offsets", size, self.meta["tokens"])
        self.segments = borders(folder, "segments", size, self.meta["segments"])
        self.example: NDArray[np.int64] = mapped(folder, "example", size, "i8")
        self.identity: NDArray[np.uint64] = mapped(folder, "identity", size, "u8")
        self.version: NDArray[np.uint8] | None = (
            mapped(folder, "version", size, "u1") if self.meta["versions"] > 1 else None
        )
        self.stratum: NDArray[np.uint16] = mapped(folder, "stratum", size, "u2")
        self.label: dict[str, NDArray[np.int64]] = {
            name: mapped(folder, f"label.{name}", size, "i8") for name in self.labels
        }

    def _map_segments(self, size: int) -> None:
        folder = self.folder
        self.segment_length: NDArray[np.uint16] = mapped(folder, "segment_length", size, "u2")
        self.segment_flags: NDArray[np.uint8] = mapped(folder, "segment_flags", size, "u1")
        self.segment_type: NDArray[np.uint8] = mapped(folder, "segment_type", size, "u1")
        self.segment_field: NDArray[np.uint8] = mapped(folder, "segment_field", size, "u1")
        self.segment_language: NDArray[np.uint16] = mapped(folder, "segment_language", size, "u2")


def is_whole(folder: Path) -> bool:
    """Return whether an artifact lies there under its final name."""
    return (folder / META).is_file()

"""Entity vectors on disk: a safetensors file beside a list of the labels of its rows."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptm_plus.errors import DataError, EnvironmentProblem, listed, shown
from ptm_plus.files import Pathish, file_sha256, flush

TENSOR = "vectors"
_DTYPES: dict[str, np.dtype[np.floating]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
_BLOCK = 16 << 20
_AGAIN = "write the table again"


@dataclass(frozen=True, eq=False)
class VectorTable:
    """Vectors by entity label, mapped from disk: only the rows that are gathered are read.

    Labels are not kept in memory, where millions of them take more room than a model.

    Attributes:
        path: the ``.safetensors`` file; its labels lie beside it in ``.ids.json``.
        vectors: float16 or float32 [rows, dimension], a read-only memory map.
        metadata: text by name, as written: the graph's fingerprint, the model, and so on.
        ids_sha256: hash of the file of labels.
        fingerprint: SHA-256 over the hashes of labels and vectors.
    """

    path: Path
    vectors: NDArray[np.floating]
    metadata: Mapping[str, str]
    ids_sha256: str
    fingerprint: str

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def open(cls, path: Pathish, *, verify: bool = True) -> VectorTable:
        """Map a table.

        Args:
            path: the ``.safetensors`` file.
            verify: read all vectors once, compare their hash and look for values that are not
                finite; a worker that opens what the launch has verified need not.

        Raises:
            DataError: a file is missing or damaged, labels and vectors disagree, or a vector is
                not finite.
        """
        at = Path(path)
        metadata = _metadata(at)
        ids_hash = _ids_hash(at, metadata)
        labels = _read_labels(ids_path(at))
        vectors = _map(at)
        if len(labels) != len(vectors):
            raise DataError(
                f"{len(vectors)} vectors, but {len(labels)} labels in {ids_path(at).name}",
                "the two files belong to different tables; write the table again",
                path=at,
            )
        vectors_hash = metadata.get("vectors_sha256") or _hash(vectors)
        if verify:
            _verify(at, labels, vectors, vectors_hash)
        return cls(at, vectors, metadata, ids_hash, _fingerprint(ids_hash, vectors_hash))

    @property
    def dimension(self) -> int:
        """Numbers per vector."""
        return int(self.vectors.shape[1])

    @property
    def labels(self) -> tuple[str, ...]:
        """Label of every row, read anew; only ever appended to, so that row numbers stay.

        Raises:
            DataError: the file has changed since the table was opened.
        """
        path = ids_path(self.path)
        if file_sha256(path) != self.ids_sha256:
            raise DataError("has changed since the table was opened", _AGAIN, path=path)
        return _read_labels(path)

    def index(self, labels: Iterable[str]) -> dict[str, int]:
        """Return the row of each of some labels that has one."""
        wanted = set(labels)
        return {label: row for row, label in enumerate(self.labels) if label in wanted}

    def rows(self, labels: Iterable[str]) -> NDArray[np.int64]:
        """Return int64 [labels]: the row of each label, -1 where it has no vector."""
        asked = list(labels)
        index = self.index(asked)
        return np.fromiter((index.get(label, -1) for label in asked), dtype=np.int64)

    def gather(self, rows: NDArray[np.integer]) -> NDArray[np.floating]:
        """Return [*rows.shape, dimension] in the table's own type; row -1 gives zeros.

        Raises:
            IndexError: a row below -1 or beyond the table.
        """
        if rows.size and (rows.min() < -1 or rows.max() >= len(self)):
            raise IndexError(f"rows must lie in -1 … {len(self) - 1}")
        found = np.asarray(self.vectors[rows])
        return np.where((rows >= 0)[..., None], found, found.dtype.type(0))

    def require_overlap(self, entities: Iterable[str]) -> int:
        """Return how many of ``entities`` have a vector.

        Raises:
            DataError: none has one: these are the vectors of another graph.
        """
        shared = len(self.index(entities))
        if not shared:
            raise DataError(
                f"vectors of another graph: none of its {len(self)} entities "
                f"({listed(self.labels[:3])}, …) is in the graph",
                "give the vectors that were trained on this graph, or let them be trained again",
                path=self.path,
            )
        return shared


def write_table(
    path: Pathish,
    labels: Sequence[str],
    vectors: NDArray[np.floating],
    metadata: Mapping[str, str] | None = None,
) -> VectorTable:
    """Write a table whole or not at all, and open it.

    Both files are written under temporary names, flushed to the disk and renamed.

    Args:
        path: the ``.safetensors`` file; folders above it are made.
        labels: one distinct label per row.
        vectors: float16 or float32 [labels, dimension], all finite.
        metadata: more text to keep with the vectors.

    Raises:
        DataError: labels repeat, their number is not that of the vectors, or a vector is not
            finite.
        EnvironmentProblem: the files could not be written (a full disk, say).
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    at = Path(path)
    array = np.ascontiguousarray(vectors)
    _check(at, labels, array)
    ids = json.dumps(list(labels), ensure_ascii=False).encode()
    hashes = {"ids_sha256": hashlib.sha256(ids).hexdigest(), "vectors_sha256": _hash(array)}
    drafts = {target: _draft(target) for target in (ids_path(at), at)}
    try:
        at.parent.mkdir(parents=True, exist_ok=True)
        drafts[ids_path(at)].write_bytes(ids)
        save_file({TENSOR: array}, drafts[at], metadata={**(metadata or {}), **hashes})
        for target, draft in drafts.items():
            flush(draft)
            draft.replace(target)
        flush(at.parent)
    except (OSError, SafetensorError) as error:
        raise EnvironmentProblem(
            f"{at}: the vectors could not be written: {error}", "is the disk full or read-only?"
        ) from error
    finally:
        for draft in drafts.values():
            with suppress(OSError):
                draft.unlink(missing_ok=True)
    return VectorTable.open(at, verify=False)


def ids_path(path: Pathish) -> Path:
    """Return where the labels of a table lie: ``a.ids.json`` beside ``a.safetensors``."""
    return Path(path).with_suffix(".ids.json")


def _check(at: Path, labels: Sequence[str], array: NDArray[np.floating]) -> None:
    if array.ndim != 2 or array.dtype not in _DTYPES.values():
        raise DataError(
            f"vectors are {array.dtype} of shape {array.shape}",
            "they must be float16 or float32, [entities, dimension]",
            path=at,
        )
    if len(labels) != len(array) or not len(array):
        raise DataError(f"{len(array)} vectors for {len(labels)} labels", path=at)
    if len(set(labels)) != len(labels):
        raise DataError("labels repeat", "give each entity one row", path=at)
    _require_finite(at, labels, array)


def _verify(at: Path, labels: Sequence[str], vectors: NDArray[np.floating], expected: str) -> None:
    if _hash(vectors) != expected:
        raise DataError(
            "the vectors are not those that were written (their hash differs)",
            "the file was changed or damaged; write the table again",
            path=at,
        )
    _require_finite(at, labels, vectors)


def _require_finite(at: Path, labels: Sequence[str], vectors: NDArray[np.floating]) -> None:
    start = 0
    for block in _blocks(vectors):
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if bad.size:
            label = labels[start + int(bad[0])]
            raise DataError(
                f"the vector of {shown(label)} has values that are not finite (NaN or infinity)",
                "its training diverged: lower the learning rate and train again",
                path=at,
            )
        start += len(block)


def _blocks(vectors: NDArray[np.floating]) -> Iterator[NDArray[np.floating]]:
    step = max(1, _BLOCK // max(1, vectors[:1].nbytes))
    for start in range(0, len(vectors), step):
        yield np.ascontiguousarray(vectors[start : start + step])


def _hash(vectors: NDArray[np.floating]) -> str:
    digest = hashlib.sha256()
    for block in _blocks(vectors):
        digest.update(block.data)
    return digest.hexdigest()


def _fingerprint(ids_hash: str, vectors_hash: str) -> str:
    return hashlib.sha256(f"{ids_hash} {vectors_hash}".encode()).hexdigest()


def _metadata(at: Path) -> Mapping[str, str]:
    """Return the metadata of a safetensors file after the library has checked its header."""
    from safetensors import SafetensorError, safe_open

    if not at.is_file():
        raise DataError("no such file", "check the path", path=at)
    try:
        with safe_open(at, framework="numpy") as stored:
            names, metadata = list(stored.keys()), stored.metadata()
    except (SafetensorError, OSError) as error:
        raise DataError(f"not a whole safetensors file: {error}", _AGAIN, path=at) from error
    if names != [TENSOR]:
        raise DataError(
            f"holds the tensors {listed(names) or 'none'}, expected {TENSOR!r} alone",
            _AGAIN,
            path=at,
        )
    return dict(metadata or {})


def _map(at: Path) -> NDArray[np.floating]:
    """Map the tensor; the library reads whole slices, a memory map only the rows asked for.

    Layout: https://huggingface.co/docs/safetensors (8 bytes of header length, JSON, data). The
    header was checked by ``_metadata``.
    """
    with open(at, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        entry = json.loads(stream.read(length))[TENSOR]
    shape: tuple[int, ...] = tuple(entry["shape"])
    if entry["dtype"] not in _DTYPES or len(shape) != 2 or 0 in shape:
        raise DataError(
            f"vectors are {entry['dtype']} of shape {shown(list(shape))}",
            "they must be F16 or F32, [entities, dimension]",
            path=at,
        )
    offset = 8 + length + int(entry["data_offsets"][0])
    dtype: np.dtype[np.floating] = _DTYPES[entry["dtype"]]
    return np.memmap(at, dtype=dtype, mode="r", offset=offset, shape=shape)


def _ids_hash(at: Path, metadata: Mapping[str, str]) -> str:
    found = file_sha256(ids_path(at))
    if found != metadata.get("ids_sha256", found):
        raise DataError(
            f"{ids_path(at).name} is not the list of labels that was written with these vectors",
            "the two files belong to different tables, or one was changed; write the table again",
            path=at,
        )
    return found


def _read_labels(path: Path) -> tuple[str, ...]:
    try:
        labels = json.loads(path.read_bytes())
        json.dumps(labels, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"half a character: {shown(error.object)}", _AGAIN, path=path) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON: {error}", _AGAIN, path=path) from error
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise DataError("expected a JSON list of entity labels", _AGAIN, path=path)
    if len(set(labels)) != len(labels):
        raise DataError("labels repeat", "give each entity one row", path=path)
    return tuple(labels)


def _draft(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.part")

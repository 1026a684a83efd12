"""Writing artifacts and the numbered parts that they are assembled from.

Nothing half-written is ever taken for whole: a part and an artifact get their final names when
they are complete and flushed. Arrays are appended to plain files instead of written through memory
maps, because a full disk is an error for the first and a killed process for the second.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ptm_plus.errors import DataError, EnvironmentProblem
from ptm_plus.files import flush
from ptm_plus.prepare.meta import META
from ptm_plus.prepare.store import is_whole

_HEADER = "header"
_ARRAYS = "arrays"
_NO_PART = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, Warning),
    *(ValueError, KeyError, TypeError, ArithmeticError),
    *(RuntimeError, MemoryError),  # encrypted, unknown version, nested too deeply
)
"""What reading a file that is no part of ours sets off, numpy's and zipfile's warnings included."""


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full or read-only disk into an error that names the folder and the free space.

    Raises:
        EnvironmentProblem: in place of the ``OSError``.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EnvironmentProblem(
                f"no space left while writing to {folder} ({_free(folder)} free)",
                "free some space, or set prepare.cache (--cache) to a folder on another disk",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise EnvironmentProblem(
                f"cannot write to {folder}: {error.strerror}",
                "set prepare.cache (--cache) to a folder that you may write to",
            ) from error
        raise


def _free(folder: Path) -> str:
    while not folder.exists():
        folder = folder.parent
    return f"{shutil.disk_usage(folder).free / 2**20:,.0f} MiB"


class ArrayFile:
    """One ``.npy`` file of known length that is written piece by piece.

    Args:
        path: the file.
        dtype: element type.
        length: number of elements that will be written.
    """

    def __init__(self, path: Path, dtype: DTypeLike, length: int) -> None:
        self._dtype = np.dtype(dtype)
        self._missing = length
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 (closed by close or abandon)
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def write(self, values: NDArray[Any]) -> None:
        """Append values, converted to the file's type."""
        self._file.write(np.ascontiguousarray(values, self._dtype).data)
        self._missing -= len(values)

    def close(self) -> None:
        """Flush to disk.

        Raises:
            ValueError: fewer or more values were written than announced.
        """
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())
        if self._missing:
            raise ValueError(f"{file.name}: {self._missing} values were announced but not written")

    def abandon(self) -> None:
        """Close after an error, when what is buffered may not fit on the disk any more."""
        with suppress(OSError):
            self._file.close()


class ArtifactWriter:
    """Writes an artifact under ``<folder>.partial`` and renames it when it is whole.

    Args:
        folder: final folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.partial = partial_folder(folder)
        self._arrays: list[ArrayFile] = []

    def array(self, name: str, dtype: DTypeLike, length: int) -> ArrayFile:
        """Start the array ``<name>.npy``."""
        self._arrays.append(ArrayFile(self.partial / f"{name}.npy", dtype, length))
        return self._arrays[-1]

    def finish(self, meta: Mapping[str, Any]) -> None:
        """Close the arrays, write ``meta.json``, drop the parts, and take the final name."""
        for array in self._arrays:
            array.close()
        text = json.dumps(meta, ensure_ascii=False, indent=1, sort_keys=True)
        _write_flushed(self.partial / META, text.encode())
        shutil.rmtree(parts_folder(self.folder), ignore_errors=True)
        if self.folder.exists():  # Without meta.json, so not an artifact.
            shutil.rmtree(self.folder)
        self.partial.rename(self.folder)
        flush(self.folder.parent)

    def __enter__(self) -> ArtifactWriter:
        self.partial.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove half-written arrays after an error; the parts stay for the next try."""
        if error is not None and not is_whole(self.folder):
            for array in self._arrays:
                array.abandon()
            for path in self.partial.glob("*.npy"):
                path.unlink()


def partial_folder(folder: Path) -> Path:
    """Return where an artifact lies while it is being made."""
    return folder.with_name(folder.name + ".partial")


def parts_folder(folder: Path) -> Path:
    """Return where the parts of an artifact lie while it is being made."""
    return partial_folder(folder) / "parts"


def part_path(folder: Path, number: int) -> Path:
    """Return the file of a part of an artifact."""
    return parts_folder(folder) / f"{number:06d}.npz"


def write_part(path: Path, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> None:
    """Write a part: arrays and a header of plain JSON values.

    Raises:
        EnvironmentProblem: the disk is full or may not be written to.
    """
    listed = {**header, _ARRAYS: sorted(arrays)}  # the archive's checksums cover no names
    text = np.frombuffer(json.dumps(listed, sort_keys=True).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{_HEADER: text, **arrays})
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp")
        try:
            _write_flushed(unfinished, buffer.getbuffer())
            unfinished.replace(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise


def read_part(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays and the header of a part.

    Raises:
        DataError: it is not whole, or not one of ours.
    """
    with _opened(path) as archive:
        arrays = {name.removesuffix(".npy"): _array(archive, name) for name in archive.namelist()}
        header = _json(arrays.pop(_HEADER))
        if header.pop(_ARRAYS) != sorted(arrays):
            raise ValueError("arrays are missing")
        return arrays, header


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of a part.

    Raises:
        DataError: it is not whole, or not one of ours.
    """
    with _opened(path) as archive:
        header = _json(_array(archive, f"{_HEADER}.npy"))
        del header[_ARRAYS]
        return header


def part_matches(path: Path, first: int, rows: int) -> bool:
    """Return whether a whole part for these rows lies there, from a run that was broken off."""
    # All of it is read, because the archive's checksums are the test. Whatever a damaged one sets
    # off in zlib, zipfile or numpy, warnings included: it is no whole part, and is made again.
    try:
        _, header = read_part(path)
    except DataError:
        return False
    return (header.get("first"), header.get("rows")) == (first, rows)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with warnings.catch_warnings(action="error"), zipfile.ZipFile(path) as archive:
            yield archive
    except _NO_PART as error:
        raise DataError(f"no part of prepared data: {error}", "delete it", path=path) from error


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Return an array of an archive, over the bytes that are there: its header is not believed."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    content = archive.read(name)
    stream = io.BytesIO(content)
    shape, dtype = _array_header(stream)
    values = np.frombuffer(content[stream.tell() :], np.uint8)
    return values.view(dtype).reshape(shape)


def _array_header(stream: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("another version of the format")
    try:
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    except Exception as error:  # numpy hands on what Python's tokenizer and parser raise
        raise ValueError(f"no header of an array: {error}") from error
    return shape, dtype


def _json(array: NDArray[Any]) -> dict[str, Any]:
    header = json.loads(array.tobytes())
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    return header


def _write_flushed(path: Path, content: bytes | memoryview) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

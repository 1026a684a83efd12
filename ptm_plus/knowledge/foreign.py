"""Vectors that were trained elsewhere: NumPy, safetensors, and word2vec's text, with their ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ptm_plus.errors import DataError, SettingsError, listed, nearest, shown
from ptm_plus.files import Pathish, open_lines, plain_suffix, read_json

FORMATS = (".npy", ".safetensors", ".txt", ".vec")
"""Suffixes that are read; .txt and .vec are word2vec's text, which brings its ids."""

_HEADER = re.compile(r"(\d{1,18}) (\d{1,9})")
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<>|]\w{1,9})', 'fortran_order': (True|False), "
    rb"'shape': \(([\d, ]{0,60})\), \} *\n",
    re.DOTALL,
)
"""How a NumPy file of vectors begins: matched, since ``numpy.load`` parses it as a program."""

_FLOATS = ("float16", "float32", "float64")
_NPY_FLOATS = ("<f2", "<f4", "<f8")
_BLOCK = 65_536


@dataclass(frozen=True, eq=False)
class ForeignVectors:
    """Vectors and the ids of their rows.

    Attributes:
        ids: one per row.
        vectors: float16 or float32 [rows, dimension]; mapped from disk where they lie so.
    """

    ids: Sequence[str]
    vectors: NDArray[np.floating]


def read_vectors(path: Pathish, ids: Pathish | None = None, tensor: str = "") -> ForeignVectors:
    """Read vectors that another program wrote.

    Args:
        path: a file of one of ``FORMATS``; text may be compressed.
        ids: one id per row, for files that have none: a line each (of a .tsv, its first column),
            or a JSON list.
        tensor: which one, where a .safetensors file holds several.

    Raises:
        SettingsError: another suffix, ids missing, or given where the file has its own.
        DataError: a file is not what its suffix says, or ids and rows differ in number.
    """
    suffix = plain_suffix(path)
    if suffix not in FORMATS:
        hint = f"one of {', '.join(FORMATS)}{nearest(suffix, FORMATS)}"
        raise SettingsError(f"{path}: {shown(suffix)} is no format of vectors", hint)
    if suffix in (".txt", ".vec"):
        if ids is not None:
            raise SettingsError(f"{path} has its own ids", "leave --ids out")
        return _read_text(path)
    if ids is None:
        raise SettingsError(f"{path} holds no ids", "give --ids FILE, one id per row")
    vectors = _read_npy(path) if suffix == ".npy" else _read_safetensors(path, tensor)
    names = read_ids(ids)
    if len(names) != len(vectors):
        raise DataError(
            f"{len(vectors):,} vectors, but {len(names):,} ids in {ids}",
            "the files belong together row by row: line 1 names row 1",
            path=path,
        )
    return ForeignVectors(names, _single(vectors))


def read_ids(path: Pathish) -> list[str]:
    """Return the ids of rows: a line each, the first column of a .tsv, or a JSON list of texts.

    Raises:
        DataError: the file cannot be read, or an id is empty.
    """
    if plain_suffix(path) == ".json":
        found = read_json(path)
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise DataError("is no JSON list of texts", 'write ["Q1", "Q2", …]', path=path)
        return found
    names = []
    for number, line in open_lines(path):
        name = line.split("\t", 1)[0].strip()
        if not name:
            raise DataError("an id is empty", "line n names row n", path=path, line=number)
        names.append(name)
    return names


def _single(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    return vectors if vectors.dtype in (np.float16, np.float32) else vectors.astype(np.float32)


def _no_vectors(dtype: object, shape: Sequence[int], path: Pathish) -> DataError:
    return DataError(
        f"holds {dtype} of shape {list(shape)}",
        "vectors are float16, float32 or float64, [rows, dimension]",
        path=path,
    )


def _read_npy(path: Pathish) -> NDArray[np.floating]:
    try:
        with open(path, "rb") as file:
            found = _NPY.match(file.read(512))
        if found is None:
            raise DataError("is no NumPy array", "save it with numpy.save", path=path)
        dtype, fortran, sizes = (group.decode() for group in found.groups())
        shape = tuple(int(size) for size in sizes.split(",") if size.strip())
        if dtype not in _NPY_FLOATS or len(shape) != 2 or 0 in shape:
            raise _no_vectors(dtype, shape, path)
        order: Literal["C", "F"] = "F" if fortran == "True" else "C"
        return np.memmap(path, np.dtype(dtype), "r", found.end(), shape, order)
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(f"is no whole NumPy array: {error}", path=path) from error


def _read_safetensors(path: Pathish, tensor: str) -> NDArray[np.floating]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(Path(path), framework="numpy") as stored:
            names = sorted(stored.keys())
            wanted = tensor or (names[0] if len(names) == 1 else "")
            if wanted in names:
                vectors = stored.get_tensor(wanted)
                if vectors.ndim != 2 or vectors.dtype.name not in _FLOATS or 0 in vectors.shape:
                    raise _no_vectors(vectors.dtype, vectors.shape, path)
                return vectors
    except (OSError, SafetensorError, TypeError) as error:
        raise DataError(f"is no safetensors file of floats: {error}", path=path) from error
    raise SettingsError(
        f"{path} holds {listed(names) or 'no tensor'}" + (f", no {tensor!r}" if tensor else ""),
        "name one: --tensor NAME",
    )


def _read_text(path: Pathish) -> ForeignVectors:
    """Read word2vec's text: perhaps a line of rows and dimension, then id and numbers per line."""
    ids: list[str] = []
    blocks: list[NDArray[np.float32]] = []
    block: list[list[str]] = []
    width = declared = 0
    for number, line in open_lines(path):
        header = _HEADER.fullmatch(line.rstrip()) if number == 1 else None
        if header is not None:
            declared, width = int(header[1]), int(header[2])
            continue
        cells = line.rstrip(" ").split(" ")
        width = width or len(cells) - 1
        name, numbers = " ".join(cells[:-width]), cells[-width:]
        if width < 1 or not name or len(numbers) != width:
            raise DataError(
                f"{len(cells) - 1} numbers instead of {width}",
                "a line is an id and as many numbers as every other, separated by spaces",
                path=path,
                line=number,
            )
        ids.append(name)
        block.append(numbers)
        if len(block) == _BLOCK:
            blocks.append(_floats(block, path, number))
            block = []
    if block:
        blocks.append(_floats(block, path, len(ids) + (declared > 0)))
    if not ids or (declared and declared != len(ids)):
        raise DataError(
            f"{len(ids):,} vectors" + (f" instead of {declared:,}" if declared else ""),
            "the file was cut short; copy it again",
            path=path,
        )
    return ForeignVectors(ids, np.concatenate(blocks))


def _floats(block: list[list[str]], path: Pathish, last: int) -> NDArray[np.float32]:
    """Return lines of numbers as an array; of a line that is none, tell the number."""
    try:
        return np.array(block, dtype=np.float32)
    except ValueError:
        for number, numbers in enumerate(block, start=last - len(block) + 1):
            for one in numbers:
                try:
                    float(one)
                except ValueError as error:
                    raise DataError(
                        f"{shown(one)} is not a number", path=path, line=number
                    ) from error
        raise

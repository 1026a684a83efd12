"""Arrays on disk as prepare writes them, mapped into memory without trusting what they say."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptm_plus.errors import DataError, shown

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '([<|][iu][1248]|<f[248])', 'fortran_order': False, 'shape': \((\d{1,18}),\), \}"
    rb" *\n"
)
_HINT = "delete its folder; it is made again"


def mapped(folder: Path, name: str, size: int, *dtypes: str) -> Any:
    """Map ``<name>.npy``.

    The header is matched, not parsed: ``numpy.load`` reads headers of any program and any age, and
    a damaged one may set off whatever a parser can.

    Args:
        folder: the artifact.
        name: name of the array.
        size: number of its values.
        dtypes: types that it may have; any number if none is named.

    Raises:
        DataError: the file is missing, cut short, or another array.
    """
    path = folder / f"{name}.npy"
    if path.parent != folder:
        raise DataError(f"{shown(name)} is no name of an array", _HINT, path=folder)
    try:
        with open(path, "rb") as file:
            start = file.read(len(_MAGIC) + 2)
            header = file.read(int.from_bytes(start[len(_MAGIC) :], "little"))
            length = os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot be read: {reason}", _HINT, path=path) from error
    found = _HEADER.fullmatch(header) if start.startswith(_MAGIC) else None
    if found is None:
        raise DataError("is no array as prepare writes it", _HINT, path=path)
    dtype, count, offset = np.dtype(found[1].decode()), int(found[2]), len(start) + len(header)
    if count != size:
        raise DataError(f"holds {count} values; expected {size}", _HINT, path=path)
    if dtypes and dtype not in map(np.dtype, dtypes):
        expected = " or ".join(str(np.dtype(one)) for one in dtypes)
        raise DataError(f"holds {dtype} values; expected {expected}", _HINT, path=path)
    if length != offset + size * dtype.itemsize:
        raise DataError(f"has {length} bytes, not those of {size} values", _HINT, path=path)
    return np.memmap(path, dtype, "r", offset, (size,))


def borders(folder: Path, name: str, pieces: int, total: int) -> NDArray[np.int64]:
    """Map the borders of pieces, ``[pieces + 1]`` from 0 to the total.

    Raises:
        DataError: as :func:`mapped`, or they are not in order.
    """
    found: NDArray[np.int64] = mapped(folder, name, pieces + 1, "i8")
    if found[0] != 0 or found[-1] != total or bool(np.any(found[1:] < found[:-1])):
        path = folder / f"{name}.npy"
        raise DataError(f"does not rise from 0 to {total}", _HINT, path=path)
    return found

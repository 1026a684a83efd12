"""How many rows a file holds, counted without the readers' code."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.fuzzing.rules import Violation

_HEADER_ONLY = ("header crc mismatch", "unknown header flags set")
"""Where zlib is stricter than the gzip module, with no content at stake."""

_BOM = b"\xef\xbb\xbf"
_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(wbits=31),
    ".xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),
    ".bz2": bz2.BZ2Decompressor,
}


def plain_lines(path: Path) -> list[bytes]:
    r"""Return the lines of a file, without ``\n``, ``\r\n`` and a byte order mark.

    Args:
        path: the file, perhaps compressed.

    Raises:
        Violation: the archive is damaged, yet a reader took it for whole.
    """
    data = path.read_bytes()
    if path.suffix in _DECOMPRESSORS:
        data = _decompressed(data, _DECOMPRESSORS[path.suffix])
    lines = data.removeprefix(_BOM).split(b"\n")
    if not lines[-1]:
        lines.pop()
    if not lines and data:
        lines = [b""]  # a byte order mark alone is a line
    return [line.removesuffix(b"\r") for line in lines]


def _decompressed(data: bytes, new: Callable[[], Any]) -> bytes:
    try:
        return _members(data, new)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise Violation(f"takes a damaged archive for whole: {error}") from error


def _members(data: bytes, new: Callable[[], Any]) -> bytes:
    """Decompress one member after the other; zeros after the last one are padding."""
    plain = b""
    while data := data.lstrip(b"\0"):
        member = new()
        try:
            plain += member.decompress(data)
        except zlib.error as error:
            if not any(words in str(error) for words in _HEADER_ONLY):
                raise
            return plain + gzip.decompress(data)
        if not member.eof:
            raise EOFError("cut short")
        data = member.unused_data
    return plain


def documents(path: Path) -> int:
    """Count the documents of running text."""
    blank = [not line.decode().strip() for line in plain_lines(path)]
    return sum(not is_blank for is_blank, _ in itertools.groupby(blank))


def lines(path: Path) -> int:
    """Count lines, blank ones too: each is used or refused."""
    return len(plain_lines(path))


def filled_lines(path: Path) -> int:
    """Count the lines that are not blank."""
    return sum(bool(line.decode().strip()) for line in plain_lines(path))


def csv_records(path: Path) -> int:
    """Count the records of a CSV file: ends of lines outside quotes."""
    found, state = 0, "start"
    for char in "".join(f"{line.decode()}\n" for line in plain_lines(path)):
        if state == "quoted":
            state = "closed" if char == '"' else "quoted"
        elif char == '"' and state != "plain":
            state = "quoted"
        elif char in ",\n":
            found += char == "\n"
            state = "start"
        else:
            state = "plain"
    return found


def parquet_rows(path: Path) -> int:
    """Return what the file's footer says."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as table:
        return int(table.metadata.num_rows)

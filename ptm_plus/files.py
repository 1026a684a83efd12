"""Files: read line by line, plain or compressed, in strict UTF-8; hashed; flushed to the disk."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, cast

from ptm_plus.archives import Archive
from ptm_plus.errors import DataError

Pathish = str | PathLike[str]

COMPRESSED = (".gz", ".xz", ".bz2")
"""Suffixes of files that are decompressed while they are read."""

LONGEST_LINE = 64 * 2**20
"""Bytes of a line beyond which it is none: a file without line ends must not fill the memory."""

_BOM = b"\xef\xbb\xbf"


def open_lines(path: Pathish) -> Iterator[tuple[int, str]]:
    r"""Yield ``(line number from 1, line without its end)`` of a UTF-8 text file.

    Lines end at ``\n`` or ``\r\n`` only, so that separators inside a text (U+2028, a form feed)
    stay in it. A byte order mark at the start is dropped. An empty file yields nothing.

    Raises:
        DataError: the file is missing, cannot be read or decompressed, or a line is not UTF-8 or
            longer than ``LONGEST_LINE``.
    """
    number = 0
    try:
        with open_bytes(path) as stream:
            lines = iter(partial(stream.readline, LONGEST_LINE + 1), b"")
            for number, raw in enumerate(lines, start=1):
                if len(raw) > LONGEST_LINE:
                    raise DataError(
                        f"a line of more than {LONGEST_LINE // 2**20} MiB",
                        "the file has lost its line ends, or is not text",
                        path=path,
                        line=number,
                    )
                yield number, _decode(raw, path, number)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise DataError(
            f"cannot be read after line {number}: {error}",
            "the file is cut short or is not what its suffix says; copy it again",
            path=path,
        ) from error


def open_bytes(path: Pathish) -> BinaryIO:
    """Open a file for reading its bytes, decompressing by suffix (.gz, .xz, .bz2).

    Raises:
        DataError: there is no such file, or it may not be read.
    """
    name = os.fspath(path)
    try:
        if name.endswith(".gz"):
            return cast(BinaryIO, gzip.open(name, "rb"))
        stream = open(name, "rb")  # noqa: SIM115 (closed by the caller)
    except FileNotFoundError as error:
        raise DataError("no such file", "check the path", path=path) from error
    except OSError as error:
        raise DataError(f"cannot be opened: {error.strerror or error}", path=path) from error
    if name.endswith(".xz"):
        return io.BufferedReader(Archive(stream, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)))
    if name.endswith(".bz2"):
        return io.BufferedReader(Archive(stream, bz2.BZ2Decompressor))
    return stream


def read_json(path: Pathish) -> Any:
    """Return a JSON document.

    Raises:
        DataError: the file cannot be read, or is not JSON, or nests too deeply to be read.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"broken JSON: {error}", path=path) from error


def refuse_links(paths: Iterable[Path]) -> None:
    """Refuse symbolic links among some paths and in the folders there: they lead writing astray.

    Raises:
        DataError: one of them is a symbolic link.
    """
    for top in paths:
        for path in (top, *top.rglob("*")):
            if path.is_symlink():
                raise DataError(
                    f"is a symbolic link to {path.readlink()}",
                    "what is written there would land elsewhere; remove the link",
                    path=path,
                )


def exists(path: Pathish) -> bool:
    """Tell whether something lies there; a name that no file can have is none."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def plain_suffix(path: Pathish) -> str:
    """Return the suffix below any compression, in lower case: ``.jsonl`` for ``a.jsonl.gz``."""
    name = Path(path)
    return (name.with_suffix("") if name.suffix in COMPRESSED else name).suffix.lower()


def file_sha256(path: Pathish) -> str:
    """Return the SHA-256 of a file's bytes as they lie on disk, in hexadecimal.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise DataError("no such file", "check the path", path=path) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from error


def _decode(raw: bytes, path: Pathish, number: int) -> str:
    if number == 1 and raw.startswith(_BOM):
        raw = raw[len(_BOM) :]
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8: byte 0x{raw[error.start]:02x} at byte {error.start + 1} of the line",
            "convert the file, for example: iconv -f latin1 -t utf-8 FILE",
            path=path,
            line=number,
        ) from error


def flush(path: Pathish) -> None:
    """Make sure that a file's or a folder's content is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(target: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)

"""One input, one reader, and the rules that hold between them."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from benchmarks.fuzzing.counting import plain_lines
from benchmarks.fuzzing.mutations import spoil, spoil_bytes
from benchmarks.fuzzing.rules import Violation, encodes
from ptm_plus.errors import DataError, PtmPlusError

Files = dict[str, bytes]
"""An input: the content of files by name, the one to be read first."""

SECONDS = 5.0
"""Longer than any reader may take over an input of some kilobytes."""

LONGEST_MESSAGE = 3_000
"""Characters of an error beyond which it shows the file instead of what is wrong with it."""

_COMPRESS = {
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}
_WHOLE_FILE = ("holds no ", "cannot be read", "as it says", "not a format that is read here")


class _Hang(BaseException):
    """No reader may catch this one."""


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes:
        name: what ``--reader`` calls it.
        document: makes an input that is valid as far as it goes.
        read: reads the first file with the public function, checks what it gives (raising
            ``Violation``) and returns the number of rows used.
        error: the only kind of error that it may raise.
        by_line: an error about a row has to name the line.
        compressible: the file may be compressed.
    """

    name: str
    document: Callable[[Random], Files]
    read: Callable[[Path], int]
    error: type[PtmPlusError] = DataError
    by_line: bool = False
    compressible: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of one input.

    Attributes:
        rows: rows used; -1 if the reader refused the input with an error of the right kind.
        violation: the rule that was broken, empty if none was.
    """

    rows: int = -1
    violation: str = ""


def make_case(reader: Reader, seed: int, number: int) -> Files:
    """Return input ``number`` of a reader: one in eight as it was made, the others spoilt."""
    random = Random(f"{reader.name}/{seed}/{number}")
    files = reader.document(random)
    if random.random() < 0.125:
        return files
    name = random.choice(list(files)) if random.random() < 0.5 else next(iter(files))
    content = spoil(files[name], name, random)
    if not reader.compressible or random.random() < 0.85:
        return {**files, name: content}
    suffix = random.choice(list(_COMPRESS))
    packed = _COMPRESS[suffix](content)
    if random.random() < 0.3:
        packed += _COMPRESS[suffix](content)
    if random.random() < 0.6:
        packed = spoil_bytes(packed, random)
    return {f"{new}{suffix}" if new == name else new: old for new, old in files.items()} | {
        f"{name}{suffix}": packed
    }


def run_case(reader: Reader, files: Files, folder: Path) -> Outcome:
    """Write an input into a folder, read it, and judge what happens."""
    _write(files, folder)
    path = folder / next(iter(files))
    try:
        with _rules():
            return Outcome(rows=reader.read(path))
    except Violation as broken:
        return Outcome(violation=str(broken))
    except _Hang:
        return Outcome(violation=f"no end after {SECONDS} s")
    except PtmPlusError as error:
        return Outcome(violation=_fault(reader, error, path))
    except Exception as error:
        return Outcome(violation=f"{type(error).__name__}: {str(error)[:200]} at {_place(error)}")


def _write(files: Files, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@contextmanager
def _rules() -> Iterator[None]:
    """Within it, warnings and what a destructor raises are errors, and time is limited."""
    unraisable: list[str] = []

    def note(args: Any) -> None:
        unraisable.append(f"{type(args.exc_value).__name__}: {args.exc_value}")

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Hang

    hook, sys.unraisablehook = sys.unraisablehook, note
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        # There is none to put back where C code has set its own.
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
        sys.unraisablehook = hook
    if unraisable:
        raise Violation(f"set off while cleaning up: {unraisable[0]}")


def _fault(reader: Reader, error: PtmPlusError, path: Path) -> str:
    """Return what is wrong with an error that a user would see; empty if nothing is."""
    shown = str(error)
    if not isinstance(error, reader.error):
        return f"{type(error).__name__} instead of {reader.error.__name__}: {shown[:200]}"
    if len(shown) > LONGEST_MESSAGE:
        return f"a message of {len(shown)} characters: {shown[:200]}"
    if not encodes(shown):
        return f"a message that cannot be printed: {shown[:200]!r}"
    if isinstance(error, DataError):
        if not str(error.path).startswith(str(path.parent)) or str(error.path) not in shown:
            return f"does not name the file: {shown[:200]}"
        whole = any(words in error.message for words in _WHOLE_FILE)
        if reader.by_line and error.line is None and not whole:
            return f"does not name the line: {shown[:200]}"
        if error.line is not None and not 1 <= error.line <= (
            held := _lines(Path(error.path or path))
        ):
            return f"names line {error.line} of {held}: {shown[:200]}"
    return ""


def _lines(path: Path) -> float:
    """Return how many lines a file has; of parquet and damaged archives that is not known."""
    if path.suffix == ".parquet":
        return float("inf")
    try:
        lines = plain_lines(path)
        if ".tmx" in path.suffixes:  # to XML every \r ends a line, and the end of the file is one
            return 1 + len(lines) + sum(line.count(b"\r") for line in lines)
        return max(1, len(lines))
    except Violation:
        return float("inf")


def _place(error: BaseException) -> str:
    """Return where our code was when the error came up."""
    found, trace = "?", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "ptm_plus" in file or found == "?":
            found = f"{Path(file).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found

"""Compressed files of which nothing is passed over."""

from __future__ import annotations

import bz2
import io
import lzma
from collections.abc import Callable
from typing import Any, BinaryIO


class Archive(io.RawIOBase):
    """The content of a ``.bz2`` or ``.xz`` file: of all its members, one after the other.

    The standard library passes over all that follows a member and is none itself, so that what a
    damaged second member holds would be lost without a word. Here it is an error; zeros after a
    member are padding.

    Args:
        stream: the file; closed with this.
        new: makes a decompressor for one member.
    """

    def __init__(
        self, stream: BinaryIO, new: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]
    ) -> None:
        self._stream = stream
        self._new = new
        self._member = new()
        self._left = b""

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def close(self) -> None:
        """Close the file, too."""
        self._stream.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        """Fill the start of a buffer and return how many bytes that are, 0 at the end.

        Raises:
            EOFError: the file ends within a member, or holds none.
            OSError: the data is damaged.
            LZMAError: the data is damaged.
        """
        data = b""
        while not data:
            if self._member.eof and not self._begin_next():
                return 0
            data = self._member.decompress(self._packed(), len(buffer))
            if self._member.eof:
                self._left = self._member.unused_data
        buffer[: len(data)] = data
        return len(data)

    def _packed(self) -> bytes:
        """Return what the decompressor wants next."""
        if not self._member.needs_input:
            return b""
        packed, self._left = self._left or self._stream.read(io.DEFAULT_BUFFER_SIZE), b""
        if not packed:
            raise EOFError("the compressed data ends before its end mark")
        return packed

    def _begin_next(self) -> bool:
        """Start with the next member; return whether there is one."""
        while not (rest := self._left.lstrip(b"\0")):
            self._left = self._stream.read(io.DEFAULT_BUFFER_SIZE)
            if not self._left:
                return False
        self._left = rest
        self._member = self._new()
        return True

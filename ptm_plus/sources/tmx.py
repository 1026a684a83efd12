"""Translation memories in TMX, as a stream of translation units; nothing outside the file is read.

TMX 1.4b, section 3: ``<tu>`` holds one ``<tuv xml:lang="…">`` per language with a ``<seg>``. What
stands in inline elements that quote the original's markup (``<bpt>``, ``<ph>``, …) is no text;
what stands in ``<hi>`` is.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator
from typing import Any
from xml.parsers import expat

from ptm_plus.errors import DataError, shown
from ptm_plus.files import open_bytes

LONGEST_UNIT = 10_000_000
"""Bytes of one tag, and characters of one segment, beyond which a file is not what it should be."""

_CHUNK = 1 << 16
_MARKUP = frozenset({"bpt", "ept", "it", "ph", "ut"})
_NO_DTD = "a TMX file needs none; remove the <!DOCTYPE …[…]> with what it defines"


class Unit(dict[str, str]):
    """One translation unit: text by language as the file spells it; the first of each counts."""


def tmx_units(path: str) -> Iterator[tuple[int, Unit]]:
    """Yield ``(line of <tu>, unit)``; memory holds a few units at a time.

    Raises:
        DataError: the file is no well-formed TMX, or defines entities.
    """
    reader = _Reader(path)
    fed = 0
    try:
        with open_bytes(path) as stream:
            while chunk := stream.read(_CHUNK):
                reader.parser.Parse(chunk, False)
                fed += len(chunk)
                if fed - reader.parser.CurrentByteIndex > LONGEST_UNIT:
                    raise reader.error(f"a tag of more than {LONGEST_UNIT:,} bytes", "")
                yield from reader.take()
        if fed:
            reader.parser.Parse(b"", True)
        yield from reader.take()
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise DataError(
            f"cannot be read after line {reader.parser.CurrentLineNumber}: {error}",
            "the file is cut short or is not what its suffix says; copy it again",
            path=path,
        ) from error
    except expat.ExpatError as error:
        raise DataError(
            f"broken XML: {expat.ErrorString(error.code)}",
            "check the file with an XML tool, for example: xmllint --noout FILE",
            path=path,
            line=error.lineno,
        ) from error
    except (LookupError, ValueError) as error:  # an encoding that Python does not have
        raise reader.error(f"cannot be decoded: {error}", "convert the file to UTF-8") from error


class _Reader:
    """Collects units while the parser runs over the file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._ready: list[tuple[int, Unit]] = []
        self._unit: Unit | None = None
        self._line = 0
        self._language = ""
        self._text: list[str] | None = None
        self._size = 0
        self._markup = 0
        self._root = True
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        # A document type that points elsewhere is not followed; one that defines something could
        # let a few bytes stand for gigabytes, or for another file.
        parser.StartDoctypeDeclHandler = self._doctype
        parser.EntityDeclHandler = self._entity
        parser.SkippedEntityHandler = self._skipped
        self.parser = parser

    def take(self) -> list[tuple[int, Unit]]:
        """Return the units that are complete, once."""
        ready, self._ready = self._ready, []
        return ready

    def error(self, message: str, hint: str) -> DataError:
        """Return an error about the place where the parser is."""
        return DataError(message, hint, path=self._path, line=self.parser.CurrentLineNumber)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._root and name != "tmx":
            raise self.error(f"the document is {shown(f'<{name}>')}, not <tmx>", "convert it")
        self._root = False
        # A <tu> within another, or what belongs in one outside: its text would be lost.
        if (name == "tu") == (self._unit is not None) and name in ("tu", "tuv", "seg"):
            raise self.error(f"a <{name}> that is out of place", "<tu> holds <tuv> holds <seg>")
        if name == "tu":
            self._unit, self._line = Unit(), self.parser.CurrentLineNumber
        elif name == "tuv" and self._unit is not None:
            self._language = attributes.get("xml:lang", attributes.get("lang", ""))
            if not self._language:
                raise self.error("a <tuv> without a language", 'write <tuv xml:lang="en">')
            if self._language not in self._unit:
                self._unit[self._language] = ""
        elif name == "seg":
            if not self._language:
                raise self.error("a <seg> that is out of place", "<tu> holds <tuv> holds <seg>")
            self._text, self._size = [], 0
        elif name in _MARKUP:
            self._markup += 1

    def _end(self, name: str) -> None:
        if name == "tu" and self._unit is not None:
            self._ready.append((self._line, self._unit))
            self._unit = None
        elif name == "tuv":
            self._language = ""
        elif name == "seg" and self._text is not None and self._unit is not None:
            if not self._unit.get(self._language):
                self._unit[self._language] = "".join(self._text)
            self._text = None
        elif name in _MARKUP:
            self._markup -= 1

    def _characters(self, text: str) -> None:
        if self._text is None or self._markup:
            return
        self._text.append(text)
        self._size += len(text)
        if self._size > LONGEST_UNIT:
            raise self.error(f"a segment of more than {LONGEST_UNIT:,} characters", "split it")

    def _doctype(self, name: str, system: Any, public: Any, internal: int) -> None:
        if internal:
            raise self.error("the file has a document type definition of its own", _NO_DTD)

    def _entity(self, *declaration: Any) -> None:
        raise self.error("the file defines entities", _NO_DTD)

    def _skipped(self, name: str, parameter: int) -> None:
        raise self.error(f"the entity {shown(f'&{name};')} is defined nowhere", "write it out")

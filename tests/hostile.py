"""Files that mean harm: pickles that would leave a mark, headers that lie."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ptm_plus.errors import PtmPlusError


class Trap:
    """A place where code leaves a mark if it runs; the mark must never be seen.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "it-ran"

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.mark), "w")

    def pickled(self) -> bytes:
        """Return a pickle that leaves the mark when it is read."""
        return pickle.dumps(self)

    def saved_by_torch(self) -> bytes:
        """Return the same in the form that ``torch.save`` writes."""
        import torch

        buffer = io.BytesIO()
        torch.save({"weight": self}, buffer)
        return buffer.getvalue()

    def program(self) -> str:
        """Return Python code that leaves the mark when it is imported."""
        return f"open({str(self.mark)!r}, 'w').close()\n"

    def ran(self) -> bool:
        """Tell whether the code ran, and clear the mark."""
        ran = self.mark.exists()
        self.mark.unlink(missing_ok=True)
        return ran

    def refused(self, code: int, load: Callable[..., Any], *arguments: Any) -> str:
        """Make sure that loading runs nothing and fails with an exit code; return the message."""
        with pytest.raises(PtmPlusError) as caught:
            load(*arguments)
        assert not self.ran()
        assert caught.value.exit_code == code, caught.value
        return str(caught.value)


def tensors_file(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a safetensors file with a header of one's own.

    Args:
        header: JSON value, or its text.
        data: what follows.
        length: what the file says about the length of its header.
    """
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def array_file(header: str, data: bytes = b"") -> bytes:
    """Return an ``.npy`` file with a header of one's own."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def archive(members: Sequence[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()

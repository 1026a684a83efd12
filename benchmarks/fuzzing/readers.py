"""All readers under test, by name."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.fuzzing import arguments, folders, knowledge, rows, sentences
from benchmarks.fuzzing.cases import Reader

READERS: Mapping[str, Reader] = {
    reader.name: reader
    for module in (rows, knowledge, arguments, folders, sentences)
    for reader in module.READERS
}

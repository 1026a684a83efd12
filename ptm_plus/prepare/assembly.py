"""From parts to whole artifacts, one part in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptm_plus.errors import DataError
from ptm_plus.prepare.accounts import Account, SpanAccount
from ptm_plus.prepare.artifacts import (
    ArrayFile,
    ArtifactWriter,
    disk_errors,
    part_path,
    read_header,
)
from ptm_plus.prepare.artifacts import read_part as _read_part
from ptm_plus.prepare.meta import FORMAT_VERSION
from ptm_plus.prepare.preparation import Recipe
from ptm_plus.prepare.sequence_parts import Names
from ptm_plus.prepare.store import NO_FIELD, NO_LANGUAGE

_TOKENS = {"words": "u2", "char_start": "u4", "char_end": "u4"}
_SEQUENCES = {"example": "i8", "identity": "u8", "stratum": "u2"}
_SEGMENTS = {
    "segment_length": "u2",
    "segment_flags": "u1",
    "segment_type": "u1",
    "segment_field": "u1",
    "segment_language": "u2",
}
_SPANS = {"start": "u2", "length": "u2", "segment": "u1", "kind": "u1", "id": "i4"}


def assemble_tokens(recipe: Recipe, parts: int, meta: Mapping[str, Any], seconds: float) -> None:
    """Make the tokens artifact out of its parts.

    Args:
        recipe: what was prepared.
        parts: number of parts.
        meta: what goes into ``meta.json`` besides sizes, names and the account.
        seconds: wall time so far, for the account.

    Raises:
        DataError: a label is a number in one part and a text in another.
        EnvironmentProblem: the disk is full.
    """
    headers = [read_header(part_path(recipe.tokens, number)) for number in range(parts)]
    sizes = {name: sum(h[name] for h in headers) for name in ("tokens", "sequences", "segments")}
    names = {name: Names() for name in ("fields", "languages", "strata")}
    for header in headers:
        for name, known in names.items():
            known.numbers(header[name])
    labels = _merge_labels(headers)
    account = Account(seconds=round(seconds, 3))
    for header in headers:
        account.add(Account.from_json(header["account"]))
    vocabulary_type = "u2" if recipe.vocabulary < 65536 else "u4"
    tokens = {"ids": vocabulary_type, **_TOKENS}
    tokens |= {f"column.{name}": dtype for name, dtype in recipe.layout.columns.items()}
    position = any(header["position"] for header in headers)
    tokens |= {"position": "u2"} if position else {}
    sequences = {**_SEQUENCES, **{f"label.{name}": "i8" for name in labels}}
    sequences |= {"version": "u1"} if recipe.versions > 1 else {}

    with disk_errors(recipe.tokens), ArtifactWriter(recipe.tokens) as writer:
        files = {
            name: writer.array(name, dtype, sizes[size])
            for size, arrays in (
                ("tokens", tokens),
                ("sequences", sequences),
                ("segments", _SEGMENTS),
            )
            for name, dtype in arrays.items()
        }
        borders = {
            name: _Borders(writer.array(name, "i8", sizes["sequences"] + 1))
            for name in ("offsets", "segments")
        }
        for arrays, header in _parts(recipe.tokens, parts):
            _renumber(arrays, header, names, labels)
            for name, border in borders.items():
                border.write(arrays[name])
            for name, file in files.items():
                file.write(arrays[name])
        writer.finish(
            {
                **meta,
                **sizes,
                **{name: list(known) for name, known in names.items()},
                "artifact": "tokens",
                "version": FORMAT_VERSION,
                "key": recipe.tokens.name,
                "stream": recipe.stream,
                "layout": recipe.layout.name,
                "columns": dict(recipe.layout.columns),
                "labels": labels,
                "position": position,
                "versions": recipe.versions,
                "account": account.to_json(),
            }
        )


def assemble_spans(recipe: Recipe, name: str, parts: int) -> None:
    """Make the span table of one annotator out of its parts.

    Raises:
        EnvironmentProblem: the disk is full.
    """
    folder = recipe.spans[name]
    headers = [read_header(part_path(folder, number)) for number in range(parts)]
    kinds = sorted({kind for header in headers for kind in header["kinds"]})
    ids = sorted({label for header in headers for label in header["ids"]})
    kind_numbers = {kind: number for number, kind in enumerate(kinds)}
    id_numbers = {label: number for number, label in enumerate(ids)}
    rows = sum(header["spans"] for header in headers)
    sequences = sum(header["sequences"] for header in headers)
    account = SpanAccount()
    for header in headers:
        account.add(SpanAccount.from_json(header["account"]))

    with disk_errors(folder), ArtifactWriter(folder) as writer:
        files = {column: writer.array(column, dtype, rows) for column, dtype in _SPANS.items()}
        border = _Borders(writer.array("offsets", "i8", sequences + 1))
        for arrays, header in _parts(folder, parts):
            border.write(arrays["offsets"])
            arrays["kind"] = _mapped(arrays["kind"], header["kinds"], kind_numbers)
            arrays["id"] = _mapped(arrays["id"], header["ids"], id_numbers, none=-1)
            for column, file in files.items():
                file.write(arrays[column])
        writer.finish(
            {
                "artifact": "spans",
                "version": FORMAT_VERSION,
                "key": folder.name,
                "tokens_key": recipe.tokens.name,
                "annotator": name,
                "kinds": kinds,
                "ids": ids,
                "rows": rows,
                "sequences": sequences,
                "account": vars(account),
            }
        )


class _Borders:
    """Writes ``[0, …, n]`` borders out of parts that each start at 0 again."""

    def __init__(self, file: ArrayFile) -> None:
        self._file = file
        self._last = 0
        file.write(np.zeros(1, np.int64))

    def write(self, borders: NDArray[np.int64]) -> None:
        self._file.write(borders[1:] + self._last)
        self._last += int(borders[-1])


def _parts(folder: Path, parts: int) -> Iterator[tuple[dict[str, NDArray[Any]], dict[str, Any]]]:
    return (_read_part(part_path(folder, number)) for number in range(parts))


def _renumber(
    arrays: dict[str, NDArray[Any]],
    header: Mapping[str, Any],
    names: Mapping[str, Names],
    labels: Mapping[str, list[str] | None],
) -> None:
    """Turn a part's own numbers of names into those of the whole, in place."""
    numbers = {
        name: {one: known.number(one) for one in header[name]} for name, known in names.items()
    }
    arrays["stratum"] = _mapped(arrays["stratum"], header["strata"], numbers["strata"])
    arrays["segment_field"] = _mapped(
        arrays["segment_field"], header["fields"], numbers["fields"], none=NO_FIELD
    )
    arrays["segment_language"] = _mapped(
        arrays["segment_language"], header["languages"], numbers["languages"], none=NO_LANGUAGE
    )
    if "position" not in arrays:
        starts = np.append(0, np.cumsum(arrays["segment_length"], dtype=np.int64))[:-1]
        length = arrays["segment_length"].astype(np.int64)
        arrays["position"] = np.arange(len(arrays["ids"])) - np.repeat(starts, length)
    for name, strings in labels.items():
        own = header["labels"].get(name)
        if name not in header["labels"]:
            arrays[f"label.{name}"] = np.full(header["sequences"], -1, np.int64)
        elif strings is not None and own is not None:
            places = {string: number for number, string in enumerate(strings)}
            arrays[f"label.{name}"] = _mapped(arrays[f"label.{name}"], own, places, none=-1)


def _mapped(
    numbers: NDArray[Any], own: list[str], places: Mapping[str, int], none: int = -1
) -> NDArray[np.int64]:
    """Replace numbers of ``own`` by their ``places``; ``none`` stays."""
    table = np.array([places[name] for name in own] or [none], np.int64)
    absent = numbers == none
    return np.where(absent, none, table[np.where(absent, 0, numbers)])


def _merge_labels(headers: Iterable[Mapping[str, Any]]) -> dict[str, list[str] | None]:
    """Return the sorted strings of each label, or ``None`` for a label of numbers."""
    merged: dict[str, set[str] | None] = {}
    for header in headers:
        for name, strings in header["labels"].items():
            known = merged.setdefault(name, None if strings is None else set())
            if (known is None) != (strings is None):
                raise DataError(f"the label {name!r} is a number on some rows and a text on others")
            if known is not None:
                known.update(strings)
    return {
        name: None if known is None else sorted(known) for name, known in sorted(merged.items())
    }

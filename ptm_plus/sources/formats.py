"""File formats, as rows: a line number and the columns found there by name."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

from ptm_plus.errors import DataError, listed, nearest, shown
from ptm_plus.files import open_lines, plain_suffix
from ptm_plus.hub import as_path
from ptm_plus.json_rows import json_row
from ptm_plus.sources.spec import HubDataset, SourceSpec
from ptm_plus.sources.tmx import tmx_units

Row = tuple[str, int, Mapping[str, Any] | None]
"""Path, line (from 1; in parquet and hub datasets, the row), columns; ``None`` for a blank line."""

LONGEST_DOCUMENT = 10_000_000
"""Characters of a ``.txt`` document beyond which its blank lines must have been forgotten."""

_PAIR_COLUMNS = ("src", "tgt", "src_lang", "tgt_lang")
_Numbered = tuple[int, Mapping[str, Any] | None]
_Cells = tuple[int, list[str]]
_Header = Callable[[str, list[str]], list[str] | None]


def text_rows(spec: SourceSpec) -> Iterator[Row]:
    """Yield the rows of a text source; each table needs a column ``text``.

    Raises:
        DataError: a file is empty, of an unknown format, or broken at a line.
    """
    return _rows(spec, {".txt": _documents, **_FORMATS}, _text_header)


def column_rows(spec: SourceSpec, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a source whose tables need other columns than ``text``.

    Raises:
        DataError: a file is empty, of an unknown format, or broken at a line.
    """

    def header(path: str, first: list[str]) -> list[str]:
        return _header_with(columns, path, first)

    return _rows(spec, {".txt": _documents, **_FORMATS}, header)


def pair_rows(spec: SourceSpec) -> Iterator[Row]:
    """Yield the rows of a source of pairs; a ``.tsv`` may do without a header.

    A row of a translation memory is a ``Unit``, text by language.

    Raises:
        DataError: a file is empty, of an unknown format, or broken at a line.
    """
    if spec.parallel:
        return _parallel_rows(*spec.files)
    return _rows(spec, {**_FORMATS, ".tmx": _tmx_rows}, _pair_header)


def open_hub(dataset: HubDataset) -> tuple[Any, Any]:
    """Return the builder of a hub dataset and its rows as a stream.

    Raises:
        DataError: there is no such dataset, configuration or split, or it cannot be reached.
    """
    import datasets

    path = as_path(dataset.name)
    # In full: "json" alone would be the library's loader of that name.
    name = dataset.name if path is None else str(path.absolute())
    try:
        builder = datasets.load_dataset_builder(name, dataset.config or None)
        return builder, builder.as_streaming_dataset(split=dataset.split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"cannot be opened: {error}", _HUB_HINT, path=str(dataset)) from error


_HUB_HINT = "check name, configuration and split, and the connection to the hub"


def _rows(spec: SourceSpec, formats: Mapping[str, _Format], header: _Header) -> Iterator[Row]:
    if spec.hub is not None:
        yield from _filled(str(spec.hub), _hub_rows(spec.hub))
    for path in spec.files:
        suffix = plain_suffix(path)
        if suffix not in formats:
            raise DataError(
                f"{shown(suffix)} is not a format that is read here{nearest(suffix, formats)}",
                f"convert it to one of {' '.join(formats)}",
                path=path,
            )
        yield from _filled(path, formats[suffix](path, header))


def _filled(path: str, rows: Iterable[_Numbered]) -> Iterator[Row]:
    empty = True
    for number, row in rows:
        empty = False
        yield path, number, row
    if empty:
        raise DataError("holds no rows", "an empty file is usually a mistake", path=path)


def _documents(path: str, header: _Header) -> Iterator[_Numbered]:
    """Plain text: blank lines separate the documents."""
    lines: list[str] = []
    start = size = 0
    for number, line in chain(open_lines(path), [(0, "")]):
        if line.strip():
            start, size = (start, size) if lines else (number, 0)
            lines.append(line)
            size += len(line)
        elif lines:
            yield start, {"text": "\n".join(lines)}
            lines = []
        if size > LONGEST_DOCUMENT:
            raise DataError(
                f"a document of more than {LONGEST_DOCUMENT:,} characters",
                "separate documents by a blank line, or use .jsonl",
                path=path,
                line=start,
            )


def _json_rows(path: str, header: _Header) -> Iterator[_Numbered]:
    for number, line in open_lines(path):
        yield number, json_row(line, path, number) if line.strip() else None


def _tsv_rows(path: str, header: _Header) -> Iterator[_Numbered]:
    cells = ((number, line.split("\t")) for number, line in open_lines(path))
    return _table(path, cells, header)


def _csv_rows(path: str, header: _Header) -> Iterator[_Numbered]:
    return _table(path, _csv_cells(path), header)


def _csv_cells(path: str) -> Iterator[_Cells]:
    csv.field_size_limit(LONGEST_DOCUMENT)  # the module's own limit is 131,072
    reader = csv.reader((f"{line}\n" for _, line in open_lines(path)), strict=True)
    start = 1
    try:
        for row in reader:
            yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"broken CSV: {error}",
            'quote a field with "…" and double the quotes inside it',
            path=path,
            line=start,
        ) from error


_NO_TABS = "a text may hold neither tabs nor line breaks in a .tsv; quote it in a .csv"
_CARRIAGE_RETURN = (
    r"lines end with \n or \r\n, not with \r alone: sed 's/\r$//' FILE | tr '\r' '\n'"
)


def _table(path: str, cells: Iterable[_Cells], header: _Header) -> Iterator[_Numbered]:
    rows = iter(cells)
    first = next(rows, None)
    if first is None:
        return
    names = header(path, first[1])
    if names is None:
        names = list(_PAIR_COLUMNS[: len(first[1])])
        rows = chain([first], rows)
    for number, row in rows:
        if len(row) <= 1 and not "".join(row).strip():
            yield number, None
        elif len(row) != len(names):
            raise DataError(
                f"{len(row)} columns instead of {len(names)} ({listed(names)})",
                _CARRIAGE_RETURN if any("\r" in cell for cell in row) else _NO_TABS,
                path=path,
                line=number,
            )
        else:
            yield number, dict(zip(names, row, strict=True))


def _text_header(path: str, first: list[str]) -> list[str]:
    return _header_with(("text",), path, first)


def _header_with(columns: Sequence[str], path: str, first: list[str]) -> list[str]:
    names = _unique_names(path, first)
    for column in columns:
        if column not in names:
            raise DataError(
                f"no column {column!r} in the header ({listed(names)}){nearest(column, names)}",
                f"the first line names the columns; one of them is {column}",
                path=path,
                line=1,
            )
    return names


def _pair_header(path: str, first: list[str]) -> list[str] | None:
    names = [cell.strip() for cell in first]
    if "src" in names and "tgt" in names:
        return _unique_names(path, first)
    if plain_suffix(path) == ".tsv" and len(first) in (2, 4):
        return None
    raise DataError(
        f"{len(first)} columns and no header with src and tgt: {listed(names)}",
        "name the columns src tgt src_lang tgt_lang, or give a .tsv of these four, or of two with "
        "en-fr=FILE",
        path=path,
        line=1,
    )


def _unique_names(path: str, first: list[str]) -> list[str]:
    names = [cell.strip() for cell in first]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"columns named twice: {listed(twice)}", "rename one", path=path, line=1)
    return names


def _parquet_rows(path: str, header: _Header) -> Iterator[_Numbered]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            _unique_names(path, table.schema_arrow.names)
            for batch in table.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
            held = table.metadata.num_rows
    # What pyarrow says, and what values set off that are not what their type promises.
    except (OSError, pyarrow.ArrowException, ValueError, OverflowError, KeyError) as error:
        raise DataError(
            f"cannot be read as parquet after row {number}: {error}", _PARQUET_HINT, path=path
        ) from error
    if number != held:
        raise DataError(f"has {number} rows, not {held} as it says", _PARQUET_HINT, path=path)


_PARQUET_HINT = "copy the file again; parquet compresses inside, not by .gz"


def _hub_rows(dataset: HubDataset) -> Iterator[_Numbered]:
    _, rows = open_hub(dataset)
    import datasets

    number = 0
    try:
        for number, row in enumerate(rows, start=1):
            yield number, row
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"stopped after row {number}: {error}", _HUB_HINT, path=str(dataset)
        ) from error


def _tmx_rows(path: str, header: _Header) -> Iterator[_Numbered]:
    return tmx_units(path)


def _parallel_rows(src: str, tgt: str) -> Iterator[Row]:
    """Yield two plain text files line by line, as Moses keeps a bitext."""
    lines = (open_lines(src), open_lines(tgt))
    counts = [0, 0]
    for halves in zip_longest(*lines):
        counts = [count + (half is not None) for count, half in zip(counts, halves, strict=True)]
        if counts[0] == counts[1]:
            texts = [half[1] for half in halves]
            blank = not any(text.strip() for text in texts)
            yield src, counts[0], None if blank else dict(zip(_PAIR_COLUMNS, texts, strict=False))
    if counts[0] != counts[1]:
        raise DataError(
            f"has {counts[0]:,} lines, and {tgt} has {counts[1]:,}",
            "line n of one file is the translation of line n of the other",
            path=src,
        )
    if not counts[0]:
        raise DataError("holds no rows", "an empty file is usually a mistake", path=src)


_Format = Callable[[str, _Header], Iterator[_Numbered]]
_FORMATS: dict[str, _Format] = {
    ".jsonl": _json_rows,
    ".tsv": _tsv_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}

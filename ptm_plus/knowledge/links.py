"""Two ids that stand for one thing, united under one representative."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ptm_plus.errors import DataError
from ptm_plus.files import Pathish, open_lines


def read_links(paths: Sequence[Pathish]) -> dict[str, str]:
    """Read files of two ids a line (tab-separated, no header) and unite what they link.

    Returns:
        The representative of every id that occurs in a link: the shortest, then the first in text
        order, of all that are linked to it directly or through others.

    Raises:
        DataError: a file is missing or not UTF-8, or a row does not have two ids.
    """
    return unite(pair for path in paths for pair in _pairs(path))


def unite(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the representative of every id in ``pairs``, whatever their order."""
    parent: dict[str, str] = {}
    for left, right in pairs:
        low, high = sorted((_root(parent, left), _root(parent, right)), key=id_order)
        parent[high] = low
    return {label: _root(parent, label) for label in list(parent)}


def representative(links: Mapping[str, str], label: str) -> str:
    """Return the id that stands for ``label``: itself where nothing links it."""
    return links.get(label, label)


def id_order(label: str) -> tuple[int, str]:
    """Return the sort key by which ids are compared: length, then text (``Q9`` before ``Q10``)."""
    return len(label), label


def read_columns(path: Pathish, width: int, meaning: str) -> Iterable[tuple[int, list[str]]]:
    """Yield ``(line number, cells)`` of a TSV file without header; blank lines are passed over.

    Args:
        path: the file, plain or compressed.
        width: number of columns that each row must have.
        meaning: what the columns are, for the error.

    Raises:
        DataError: a row has another number of columns, or an empty cell.
    """
    for number, line in open_lines(path):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != width:
            raise DataError(
                f"found {len(cells)} columns, expected {width}: {meaning}",
                "columns are separated by one tab",
                path=path,
                line=number,
            )
        if "" in cells:
            raise DataError(
                f"column {cells.index('') + 1} is empty, expected {meaning}", path=path, line=number
            )
        yield number, cells


def _pairs(path: Pathish) -> Iterable[tuple[str, str]]:
    for _, (left, right) in read_columns(path, 2, "two ids that are one"):
        yield left, right


def _root(parent: dict[str, str], label: str) -> str:
    """Find the representative of ``label``, halving the path to it on the way."""
    parent.setdefault(label, label)
    while parent[label] != label:
        parent[label] = parent[parent[label]]
        label = parent[label]
    return label

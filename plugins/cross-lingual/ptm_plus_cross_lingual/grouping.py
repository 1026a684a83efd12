"""Consecutive pairs of the same languages, as many as are wanted together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ptm_plus import Example, Refused


def grouped(rows: Iterable[Example | Refused], size: int) -> Iterator[list[Example] | Refused]:
    """Yield groups of pairs of the same languages, in the order of the rows; refusals as they come.

    Args:
        rows: pairs, with the fields ``src`` and ``tgt``.
        size: pairs of a group; the last one of each language pair may have fewer.
    """
    waiting: dict[tuple[str, ...], list[Example]] = {}
    for row in rows:
        if isinstance(row, Refused):
            yield row
            continue
        languages = (*row.languages.values(),)
        own = waiting.setdefault(languages, [])
        own.append(row)
        if len(own) == size:
            yield own
            waiting[languages] = []
    yield from filter(None, waiting.values())

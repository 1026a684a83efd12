"""Consecutive pairs of the same languages, as many as are wanted together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from ptm_plus import Example, Refused, RunSettings, Stream, is_held_out

Rows = Iterable[Example | Refused]
HeldOut = Callable[[Example], bool]


def grouped(rows: Rows, size: int, held_out: HeldOut) -> Iterator[list[Example] | Refused]:
    """Yield groups of pairs of the same languages, in the order of the rows; refusals as they come.

    A group is held out as a whole or trained on as a whole: no sentence of a held-out pair is seen
    in training beside another one.

    Args:
        rows: pairs, with the fields ``src`` and ``tgt``.
        size: pairs of a group; the last ones of each language pair may have fewer.
        held_out: whether a pair is held out.
    """
    waiting: dict[tuple[object, ...], list[Example]] = {}
    for row in rows:
        if isinstance(row, Refused):
            yield row
            continue
        kind = (*row.languages.values(), held_out(row))
        own = waiting.setdefault(kind, [])
        own.append(row)
        if len(own) == size:
            yield own
            waiting[kind] = []
    yield from filter(None, waiting.values())


def regrouped(
    stream: Stream,
    settings: RunSettings,
    make: Callable[[Rows, HeldOut], Iterator[Example | Refused]],
    fingerprint: str,
) -> Stream:
    """Return a stream of pairs with other examples made of groups of them.

    Args:
        stream: of pairs.
        settings: the run's; what is held out depends on them.
        make: makes them of the pairs, told which ones are held out.
        fingerprint: of what is made.
    """
    told = f"{settings.train.seed} {settings.data.held_out}"
    return replace(
        stream,
        examples=lambda: make(stream.examples(), lambda pair: is_held_out(pair, settings)),
        fingerprint=f"{stream.fingerprint} {fingerprint} {told}",
    )

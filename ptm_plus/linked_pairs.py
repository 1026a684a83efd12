"""How many pairs speak of one entity in both halves: what entity plugins and bitext share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptm_plus.prepare.store import NO_FIELD, SequenceStore


@dataclass(frozen=True)
class LinkedPairs:
    """Pairs with linked mentions.

    Attributes:
        pairs: sequences.
        any: of those, with a linked mention.
        both: of those, with one entity linked in both halves.
    """

    pairs: int
    any: int
    both: int


def linked_pairs(store: SequenceStore, kind: str = "entity") -> LinkedPairs | None:
    """Count pairs with linked mentions; ``None`` for a store of single texts.

    Args:
        store: a stream's sequences.
        kind: span kind of the mentions.
    """
    owner = np.repeat(np.arange(len(store)), np.diff(store.segments))
    texts = np.bincount(owner, weights=store.segment_field != NO_FIELD)
    if texts.max(initial=0) < 2:
        return None
    some = np.zeros(len(store), dtype=np.bool_)
    both = np.zeros(len(store), dtype=np.bool_)
    for spans in store.spans.values():
        if kind not in spans.kinds:
            continue
        sequence = np.repeat(np.arange(len(store)), np.diff(spans.offsets))
        linked = (spans.kind == spans.kinds.index(kind)) & (spans.id >= 0)
        some[sequence[linked]] = True
        keys = np.stack((sequence[linked], spans.id[linked], spans.segment[linked].astype(int)))
        once = np.unique(keys, axis=1)
        same = (once[0, 1:] == once[0, :-1]) & (once[1, 1:] == once[1, :-1])
        both[once[0, 1:][same]] = True
    return LinkedPairs(len(store), int(some.sum()), int(both.sum()))

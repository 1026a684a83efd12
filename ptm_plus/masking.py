"""One mask plan: proposers name units, one arbiter spends one token budget.

The expected number of predicted tokens equals the budget exactly, per sequence and kind: units are
drawn by weight without replacement (exponential races) and taken while they fit; the unit that
crosses the budget is taken with probability (what is left) / (its length). Units are whole or not
at all. All draws are keyed by sequence and token, so the plan does not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptm_plus.components import MaskPlan, UnitKind, Units
from ptm_plus.keyed import Draws
from ptm_plus.ragged import cumsum_within, exclusive_cumsum, ragged_indexes
from ptm_plus.views import SpanTable, View

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

KEEP, MASK, RANDOM = 0, 1, 2


@dataclass(frozen=True)
class Vocabulary:
    """What replacement may write.

    Attributes:
        mask: id of the mask token.
        ordinary: ids that a random replacement may draw: no special, reserved or control token.
    """

    mask: int
    ordinary: Ints


def word_kind(unit: str) -> UnitKind:
    """Return the core's own kind: whole words, or single tokens."""
    propose = _words if unit == "word" else _tokens
    return UnitKind(name="word", propose=propose, order=100)


@dataclass(frozen=True)
class SpanUnits:
    """Proposes the spans of a kind; equal ones are one, whoever proposes them.

    Attributes:
        kind: span kind.
        grouped: whether mentions of one id in a sequence form a group.
    """

    kind: str
    grouped: bool = True

    def __call__(self, view: View, draws: Draws) -> Units:
        """Return one unit per span."""
        return span_units(view, self.kind, grouped=self.grouped)


def weighed_kind(kind: UnitKind, weights: Mapping[str, float]) -> UnitKind:
    """Return a kind with its weight times a factor; one of weight 0 leaves its tokens to others.

    Args:
        kind: the kind.
        weights: factor by the kind's name; 1 for others.
    """
    factor = weights.get(kind.name, 1.0)
    if factor == 1:
        return kind
    rate = None if kind.rate is None else min(1.0, kind.rate * factor)
    return replace(
        kind, weight=kind.weight * factor, rate=rate, exclusive=kind.exclusive and factor > 0
    )


def span_units(view: View, kind: str, *, grouped: bool = True) -> Units:
    """Return one unit per span of a kind; mentions of one id in a sequence form a group."""
    spans = view.spans_of(kind)
    return Units(
        start=spans.start,
        length=spans.length,
        group=spans.id if grouped else None,
        span=np.arange(len(spans), dtype=np.int64),
    )


def _tokens(view: View, draws: Draws) -> Units:
    start = np.flatnonzero(view.words >= 0)
    return Units(start=start, length=np.ones(len(start), dtype=np.int64))


def _words(view: View, draws: Draws) -> Units:
    words = view.words
    first = np.concatenate(([True], words[1:] != words[:-1])) & (words >= 0)
    start = np.flatnonzero(first)
    length = np.bincount(words[words >= 0], minlength=0)
    return Units(start=start, length=length[length > 0].astype(np.int64))


@dataclass(frozen=True)
class _Candidates:
    """Units of one kind that may be drawn (U), and the items that are drawn together (I)."""

    units: Units
    sequence: Ints
    item: Ints
    active: Bools


def plan_masks(
    view: View,
    kinds: Sequence[UnitKind],
    rate: float,
    draws: Mapping[str, Draws],
    vocabulary: Vocabulary,
    emphasis: NDArray[np.float64] | None = None,
) -> MaskPlan:
    """Decide which tokens of a view are predicted and what stands in their place.

    Args:
        view: the view.
        kinds: unit kinds of the stream, the core's ``word`` among them.
        rate: predicted share of maskable tokens.
        draws: keyed draws by kind name.
        vocabulary: what replacement may write.
        emphasis: ``[T]`` relative chances of tokens; ``None`` for equal ones.
    """
    kinds = sorted(kinds, key=lambda kind: (kind.order, kind.name))
    proposed = [_candidates(view, kind, draws[kind.name], emphasis) for kind in kinds]
    blocked = _blocked(view, kinds, proposed)
    budgets = _budgets(view, kinds, proposed, blocked, rate)
    taken = np.full(len(view), -1, dtype=np.int64)
    expected: dict[str, float] = {}
    spent = np.zeros(len(view.numbers))
    total = rate * _per_sequence(view, view.words >= 0)
    for number, (kind, units) in enumerate(zip(kinds, proposed, strict=True)):
        free = (taken < 0) & ~blocked[number]
        budget = budgets[number] if number < len(kinds) - 1 else np.maximum(total - spent, 0)
        chosen, expectation = _draw(view, units, free, budget, draws[kind.name])
        taken[_tokens_of(units.units, chosen)] = number
        spent += expectation
        expected[kind.name] = float(expectation.sum())
    hit, treatment = _treat(view, kinds, taken, draws)
    return MaskPlan(
        predicted=taken >= 0,
        kind=taken,
        ids=_replace(view, kinds, proposed, taken, draws, vocabulary),
        hit=hit,
        treatment=treatment,
        kinds=tuple(kind.name for kind in kinds),
        budget=expected,
    )


def force_spans(
    view: View, kind: str, chosen: Bools, vocabulary: Vocabulary, *, attached: bool = False
) -> MaskPlan:
    """Return the plan that masks the chosen spans, tokens and attachment, and nothing else.

    Every mention of a masked id in the same sequence loses its attachment, so that it cannot be
    copied. Used by probes.

    Args:
        view: the view.
        kind: span kind.
        chosen: ``[M]`` spans to mask.
        vocabulary: gives the mask id.
        attached: leave all attachments as they are (mode ``tokens`` instead of ``both``).
    """
    spans = view.spans_of(kind)
    tokens = spans.tokens(np.flatnonzero(chosen))
    predicted = np.zeros(len(view), dtype=np.bool_)
    predicted[tokens] = True
    together = _group_any(_groups(spans.sequence, spans.id), chosen)
    treatment = np.where(together & (not attached), MASK, KEEP)
    return MaskPlan(
        predicted=predicted,
        kind=np.where(predicted, 0, -1),
        ids=np.where(predicted, vocabulary.mask, view.ids),
        hit={kind: chosen},
        treatment={kind: treatment.astype(np.int64)},
        kinds=(kind,),
        budget={kind: float(len(tokens))},
    )


def hide_attached(view: View, plan: MaskPlan, kinds: Collection[str]) -> MaskPlan:
    """Return a plan in which spans with a predicted token lose what is attached to them.

    So do the other mentions of the same id in the sequence. Used by probes: a plan of the core's
    own kind knows nothing of spans, and an entity would give its words away.

    Args:
        view: the view.
        plan: its plan.
        kinds: span kinds that may carry something.
    """
    hits, treatments = dict(plan.hit), dict(plan.treatment)
    for kind in kinds:
        spans = view.spans_of(kind)
        hit = _any_token(spans, plan.predicted)
        hidden = _group_any(_groups(spans.sequence, spans.id), hit)
        hits[kind], treatments[kind] = hit, np.where(hidden, MASK, KEEP).astype(np.int64)
    return replace(plan, hit=hits, treatment=treatments)


def _candidates(
    view: View, kind: UnitKind, draws: Draws, emphasis: NDArray[np.float64] | None
) -> _Candidates:
    units = _whole(view, kind.propose(view, draws))
    if emphasis is not None:
        units = replace(units, weight=_emphasised(units, emphasis))
    sequence = view.sequence[units.start]
    active = np.ones(len(units.start), dtype=np.bool_)
    item = np.arange(len(units.start), dtype=np.int64)
    if units.group is not None and len(item):
        active, item = _mirror(view, units, sequence, kind.mirror, draws)
    return _Candidates(units, sequence, item, active)


def _emphasised(units: Units, emphasis: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return units' weights, each times the mean emphasis of its tokens."""
    if not len(units.start):
        return np.zeros(0)
    tokens = emphasis[ragged_indexes(units.start, units.length)]
    # Summed unit by unit: the difference of two running sums would depend on the batch.
    mean = np.add.reduceat(tokens, exclusive_cumsum(units.length)) / units.length
    return mean if units.weight is None else units.weight * mean


def _whole(view: View, units: Units) -> Units:
    """Drop units that touch a special token, leave a sequence or overlap an earlier kept one.

    Of two units that start together, the longer one counts as earlier.
    """
    special = np.concatenate(([0], np.cumsum(view.words < 0)))
    last = np.minimum(units.start + units.length, len(view)) - 1
    fit = (units.length > 0) & (last - units.start + 1 == units.length)
    fit &= special[last + 1] == special[units.start]
    fit &= view.sequence[last] == view.sequence[units.start]
    rows = np.flatnonzero(fit)
    if np.any(units.start[rows[1:]] <= units.start[rows[:-1]]):
        rows = rows[np.lexsort((-units.length[rows], units.start[rows]))]
    rows = rows[_apart(units.start[rows], last[rows] + 1)]
    return Units(
        start=units.start[rows],
        length=units.length[rows],
        weight=None if units.weight is None else units.weight[rows],
        group=None if units.group is None else units.group[rows],
        span=None if units.span is None else units.span[rows],
    )


def _apart(start: Ints, end: Ints) -> Bools:
    """Return which ranges, in order of their start, do not overlap an earlier kept one."""
    keep = np.ones(len(start), dtype=np.bool_)
    if np.all(start[1:] >= end[:-1]):
        return keep
    after = np.append(np.searchsorted(start, end), len(start))  # the next that may follow each
    kept = np.zeros(len(start) + 1, dtype=np.bool_)
    kept[0] = True
    for _ in range(len(start).bit_length()):  # twice as far in each round
        kept[after[kept]] = True
        after = after[after]
    return kept[:-1]


def _mirror(
    view: View, units: Units, sequence: Ints, mirror: float, draws: Draws
) -> tuple[Bools, Ints]:
    """Draw, per group that spans several segments, one segment or (mirrored) all of them.

    Members of a mirrored group become one item; members outside the drawn segment are inactive.
    """
    assert units.group is not None
    groups = _groups(sequence, units.group)
    segment = view.segments[units.start]
    lowest, highest = np.full(groups.max() + 1, 1 << 30), np.zeros(groups.max() + 1, dtype=np.int64)
    np.minimum.at(lowest, groups, segment)
    np.maximum.at(highest, groups, segment)
    several = (lowest < highest)[groups]
    key = (view.keys[sequence], units.group)
    mirrored = several & (draws.uniform("mirror", *key) < mirror)
    # one segment wins: the one with the smallest draw in its group
    chance = draws.uniform("half", *key, segment)
    best = np.full(groups.max() + 1, np.inf)
    np.minimum.at(best, groups, chance)
    active = ~several | mirrored | (chance == best[groups])
    item = np.where(mirrored, groups, groups.max() + 1 + np.arange(len(groups)))
    return active, np.unique(item, return_inverse=True)[1].astype(np.int64)


def _groups(sequence: Ints, group: Ints) -> Ints:
    """Number (sequence, group); a negative group is a group of its own."""
    label = np.where(group < 0, -1 - np.arange(len(group)), group)
    order = np.lexsort((label, sequence))
    ordered, owner = label[order], sequence[order]
    first = np.ones(len(group), dtype=np.int64)
    first[1:] = (ordered[1:] != ordered[:-1]) | (owner[1:] != owner[:-1])
    numbers = np.empty(len(group), dtype=np.int64)
    numbers[order] = np.cumsum(first) - 1
    return numbers


def _group_any(groups: Ints, values: Bools) -> Bools:
    found = np.zeros(int(groups.max()) + 1 if len(groups) else 0, dtype=np.bool_)
    found[groups[values]] = True
    return found[groups]


def _tokens_of(units: Units, chosen: Bools) -> Ints:
    return ragged_indexes(units.start[chosen], units.length[chosen])


def _per_sequence(view: View, values: NDArray[np.generic]) -> NDArray[np.float64]:
    sums = np.bincount(view.sequence, values.astype(np.float64), minlength=len(view.numbers))
    return np.asarray(sums, dtype=np.float64)


def _blocked(view: View, kinds: Sequence[UnitKind], proposed: Sequence[_Candidates]) -> list[Bools]:
    """Return, per kind, tokens that it may not take: others' exclusive ones, protected halves."""
    protected = np.zeros(len(view), dtype=np.bool_)
    owner = np.full(len(view), -1, dtype=np.int64)
    for number, (kind, units) in enumerate(zip(kinds, proposed, strict=True)):
        protected[_tokens_of(units.units, ~units.active)] = True
        if kind.exclusive:
            tokens = _tokens_of(units.units, units.active)
            owner[tokens] = np.where(owner[tokens] < 0, number, owner[tokens])
    return [protected | ((owner >= 0) & (owner != number)) for number in range(len(kinds))]


def _budgets(
    view: View,
    kinds: Sequence[UnitKind],
    proposed: Sequence[_Candidates],
    blocked: Sequence[Bools],
    rate: float,
) -> list[NDArray[np.float64]]:
    """Share each sequence's budget: kinds with a rate first, the others by weight.

    A weight counts per available token.
    """
    available = []
    for units, off in zip(proposed, blocked, strict=True):
        mine = np.zeros(len(view), dtype=np.bool_)
        mine[_tokens_of(units.units, units.active)] = True
        available.append(_per_sequence(view, mine & ~off))
    budget = rate * _per_sequence(view, view.words >= 0)
    fixed = [(kind.rate or 0.0) * tokens for kind, tokens in zip(kinds, available, strict=True)]
    scale = np.minimum(1.0, budget / np.maximum(sum(fixed), 1e-12))
    left = budget - scale * sum(fixed)
    weighted = [
        kind.weight * tokens * (kind.rate is None)
        for kind, tokens in zip(kinds, available, strict=True)
    ]
    total = np.maximum(sum(weighted), 1e-12)
    return [
        np.minimum(scale * own + left * share / total, tokens)
        for own, share, tokens in zip(fixed, weighted, available, strict=True)
    ]


def _draw(
    view: View, candidates: _Candidates, free: Bools, budget: NDArray[np.float64], draws: Draws
) -> tuple[Bools, NDArray[np.float64]]:
    """Draw items within each sequence's budget.

    Returns:
        ``[U]`` chosen units, and per sequence the expected number of tokens.
    """
    units = candidates.units
    chosen = np.zeros(len(units.start), dtype=np.bool_)
    if not len(chosen):
        return chosen, np.zeros(len(view.numbers))
    taken = np.concatenate(([0], np.cumsum(~free)))
    open_ = candidates.active & (taken[units.start + units.length] == taken[units.start])
    items = int(candidates.item.max()) + 1
    total = np.bincount(candidates.item[open_], units.length[open_], minlength=items)
    length = np.asarray(total, dtype=np.float64)
    leader = np.full(items, len(chosen), dtype=np.int64)
    np.minimum.at(leader, candidates.item[open_], np.flatnonzero(open_))
    members = np.flatnonzero(length > 0)
    lead = leader[members]
    sequence = candidates.sequence[lead]
    index = (view.keys[sequence], view.source[units.start[lead]])
    weight = np.ones(len(lead)) if units.weight is None else units.weight[lead]
    race = -np.log1p(-draws.uniform("race", *index)) / np.maximum(weight, 1e-12)
    order = np.lexsort((race, sequence))
    sequence, sizes = sequence[order], length[members][order]
    after = cumsum_within(sizes, sequence)
    expected = np.minimum(budget, np.bincount(sequence, sizes, minlength=len(view.numbers)))
    left = expected[sequence] - (after - sizes)
    crossing = draws.uniform("cross", *(part[order] for part in index)) * sizes < left
    drawn = np.zeros(items, dtype=np.bool_)
    drawn[members[order]] = (after <= expected[sequence] + 1e-9) | ((left > 1e-9) & crossing)
    return drawn[candidates.item] & open_, expected


def _treat(
    view: View,
    kinds: Sequence[UnitKind],
    taken: Ints,
    draws: Mapping[str, Draws],
) -> tuple[dict[str, Bools], dict[str, Ints]]:
    """Draw what happens to attachments, identically for all mentions of an id in a sequence."""
    hits: dict[str, Bools] = {}
    treatments: dict[str, Ints] = {}
    for kind in kinds:
        if kind.treatment is None:
            continue
        spans = view.spans_of(kind.name)
        hit = _any_token(spans, taken >= 0)
        together = _group_any(_groups(spans.sequence, spans.id), hit) if len(hit) else hit
        bounds = np.where(
            together[:, None], np.cumsum(kind.treatment.hit), np.cumsum(kind.treatment.missed)
        )
        chance = draws[kind.name].uniform("treatment", view.keys[spans.sequence], spans.id)
        hits[kind.name] = hit
        treatments[kind.name] = (chance[:, None] >= bounds[:, :2]).sum(axis=1)
    return hits, treatments


def _any_token(spans: SpanTable, values: Bools) -> Bools:
    total = np.concatenate(([0], np.cumsum(values)))
    return np.asarray(total[spans.start + spans.length] > total[spans.start])


def _replace(
    view: View,
    kinds: Sequence[UnitKind],
    proposed: Sequence[_Candidates],
    taken: Ints,
    draws: Mapping[str, Draws],
    vocabulary: Vocabulary,
) -> Ints:
    """Return the ids after replacement; the rule belongs to the kind that took the token."""
    ids = view.ids.copy()
    for number, (kind, candidates) in enumerate(zip(kinds, proposed, strict=True)):
        tokens = np.flatnonzero(taken == number)
        if not len(tokens):
            continue
        anchor = tokens
        if kind.per_unit:
            units = candidates.units
            anchor_of = np.zeros(len(view), dtype=np.int64)
            every = _tokens_of(units, np.ones(len(units.start), dtype=np.bool_))
            anchor_of[every] = np.repeat(units.start, units.length)
            anchor = anchor_of[tokens]
        keys, own = view.keys[view.sequence[tokens]], draws[kind.name]
        chance = own.uniform("replacement", keys, view.source[anchor])
        masked, random_, _ = kind.replacement
        ids[tokens[chance < masked]] = vocabulary.mask
        random_tokens = (chance >= masked) & (chance < masked + random_)
        pick = own.integers("random token", len(vocabulary.ordinary), keys, view.source[tokens])
        ids[tokens[random_tokens]] = vocabulary.ordinary[pick[random_tokens]]
    return ids

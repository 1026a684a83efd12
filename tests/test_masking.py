"""The mask plan: budget, whole units, groups, replacement, treatment, independence of the batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from building import (
    ENTITIES,
    MASK,
    Mention,
    Seg,
    Seq,
    build_store,
    chi_square_z,
    random_pair,
    random_sequences,
    random_text,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptm_plus.components import MaskPlan, Treatment, UnitKind, Units
from ptm_plus.keyed import Draws
from ptm_plus.masking import (
    Vocabulary,
    _apart,
    force_spans,
    hide_attached,
    plan_masks,
    span_units,
    weighed_kind,
    word_kind,
)
from ptm_plus.views import View, ViewMaker

# No token of a text is in the list, so that a random replacement is told from a kept token.
ORDINARY = np.arange(1000, 1100)
VOCABULARY = Vocabulary(mask=MASK, ordinary=ORDINARY)
COUNT, EPOCHS = 10_000, 3
RATE = 0.15
LABELS = {"entity": ENTITIES}
TREATMENT = Treatment(hit=(0.5, 0.3, 0.2), missed=(0.8, 0.05, 0.15))


def entity_kind(**changes) -> UnitKind:
    return UnitKind(
        name="entity", propose=lambda view, draws: span_units(view, "entity"), **changes
    )


def plan(view: View, *kinds: UnitKind, rate: float = RATE, seed: int = 0) -> MaskPlan:
    every = (word_kind("word"), *kinds)
    draws = {kind.name: Draws(seed, f"owner of {kind.name}", view.stream) for kind in every}
    return plan_masks(view, every, rate, draws, VOCABULARY)


def maker_of(folder, sequences: Sequence[Seq], stream: str = "s") -> ViewMaker:
    return ViewMaker(stream, build_store(folder, sequences), LABELS, 0)


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> list[View]:
    maker = maker_of(tmp_path_factory.mktemp("t"), random_sequences(COUNT, 3), "text")
    return views_of(maker)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> list[View]:
    sequences = random_sequences(COUNT, 4, random_pair)
    return views_of(maker_of(tmp_path_factory.mktemp("p"), sequences, "pairs"))


@pytest.fixture(scope="module")
def few_texts(tmp_path_factory) -> View:
    maker = maker_of(tmp_path_factory.mktemp("t"), random_sequences(800, 5), "text")
    return maker.view(np.arange(800), np.zeros(800, dtype=np.int64))


@pytest.fixture(scope="module")
def few_pairs(tmp_path_factory) -> View:
    maker = maker_of(tmp_path_factory.mktemp("p"), random_sequences(800, 6, random_pair), "pairs")
    return maker.view(np.arange(800), np.zeros(800, dtype=np.int64))


def views_of(maker: ViewMaker) -> list[View]:
    numbers = np.arange(COUNT)
    return [maker.view(numbers, np.full(COUNT, epoch)) for epoch in range(EPOCHS)]


def words_of(view: View) -> list[list[int]]:
    """Return the tokens of every word, by a loop."""
    found: dict[int, list[int]] = {}
    for token, word in enumerate(view.words.tolist()):
        if word >= 0:
            found.setdefault(word, []).append(token)
    return list(found.values())


def spans_of(view: View) -> list[tuple[range, int, int, int]]:
    """Return (tokens, sequence, segment, id) of every mention."""
    spans = view.spans_of("entity")
    columns = (spans.start, spans.length, spans.sequence, spans.segment, spans.id)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [(range(start, start + size), *rest) for start, size, *rest in rows]


def groups_of(view: View) -> dict[tuple[int, int], dict[int, list[int]]]:
    """Return the tokens by segment of every linked entity that several segments name."""
    found: dict[tuple[int, int], dict[int, list[int]]] = {}
    for tokens, sequence, segment, entity in spans_of(view):
        if entity >= 0:
            found.setdefault((sequence, entity), {}).setdefault(segment, []).extend(tokens)
    return {key: halves for key, halves in found.items() if len(halves) > 1}


# ---------------------------------------------------------------------------------------------
# Budget


def reference_budget(
    view: View, weight: float, exclusive: bool, mirror: float
) -> tuple[float, float]:
    """Return the budgets of entities and words, sequence by sequence.

    ``weight`` times the entities' tokens against the words' tokens; what a drawn half leaves
    visible counts for neither.
    """
    maskable, mentioned, hidden = (np.zeros(len(view.numbers)) for _ in range(3))
    for token, word in enumerate(view.words.tolist()):
        maskable[view.sequence[token]] += word >= 0
    draws = Draws(0, "owner of entity", view.stream)
    groups = groups_of(view)
    for tokens, sequence, segment, entity in spans_of(view):
        halves = groups.get((sequence, entity), {})
        key = (view.keys[sequence], entity)
        mirrored = bool(halves) and draws.uniform("mirror", *key) < mirror
        winner = min(halves, key=lambda half: draws.uniform("half", *key, half), default=segment)
        visible = not mirrored and segment != winner
        (hidden if visible else mentioned)[sequence] += len(tokens)
    words = maskable - hidden - (mentioned if exclusive else 0)
    entities = RATE * maskable * weight * mentioned / (weight * mentioned + words)
    entities = np.minimum(entities, mentioned)
    return float(entities.sum()), float((RATE * maskable - entities).sum())


def totals(
    views: Sequence[View], *kinds: UnitKind
) -> tuple[float, dict[str, float], dict[str, float]]:
    """Return the stream's budget, and by kind the predicted tokens and the plans' budgets."""
    predicted: dict[str, float] = {}
    budget: dict[str, float] = {}
    stream = 0.0
    for view in views:
        found = plan(view, *kinds)
        stream += RATE * float((view.words >= 0).sum())
        for number, name in enumerate(found.kinds):
            predicted[name] = predicted.get(name, 0.0) + float((found.kind == number).sum())
            budget[name] = budget.get(name, 0.0) + found.budget[name]
        assert not np.any(found.predicted & (view.words < 0))
        assert np.array_equal(found.predicted, found.kind >= 0)
    return stream, predicted, budget


@pytest.mark.parametrize("unit", ["word", "token"])
def test_words_meet_the_budget_of_the_stream(texts, pairs, unit):
    for views in (texts, pairs):
        predicted = budget = 0.0
        for view in views:
            draws = {"word": Draws(0, "core", view.stream)}
            found = plan_masks(view, [word_kind(unit)], RATE, draws, VOCABULARY)
            predicted += found.predicted.sum()
            budget += RATE * (view.words >= 0).sum()
            assert found.budget["word"] == pytest.approx(RATE * (view.words >= 0).sum())
        assert 0.98 < predicted / budget < 1.02


@pytest.mark.parametrize("weight", [1.0, 3.0])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("stream", ["texts", "pairs 0.0", "pairs 0.1", "pairs 1.0"])
def test_every_kind_meets_its_budget(request, stream, weight, exclusive):
    stream, _, mirror = stream.partition(" ")
    views = request.getfixturevalue(stream)
    kind = entity_kind(weight=weight, exclusive=exclusive, mirror=float(mirror or 0.1))
    whole, predicted, budget = totals(views, kind)
    assert 0.98 < sum(predicted.values()) / whole < 1.02
    for name, value in budget.items():
        assert 0.98 < predicted[name] / value < 1.02
    few = request.getfixturevalue(f"few_{stream}")
    found = plan(few, kind).budget
    entities, words = reference_budget(few, weight, exclusive, kind.mirror)
    assert found["entity"] == pytest.approx(entities)
    assert found["word"] == pytest.approx(words, rel=2e-3)  # short sequences may run out of words


def test_weight_is_the_chance_of_a_token_against_a_words_token(tmp_path):
    body = Seg(list(range(10, 40)), list(range(30)), language="en")
    mentions = [Mention(1, start, 2, f"Q{start}") for start in (3, 11, 20)]
    maker = maker_of(tmp_path, [Seq([Seg([2]), body, Seg([3])], mentions)] * 4000)
    view = maker.view(np.arange(4000), np.zeros(4000, dtype=np.int64))
    found = plan(view, entity_kind(weight=3.0, exclusive=True)).predicted.reshape(4000, 32)
    mentioned = np.isin(np.arange(32), [4, 5, 12, 13, 21, 22])
    # 4.5 tokens shared out as 3 * 6 to 24
    assert found[:, mentioned].mean() == pytest.approx(4.5 * 18 / 42 / 6, rel=0.05)
    assert found[:, 1:31][:, ~mentioned[1:31]].mean() == pytest.approx(4.5 * 24 / 42 / 24, rel=0.05)


@given(rate=st.floats(0.01, 0.99), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_no_sequence_is_more_than_a_unit_off_its_budget(few_texts, rate, seed):
    view = few_texts
    found = plan(view, rate=rate, seed=seed)
    per_sequence = np.bincount(view.sequence, found.predicted, minlength=len(view.numbers))
    budget = rate * np.bincount(view.sequence, view.words >= 0)
    assert np.abs(per_sequence - budget).max() < 3  # the longest word has three tokens


def test_rates_change_with_the_step(texts):
    view = texts[0]
    low, high = (plan(view, rate=rate).predicted.sum() for rate in (0.1, 0.4))
    assert high / low == pytest.approx(4, rel=0.03)


# ---------------------------------------------------------------------------------------------
# Units


def test_words_are_predicted_whole_or_not_at_all(texts):
    found = plan(texts[0])
    for word in words_of(texts[0]):
        assert len({bool(found.predicted[token]) for token in word}) == 1


@pytest.mark.parametrize("exclusive", [False, True])
def test_mentions_and_words_are_whole(texts, exclusive):
    view = texts[0]
    found = plan(view, entity_kind(exclusive=exclusive, weight=2.0))
    entity, word = found.kinds.index("entity"), found.kinds.index("word")
    assert {entity, word} <= set(found.kind.tolist())
    inside = set()
    for tokens, *_ in spans_of(view):
        assert len({found.kind[token] == entity for token in tokens}) == 1
        inside.update(tokens)
    for tokens in words_of(view):
        assert len({found.kind[token] == word for token in tokens}) == 1
        if exclusive and found.kind[tokens[0]] == word:
            assert not inside & set(tokens)


def fixed_kind(units: Sequence[tuple[int, int]], weights=None, **changes) -> UnitKind:
    start, length = (np.array(column, dtype=np.int64) for column in zip(*units, strict=True))
    weight = None if weights is None else np.array(weights, dtype=np.float64)
    changes = {"name": "fixed", **changes}
    return UnitKind(
        propose=lambda view, draws: Units(start=start, length=length, weight=weight), **changes
    )


@pytest.fixture
def plain(tmp_path) -> ViewMaker:
    """Two sequences of ten one-token words between special tokens."""
    body = Seg(list(range(10, 20)), list(range(10)), language="en")
    return maker_of(tmp_path, [Seq([Seg([2]), body, Seg([3])])] * 2)


def view_of(maker: ViewMaker, *numbers: int, epoch: int = 0) -> View:
    return maker.view(np.array(numbers), np.full(len(numbers), epoch))


@pytest.mark.parametrize(
    ("units", "kept"),
    [
        ([(1, 3), (4, 2)], {1, 2, 3, 4, 5}),
        ([(1, 2), (1, 3)], {1, 2, 3}),  # of two that start together, the longer one
        ([(1, 3), (3, 3), (5, 2)], {1, 2, 3, 5, 6}),  # the dropped one shadows nothing
        ([(0, 5), (2, 2)], {2, 3}),  # touches a special token
        ([(9, 5), (3, 1), (16, 2)], {3, 16, 17}),  # leaves its sequence
        ([(3, 0), (4, 1)], {4}),
        ([(20, 9), (4, 1)], {4}),  # leaves the view
        ([(8, 2), (2, 2)], {2, 3, 8, 9}),  # in any order
    ],
)
def test_units_that_cannot_be_whole_are_dropped(plain, units, kept):
    found = plan(view_of(plain, 0, 1), fixed_kind(units, exclusive=True, weight=1e12), rate=0.999)
    assert set(np.flatnonzero(found.kind == 0).tolist()) == kept


def test_a_unit_does_not_reach_into_a_neighbour_without_special_tokens(tmp_path):
    body = Seg([10, 11, 12], [0, 1, 2], language="en")
    view = view_of(maker_of(tmp_path, [Seq([body])] * 2), 0, 1)
    found = plan(view, fixed_kind([(2, 2)], weight=1e12), rate=0.9)
    assert not np.any(found.kind == found.kinds.index("fixed"))


def test_units_are_drawn_by_weight(plain):
    weights = [1, 2, 3, 4]
    kind = fixed_kind([(1, 1), (2, 1), (3, 1), (4, 1)], weights, weight=1e12)
    counts = np.zeros(4)
    for epoch in range(4000):
        found = plan(view_of(plain, 0, epoch=epoch), kind, rate=0.1)  # a budget of one token
        counts += found.kind[1:5] == 0
    assert counts.sum() == 4000
    assert abs(chi_square_z(counts / np.array(weights) * 2.5)) < 4.5


def test_kinds_choose_in_their_order_and_never_twice(plain):
    first = fixed_kind([(1, 5)], name="zebra", order=10, weight=1e12)
    second = fixed_kind([(4, 4)], name="ape", order=20, weight=1e6)
    found = plan(view_of(plain, 0), second, first, rate=0.999)
    assert found.kinds == ("zebra", "ape", "word")
    assert found.kind.tolist() == [-1, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, -1]


def test_of_two_exclusive_kinds_the_first_in_order_owns_a_token(plain):
    first = fixed_kind([(1, 3)], name="zebra", order=10, exclusive=True, weight=1e12)
    second = fixed_kind([(3, 3)], name="ape", order=20, exclusive=True, weight=1e9)
    found = plan(view_of(plain, 0), second, first, rate=0.999)
    assert found.kind[1:4].tolist() == [0, 0, 0]
    assert not np.any(found.kind == found.kinds.index("ape"))


def test_the_order_in_which_kinds_are_given_does_not_matter(texts):
    view = texts[0]
    kinds = [fixed_kind([(1, 2)], name="a"), entity_kind(), word_kind("word")]
    draws = {kind.name: Draws(0, kind.name, "text") for kind in kinds}
    one = plan_masks(view, kinds, RATE, draws, VOCABULARY)
    other = plan_masks(view, kinds[::-1], RATE, draws, VOCABULARY)
    assert np.array_equal(one.ids, other.ids)
    assert np.array_equal(one.kind, other.kind)


def test_a_kind_without_units_leaves_the_budget_to_words(texts):
    none = np.zeros(0, dtype=np.int64)
    nothing = UnitKind(
        name="none",
        propose=lambda view, draws: Units(start=none, length=none, group=none),
        treatment=TREATMENT,
        weight=9,
    )
    found, plain = plan(texts[0], nothing), plan(texts[0])
    assert np.array_equal(found.ids, plain.ids)
    assert found.budget == {"none": 0, "word": plain.budget["word"]}
    assert len(found.treatment["none"]) == 0


def drawn_kind(number: int, data: st.DataObject) -> UnitKind:
    """Return a kind that proposes ranges at random: overlapping, over borders, in groups."""

    def propose(view: View, draws: Draws) -> Units:
        start = np.flatnonzero(view.token_draws(draws, "start") < 0.3)
        keys = (view.keys[view.sequence[start]], view.source[start])
        group = draws.integers("group", 4, *keys) - 1 if grouped else None
        length = draws.integers("length", 6, *keys)
        return Units(start=start, length=length, group=group)

    grouped = data.draw(st.booleans())
    return UnitKind(
        name=f"kind {number}",
        propose=propose,
        weight=data.draw(st.sampled_from([0.0, 0.5, 1.0, 30.0])),
        order=data.draw(st.sampled_from([10, 50, 60])),
        exclusive=data.draw(st.booleans()),
        mirror=data.draw(st.sampled_from([0.0, 0.5, 1.0])),
        per_unit=data.draw(st.booleans()),
    )


@pytest.mark.parametrize("make", [random_text, random_pair])
@given(data=st.data())
@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_kinds_give_whole_units_alike_in_any_company(small, make, data):
    maker = small[make.__name__]
    kinds = [drawn_kind(number, data) for number in range(data.draw(st.integers(1, 3)))]
    rate = data.draw(st.sampled_from([0.15, 0.5, 0.95]))
    first = data.draw(st.integers(0, 190))
    numbers = np.arange(first, first + 8)
    view = maker.view(numbers, numbers % 3)
    found = plan(view, *kinds, rate=rate)
    assert not np.any(found.predicted & (view.words < 0))
    for kind in kinds:
        units = kind.propose(view, Draws(0, f"owner of {kind.name}", view.stream))
        mine = found.kind == found.kinds.index(kind.name)
        covered = np.zeros(len(view), dtype=bool)
        for start, length in zip(units.start.tolist(), units.length.tolist(), strict=True):
            if mine[start : start + length].all():
                covered[start : start + length] = True
        assert np.array_equal(covered & mine, mine)
    for place, number in enumerate(view.numbers.tolist()):
        alone = plan(maker.view(np.array([number]), np.array([number % 3])), *kinds, rate=rate)
        tokens = slice(view.offsets[place], view.offsets[place + 1])
        assert alone.ids.tolist() == found.ids[tokens].tolist()
        assert alone.kind.tolist() == found.kind[tokens].tolist()


# ---------------------------------------------------------------------------------------------
# Groups


def predicted_halves(view: View, found: MaskPlan) -> list[tuple[int, int]]:
    """Return (halves with a predicted token, halves) of every grouped entity."""
    groups = groups_of(view).values()
    return [
        (sum(bool(found.predicted[tokens].any()) for tokens in halves.values()), len(halves))
        for halves in groups
    ]


@pytest.mark.parametrize("rate", [0.15, 0.5, 0.99])
def test_without_mirror_one_half_stays_visible(pairs, rate):
    for exclusive in (False, True):
        found = plan(pairs[0], entity_kind(mirror=0.0, exclusive=exclusive), rate=rate)
        halves = predicted_halves(pairs[0], found)
        assert len(halves) > 5000
        assert {count for count, _ in halves} in ({0, 1}, {1})


@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_with_mirror_halves_go_together(pairs, rate):
    found = plan(pairs[0], entity_kind(mirror=1.0, exclusive=True), rate=rate)
    halves = predicted_halves(pairs[0], found)
    assert {count for count, _ in halves} == {0, 2}
    for tokens in groups_of(pairs[0]).values():
        flat = np.concatenate(list(tokens.values()))
        assert len(set(found.predicted[flat].tolist())) == 1


def test_share_of_mirrored_groups_and_of_halves(pairs):
    # with all that may be masked masked, the draws themselves are seen
    found = plan(pairs[0], entity_kind(mirror=0.1, exclusive=True, weight=1e12), rate=0.999)
    halves = np.array([count for count, _ in predicted_halves(pairs[0], found)])
    both = (halves == 2).mean()
    assert abs(both - 0.1) < 4 * (0.09 / len(halves)) ** 0.5
    first = [
        bool(found.predicted[tokens[min(tokens)]].any())
        for tokens, count in zip(groups_of(pairs[0]).values(), halves, strict=True)
        if count == 1
    ]
    assert abs(np.mean(first) - 0.5) < 4 * 0.5 / len(first) ** 0.5


def test_mentions_of_one_text_are_no_mirrored_group(texts):
    kinds = [entity_kind(mirror=mirror) for mirror in (0.0, 1.0)]
    one, other = (plan(texts[0], kind) for kind in kinds)
    assert np.array_equal(one.ids, other.ids)


# ---------------------------------------------------------------------------------------------
# Replacement


def replaced(view: View, found: MaskPlan) -> np.ndarray:
    """Return per token 0 masked, 1 random, 2 kept."""
    masked = found.ids == MASK
    random = np.isin(found.ids, ORDINARY)
    assert np.all(masked | random | (found.ids == view.ids))
    return np.where(masked, 0, np.where(random, 1, 2))


@pytest.mark.parametrize(
    "rule", [(0.8, 0.1, 0.1), (1.0, 0.0, 0.0), (0.85, 0.0, 0.15), (0.2, 0.8, 0)]
)
@pytest.mark.parametrize("per_unit", [False, True])
def test_replacement_shares(texts, rule, per_unit):
    kind = entity_kind(replacement=rule, per_unit=per_unit, exclusive=True, weight=4.0)
    counts, units = np.zeros(3), np.zeros(3)
    for view in texts:
        found = plan(view, kind)
        what = replaced(view, found)
        assert np.all(what[~found.predicted] == 2)
        mine = found.kind == found.kinds.index("entity")
        counts += np.bincount(what[mine], minlength=3)
        heads = [tokens[0] for tokens, *_ in spans_of(view) if mine[tokens[0]]]
        units += np.bincount(what[heads], minlength=3)
        if per_unit:
            for tokens, *_ in spans_of(view):
                assert len(set(what[list(tokens)].tolist())) == 1
    seen = units if per_unit else counts
    sizes = np.sqrt(np.array(rule) * (1 - np.array(rule)) / seen.sum())
    assert np.all(np.abs(seen / seen.sum() - rule) <= 4 * sizes + 1e-9)


def test_random_tokens_are_ordinary_and_evenly_drawn(texts):
    kind = word_kind("word")
    ids = []
    for view in texts:
        found = plan(view)
        ids.append(found.ids[np.isin(found.ids, ORDINARY)])
        allowed = np.concatenate(([MASK], ORDINARY))
        assert np.all(np.isin(found.ids[found.ids != view.ids], allowed))
    counts = np.bincount(np.concatenate(ids) - ORDINARY[0], minlength=len(ORDINARY))
    assert abs(chi_square_z(counts)) < 4.5
    assert kind.replacement == (0.8, 0.1, 0.1)


def test_random_tokens_of_one_unit_differ(texts):
    kind = entity_kind(replacement=(0, 1, 0), per_unit=True, weight=9.0)
    found = plan(texts[0], kind)
    entity = found.kinds.index("entity")
    several = [t for t, *_ in spans_of(texts[0]) if found.kind[t[0]] == entity and len(t) > 2]
    same = sum(len(set(found.ids[list(tokens)].tolist())) == 1 for tokens in several)
    assert len(several) > 100
    assert same < 0.02 * len(several)


def test_the_rule_belongs_to_the_kind(texts):
    view = texts[0]
    found = plan(view, entity_kind(replacement=(0, 0, 1), weight=4.0))
    what = replaced(view, found)
    assert set(what[found.kind == found.kinds.index("entity")].tolist()) == {2}
    assert set(what[found.kind == found.kinds.index("word")].tolist()) == {0, 1, 2}


# ---------------------------------------------------------------------------------------------
# Treatment


@pytest.mark.parametrize("stream", ["texts", "pairs"])
def test_treatment_shares_by_whether_a_token_is_hit(request, stream):
    counts = {True: np.zeros(3), False: np.zeros(3)}
    for view in request.getfixturevalue(stream):
        found = plan(view, entity_kind(treatment=TREATMENT, weight=2.0))
        seen: dict[tuple[int, int], tuple[bool, int]] = {}
        hits, treatments = found.hit["entity"].tolist(), found.treatment["entity"].tolist()
        rows = list(zip(spans_of(view), hits, treatments, strict=True))
        for (tokens, sequence, _, entity), hit, treatment in rows:
            assert hit == found.predicted[list(tokens)].any()
            if entity >= 0:
                before = seen.get((sequence, entity), (False, treatment))
                assert before[1] == treatment  # all mentions of one id alike
                seen[sequence, entity] = (before[0] or hit, treatment)
        for hit, treatment in seen.values():
            counts[hit][treatment] += 1
    for hit, expected in ((True, TREATMENT.hit), (False, TREATMENT.missed)):
        share = counts[hit] / counts[hit].sum()
        sizes = np.sqrt(np.array(expected) * (1 - np.array(expected)) / counts[hit].sum())
        assert np.all(np.abs(share - expected) < 4 * sizes)


def test_the_treatment_does_not_change_the_tokens(texts):
    plain = plan(texts[0], entity_kind())
    treated = plan(texts[0], entity_kind(treatment=TREATMENT))
    assert np.array_equal(plain.ids, treated.ids)
    assert not plain.treatment
    assert set(treated.treatment) == {"entity"}


def test_sure_treatments_are_sure(texts):
    sure = Treatment(hit=(0.0, 1.0, 0.0), missed=(1.0, 0.0, 0.0))
    found = plan(texts[0], entity_kind(treatment=sure))
    groups: dict[tuple[int, int], bool] = {}
    rows = list(zip(spans_of(texts[0]), found.hit["entity"].tolist(), strict=True))
    for n, ((_, sequence, _, entity), hit) in enumerate(rows):
        key = (sequence, entity if entity >= 0 else -1 - n)
        groups[key] = groups.get(key, False) or hit
    for n, (_, sequence, _, entity) in enumerate(spans_of(texts[0])):
        together = groups[sequence, entity if entity >= 0 else -1 - n]
        assert found.treatment["entity"][n] == int(together)


# ---------------------------------------------------------------------------------------------
# Independence


def of_sequence(view: View, found: MaskPlan, place: int) -> dict[str, list]:
    tokens = slice(view.offsets[place], view.offsets[place + 1])
    spans = view.spans_of("entity").sequence == place
    return {
        "numbers": view.ids[tokens].tolist(),
        "ids": found.ids[tokens].tolist(),
        "kind": found.kind[tokens].tolist(),
        "hit": found.hit["entity"][spans].tolist(),
        "treatment": found.treatment["entity"][spans].tolist(),
    }


@pytest.mark.parametrize("make", [random_text, random_pair])
@given(data=st.data())
@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_sequence_is_masked_alike_in_any_company(small, make, data):
    maker = small[make.__name__]
    kinds = [
        entity_kind(weight=3.0, mirror=0.3, per_unit=True, treatment=TREATMENT),
    ]
    numbers = data.draw(st.lists(st.integers(0, 199), min_size=2, max_size=30, unique=True))
    epochs = data.draw(st.lists(st.integers(-1, 5), min_size=30, max_size=30))[: len(numbers)]
    rate = data.draw(st.sampled_from([0.1, 0.15, 0.5]))
    many = maker.view(np.array(numbers), np.array(epochs))
    found = plan(many, *kinds, rate=rate)
    epoch_of = dict(zip(numbers, epochs, strict=True))
    for place, number in enumerate(many.numbers.tolist()):
        one = maker.view(np.array([number]), np.array([epoch_of[number]]))
        alone = plan(one, *kinds, rate=rate)
        assert of_sequence(one, alone, 0) == of_sequence(many, found, place)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict[str, ViewMaker]:
    makers = {}
    for make in (random_text, random_pair):
        folder = tmp_path_factory.mktemp(make.__name__)
        makers[make.__name__] = maker_of(folder, random_sequences(200, 8, make))
    return makers


def test_epochs_and_seeds_give_other_plans(small):
    numbers = np.arange(200)
    plans = [
        plan(small["random_text"].view(numbers, np.full(200, epoch)), seed=seed).predicted
        for epoch, seed in ((-1, 0), (0, 0), (1, 0), (0, 1))
    ]
    for n, one in enumerate(plans):
        for other in plans[:n]:
            # as rarely together as chance has it
            assert (one & other).sum() < 2 * RATE * one.sum()


def test_the_held_out_epoch_is_frozen(tmp_path):
    sequences = random_sequences(50, 9)
    plans = []
    for name in ("first", "second"):
        maker = maker_of(tmp_path / name, sequences)
        maker.view(np.arange(50), np.arange(50))  # what was read before plays no part
        found = plan(maker.view(np.arange(50), np.full(50, -1)), entity_kind())
        plans.append((found.ids.tolist(), found.predicted.tolist()))
    assert plans[0] == plans[1]


# ---------------------------------------------------------------------------------------------
# Forced spans


def test_forced_spans_by_hand(tmp_path):
    body = Seg(list(range(10, 18)), [0, 1, 1, 2, 3, 4, 5, 6], language="en")
    names = [(0, 1, "Q1"), (1, 2, "Q2"), (4, 1, "Q1"), (5, 1, None), (6, 1, None)]
    mentions = [Mention(1, start, length, name) for start, length, name in names]
    view = view_of(maker_of(tmp_path, [Seq([Seg([2]), body, Seg([3])], mentions)]), 0)
    chosen = np.array([True, True, False, True, False])
    found = force_spans(view, "entity", chosen, VOCABULARY)
    assert found.ids.tolist() == [2, MASK, MASK, MASK, 13, 14, MASK, 16, 17, 3]
    assert np.flatnonzero(found.predicted).tolist() == [1, 2, 3, 6]
    # the second mention of Q1 loses its id as well, the other unlinked one does not
    assert found.treatment["entity"].tolist() == [1, 1, 1, 1, 0]
    assert found.hit["entity"].tolist() == chosen.tolist()
    assert found.kind.tolist() == [-1, 0, 0, 0, -1, -1, 0, -1, -1, -1]


def test_forcing_nothing_changes_nothing(small):
    view = small["random_text"].view(np.arange(5), np.zeros(5, dtype=np.int64))
    none = np.zeros(len(view.spans_of("entity")), dtype=bool)
    found = force_spans(view, "entity", none, VOCABULARY)
    assert np.array_equal(found.ids, view.ids)
    assert not found.predicted.any()
    empty = force_spans(view, "phrase", np.zeros(0, dtype=bool), VOCABULARY)
    assert len(empty.treatment["phrase"]) == 0


def test_what_is_attached_to_masked_words_is_hidden_with_all_its_mentions(tmp_path):
    view = maker_of(tmp_path, random_sequences(200, 3)).view(
        np.arange(200), np.zeros(200, dtype=np.int64)
    )
    words = plan(view, rate=0.3)
    found = hide_attached(view, words, view.spans)
    spans = view.spans_of("entity")
    every = range(len(spans))
    hit = [
        bool(words.predicted[spans.start[n] : spans.start[n] + spans.length[n]].any())
        for n in every
    ]
    alike = [[m for m in every if m == n or spans.id[m] == spans.id[n] >= 0] for n in every]
    hidden = [
        any(hit[m] and spans.sequence[m] == spans.sequence[n] for m in alike[n]) for n in every
    ]
    assert found.hit["entity"].tolist() == hit
    assert found.treatment["entity"].tolist() == [int(one) for one in hidden]
    assert 0 < sum(hit) < sum(hidden) < len(spans)  # other mentions of masked ones are among them
    assert np.array_equal(found.ids, words.ids)
    assert np.array_equal(found.predicted, words.predicted)


# ---------------------------------------------------------------------------------------------
# Kinds with a rate, and kinds that a step leaves out


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.9])
def test_a_kind_s_rate_comes_off_the_budget_before_the_rest_is_shared(few_texts, rate):
    found = plan(few_texts, entity_kind(rate=rate, exclusive=True), rate=0.4)
    spans = few_texts.spans_of("entity")
    maskable = np.zeros(len(few_texts.numbers))
    np.add.at(maskable, few_texts.sequence[few_texts.words >= 0], 1)
    mentioned = np.zeros(len(few_texts.numbers))
    np.add.at(mentioned, spans.sequence, spans.length)
    expected = np.minimum(rate * mentioned, 0.4 * maskable)
    assert found.budget["entity"] == pytest.approx(expected.sum())
    words = np.minimum(0.4 * maskable - expected, maskable - mentioned)
    assert found.budget["word"] == pytest.approx(words.sum())


def test_a_kind_of_weight_zero_leaves_its_tokens_to_the_words(few_texts):
    kind = weighed_kind(entity_kind(weight=4.0, exclusive=True, rate=0.5), {"entity": 0.0})
    assert (kind.weight, kind.rate, kind.exclusive) == (0.0, 0.0, False)
    without, zero = plan(few_texts), plan(few_texts, kind)
    assert np.array_equal(zero.predicted, without.predicted)
    assert np.array_equal(zero.ids, without.ids)
    assert weighed_kind(entity_kind(weight=4.0), {"entity": 0.5, "word": 9.0}).weight == 2.0


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=40))
def test_of_overlapping_ranges_the_earlier_is_kept(ranges):
    ranges = sorted(ranges, key=lambda one: (one[0], -one[1]))
    reached, expected = 0, []
    for start, length in ranges:
        expected.append(start >= reached)
        reached = start + length if expected[-1] else reached
    start, length = (np.array([one[at] for one in ranges], dtype=np.int64) for at in (0, 1))
    assert _apart(start, start + length).tolist() == expected

"""The columns, span by span: who carries which vector, what is asked, among whom."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptm_plus import Draws, FeatureInput, MaskPlan, SpanTable, View
from ptm_plus.knowledge import write_table
from ptm_plus_kg_fusion.entities import KEEP, MASK, MODES, RANDOM, EntityColumns

pytestmark = pytest.mark.kg_fusion

ENTITIES = 9


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rng = np.random.default_rng(0)
    names = [f"Q{number}" for number in range(ENTITIES)]
    vectors = rng.standard_normal((ENTITIES, 4)).astype(np.float32) * 3
    return write_table(tmp_path_factory.mktemp("t") / "v.safetensors", names, vectors)


def spans_of(rows):
    """Return a span table of (start, length, sequence, id) rows."""
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    start, length, sequence, ids = columns
    return SpanTable(start, length, sequence, np.zeros_like(start), ids)


def given_of(rows, treatment, hit, step=None, sequences=4):
    spans = spans_of(rows)
    zeros = np.zeros(200, dtype=np.int64)
    view = View(
        stream="text",
        numbers=np.arange(sequences),
        keys=np.arange(sequences).astype(np.uint64) + np.uint64(1 << 40),
        offsets=np.zeros(sequences + 1, dtype=np.int64),
        ids=zeros,
        sequence=zeros,
        source=zeros,
        words=zeros,
        positions=zeros,
        types=zeros,
        segments=zeros,
        languages=zeros,
        spans={"entity": spans},
        labels={},
        columns={},
    )
    plan = MaskPlan(
        predicted=zeros > 0,
        kind=zeros - 1,
        ids=zeros,
        hit={"entity": np.array(hit, dtype=np.bool_)},
        treatment={"entity": np.array(treatment, dtype=np.int64)},
        kinds=("entity",),
        budget={},
    )
    step_spans = {} if step is None else {"entity": spans_of(step)}
    return FeatureInput(view, plan, Draws(0, "kg-fusion", "text"), step_spans)


def columns_of(table, given_, every_token=False, label_all=False, rows=None):
    known = np.arange(ENTITIES) if rows is None else np.asarray(rows)
    fused = np.ones(len(known) + 1, dtype=np.bool_)
    compute = EntityColumns(table, np.append(known, -1), every_token, label_all, fused)
    return compute(given_)


def scaled(table, row):
    """Return a row's vector at a mean square of 1: width 4, so a length of 2."""
    vector = table.gather(np.array([row]))[0].astype(np.float64)
    return 2 * vector / np.sqrt((vector**2).sum())


# ---------------------------------------------------------------------------------------------
# By hand


def test_columns_by_hand(table):
    """Kept, masked, unlinked, kept again; candidates are those of the whole step."""
    rows = [(1, 2, 0, 5), (4, 1, 0, 2), (6, 2, 1, -1), (9, 3, 1, 7)]
    step = [*rows, (0, 1, 2, 8), (0, 1, 3, 5)]
    given_ = given_of(rows, [KEEP, MASK, MASK, KEEP], [True, False, False, False], step)
    found = columns_of(table, given_)
    assert found["positions"].tolist() == [1, 9]
    carried = found["vectors"][found["owner"]]
    np.testing.assert_allclose(carried, [scaled(table, 5), scaled(table, 7)], atol=1e-6)
    assert found["labelled"].tolist() == [4]
    expected = [scaled(table, row) for row in (2, 5, 7, 8)]
    np.testing.assert_allclose(found["candidates"], expected, atol=1e-6)
    assert found["labels"].tolist() == [0]
    assert [MODES[mode] for mode in found["mode"]] == ["entity"]


def test_every_token_of_a_mention_carries_it_when_asked(table):
    rows = [(1, 3, 0, 5), (6, 2, 1, 2)]
    given_ = given_of(rows, [KEEP, KEEP], [False, False])
    found = columns_of(table, given_, every_token=True)
    assert found["positions"].tolist() == [1, 2, 3, 6, 7]
    assert found["owner"].tolist() == [1, 1, 1, 0, 0]  # rows of distinct vectors, by table row


def test_a_token_under_two_mentions_carries_the_first(table):
    rows = [(1, 3, 0, 5), (2, 1, 0, 2)]
    found = columns_of(table, given_of(rows, [KEEP, KEEP], [False] * 2), every_token=True)
    assert found["positions"].tolist() == [1, 2, 3]
    carried = found["vectors"][found["owner"]]
    np.testing.assert_allclose(carried[1], scaled(table, 5), atol=1e-6)


def test_labels_of_all_entities_when_asked(table):
    rows = [(1, 1, 0, 5), (3, 1, 0, 2), (5, 1, 0, -1)]
    found = columns_of(table, given_of(rows, [KEEP] * 3, [True, False, False]), label_all=True)
    assert found["labelled"].tolist() == [1, 3]
    assert [MODES[mode] for mode in found["mode"]] == ["tokens", "neither"]
    assert found["labels"].tolist() == [1, 0]


def test_entities_without_a_vector_are_left_alone(table):
    """Labels of the run that the table does not have (row -1) count for nothing."""
    rows = [(1, 1, 0, 5), (3, 1, 0, 2)]
    known = np.arange(ENTITIES)
    known[5] = -1
    given_ = given_of(rows, [MASK, MASK], [True, True])
    found = columns_of(table, given_, rows=known, label_all=True)
    assert found["labelled"].tolist() == [3]
    assert len(found["candidates"]) == 1
    assert found["positions"].tolist() == []


def test_nothing_linked_gives_empty_columns(table):
    found = columns_of(table, given_of([], [], []))
    assert {name: len(column) for name, column in found.items()} == {
        "positions": 0,
        "owner": 0,
        "vectors": 0,
        "table": 0,
        "place": 0,
        "labelled": 0,
        "labels": 0,
        "candidates": 0,
        "mode": 0,
    }
    assert found["vectors"].shape == found["candidates"].shape == (0, 4)


# ---------------------------------------------------------------------------------------------
# Against a loop


@st.composite
def mentions(draw):
    rows, treatment, hit = [], {}, []
    token = 0
    for sequence in range(draw(st.integers(1, 4))):
        for _ in range(draw(st.integers(0, 4))):
            token += draw(st.integers(1, 3))
            length = draw(st.integers(1, 3))
            entity = draw(st.integers(-1, ENTITIES - 1))
            rows.append((token, length, sequence, entity))
            treatment.setdefault((sequence, entity), draw(st.integers(0, 2)))
            hit.append(draw(st.booleans()))
            token += length
    return rows, [treatment[row[2], row[3]] for row in rows], hit


@settings(max_examples=80, deadline=None)
@given(mentions(), st.lists(st.integers(-1, ENTITIES - 1), max_size=5), st.booleans())
def test_columns_equal_a_loop_over_mentions(table, drawn, others, label_all):
    rows, treatment, hit = drawn
    step = rows + [(0, 1, 3, entity) for entity in others]
    found = columns_of(table, given_of(rows, treatment, hit, step), label_all=label_all)
    candidates = sorted({row[3] for row in step} - {-1})
    assert len(found["candidates"]) == len(candidates)
    for number, entity in enumerate(candidates):
        np.testing.assert_allclose(found["candidates"][number], scaled(table, entity), atol=1e-6)
    carried = dict(zip(found["positions"].tolist(), found["vectors"][found["owner"]], strict=True))
    swapped = {}
    asked = []
    for (start, _, sequence, entity), what, tokens in zip(rows, treatment, hit, strict=True):
        if entity >= 0 and (label_all or what != KEEP):
            asked.append((start, candidates.index(entity), 2 * (what != KEEP) + tokens))
        if entity < 0 or what == MASK:
            assert start not in carried
        elif what == KEEP:
            np.testing.assert_allclose(carried.pop(start), scaled(table, entity), atol=1e-6)
        else:
            vector = carried.pop(start)
            nearest = [np.allclose(vector, scaled(table, c), atol=1e-6) for c in candidates]
            assert sum(nearest) == 1
            # the same replacement for every mention of an entity in a sequence
            assert swapped.setdefault((sequence, entity), nearest.index(True)) == nearest.index(
                True
            )
    assert not carried
    columns = (found[name].tolist() for name in ("labelled", "labels", "mode"))
    assert list(zip(*columns, strict=True)) == asked


def test_replacements_are_drawn_evenly_among_the_candidates(table):
    """Over many sequences each candidate replaces about equally often."""
    count = 4000
    rows = [(n, 1, n, 0) for n in range(count)]
    step = rows + [(0, 1, 0, entity) for entity in range(ENTITIES)]
    given_ = given_of(rows, [RANDOM] * count, [False] * count, step, sequences=count)
    found = columns_of(table, given_)
    shares = np.bincount(found["owner"], minlength=ENTITIES) / count
    assert np.abs(shares - 1 / ENTITIES).max() < 5 * np.sqrt(1 / ENTITIES / count)


def test_vectors_have_a_mean_square_of_one_and_zero_stays_zero(tmp_path):
    vectors = np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32)
    small = write_table(tmp_path / "v.safetensors", ["a", "b"], vectors)
    compute = EntityColumns(small, np.array([0, 1, -1]), False, False, np.ones(3, dtype=np.bool_))
    found = compute(given_of([(1, 1, 0, 0), (3, 1, 0, 1)], [KEEP, KEEP], [False, False]))
    np.testing.assert_allclose(
        found["vectors"], np.sqrt(2) * np.array([[0.6, 0.8], [0, 0]]), atol=1e-6
    )

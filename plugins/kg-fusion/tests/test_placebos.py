"""Vectors that know nothing of their entities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_settings

from ptm_plus.ablation.arms import placebos_of
from ptm_plus.knowledge import VectorTable
from ptm_plus.progress import Silent
from ptm_plus_kg_fusion.placebos import permuted, random_of_same_norm

pytestmark = pytest.mark.kg_fusion


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.integers(0, 1000))
def test_permuted_vectors_are_the_same_ones_and_none_stays(count: int, seed: int) -> None:
    vectors = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    found = permuted(vectors, np.random.default_rng(seed))
    assert sorted(map(tuple, found)) == sorted(map(tuple, vectors))
    assert not (found == vectors).all(axis=1).any()


def test_random_vectors_have_the_norms_and_no_other_likeness() -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(200, 16)) * rng.uniform(0.1, 5, (200, 1))).astype(np.float32)
    found = random_of_same_norm(vectors, rng)
    norms = np.linalg.norm(vectors, axis=1)
    assert np.allclose(np.linalg.norm(found, axis=1), norms, rtol=1e-5)
    cosines = (found * vectors).sum(axis=1) / norms**2
    assert abs(cosines.mean()) < 0.1


def test_the_graphs_placebo_is_first_and_tables_keep_the_graph(tmp_path: Path) -> None:
    whole = tiny_settings(plugins=("kg-fusion",))
    found = placebos_of(whole, Silent())["kg-fusion"]
    assert [one.name for one in found] == ["shuffled-graph", "other-entities", "random-vectors"]
    before = VectorTable.open(whole.data.vectors)
    for one in found[1:]:
        changed = one.change(whole, tmp_path / one.name, 0)
        after = VectorTable.open(changed.data.vectors)
        assert changed.data.kg == whole.data.kg
        assert after.labels == before.labels
        assert not np.allclose(after.vectors, before.vectors)


def test_without_a_graph_vectors_alone_have_placebos() -> None:
    whole = tiny_settings(plugins=("kg-fusion",), **{"data.kg": None})
    found = placebos_of(whole, Silent())["kg-fusion"]
    assert [one.name for one in found] == ["other-entities", "random-vectors"]

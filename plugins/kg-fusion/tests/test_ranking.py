"""Held-out triples: their numbers, the baseline by brute force, early stopping."""

from __future__ import annotations

import json

import numpy as np
import pytest
from cli_files import document, run
from hypothesis import given
from hypothesis import strategies as st

from ptm_plus import DataError, SettingsError
from ptm_plus.knowledge import Graph
from ptm_plus_kg_fusion.ranking import metrics, popularity, read_held_out
from ptm_plus_kg_fusion.vectors import train_and_rank

pytestmark = pytest.mark.kg_fusion

ENTITIES = 7


@st.composite
def graphs(draw):
    row = st.tuples(st.integers(0, ENTITIES - 1), st.integers(0, 1), st.integers(0, ENTITIES - 1))
    rows = draw(st.lists(row, min_size=3, max_size=25, unique=True))
    cut = draw(st.integers(1, len(rows) - 2))
    more = draw(st.integers(cut + 1, len(rows) - 1))
    return [np.array(part) for part in (rows[:cut], rows[cut:more], rows[more:])]


@given(graphs())
def test_popularity_is_a_ranking_by_brute_force(parts):
    train, asked, others = parts
    true = {tuple(row) for part in parts for row in part.tolist()}
    ranks = []
    for side in (0, 2):
        for row in asked.tolist():
            scores = []
            for entity in range(ENTITIES):
                changed = [*row]
                changed[side] = entity
                if entity == row[side] or tuple(changed) not in true:
                    count = ((train[:, 1] == row[1]) & (train[:, side] == entity)).sum()
                    scores.append((entity, int(count)))
            own = dict(scores)[row[side]]
            best = 1 + sum(count > own for _, count in scores)
            worst = sum(count >= own for _, count in scores)
            ranks.append((best + worst) / 2)
    found = popularity(train, asked, [others], ENTITIES)
    assert found == pytest.approx(metrics(np.array(ranks)))


def test_metrics_by_hand():
    found = metrics(np.array([1.0, 2.0, 4.0, 20.0]))
    assert found["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 20) / 4)
    assert [found[f"hits_at_{k}"] for k in (1, 3, 10)] == [0.25, 0.5, 0.75]


def write(path, rows):
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_held_out_triples_have_the_graph_s_numbers(tmp_path):
    graph = Graph.build([("b", "r", "a"), ("c", "s", "a")])
    path = write(
        tmp_path / "v.tsv", [("a", "s", "b"), ("z", "r", "a"), ("a", "q", "b"), ("c", "r", "b")]
    )
    found = read_held_out([path], (), graph)
    assert sorted(found.triples.tolist()) == [[0, 1, 1], [2, 0, 1]]
    assert found.unknown == 2
    with pytest.raises(DataError, match="no held-out triple has"):
        read_held_out([write(tmp_path / "w.tsv", [("x", "r", "y")])], (), graph)


@pytest.fixture(scope="module")
def parts():
    """PyKEEN's own split of Nations."""
    from pykeen.datasets import Nations

    nations = Nations()
    names = {number: name for name, number in nations.entity_to_id.items()}
    kinds = {number: name for name, number in nations.relation_to_id.items()}
    return [
        [(names[h], kinds[r], names[t]) for h, r, t in part.mapped_triples.tolist()]
        for part in (nations.training, nations.validation, nations.testing)
    ]


def test_the_command_ranks_held_out_triples_and_stops_early(tmp_path, parts):
    files = [
        write(tmp_path / f"{n}.tsv", rows) for n, rows in zip(("a", "b", "c"), parts, strict=True)
    ]
    flags = ("--kg", files[0], "--valid", files[1], "--test", files[2], "--patience", "2")
    flags += ("--epochs", "200", "--dimension", "16", "--device", "cpu", "--quiet")
    found = document("kg", "train", *flags, "-o", tmp_path / "v.safetensors")
    figures = found["evaluation"]
    assert figures["held_out"] == len(parts[2])
    assert found["epochs"] < 200
    assert figures["mrr"] > 0.3
    assert figures["popularity_mrr"] > 0.3  # of 14 nations, some act all the time
    assert 0 <= figures["hits_at_1"] <= figures["hits_at_3"] <= figures["hits_at_10"] <= 1
    again = document("kg", "train", *flags, "-o", tmp_path / "w.safetensors")
    assert again["sha256"] == found["sha256"]


def test_early_stopping_needs_something_to_look_at(tmp_path, parts):
    with pytest.raises(SettingsError, match="early stopping needs validation triples"):
        train_and_rank(Graph.build(parts[0]), patience=3, epochs=1)
    result = run(
        "kg",
        "train",
        "--kg",
        write(tmp_path / "a.tsv", parts[0]),
        "--patience",
        "3",
        "-o",
        tmp_path / "v.safetensors",
    )
    assert result.exit_code == 2


def test_the_best_vectors_are_taken_and_not_the_last(parts):
    graph = Graph.build(parts[0])
    kinds = {name: number for number, name in enumerate(graph.relations)}
    valid = np.array([[graph.index[h], kinds[r], graph.index[t]] for h, r, t in parts[1]])
    options = {"dimension": 8, "patience": 2, "evaluate_every": 5, "learning_rate": 0.05}
    stopped = train_and_rank(graph, valid=valid, epochs=300, **options)
    exact = train_and_rank(
        graph, valid=valid, epochs=stopped.epochs, dimension=8, learning_rate=0.05
    )
    np.testing.assert_array_equal(stopped.vectors, exact.vectors)
    assert stopped.figures == exact.figures
    assert json.dumps(stopped.figures)

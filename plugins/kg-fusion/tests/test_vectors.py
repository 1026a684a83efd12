from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest

from ptm_plus.errors import DataError, EnvironmentProblem, SettingsError
from ptm_plus.knowledge import Graph

pytest.importorskip("pykeen")
torch = pytest.importorskip("torch")

from ptm_plus_kg_fusion import vectors as module  # noqa: E402
from ptm_plus_kg_fusion.vectors import VectorSettings, evaluate_vectors, train_vectors  # noqa: E402

pytestmark = pytest.mark.kg_fusion

# Sixty people, each of one of three towns by three facts.
TOWN = {f"p{at:02}": f"town{at % 3}" for at in range(60)}
GRAPH = Graph.build(
    (person, relation, f"{relation} {town}")
    for person, town in TOWN.items()
    for relation in ("born in", "lives in", "votes in")
)
QUICK = {"dimension": 16, "epochs": 30, "batch_size": 64}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_rows_follow_the_order_of_the_graph():
    vectors = train_vectors(GRAPH, **QUICK | {"epochs": 150})
    assert vectors.dtype == np.float32
    assert vectors.shape == (69, 16)
    people = vectors[[GRAPH.index[person] for person in TOWN]]
    unit = people / np.linalg.norm(people, axis=1, keepdims=True)
    likeness = unit @ unit.T
    same = np.equal.outer(list(TOWN.values()), list(TOWN.values()))
    np.fill_diagonal(likeness, np.nan)
    assert np.nanmean(likeness[same]) > np.nanmean(likeness[~same]) + 0.3


def test_a_seed_gives_the_same_vectors_and_leaves_other_randomness_alone():
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    first = train_vectors(GRAPH, **QUICK | {"epochs": 2}, seed=5)
    assert random.getstate() == states[0]
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])
    assert torch.equal(torch.get_rng_state(), states[2])
    torch.manual_seed(99)
    np.testing.assert_array_equal(first, train_vectors(GRAPH, **QUICK | {"epochs": 2}, seed=5))
    assert not np.array_equal(first, train_vectors(GRAPH, **QUICK | {"epochs": 2}, seed=6))


@pytest.mark.parametrize(
    ("model", "width"),
    [
        ("transe", 16),
        ("DistMult", 16),
        ("RotatE", 32),
        ("ComplEx", 32),
        ("TransD", 32),
        ("MuRE", 18),
    ],
)
def test_models_by_name_give_real_vectors(model, width):
    vectors = train_vectors(GRAPH, model=model, **QUICK | {"epochs": 1})
    assert vectors.shape == (69, width)
    assert vectors.dtype == np.float32


@pytest.mark.parametrize(
    ("triples", "epochs", "batch_size"),
    [(10, 100, 10), (100, 100, 64), (1500, 100, 187), (40_000, 50, 4096), (325_149, 20, 4096)],
)
def test_length_and_batch_follow_the_size_of_the_graph(triples, epochs, batch_size):
    settings = VectorSettings()
    assert settings.epochs_for(triples) == epochs
    assert settings.batch_size_for(triples) == batch_size
    given = VectorSettings(epochs=3, batch_size=50)
    assert (given.epochs_for(triples), given.batch_size_for(triples)) == (3, min(50, triples))


def test_complex_numbers_become_real_pairs():
    numbers = torch.tensor([[1 + 2j, 3 - 4j]])
    assert module._real(numbers).tolist() == [[1, 2, 3, -4]]
    assert module._real(torch.arange(6.0).reshape(1, 2, 3)).shape == (1, 6)


def test_progress_is_called_once_per_epoch_with_falling_losses():
    seen = []
    train_vectors(GRAPH, **QUICK | {"epochs": 10}, progress=lambda *event: seen.append(event))
    assert [event[:2] for event in seen] == [(epoch, 10) for epoch in range(1, 11)]
    assert seen[-1][2] < seen[0][2]


def test_evaluation_ranks_held_out_triples_above_chance():
    figures = evaluate_vectors(GRAPH, **QUICK | {"epochs": 60}, held_out=0.1)
    assert figures["held_out"] == 18
    assert 0 <= figures["hits_at_1"] <= figures["mrr"] <= 1
    assert figures["hits_at_1"] <= figures["hits_at_10"]
    assert figures["hits_at_10"] > 2 * 10 / 69


def test_mistakes_are_settings_errors():
    with pytest.raises(SettingsError, match=r"'TransEE'; did you mean 'TransE'\?"):
        train_vectors(GRAPH, model="TransEE")
    with pytest.raises(SettingsError, match="dimension = 0: it must be above zero"):
        train_vectors(GRAPH, dimension=0)
    with pytest.raises(SettingsError, match="held_out = 1"):
        evaluate_vectors(GRAPH, held_out=1.0)
    with pytest.raises(SettingsError, match="'InductiveNodePiece' cannot be made"):
        train_vectors(GRAPH, model="InductiveNodePiece")


def test_divergence_is_a_data_error(monkeypatch):
    monkeypatch.setattr(module, "_entity_vectors", lambda _: np.full((69, 2), np.nan))
    with pytest.raises(DataError, match="training TransE diverged"):
        train_vectors(GRAPH, **QUICK | {"epochs": 1})


def test_a_missing_pykeen_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pykeen.models", None)
    with pytest.raises(EnvironmentProblem) as error:
        train_vectors(GRAPH, **QUICK)
    assert error.value.hint == 'pip install "ptm-plus[kg-fusion]"'


PROGRAM = """
import sys
import ptm_plus_kg_fusion.vectors as module
assert not {"torch", "pykeen"} & sys.modules.keys()
from ptm_plus.knowledge import Graph
graph = Graph.build([("a", "r", "b"), ("b", "r", "c")])
module.train_vectors(graph, dimension=4, epochs=1)
"""


def test_training_is_silent_and_writes_nothing_at_home(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"HOME": str(tmp_path), "PYTHONPATH": ":".join(path for path in sys.path if path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path for path in tmp_path.iterdir() if path.name != ".nv"] == []  # the driver's own

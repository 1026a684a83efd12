from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pykeen")
torch = pytest.importorskip("torch")

from pykeen.models import model_resolver  # noqa: E402
from pykeen.triples import CoreTriplesFactory  # noqa: E402

from ptm_plus_kg_fusion.shared_negatives import batch_loss, epochs, scores  # noqa: E402

pytestmark = pytest.mark.kg_fusion

ENTITIES, RELATIONS = 23, 4
TRIPLES = torch.from_numpy(
    np.random.default_rng(7).integers(0, (ENTITIES, RELATIONS, ENTITIES), size=(60, 3))
)
MODELS = ["TransE", "RotatE", "DistMult", "ComplEx", "MuRE", "TransH", "ConvKB"]


def make(name, **options):
    factory = CoreTriplesFactory(TRIPLES, ENTITIES, RELATIONS)
    model = model_resolver.make(
        name, triples_factory=factory, embedding_dim=8, random_seed=3, **options
    )
    model.double().eval()
    model.post_parameter_update()  # RotatE's rotations have length 1 in double precision too
    return model


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in MODELS), ("TransE", {"scoring_fct_norm": 2})],
    ids=[*MODELS, "TransE-2"],
)
@pytest.mark.parametrize("side", [0, 2])
def test_scores_are_those_of_pykeen_triple_by_triple(name, options, side):
    model = make(name, **options)
    drawn = torch.tensor([5, 0, 22, 5])
    with torch.no_grad():
        true, others = scores(model, TRIPLES, side, drawn)
        for at, triple in enumerate(TRIPLES):
            assert true[at].item() == pytest.approx(model.score_hrt(triple[None]).item(), abs=1e-10)
            for place, entity in enumerate(drawn):
                replaced = triple.clone()
                replaced[side] = entity
                expected = model.score_hrt(replaced[None]).item()
                assert others[at, place].item() == pytest.approx(expected, abs=1e-10)


def test_the_loss_is_the_cross_entropy_against_all_but_the_answer():
    """With every entity drawn: 1-N scoring, written out with numpy."""
    model = make("DistMult")
    h, r, t = TRIPLES.T.numpy()
    e = model.entity_representations[0](None).detach().numpy()
    w = model.relation_representations[0](None).detach().numpy()
    tails, heads = (e[h] * w[r]) @ e.T, (e[t] * w[r]) @ e.T
    rows = np.arange(len(TRIPLES))
    expected = np.mean(
        [np.log(np.exp(s).sum(1)) - s[rows, own] for s, own in ((tails, t), (heads, h))]
    )
    loss = batch_loss(model, TRIPLES, torch.arange(ENTITIES))
    assert loss.item() == pytest.approx(expected, abs=1e-10)


def test_a_draw_of_nothing_but_the_answer_costs_nothing():
    model = make("TransE")
    triple = torch.tensor([[1, 0, 1]])
    assert batch_loss(model, triple, torch.tensor([1, 1])).item() == 0
    batch_loss(model, triple, torch.tensor([1, 1])).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("negatives", [5, 100])
def test_every_triple_is_seen_once_an_epoch_in_equal_steps(negatives, monkeypatch):
    seen = []

    def remember(model, batch, drawn):
        seen.append((batch.tolist(), drawn.tolist()))
        return batch_loss(model, batch, drawn)

    monkeypatch.setattr("ptm_plus_kg_fusion.shared_negatives.batch_loss", remember)
    options = {"batch_size": 25, "learning_rate": 0.01, "negatives": negatives, "seed": 1}
    losses = list(epochs(make("DistMult"), TRIPLES, number=2, **options))
    assert [len(batch) for batch, _ in seen] == [20] * 6
    for half in (seen[:3], seen[3:]):
        assert sorted(row for batch, _ in half for row in batch) == sorted(TRIPLES.tolist())
    assert {len(drawn) for _, drawn in seen} == {min(negatives, ENTITIES)}
    assert losses[1] < losses[0]

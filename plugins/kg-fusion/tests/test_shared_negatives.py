from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pykeen")
torch = pytest.importorskip("torch")

from pykeen.models import model_resolver  # noqa: E402
from pykeen.triples import CoreTriplesFactory  # noqa: E402

from ptm_plus_kg_fusion.shared_negatives import batch_loss, epochs, scores  # noqa: E402
from ptm_plus_kg_fusion.touched_rows import FACTOR, TouchedRows, few_are_touched  # noqa: E402

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


# ---------------------------------------------------------------------------------------------
# Updates of what a step touches


STEPS = [(TRIPLES[:3], torch.tensor([5, 0])), (TRIPLES[3:5], torch.tensor([0, 9, 9]))]


def loss_of(model, batch, drawn):
    return batch_loss(model, batch, drawn) + model.collect_regularization_term()


def constrained(representation, rows):
    """Rows under their table's constraint, one by one."""
    if representation.constrainer is None:
        return rows
    numbers = (
        torch.view_as_complex(rows.view(len(rows), -1, 2)) if representation.is_complex else rows
    )
    found = torch.cat([representation.constrainer(one[None]) for one in numbers])
    return torch.view_as_real(found).flatten(1) if representation.is_complex else found


@pytest.mark.parametrize("name", ["TransE", "RotatE", "DistMult", "ComplEx", "TransD"])
def test_touched_rows_are_adagrad_s_and_others_stay(name):
    """Against Adagrad written out row by row, on the dense gradient of a second model."""
    model, other = make(name).train(), make(name).train()
    updates = TouchedRows(model, 0.01)
    tables = [next(one.parameters()) for one in other.entity_representations]
    rest = [p for p in other.get_grad_params() if all(p is not table for table in tables)]
    adam = torch.optim.Adam(rest, lr=0.01)
    sums = [torch.zeros_like(table) for table in tables]
    for batch, drawn in STEPS:
        updates.zero_grad()
        loss_of(model, batch, drawn).backward()
        updates.step()
        other.zero_grad()
        loss_of(other, batch, drawn).backward()
        adam.step()
        touched = sorted({*batch[:, 0].tolist(), *batch[:, 2].tolist(), *drawn.tolist()})
        for representation, table, kept in zip(
            other.entity_representations, tables, sums, strict=True
        ):
            with torch.no_grad():
                for row in touched:
                    kept[row] += table.grad[row] ** 2
                    table[row] -= FACTOR * 0.01 * table.grad[row] / (kept[row].sqrt() + 1e-10)
                table[touched] = constrained(representation, table[touched])
        for one in other.relation_representations:
            one.post_parameter_update()
        expected = dict(other.named_parameters())
        for key, parameter in model.named_parameters():
            torch.testing.assert_close(parameter, expected[key], rtol=1e-10, atol=1e-12)


def test_rows_that_no_step_names_do_not_move():
    model = make("TransE").train()
    before = model.entity_representations[0](None).detach().clone()
    updates = TouchedRows(model, 0.01)
    for batch, drawn in STEPS:
        updates.zero_grad()
        loss_of(model, batch, drawn).backward()
        updates.step()
    after = model.entity_representations[0](None).detach()
    named = {int(e) for batch, drawn in STEPS for e in [*batch[:, [0, 2]].flatten(), *drawn]}
    moved = {row for row in range(ENTITIES) if not torch.equal(before[row], after[row])}
    assert moved == named
    assert len(named) < ENTITIES


@pytest.mark.parametrize(
    ("name", "batch_size", "negatives", "few"),
    [
        ("TransE", 2, 1, True),
        ("TransE", 2, 2, False),
        ("TransE", 3, 1, False),
        ("RGCN", 2, 1, False),
    ],
)
def test_few_are_a_quarter_of_23_in_plain_tables(name, batch_size, negatives, few):
    assert few_are_touched(make(name), batch_size, negatives) is few


def test_training_updates_the_way_that_fits(monkeypatch):
    used = []
    monkeypatch.setattr(TouchedRows, "step", lambda updates: used.append("touched"))
    options = {"number": 1, "learning_rate": 0.01, "negatives": 1, "seed": 1}
    list(epochs(make("TransE"), TRIPLES, batch_size=2, **options))
    assert len(used) == 30
    list(epochs(make("TransE"), TRIPLES, batch_size=20, **options))
    assert len(used) == 30

"""A planted leak is told of; a model that has to guess is not."""

from __future__ import annotations

import pytest
from tiny import Recorder, tiny_settings

from ptm_plus.launch import launch
from ptm_plus.processes import make_accelerator
from ptm_plus.train import Trainer
from ptm_plus_kg_fusion.entities import EntityColumns
from ptm_plus_kg_fusion.leaks import leaks

pytestmark = pytest.mark.kg_fusion


def figures(**accuracy):
    return {"text": {mode: {"accuracy": a, "asked": n} for mode, (a, n) in accuracy.items()}}


@pytest.mark.parametrize(
    ("modes", "told"),
    [
        ({"neither": (0.9, 200), "both": (0.9, 100)}, "hidden (90% of 100) as in mode 'neither'"),
        ({"neither": (0.9, 200), "entity": (0.2, 99), "both": (0.3, 200)}, ""),
        ({"neither": (0.9, 200), "both": (0.8, 30)}, "(80% of 30)"),  # within two errors
        ({"neither": (0.9, 2000), "both": (0.8, 400)}, ""),
        ({"neither": (0.9, 200), "both": (0.9, 19)}, ""),  # too few
        ({"entity": (0.4, 80), "both": (0.5, 80)}, "in mode 'entity' (40% of 80)"),
        ({"entity": (0.01, 800), "both": (0.02, 800)}, ""),  # nothing is known yet
        ({"both": (0.9, 90)}, ""),
        ({}, ""),
    ],
)
def test_masking_that_takes_nothing_away_is_told_of(modes, told):
    found = list(leaks(figures(**modes)))
    assert bool(found) == bool(told)
    assert all(told in one for one in found)


def run(tmp_path, sets=()):
    values = {"train.steps": 60, "train.lr": 3e-3, "train.log_every": 60, "data.held_out": 0.4}
    plugin = {"kg-fusion": {"modes": "balanced", "label_all": True, "dea_weight": 1.0, "lr": 3.0}}
    settings = tiny_settings("bert", ("kg-fusion",), output=tmp_path, plugin=plugin, **values)
    watch = Recorder()
    trainer = Trainer(launch(settings, watch), watch, make_accelerator("fp32", "cpu"))
    trainer.fit()
    trainer._evaluate()
    return [note for note in watch.notes if "something gives them away" in note], watch


def test_a_vector_that_stays_where_it_should_go_is_found(tmp_path, monkeypatch):
    """Planted: the plan's treatment is not looked at, so a masked entity keeps its vector."""
    sound, watch = run(tmp_path / "sound")
    assert not sound, watch.seen[-1]
    compute = EntityColumns.__call__

    def leaking(self, given):
        made = dict(compute(self, given))
        kept = {k: v * 0 for k, v in given.plan.treatment.items()}
        plan = type(given.plan)(**{**vars(given.plan), "treatment": kept})
        whole = compute(self, type(given)(given.view, plan, given.draws, given.step_spans))
        return {
            **made,
            **{name: whole[name] for name in ("positions", "owner", "vectors", "table", "place")},
        }

    monkeypatch.setattr(EntityColumns, "__call__", leaking)
    told, watch = run(tmp_path / "leaking")
    assert told, watch.seen[-1]

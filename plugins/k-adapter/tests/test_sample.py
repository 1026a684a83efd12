"""The sample world: two stages, relations and dependencies, whatever the instances are called."""

from __future__ import annotations

import pytest

from ptm_plus.progress import Silent
from ptm_plus.sample_run import train_sample
from ptm_plus.settings_files import resolve

pytestmark = pytest.mark.k_adapter


@pytest.mark.parametrize(
    ("plugins", "tasks"),
    [
        (["k-adapter"], {"k-adapter_tasks": {"relation", "dependency"}}),
        (
            ["k-adapter:fac", "k-adapter:lin"],
            {"k-adapter:fac_tasks": {"relation"}, "k-adapter:lin_tasks": {"dependency"}},
        ),
    ],
)
def test_the_sample_has_sentences_for_every_task(tmp_path, plugins, tasks):
    flags = {
        "plugins": plugins,
        "output": str(tmp_path / "run"),
        "train.steps": 4,
        "prepare.cache": str(tmp_path / "cache"),
        "prepare.workers": 1,
        "evaluate.sequences": 16,
    }
    sets = ["model.config.hidden_size=16", "model.config.intermediate_size=16"]
    sets += ["model.config.num_attention_heads=2", "model.config.num_hidden_layers=2"]
    report = train_sample(resolve(None, flags, sets), Silent(), device="cpu")
    evaluation = report["evaluation"]
    assert {name: set(evaluation[name]) for name in tasks} == tasks
    for name in tasks:
        for figures in evaluation[name].values():
            assert figures["asked"] > 10
            assert 0 < figures["most_frequent"] < 0.7
            assert 0 <= figures["accuracy"] <= 1
    assert report["baseline"]["steps"] == report["steps"] == 4

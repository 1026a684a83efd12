"""The main job with no files: a few steps with plugins, and without them beside it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from ptm_plus.progress import Silent
from ptm_plus.report import read_report
from ptm_plus.run_folder import read_folder
from ptm_plus.sample_run import compare, is_sample, train_sample
from ptm_plus.settings_files import resolve
from ptm_plus.training_run import Resume

pytestmark = [pytest.mark.kg_fusion, pytest.mark.tlm]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three steps."""
    home = tmp_path_factory.mktemp("sample")
    flags: dict[str, Any] = {
        "plugins": ["tlm", "kg-fusion"],
        "output": str(home / "run"),
        "train.steps": 3,
        "train.log_every": 1,
        "prepare.cache": str(home / "cache"),
        "prepare.workers": 1,
        "evaluate.sequences": 16,
    }
    sets = ["plugin.kg-fusion.vectors.epochs=1", "model.config.hidden_size=16"]
    sets += ["model.config.num_attention_heads=2", "model.config.num_hidden_layers=2"]
    report = train_sample(resolve(None, flags, sets), Silent(), device="cpu")
    assert report == read_report(home / "run")
    return home / "run"


def test_every_figure_of_the_table_is_measured(folder: Path) -> None:
    report = read_report(folder)
    for name in ("in_text_facts", "graph_only_facts"):
        probe = report["probes"][name]
        for column in (probe, probe["over_objects"]):
            assert column["shuffled_graph"] is None
            for own in ("with_plugins", "without_plugins", "majority_guess"):
                assert 0 <= column[own] <= 1
        assert probe["over_objects"]["majority_guess"] < probe["majority_guess"] < 0.6
        assert probe["questions"] > 500
    retrieval = report["probes"]["translation_retrieval"]
    assert {"with_plugins", "without_plugins", "questions"} == set(retrieval)
    assert {"mlm", "tlm", "dea"} == set(report["objectives"])
    assert {"mlm"} == set(report["baseline"]["objectives"])


def test_single_values_of_a_table_are_the_user_s_and_the_others_the_sample_s(folder: Path) -> None:
    for run in (folder, folder / "without-plugins"):
        config = tomllib.loads((run / "settings.toml").read_text(encoding="utf-8"))["model"][
            "config"
        ]
        assert (config["hidden_size"], config["intermediate_size"]) == (16, 512)


def test_both_runs_do_as_many_steps_on_the_same_data(folder: Path) -> None:
    report, other = read_report(folder), read_report(folder / "without-plugins")
    assert report["steps"] == other["steps"] == 3
    assert [one["name"] for one in report["plugins"]] == ["kg-fusion", "tlm"]
    assert other["plugins"] == []
    with_, without = read_folder(folder).settings, read_folder(folder / "without-plugins").settings
    assert with_.data == without.data
    assert (with_.train, with_.batch, with_.model) == (without.train, without.batch, without.model)


def test_a_finished_run_resumes_to_the_same_table(folder: Path) -> None:
    before = read_report(folder)
    settings = read_folder(folder).settings
    assert is_sample(settings)
    after = compare(settings, Silent(), device="cpu", resume=Resume())
    assert after["probes"] == before["probes"]
    assert after["objectives"] == before["objectives"]

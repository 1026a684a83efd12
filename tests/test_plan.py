"""``plan``: what it says against figures made by hand, and that it makes nothing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from cli_files import Files, document, run, write_files

from ptm_plus.cli.plan_costs import memory


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(tmp_path_factory.mktemp("plan"))


def test_a_dry_run_makes_nothing_and_says_what_is_missing(tmp_path: Path) -> None:
    files = write_files(tmp_path)
    plan = document("plan", files.settings)
    assert plan["missing"] == "tokenizer would be made first"
    assert "model" not in plan
    made = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert sorted(made)[-1:] == ["fingerprints.json"]
    assert all(name.endswith(".lock") for name in sorted(made)[:-1])
    assert "With --prepare" in run("plan", files.settings).stdout


def test_prepared_data_are_counted(files: Files) -> None:
    prepared = document("prepare", files.settings, "--quiet")["streams"]["text"]
    plan = document("plan", files.settings, "--steps", 50)
    assert plan["missing"] == ""
    assert all(one["present"] for one in plan["prepare"])
    (stream,) = plan["streams"]
    (stratum,) = stream["strata"]
    assert (stream["stream"], stratum["stratum"]) == ("text", "en")
    assert stream["objectives"] == [{"name": "mlm", "owner": "core", "weight": 1.0}]
    assert 0.9 * prepared["tokens"] < stratum["tokens"] <= prepared["tokens"]
    assert stratum["epochs"] == pytest.approx(50 * 4 / stratum["rows"])
    assert stratum["fill"] == pytest.approx(stratum["tokens"] / (stratum["rows"] * 128))


def test_a_changed_setting_says_what_is_rebuilt(files: Files) -> None:
    document("prepare", files.settings, "--quiet")
    plan = document("plan", files.settings, "--set", "prepare.max_length=10")
    reasons = {one["artifact"]: one["reason"] for one in plan["prepare"]}
    assert reasons["tokens"] == "changed: max_length"
    assert document("plan", files.settings, "--set", "masking.rate=0.3")["missing"] == ""


def test_parameters_and_operations_follow_from_the_configuration(files: Files) -> None:
    plan = document("plan", files.settings, "--prepare")
    model = plan["model"]
    d, inner = 16, 32
    block = 4 * (d * d + d) + 2 * d + (d * inner + inner) + (inner * d + d) + 2 * d
    transform = d * d + d + 2 * d
    operations = model["operations_per_token"]
    assert operations["blocks"] == 6 * 2 * block
    words = (operations["head"] / (6 * 0.15) - transform) / (d + 1)  # rows and their biases
    assert words == pytest.approx(round(words))
    positions = 128
    embeddings = (round(words) + positions + 2) * d + 2 * d
    assert model["backbone"]["trained"] == 2 * block + transform + round(words) + embeddings
    assert operations["parts"] == 0
    assert model["memory"]["total"] == 16 * model["backbone"]["trained"]


def test_masks_spend_the_budget(files: Files) -> None:
    (kind,) = document("plan", files.settings, "--prepare")["masking"]
    assert kind["kind"] == "word"
    assert kind["budget"] == pytest.approx(0.15)
    assert 0.1 < kind["predicted"] < 0.2


def test_a_rate_that_changes_is_planned_at_both_its_ends(files: Files) -> None:
    constant = document("plan", files.settings, "--prepare", "--set", "masking.rate=0.4")
    changing = ("--set", "masking.rate=0.2", "--set", "masking.final_rate=0.6")
    plan = document("plan", files.settings, *changing)
    assert [one["rate"] for one in plan["masking"]] == [0.2, 0.6]
    assert [one["budget"] for one in plan["masking"]] == pytest.approx([0.2, 0.6])
    assert 2 < plan["masking"][1]["predicted"] / plan["masking"][0]["predicted"] < 4
    heads = [one["model"]["operations_per_token"]["head"] for one in (plan, constant)]
    assert heads[0] == pytest.approx(heads[1])
    shown = run("plan", files.settings, *changing).stdout
    assert "20.0 % to 60.0 %" in shown


def test_frozen_parameters_have_no_gradient_and_no_moments() -> None:
    figures = memory([{"trained": 10, "frozen": 5}, {"trained": 0, "frozen": 1}])
    assert figures == {"weights": 64, "gradients": 40, "optimizer": 80, "total": 184}


def test_muon_keeps_one_number_of_a_matrix_where_adamw_keeps_two(files: Files) -> None:
    given = ("plan", files.settings, "--prepare", "--set")
    before, after = (
        document(*given, f"train.optimizer={kind}")["model"]["memory"]["optimizer"]
        for kind in ("adamw", "muon")
    )
    d, inner, layers = 16, 32, 2
    assert before - after == 4 * layers * (4 * d * d + 2 * d * inner)


@pytest.mark.kg_fusion
def test_long_work_is_named_and_not_done(files: Files) -> None:
    flags = ("--kg", files.kg, "--labels", files.labels, "--plugin", "kg-fusion")
    document("prepare", files.settings, *flags, "--quiet")
    plan = document("plan", files.settings, *flags)
    assert plan["missing"] == "TransE vectors would be made first"
    assert not list((files.folder / "cache").glob("vectors/*.safetensors"))
    assert [one["kind"] for one in plan["masking"]] == ["entity", "word"]
    (plugin,) = plan["plugins"]
    assert "ptm_objectives" in plugin["hooks"]


@pytest.mark.kg_fusion
def test_parts_are_counted_with_their_export_class(files: Files) -> None:
    flags = ("--kg", files.kg, "--labels", files.labels, "--plugin", "kg-fusion")
    flags += ("--set", "plugin.kg-fusion.vectors.epochs=1")
    plan = document("plan", files.settings, *flags, "--prepare", "--quiet")
    export = {one["name"]: one["export"] for one in plan["model"]["parts"]}
    assert export == {"fusion": "needed", "head": "train-only"}
    assert plan["features"] == [{"plugin": "kg-fusion", "name": "entities", "scope": "step"}]
    shown = run("plan", files.settings, *flags).stdout
    assert "train-only" in shown
    assert "FLOPs per token" in shown
    assert [one["name"] for one in plan["stages"]] == ["main"]
    assert "who trains" not in shown


@pytest.mark.kg_fusion
def test_stages_are_shown_with_what_each_of_them_trains(files: Files) -> None:
    stages = '[{name="a", plugins=["core"], share=3}, {name="b", plugins=["kg-fusion"]}]'
    flags = ("--kg", files.kg, "--labels", files.labels, "--plugin", "kg-fusion")
    flags += ("--set", "plugin.kg-fusion.vectors.epochs=1", "--set", f"train.stages={stages}")
    flags += ("--steps", "8")
    first, second = document("plan", files.settings, *flags, "--prepare", "--quiet")["stages"]
    assert (first["first"], first["steps"], second["first"], second["steps"]) == (0, 6, 6, 2)
    assert (first["losses"], second["losses"]) == (["text/mlm"], ["text/dea"])
    assert first["trained"] < second["trained"]  # the fusion rests in the first
    assert "who trains" in run("plan", files.settings, *flags).stdout


def test_the_mixture_of_a_whole_run_is_told(files: Files, tmp_path: Path) -> None:
    rare = tmp_path / "rare.txt"
    rare.write_text("ein Weg\n\nein Haus\n", encoding="utf-8")
    flags = ("--text", files.text, "--text", f"de={rare}", "--steps", "40", "--quiet")
    flags += ("--set", "batch.alpha.text=[[0, 0.5], [0.5, 0]]")
    flags += ("--set", "batch.joins.text.de=0.25", "--set", "batch.max_epochs=20")
    plan = document("plan", files.settings, *flags, "--prepare")
    english, german = plan["streams"][0]["strata"]
    assert (english["stratum"], german["stratum"]) == ("en", "de")
    p = german["tokens"] ** 0.5 / (german["tokens"] ** 0.5 + english["tokens"] ** 0.5)
    assert german["share"] == pytest.approx(0.25 * p + 0.5 * 0.5)
    assert german["epochs"] == pytest.approx(german["share"] * 40 * 4 / german["rows"])
    assert german["used_up"] == 10 + math.ceil(german["rows"] / (4 * p))
    assert german["too_often"]
    assert not english["too_often"]
    mixture = plan["mixture"]
    assert mixture["alpha"] == {"text": [[0, 0.5], [0.5, 0]]}
    (warning,) = mixture["warnings"]
    assert warning.startswith("text/de is read ")
    shown = " ".join(run("plan", files.settings, *flags).stdout.split())
    assert "α = 0.5, 0 from 50.0 % on; de from 25.0 % on" in shown
    assert f"2 of 2, text/en first (step {english['used_up']} of 40); then again" in shown
    assert warning in shown
    kept = document("plan", files.settings, *flags, "--set", "batch.exhausted=limit")
    assert kept["streams"][0]["strata"][1]["epochs"] == pytest.approx(20)
    assert kept["mixture"]["warnings"] == []


def test_many_strata_share_the_last_row() -> None:
    from ptm_plus.cli.plan_tables import _strata

    one = {"tokens": 1000, "share": 0.1, "fill": 0.9, "rows": 10, "too_often": False}
    strata = [one | {"stratum": f"s{number}", "epochs": number} for number in range(12)]
    rows = list(_strata(strata))
    assert [row[0] for row in rows] == [f"s{number}" for number in range(8)] + ["4 more"]
    assert rows[-1] == ("4 more", "4,000", "40.0 %", "8.0 – 11.0", "90.0 %")
    assert len(list(_strata(strata[:9]))) == 9
    strata[10] |= {"too_often": True}
    rows = list(_strata(strata))
    assert [row[0] for row in rows[8:]] == ["s10", "3 more"]
    assert rows[8][3] == "10.0 !"
    assert rows[9][3] == "8.0 – 11.0"

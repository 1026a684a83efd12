"""The command line: what it refuses, with which code and words, and what it prints."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cli_files import Files, document, run, write_files

import ptm_plus


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return write_files(tmp_path)


def refused(code: int, *arguments: object) -> str:
    """Return what a refused command says; nothing may be on stdout, and no traceback."""
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return str(result.stderr)


# ---------------------------------------------------------------------------------------------
# Usage and settings: 2


def test_version() -> None:
    assert run("--version").stdout.strip() == f"ptm-plus {ptm_plus.__version__}"


def test_no_arguments_show_the_commands() -> None:
    shown = run().output
    for command in ("train", "resume", "plan", "prepare", "preview", "kg", "export", "doctor"):
        assert command in shown


@pytest.mark.parametrize("arguments", [["trian"], ["train", "--stesp", "3"], ["resume"]])
def test_usage_errors_leave_with_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_a_misspelt_setting_is_named_with_its_neighbour(files: Files) -> None:
    said = refused(2, "train", files.settings, "--set", "train.stepz=3")
    assert "'train.stepz'" in said
    assert "did you mean 'train.steps'" in said
    assert "hint: " in said
    assert not (files.folder / "run").exists()


def test_a_wrong_value_is_shown_with_key_and_origin(files: Files) -> None:
    said = refused(2, "prepare", files.settings, "--set", "masking.rate=2")
    assert "masking.rate: found 2 (--set)" in said


def test_two_settings_files_are_refused(files: Files) -> None:
    said = refused(2, "config", "show", files.settings, "--config", files.settings)
    assert "two settings files" in said


def test_a_missing_settings_file_is_named(tmp_path: Path) -> None:
    assert "gone.toml" in refused(2, "train", tmp_path / "gone.toml")


def test_an_unknown_device_or_format_is_refused(files: Files) -> None:
    assert "--device gpu" in refused(2, "train", files.settings, "--device", "gpu")
    assert "'plain'" in refused(2, "prepare", files.settings, "--log-format", "plane")


def test_a_graph_without_text_is_not_enough(files: Files) -> None:
    assert "no text was given" in refused(2, "prepare", "--kg", files.kg)
    assert "no text was given" in refused(2, "plan", "--kg", files.kg)


def test_without_any_data_the_sample_is_planned(tmp_path: Path) -> None:
    cache = f"prepare.cache={str(tmp_path / 'cache')!r}"
    plan = document("plan", "--output", tmp_path / "run", "--set", cache, "--steps", 9)
    assert plan["run"]["steps"] == 9
    assert plan["missing"] == "tokenizer would be made first"
    assert (tmp_path / "run" / "sample" / "text.jsonl").is_file()


# ---------------------------------------------------------------------------------------------
# Plugins: 3


def test_an_unknown_plugin_stops_before_the_run_folder_is_made(files: Files) -> None:
    said = refused(3, "train", files.settings, "--plugin", "kg-fusoin")
    assert "did you mean 'kg-fusion'" in said
    assert not (files.folder / "run").exists()


def test_a_broken_plugin_file_is_named_with_the_cause(files: Files) -> None:
    broken = files.folder / "broken.py"
    broken.write_text("raise ValueError('on purpose')\n", encoding="utf-8")
    said = refused(3, "plan", files.settings, "--plugin", broken)
    assert "ValueError: on purpose" in said


def test_verbose_adds_the_traceback(files: Files) -> None:
    result = run("plan", files.settings, "--plugin", "nothing-like-it", "-v")
    assert result.exit_code == 3
    assert "Traceback" in result.stderr


# ---------------------------------------------------------------------------------------------
# Data: 4


def test_a_missing_file_is_named(files: Files) -> None:
    said = refused(4, "prepare", files.settings, "--text", files.folder / "gone.jsonl")
    assert "gone.jsonl" in said
    assert "no such file" in said


def test_a_broken_line_is_named_with_its_number(files: Files) -> None:
    with files.text.open("a", encoding="utf-8") as file:
        file.write('{"text": "cut sho\n')
    said = refused(4, "prepare", files.settings, "--quiet")
    assert f"{files.text}:121: " in said.replace("\n", "")


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path: Path) -> None:
    assert "no settings.toml" in refused(4, "resume", tmp_path)
    assert "no such folder" in refused(4, "export", tmp_path / "gone", "--to", tmp_path / "out")


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(files: Files) -> None:
    folder = files.folder / "run"
    folder.mkdir()
    files.settings.rename(folder / "settings.toml")
    assert document("resume", folder, "--quiet", "--device", "cpu")["steps"] == 2


# ---------------------------------------------------------------------------------------------
# Run folders


def test_a_run_with_checkpoints_is_not_overwritten(files: Files) -> None:
    kept = files.folder / "run" / "checkpoints" / "step-000000002"
    kept.mkdir(parents=True)
    said = refused(2, "train", files.settings)
    assert "holds a run with checkpoints" in said
    assert f"ptm-plus resume {files.folder / 'run'}" in said.replace("\n", "")
    assert kept.exists()


def test_an_output_that_is_a_file_is_refused(files: Files) -> None:
    said = refused(2, "train", files.settings, "--output", files.text)
    assert "is a file" in said
    assert files.text.read_text(encoding="utf-8").count("\n") == 120


def test_claiming_a_folder_writes_settings_and_removes_only_the_run(files: Files) -> None:
    from ptm_plus.cli.folders import claim_folder
    from ptm_plus.run_folder import read_folder, write_settings
    from ptm_plus.settings_files import resolve

    settings = resolve(files.settings).settings
    folder = settings.output
    (folder / "checkpoints" / "step-000000001").mkdir(parents=True)
    (folder / "mine.txt").write_text("kept", encoding="utf-8")
    claim_folder(settings, overwrite=True)
    write_settings(settings)
    assert sorted(path.name for path in folder.iterdir()) == [
        "mine.txt",
        "run.lock",
        "settings.toml",
    ]
    assert read_folder(folder).settings == settings
    moved = folder.rename(files.folder / "moved")
    assert read_folder(moved).settings.output == moved


def test_a_run_is_trained_kept_and_resumed(files: Files) -> None:
    folder = files.folder / "run"
    report = document("train", files.settings, "--quiet", "--device", "cpu")
    assert report == json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["steps"] == 2
    log = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    kinds = [json.loads(line)["kind"] for line in log]
    assert {"account", "step", "evaluation"} <= set(kinds)
    assert "resume" in refused(2, "train", files.settings)
    longer = ("train", files.settings, "--steps", 3, "--overwrite")
    shown = run(*longer)
    assert shown.exit_code == 0
    assert "3 steps" in shown.stdout
    assert "train: done, 3 in" in shown.stderr
    assert document("resume", folder, "--quiet")["steps"] == 3


# ---------------------------------------------------------------------------------------------
# What is printed


def test_config_show_prints_toml_that_resolves_to_itself(files: Files) -> None:
    shown = run("config", "show", files.settings, "--steps", 7, "--set", "train.lr=1e-4").stdout
    table = tomllib.loads(shown)
    assert table["train"]["steps"] == 7
    assert table["train"]["lr"] == 1e-4
    again = files.folder / "again.toml"
    again.write_text(shown, encoding="utf-8")
    assert run("config", "show", again).stdout == shown


def test_config_show_says_where_values_come_from(files: Files) -> None:
    shown = document("config", "show", files.settings, "--seed", 3, "--origin")
    origins = shown["origins"]
    assert origins["train.seed"] == "command line"
    assert origins["train.steps"] == str(files.settings)
    assert origins["train.clip"] == "default"
    assert shown["settings"]["train"]["seed"] == 3


def test_config_schema_is_a_json_schema() -> None:
    schema = json.loads(run("config", "schema").stdout)
    assert "masking" in schema["properties"]


def test_flags_are_spread_and_repeat(files: Files) -> None:
    shown = document(
        *("config", "show", "--text", "a.txt", "--text", "b.txt", "--labels", "l.jsonl"),
        *("--plugin", "tlm", "-p", "kg-fusion", "--model", "m", "--output", "o"),
    )
    assert shown["data"]["text"] == ["a.txt", "b.txt"]
    assert shown["data"]["labels"] == ["l.jsonl"]
    assert shown["plugins"] == ["tlm", "kg-fusion"]
    assert (shown["model"]["path"], shown["output"]) == ("m", "o")


def test_prepare_prints_the_account(files: Files) -> None:
    first = document("prepare", files.settings, "--quiet")
    account = first["streams"]["text"]
    assert (account["rows"], account["used"], account["refused"]) == (120, 120, {})
    lines = run("prepare", files.settings).stderr.splitlines()
    assert "prepare text: started" in lines
    shown = [line.split() for line in lines]
    assert ["rows", "120", "read", "·", "120", "used", "·", "0", "refused"] in shown


def test_prepare_makes_no_run_folder(files: Files) -> None:
    assert run("prepare", files.settings, "--quiet").exit_code == 0
    assert not (files.folder / "run").exists()


def test_interrupting_prepare_is_a_stop_that_can_go_on(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ptm_plus.prepared.prepare", interrupted)
    said = refused(75, "prepare", files.settings)
    assert "nothing half-written" in said
    assert "run the same command again to go on" in said


def test_interrupting_what_keeps_nothing_says_that_it_starts_anew(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ptm_plus.cli.kg_commands.check_files", interrupted)
    said = refused(75, "kg", "check", "--kg", files.kg, "--labels", files.labels)
    assert "run the same command again to start anew" in said
    monkeypatch.setattr("ptm_plus.cli.kg_linking.link_files", interrupted)
    target = files.folder / "linked.jsonl"
    said = refused(75, "kg", "link", "--text", files.text, "--labels", files.labels, "-o", target)
    assert "run the same command again to go on" in said


def test_a_full_disk_and_too_little_memory_are_the_environment(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, words in ((OSError(28, "No space left"), "disk is full"), (MemoryError(), "memory")):

        def fail(*_: Any, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr("ptm_plus.prepared.prepare", fail)
        assert words in refused(5, "prepare", files.settings)


def test_what_nobody_foresaw_keeps_its_traceback(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptm_plus.prepared.prepare", lambda *_: 1 / 0)
    result = run("prepare", files.settings)
    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)


def test_doctor_finds_this_machine_fit() -> None:
    found = document("doctor")
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert found["ok"]
    assert states["torch"] in ("ok", "note")
    assert states["packed attention"] == "ok"


def test_doctor_leaves_with_5_when_something_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from ptm_plus.cli import doctor

    monkeypatch.setattr(doctor, "packed_difference", lambda: 1.0)
    result = run("doctor", "--json")
    assert result.exit_code == 5
    assert not json.loads(result.stdout)["ok"]
    assert "packed attention" in result.stderr


def test_doctor_compares_versions() -> None:
    from packaging.requirements import Requirement

    from ptm_plus.cli.doctor import dependency

    installed = dependency(Requirement("pluggy>=1"), None)
    assert installed["state"] == "ok"
    assert dependency(Requirement("pluggy>=1"), "0.1")["state"] == "note"
    assert dependency(Requirement("pluggy>=99"), None)["state"] == "wrong"
    missing = dependency(Requirement("no-such-thing>=2"), None)
    assert missing["mend"] == 'pip install "no-such-thing>=2"'

"""``evaluate`` from the command line: runs, exported models, tables, JSON, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_files import document, run, write_files
from small_tokenizers import SENTENCES
from transformers import FNetConfig, FNetForMaskedLM

from ptm_plus.run_folder import checkpoints


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    files = write_files(folder)
    assert run("train", files.settings, "-q").exit_code == 0
    assert run("export", folder / "run", "--to", folder / "model", "-q").exit_code == 0
    (folder / "asked.tsv").write_text("".join(f"{one}\t{one}?\n" for one in SENTENCES))
    (folder / "words.tsv").write_text("Paris\tPariisi\nBerlin\tBerliini\nParis\tLyon\n")
    (folder / "asked.jsonl").write_text('{"text": "Paris lies on the Seine.\\nTwo lines."}\n')
    return folder


def test_a_run_and_its_export_are_one_model(trained: Path) -> None:
    given = (
        *("--pairs", f"en-de={trained / 'asked.tsv'}", "--text", f"en={trained / 'asked.jsonl'}"),
        *("--words", f"en-de={trained / 'words.tsv'}", "--csls", 2, "-q"),
    )
    of_run, of_model = (document("evaluate", trained / one, *given) for one in ("run", "model"))
    assert {**of_run, "model": ""} == {**of_model, "model": ""}
    (retrieval,) = of_run["retrieval"]
    assert retrieval["pairs"]["en-de"]["sentences"] == len(SENTENCES)
    assert 0 <= retrieval["accuracy"] <= 1
    assert of_run["perplexity"]["languages"]["en"]["texts"] == 2
    assert of_run["perplexity"]["pairs"]["en-de"]["pairs"] == len(SENTENCES)
    assert of_run["words"][0]["pairs"]["en-de"]["forward"]["candidates"] == 3


def test_a_run_is_measured_as_while_it_was_trained(trained: Path) -> None:
    of_run = document("evaluate", trained / "run", "-q")
    report = json.loads((trained / "run" / "report.json").read_text(encoding="utf-8"))
    checkpoint = checkpoints(trained / "run")[-1]
    figures = of_run["run"]
    assert figures.pop("checkpoint") == checkpoint.name
    assert figures.keys() == report["evaluation"].keys()
    assert figures["held_out"] == pytest.approx(report["evaluation"]["held_out"], rel=1e-5)
    assert of_run["asked"]["probes"] == ["run"]
    shown = run("evaluate", checkpoint, "-q")
    assert shown.exit_code == 0, shown.output
    assert f"held-out data of the run, at {checkpoint.name}" in shown.stdout
    assert "text mlm accuracy" in shown.stdout


def test_a_checkpoint_is_a_model_too(trained: Path) -> None:
    given = ("--pairs", f"en-de={trained / 'asked.tsv'}", "--probe", "retrieval", "--seed", 5, "-q")
    checkpoint = checkpoints(trained / "run")[-1]
    found = [
        document("evaluate", trained / "run", *given),
        document("evaluate", checkpoint, *given),
    ]
    assert found[0]["retrieval"] == found[1]["retrieval"]
    assert found[1]["model"] == str(checkpoint)
    assert found[1]["asked"] == {
        "probes": ["retrieval"],
        "text": [],
        "pairs": [f"en-de={trained / 'asked.tsv'}"],
        "words": [],
        "facts": [],
        "few_shot": [],
        "task": [],
        "layer": "",
        "csls": 0,
        "limit": 0,
        "seed": 5,
        "with_plugins": False,
    }


def test_plugins_are_those_of_a_run_and_read_for_tasks(trained: Path) -> None:
    flags = ("--with-plugins", "--pairs", f"en-de={trained / 'asked.tsv'}")
    refused = run("evaluate", trained / "run", *flags, "-q")
    assert (refused.exit_code, "needs --task" in refused.output) == (2, True), refused.output
    task = ("--task", f"heads={trained / 'asked.jsonl'},{trained / 'asked.jsonl'}")
    refused = run("evaluate", trained / "model", "--with-plugins", *task, "-q")
    assert (refused.exit_code, "not a run folder" in refused.output) == (2, True), refused.output


def test_a_damaged_checkpoint_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    checkpoint = checkpoints(tmp_path / "run")[0]
    (checkpoint / "parts.safetensors").unlink()
    result = run("evaluate", checkpoint, "-q")
    assert (result.exit_code, "damaged: " in result.output) == (4, True), result.output


def test_a_model_without_attention_is_refused(trained: Path, tmp_path: Path) -> None:
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32, "vocab_size": 400}
    FNetForMaskedLM(FNetConfig(**shape)).save_pretrained(tmp_path)
    for file in (trained / "model").glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    result = run("evaluate", tmp_path, "--text", f"en={trained / 'asked.jsonl'}", "-q")
    assert result.exit_code == 2, result.output
    assert "FNetForMaskedLM takes no attention mask" in result.output


def test_tables_name_languages_and_layers(trained: Path) -> None:
    given = ("--pairs", f"en-de={trained / 'asked.tsv'}", "--probe", "retrieval")
    shown = run("evaluate", trained / "model", *given, "--layer", "all", "--csls", 3, "-q")
    assert shown.exit_code == 0, shown.output
    rows = [line.split() for line in shown.stdout.splitlines() if "en-de" in line]
    assert [row[0] for row in rows] == [str(layer) for layer in range(len(rows))]
    assert "CSLS" in shown.stdout
    assert "masked tokens" not in shown.stdout


@pytest.mark.parametrize(
    ("given", "said", "code"),
    [
        ((), "model: not a run folder, so it has no held-out data of its own", 2),
        (("--probe", "run"), "give --pairs, --text or --words", 2),
        (("--probe", "retreival", "--text", "x"), "did you mean 'retrieval'", 2),
        (("--probe", "words", "--text", "x"), "--probe words needs --words", 2),
        (("--pairs", "en-de=asked.tsv", "--layer", "99"), "--layer 99: the model has", 2),
        (("--pairs", "en-de=none.tsv"), "no such file", 4),
        (("--pairs", "asked.tsv"), "the language of 'src' is not given", 4),
        (("--pairs", "en-de=one.tsv"), "only one pair of en-de", 4),
    ],
)
def test_what_cannot_be_measured_is_told(
    trained: Path,
    given: tuple[str, ...],
    said: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(trained)
    (trained / "one.tsv").write_text("Guten Tag\tHello\n")
    result = run("evaluate", "model", *given, "-q")
    assert (result.exit_code, said in result.output) == (code, True), result.output


def test_no_model_is_told_as_for_train(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text("a\tb\nc\td\n")
    given = ("--pairs", f"en-de={tmp_path / 'asked.tsv'}", "-q")
    result = run("evaluate", tmp_path / "none", *given)
    assert result.exit_code == 2
    assert "no such folder" in result.output

"""``evaluate`` from the command line: runs, exported models, tables, JSON, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_files import document, run, write_files
from small_tokenizers import SENTENCES


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
        ((), "nothing to measure on", 2),
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

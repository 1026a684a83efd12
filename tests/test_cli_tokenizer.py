"""``tokenizer train``, ``report`` and ``extend`` from the command line, through to training."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from cli_files import document, run, write_files
from many_languages import sentences, tokenizer_of, write_text
from tiny import tiny_run
from transformers import AutoTokenizer

TEXTS = ("en", "ru", "zh")


def texts(folder: Path, *languages: str) -> list[str]:
    return [word for one in write_text(folder, *languages) for word in ("--text", one)]


def test_from_text_to_a_model_with_a_new_language(tmp_path: Path) -> None:
    """Train a tokenizer, a model with it, export, extend, and train on."""
    files, base = write_files(tmp_path), tmp_path / "base"
    given = [*texts(tmp_path, *TEXTS), "--family", "bert", "--vocabulary", 200]
    made = document("tokenizer", "train", *given, "-o", base)
    assert made["vocabulary"] == 200
    assert set(made["languages"]) == set(TEXTS)
    trained = run(
        *("train", files.settings, "--set", f"tokenizer.path={base}", "-q"),
        *("--set", "prepare.max_length=64"),
    )
    assert trained.exit_code == 0, trained.output
    model, wider = tmp_path / "model", tmp_path / "wider"
    assert run("export", tmp_path / "run", "--to", model, "-q").exit_code == 0
    found = document(
        *("tokenizer", "extend", model, *texts(tmp_path, "eo"), "--pieces", 30, "-o", wider)
    )
    assert found["added"] == 30
    assert found["model"] == {
        "rows_before": 200,
        "rows": 230,
        "left_out": [],
        "drawn_anew": [],
    }
    again = run(
        *("train", files.settings, "--model", wider, "-q", "-o", tmp_path / "second"),
        *("--set", "prepare.max_length=64"),
    )
    assert again.exit_code == 0, again.output


def test_a_tokenizer_trained_here_is_given_to_a_run(tmp_path: Path) -> None:
    target = tmp_path / "tokenizer"
    result = run("tokenizer", "train", *texts(tmp_path, "en"), "--vocabulary", 66, "-o", target)
    assert result.exit_code == 0, result.output
    assert "150" in result.stdout  # texts of en
    launched = tiny_run("xlm-roberta", sets=[f"tokenizer.path={target}"])
    assert launched.encoder.backbone.get_input_embeddings().weight.shape[0] == 66


def test_a_fresh_process_without_ptm_plus_loads_it(tmp_path: Path) -> None:
    given = [*texts(tmp_path, *TEXTS), "--byte-fallback", "--vocabulary", 360]
    assert run("tokenizer", "train", *given, "-o", tmp_path / "t").exit_code == 0
    code = (
        "import sys; sys.modules['ptm_plus'] = None\n"
        "from transformers import AutoTokenizer\n"
        f"t = AutoTokenizer.from_pretrained({str(tmp_path / 't')!r})\n"
        "e = t('river ŝipo', return_offsets_mapping=True, add_special_tokens=False)\n"
        "print(t.is_fast, t.decode(e['input_ids']), e['offset_mapping'][-1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "river", "ŝipo", "(9,", "10)"]


def test_two_tokenizers_stand_side_by_side(tmp_path: Path) -> None:
    for kind in ("bpe", "wordpiece"):
        tokenizer_of(kind).save_pretrained(tmp_path / kind)
    given = [tmp_path / "bpe", tmp_path / "wordpiece", *texts(tmp_path, "en", "eo")]
    plot = tmp_path / "a & b.svg"
    report = document("tokenizer", "report", *given, "--plot", plot)
    first, second = report["tokenizers"]
    assert first["name"] == str(tmp_path / "bpe")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "wordpiece")
    split = [tokenizer.tokenize(text) for text in sentences("eo")]
    eo = second["languages"]["eo"]
    assert eo["tokens"] == sum(map(len, split))
    unknown = sum(one.count("[UNK]") for one in split)
    assert eo["unknown_rate"] == unknown / eo["tokens"] > 0
    both = [one["tokens"] for one in second["languages"].values()]
    assert second["all"]["tokens"] == sum(both)
    bars = [e for e in ElementTree.parse(plot).iter() if e.tag.endswith("rect")]
    assert len(bars) == 1 + 2 + 2 * 2 * 4  # ground, legend, tokenizers × languages × panels
    table = run("tokenizer", "report", *given).stdout
    assert f"{eo['fertility']:.2f}" in table
    assert f"{eo['unknown_rate']:.2%}" in table


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["train", "-o", "x"], 2, "no text was given"),
        (["train", "--text", "cz=a.txt", "-o", "x"], 2, "did you mean 'cs'"),
        (["train", "--text", "a.txt", "--by", "tokens", "-o", "x"], 2, "characters or words"),
        (["train", "--text", "a.txt", "--vocabulary", "9000", "-o", "x"], 2, "supports"),
        (["train", "--text", "latin.txt", "-o", "x"], 4, "latin.txt:1: not UTF-8"),
        (["train", "--text", "empty.txt", "-o", "x"], 4, "holds no rows"),
        (["train", "--text", "a.txt", "-o", "full"], 2, "not empty"),
        (["report", "t", "t", "t", "--text", "a.txt"], 2, "two to compare"),
        (["report", "t", "--text", "a.txt", "--plot", "a.png"], 2, "must end in .svg"),
        (["report", "./none", "--text", "a.txt"], 2, "no such folder"),
        (["extend", "t", "-o", "x"], 2, "nothing to add"),
        (["extend", "t", "--text", "a.txt", "--start", "zero", "-o", "x"], 2, "mean or overlap"),
        (["extend", "full", "--text", "a.txt", "-o", "x"], 5, "cannot be loaded"),
    ],
)
def test_mistakes_are_told(
    words: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("a river\n\na walk\n", encoding="utf-8")
    Path("latin.txt").write_bytes(b"caf\xe9\n")
    Path("empty.txt").touch()
    Path("full").mkdir()
    Path("full/a").touch()
    tokenizer_of("bpe").save_pretrained("t")
    result = run("tokenizer", *words)
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert not Path("x").exists()

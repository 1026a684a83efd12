"""Labels keep their rows when data are added: in lists, in a resumed run, in a new one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_files import document, run, write_files
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from ptm_plus import DataError
from ptm_plus.checkpoint import MODEL, OPTIMIZER, PARTS
from ptm_plus.label_lists import appended, by_label, read_label_lists, write_label_lists
from ptm_plus.run_folder import LABELS, TOKENIZER, checkpoints

LISTS = st.dictionaries(
    st.sampled_from(["language", "entity"]),
    st.lists(st.text(max_size=3), unique=True).map(tuple),
)


@given(LISTS, LISTS)
def test_lists_begin_as_they_were_and_hold_everything_once(kept: Any, found: Any) -> None:
    made = appended(kept, found)
    assert set(made) == {*kept, *found}
    for kind, labels in made.items():
        before = kept.get(kind, ())
        assert labels[: len(before)] == before
        assert sorted(labels) == sorted({*before, *found.get(kind, ())})


def test_lists_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read_label_lists(tmp_path) == {}
    lists = {"language": ("en", "de"), "entity": ("Q1", "čeština")}
    write_label_lists(tmp_path, lists)
    assert read_label_lists(tmp_path) == lists
    (tmp_path / LABELS).write_text('{"language": 3}', encoding="utf-8")
    with pytest.raises(DataError, match="not lists"):
        read_label_lists(tmp_path)


def test_rows_go_where_their_label_is() -> None:
    found = torch.tensor([[1.0], [2.0], [3.0]])
    start = torch.tensor([[0.1], [0.2], [0.3], [0.4]])
    made = by_label(found, ("de", "en", "fr", "added later"), start, ("am", "en", "de", "sw"))
    assert made[:, 0].tolist() == pytest.approx([0.1, 2.0, 1.0, 0.4])


# ---------------------------------------------------------------------------------------------
# A language that comes later; its code stands before the others in the alphabet

AMHARIC = "ሰላም ለዓለም ይሁን ።"
VECTORS = "tlm/languages.weight"


def tables(folder: Path, file: str) -> dict[str, torch.Tensor]:
    return load_file(checkpoints(folder)[-1] / file)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with language vectors on English and French."""
    files = write_files(tmp_path_factory.mktemp("languages"))
    flags = ("--pairs", files.pairs, "--plugin", "tlm", "--steps", "4", "--quiet")
    flags += ("--set", "plugin.tlm.language_embeddings=true", "--set", "train.lr=0.01")
    document("train", files.settings, *flags)
    return files.folder / "run"


def amharic(folder: Path) -> Path:
    path = folder / "am.txt"
    path.write_text(f"{AMHARIC}\n\n" * 30, encoding="utf-8")
    return path


@pytest.mark.tlm
def test_a_resumed_run_keeps_tokenizer_labels_and_rows(trained: Path, tmp_path: Path) -> None:
    folder = trained.parent / "copy"
    shutil.copytree(trained, folder)
    tokenizer = (folder / TOKENIZER / "tokenizer.json").read_bytes()
    before, moments = tables(folder, PARTS)[VECTORS], tables(folder, OPTIMIZER)
    settings = folder / "settings.toml"
    text = settings.read_text(encoding="utf-8")
    text = text.replace("steps = 4\n", "steps = 8\n").replace("lr = 0.01", "lr = 1e-12")
    first = json.dumps(str(folder.parent / "text.jsonl"))
    assert first in text
    text = text.replace(first, f"{first}, {json.dumps('am=' + str(amharic(tmp_path)))}")
    settings.write_text(text, encoding="utf-8")

    refused = run("resume", folder, "--quiet")
    assert refused.exit_code == 4
    assert "data text: " in refused.output
    assert "tokenizer" not in refused.output.partition("hint")[0]  # it is the same

    report = document("resume", folder, "--allow-changes", "--quiet")
    assert report["strata"]["text"]["am"]["rows"] > 0
    assert read_label_lists(folder)["language"] == ("en", "fr", "am")
    after = tables(folder, PARTS)[VECTORS]
    assert after.shape == (3, 16)
    assert torch.equal(after[:2], before) or torch.allclose(after[:2], before, atol=1e-9)
    assert float(before.abs().max()) > 1e-4
    name = f"exp_avg_sq/parts.{VECTORS}"
    assert tables(folder, OPTIMIZER)[name].shape == (3, 16)
    assert moments[name].shape == (2, 16)
    assert (folder / TOKENIZER / "tokenizer.json").read_bytes() == tokenizer
    shapes = [{k: v.shape for k, v in tables(one, MODEL).items()} for one in (folder, trained)]
    assert shapes[0] == shapes[1]
    assert run("export", folder, "--to", tmp_path / "out").exit_code == 0


@pytest.mark.tlm
def test_a_new_run_takes_rows_over_by_label(trained: Path, tmp_path: Path) -> None:
    files = write_files(tmp_path)
    flags = ("--pairs", files.pairs, "--text", f"am={amharic(tmp_path)}", "--plugin", "tlm")
    flags += ("--init-from", trained, "--steps", "1", "--quiet", "--set", "train.lr=1e-12")
    document("train", files.settings, *flags, "--set", "plugin.tlm.language_embeddings=true")
    folder = tmp_path / "run"
    assert read_label_lists(folder)["language"] == ("am", "en", "fr")
    before, after = (tables(one, PARTS)[VECTORS] for one in (trained, folder))
    assert torch.allclose(after[1:], before, atol=1e-9)
    assert float(after[0].abs().max()) < 1e-9

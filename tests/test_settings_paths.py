"""Paths in the settings of a run folder: absolute, and following the folder when it is moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptm_plus.cli.training import has_inputs
from ptm_plus.run_folder import read_folder, write_settings
from ptm_plus.settings_files import resolve
from ptm_plus.settings_paths import anchored, moved


def settings_of(**flags):
    return resolve(None, flags).settings


def test_what_is_a_path_becomes_absolute_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = settings_of(
        **{
            "plugins": ["tlm", "./own.py:x", "kg-fusion:a"],
            "data.text": ["en=news/*.txt", "b.jsonl", "hub:org/name", "/c.txt"],
            "data.pairs": ["en-fr=p.tsv"],
            "data.kg": ["triples.tsv"],
            "data.vectors": "v.safetensors",
            "evaluate.mentions": ["m.jsonl"],
            "model.path": "org/name",
            "tokenizer.path": "./tokenizer",
            "prepare.cache": "~/cache",
            "output": "runs/a",
        }
    )
    found = anchored(given)
    assert found.plugins == ("tlm", f"{tmp_path}/own.py:x", "kg-fusion:a")
    assert found.data.text == (
        f"en={tmp_path}/news/*.txt",
        f"{tmp_path}/b.jsonl",
        "hub:org/name",
        "/c.txt",
    )
    assert found.data.pairs == (f"en-fr={tmp_path}/p.tsv",)
    assert found.data.vectors == f"{tmp_path}/v.safetensors"
    assert found.evaluate.mentions == (f"{tmp_path}/m.jsonl",)
    assert found.model.path == "org/name"
    assert found.tokenizer.path == f"{tmp_path}/tokenizer"
    assert found.prepare.cache == str(Path("~/cache").expanduser())
    assert found.output == tmp_path / "runs" / "a"
    assert anchored(found) == found
    assert anchored(settings_of()).data == settings_of().data


def test_what_lies_in_the_folder_moves_with_it(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    given = settings_of(
        **{
            "data.text": [f"en={old}/sample/text.jsonl", str(tmp_path / "other.txt")],
            "output": str(old),
        }
    )
    write_settings(given)
    old.rename(new)
    found = read_folder(new).settings
    assert found.data.text == (f"en={new}/sample/text.jsonl", str(tmp_path / "other.txt"))
    assert found.output == new
    assert moved(given, old).data == given.data


@pytest.mark.k_adapter
def test_a_run_whose_plugin_names_files_is_not_the_sample_s() -> None:
    files = {"k-adapter:a": {"relations": ["r.jsonl"], "size": 16}}
    plugins = ["k-adapter:a", "tlm"]
    assert has_inputs(settings_of(plugins=plugins, plugin=files))
    assert not has_inputs(settings_of(plugins=plugins))
    assert not has_inputs(settings_of(plugins=plugins, plugin={"k-adapter:a": {"relations": []}}))
    assert not has_inputs(settings_of(plugins=["tlm"], plugin=files))

"""Sealed folders: whole or not there, and nothing outside them is ever looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hostile import Trap
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_run

from ptm_plus import checkpoint
from ptm_plus.checkpoint import FILES, load_checkpoint, newest_whole, read_state
from ptm_plus.errors import DataError
from ptm_plus.run_folder import checkpoints
from ptm_plus.sealed import MANIFEST, damage, seal


def sealed(home: Path, **files: bytes) -> Path:
    draft = home / "draft"
    for name, content in files.items():
        path = draft / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    seal(draft, home / "whole")
    return home / "whole"


def test_a_sealed_folder_is_whole_and_says_what_it_holds(tmp_path):
    folder = sealed(tmp_path, a=b"1", sub__b=b"22")
    assert damage(folder) == damage(folder, ["a"]) == ""
    listed = json.loads((folder / MANIFEST).read_text())["files"]
    assert {name: entry["size"] for name, entry in listed.items()} == {"a": 1, "sub/b": 2}
    assert not (tmp_path / "draft").exists()


def test_sealing_replaces_what_is_there(tmp_path):
    sealed(tmp_path, old=b"1")
    folder = sealed(tmp_path, new=b"2")
    assert {path.name for path in folder.iterdir()} == {"new", MANIFEST}


def test_a_file_that_must_be_there_must_be_listed(tmp_path):
    folder = sealed(tmp_path, a=b"1")
    assert damage(folder, ["b"]) == "manifest.json does not list b"
    (folder / MANIFEST).write_text('{"files": {}}')
    assert damage(folder, ["a"]) == "manifest.json does not list a"


@pytest.mark.parametrize("name", ["../secret", "/etc/x", "sub/../../secret", ".", "", "./a", "a/"])
def test_a_manifest_that_leads_outside_is_damaged(tmp_path, name, monkeypatch):
    folder = sealed(tmp_path, a=b"1")
    (tmp_path / "secret").write_bytes(b"s")
    read = []
    monkeypatch.setattr("ptm_plus.sealed.file_sha256", lambda path: read.append(path) or "")
    (folder / MANIFEST).write_text(json.dumps({"files": {name: {"size": 1, "sha256": ""}}}))
    assert "which is no file in the folder" in damage(folder)
    assert read == []


def test_what_is_missing_is_named(tmp_path):
    folder = sealed(tmp_path, a=b"1", b=b"2")
    (folder / "b").unlink()
    assert damage(folder) == "b is missing"
    (folder / MANIFEST).unlink()
    assert damage(folder) == "manifest.json is missing"


def test_a_link_is_damage(tmp_path):
    folder = sealed(tmp_path, a=b"1", sub__b=b"22")
    (tmp_path / "other").write_bytes(b"1")
    (folder / "a").unlink()
    (folder / "a").symlink_to(tmp_path / "other")
    assert damage(folder) == "a is a link"


JSON = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_any_manifest_is_judged(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("any")
    (folder / MANIFEST).write_text(json.dumps({"files": value}))
    assert damage(folder, ["a"])


def test_a_manifest_that_nests_without_end_is_damaged(tmp_path):
    (tmp_path / MANIFEST).write_text("[" * 100_000)
    assert damage(tmp_path).startswith("RecursionError")


# ---------------------------------------------------------------------------------------------
# Checkpoints that somebody made on purpose: whole by their manifest


@pytest.fixture
def crafted(tmp_path):
    """Return a function that seals a checkpoint with other files in it."""
    from tiny import Recorder

    from ptm_plus.processes import make_accelerator
    from ptm_plus.train import Trainer

    run = tiny_run("bert", output=tmp_path)
    trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
    trainer.save()
    trainer.writer.finish()

    def craft(name, content):
        folder = newest_whole(tmp_path)[0]
        (folder / name).write_bytes(content)
        (folder / MANIFEST).unlink()
        draft = folder.with_name("draft")
        folder.rename(draft)
        seal(draft, folder)
        assert damage(folder, FILES) == ""
        return run, lambda state: trainer.stepper.optimizer

    return craft


@pytest.mark.parametrize("name", FILES)
def test_a_pickle_under_the_name_of_a_file_runs_nothing(crafted, tmp_path, name):
    trap = Trap(tmp_path)
    for content in (trap.pickled(), trap.saved_by_torch()):
        trap.refused(4, load_checkpoint, *crafted(name, content))


@pytest.mark.parametrize(
    "change",
    [
        {"cursors": {"text": {"en": [-1, 0]}}},
        {"cursors": {"text": {"en": [0, 1.5]}}},
        {"cursors": {"text": {"en": [True, 0]}}},
        {"cursors": {"text": {"en": [0]}}},
        {"cursors": []},
        {"progress": 7},
        {"identity": {"plugins": [1]}},
        {"ahead": 3},
        {"processes": "many"},
    ],
)
def test_a_state_with_other_values_is_refused(crafted, tmp_path, change):
    folder = newest_whole(tmp_path)[0]
    state = json.loads((folder / checkpoint.STATE).read_text())
    run, _ = crafted(checkpoint.STATE, json.dumps({**state, **change}).encode())
    with pytest.raises(DataError, match="not a checkpoint state"):
        load_checkpoint(run)


def test_a_state_that_nests_without_end_is_refused(crafted):
    run, _ = crafted(checkpoint.STATE, b'{"cursors": ' + b"[" * 100_000)
    with pytest.raises(DataError, match="not a checkpoint state"):
        load_checkpoint(run)


@pytest.mark.parametrize(
    "progress", [{}, {"steps": 1}, {"sums": {"a": 1}}, {"sums": {"a/b": "x"}}, {"shares": [1]}]
)
def test_a_progress_with_other_values_is_refused(progress):
    from ptm_plus.step import Progress

    whole = {"sums": {}, "counts": {}, "shares": {}}
    given = {**whole, **progress} if progress else {}
    with pytest.raises(DataError, match="progress is broken"):
        Progress.from_json(given)


def test_only_checkpoints_are_taken_for_one(tmp_path):
    home = tmp_path / "checkpoints"
    for name in ("step-000000001", "step-zzz", "step-1", ".step-000000002.partial"):
        (home / name).mkdir(parents=True)
    (home / "step-000000003").write_text("a file")
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000000001"]
    with pytest.raises(DataError, match="no whole checkpoint"):
        newest_whole(tmp_path)


def test_the_written_state_is_read_back(tmp_path, crafted):
    state = read_state(newest_whole(tmp_path)[0])
    assert state.processes == 1
    assert state.progress["step"] == 0
    assert len(state.ahead) == 6  # steps of the run
    assert set(state.identity) == {"plugins", "data", "tables", "tokenizer", "graph", "settings"}

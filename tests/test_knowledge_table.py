from __future__ import annotations

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from ptm_plus.errors import DataError, EnvironmentProblem
from ptm_plus.knowledge import table as table_module
from ptm_plus.knowledge.table import VectorTable, ids_path, write_table

LABELS = ("Q1", "Q20", "パリ", "7")
VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3) / 8


@pytest.fixture
def path(tmp_path):
    at = tmp_path / "kg" / "vectors.safetensors"
    write_table(at, LABELS, VECTORS, {"graph": "abc"})
    return at


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_what_is_written_is_read_back_by_us_and_by_safetensors(tmp_path, dtype):
    at = tmp_path / "v.safetensors"
    written = write_table(at, LABELS, VECTORS.astype(dtype), {"model": "TransE"})
    table = VectorTable.open(at)
    assert table.labels == LABELS
    assert table.vectors.dtype == dtype
    assert table.dimension == 3
    assert table.metadata["model"] == "TransE"
    assert table.fingerprint == written.fingerprint
    np.testing.assert_array_equal(table.vectors, VECTORS)
    np.testing.assert_array_equal(load_file(at)["vectors"], VECTORS)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["v.ids.json", "v.safetensors"]


def test_rows_are_gathered_from_a_read_only_map(path):
    table = VectorTable.open(path)
    rows = table.rows(["7", "Q404", "Q1"])
    assert rows.tolist() == [3, -1, 0]
    np.testing.assert_array_equal(table.gather(rows), [VECTORS[3], [0, 0, 0], VECTORS[0]])
    assert table.gather(rows[None]).shape == (1, 3, 3)
    assert table.gather(np.empty(0, dtype=np.int64)).shape == (0, 3)
    assert isinstance(table.vectors, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        table.vectors[0] = 1
    for wrong in (-2, 4):
        with pytest.raises(IndexError):
            table.gather(np.array([wrong]))


@given(st.lists(st.integers(-1, 3)))
def test_gather_agrees_with_one_row_at_a_time(tmp_path_factory, rows):
    at = tmp_path_factory.mktemp("v") / "v.safetensors"
    table = write_table(at, LABELS, VECTORS)
    expected = [VECTORS[row] if row >= 0 else np.zeros(3) for row in rows]
    got = table.gather(np.array(rows, dtype=np.int64))
    np.testing.assert_array_equal(got, np.array(expected).reshape(-1, 3))


def test_the_fingerprint_is_of_labels_and_vectors(tmp_path):
    def written(name, labels, vectors, **metadata):
        return write_table(tmp_path / name, labels, vectors, metadata).fingerprint

    one = written("a.safetensors", LABELS, VECTORS)
    assert written("b.safetensors", LABELS, VECTORS, note="x") == one
    assert written("c.safetensors", LABELS[::-1], VECTORS) != one
    assert written("d.safetensors", LABELS, VECTORS + 1) != one


def test_vectors_made_elsewhere_are_read_without_hashes(tmp_path):
    at = tmp_path / "v.safetensors"
    save_file({"vectors": VECTORS}, at)
    ids_path(at).write_text(json.dumps(LABELS))
    ours = write_table(tmp_path / "ours.safetensors", LABELS, VECTORS)
    ids_path(tmp_path / "ours.safetensors").write_bytes(ids_path(at).read_bytes())
    table = VectorTable.open(at)
    np.testing.assert_array_equal(table.vectors, ours.vectors)


def test_rows_after_a_block_border_are_hashed_and_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(table_module, "_BLOCK", 24)
    at = tmp_path / "v.safetensors"
    written = write_table(at, LABELS, VECTORS)
    monkeypatch.undo()
    assert VectorTable.open(at).fingerprint == written.fingerprint
    monkeypatch.setattr(table_module, "_BLOCK", 24)
    bad = VECTORS.copy()
    bad[3, 1] = np.inf
    with pytest.raises(DataError, match="the vector of '7' has values that are not finite"):
        write_table(at, LABELS, bad)


def flip(at, offset=-1):
    data = bytearray(at.read_bytes())
    data[offset] ^= 1
    at.write_bytes(data)


def test_damage_is_found(path):
    ids = ids_path(path)
    original = path.read_bytes(), ids.read_bytes()

    def restore():
        path.write_bytes(original[0])
        ids.write_bytes(original[1])

    flip(path)
    with pytest.raises(DataError, match="their hash differs"):
        VectorTable.open(path)
    assert VectorTable.open(path, verify=False).dimension == 3
    path.write_bytes(original[0][:-4])
    with pytest.raises(DataError, match="not a whole safetensors file"):
        VectorTable.open(path)
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(DataError, match="not a whole safetensors file"):
        VectorTable.open(path)
    restore()
    ids.write_text(json.dumps(LABELS[::-1]))
    with pytest.raises(DataError, match="is not the list of labels that was written"):
        VectorTable.open(path)
    ids.unlink()
    with pytest.raises(DataError, match=r"vectors\.ids\.json: no such file"):
        VectorTable.open(path)
    with pytest.raises(DataError, match="no such file"):
        VectorTable.open(path.with_name("none.safetensors"))


@pytest.mark.parametrize(
    ("tensors", "ids", "message"),
    [
        ({"vectors": VECTORS}, ["Q1"], "4 vectors, but 1 labels"),
        ({"vectors": VECTORS}, ["Q1"] * 4, "labels repeat"),
        ({"vectors": VECTORS}, {"Q1": 0}, "expected a JSON list"),
        ({"vectors": VECTORS.astype(np.float64)}, LABELS, r"F64 of shape \[4, 3\]"),
        ({"vectors": VECTORS[0]}, LABELS, r"F32 of shape \[3\]"),
        ({"other": VECTORS}, LABELS, "holds the tensors other"),
        ({"vectors": VECTORS * np.nan}, LABELS, "the vector of 'Q1' has values .* not finite"),
    ],
)
def test_files_of_another_shape_are_refused(tmp_path, tensors, ids, message):
    at = tmp_path / "v.safetensors"
    save_file(tensors, at)
    ids_path(at).write_text(json.dumps(ids))
    with pytest.raises(DataError, match=message):
        VectorTable.open(at)


@pytest.mark.parametrize(
    ("labels", "vectors", "message"),
    [
        (LABELS[:3], VECTORS, "4 vectors for 3 labels"),
        (("Q1",) * 4, VECTORS, "labels repeat"),
        (LABELS, VECTORS * np.nan, "not finite"),
        (LABELS, VECTORS.astype(np.float64), "float64"),
        (LABELS, VECTORS[0], "shape"),
        ((), VECTORS[:0], "0 vectors"),
    ],
)
def test_bad_vectors_are_never_written(tmp_path, labels, vectors, message):
    with pytest.raises(DataError, match=message):
        write_table(tmp_path / "v.safetensors", labels, vectors)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_table_whole(path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentProblem, match="No space left"):
        write_table(path, ("Q5",), VECTORS[:1])
    monkeypatch.undo()
    assert VectorTable.open(path).labels == LABELS
    assert len(list(path.parent.iterdir())) == 2


def test_vectors_of_another_graph_are_refused(path):
    table = VectorTable.open(path)
    assert table.require_overlap(["Q1", "Q2", "7", "7"]) == 2
    with pytest.raises(DataError, match="vectors of another graph: none of its 4 entities"):
        table.require_overlap(["Q2", "Q3"])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("[" * 100_000, "not JSON"),
        ('["Q1", "Q20\\ud800", "x", "7"]', "half a character"),
        ("[1, 2, 3, 4]", "expected a JSON list"),
    ],
)
def test_ids_that_are_no_list_of_labels(tmp_path, ids, message):
    at = tmp_path / "v.safetensors"
    save_file({"vectors": VECTORS}, at)
    ids_path(at).write_text(ids)
    with pytest.raises(DataError, match=message) as caught:
        VectorTable.open(at)
    assert caught.value.path == ids_path(at)
    assert caught.value.hint

"""Vectors of other programs: what each format gives, and what is refused with its line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from cli_files import document, run
from safetensors.numpy import save_file

from ptm_plus.errors import DataError, SettingsError
from ptm_plus.knowledge import VectorTable
from ptm_plus.knowledge.foreign import read_ids, read_vectors

IDS = ["Q1", "Q 2", "é", "Q4"]
VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3) / 7


@pytest.fixture
def ids(tmp_path: Path) -> Path:
    path = tmp_path / "ids.txt"
    path.write_text("".join(f"{name}\n" for name in IDS), encoding="utf-8")
    return path


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_numpy_and_safetensors_give_what_was_written(tmp_path, ids, dtype):
    array = VECTORS.astype(dtype)
    np.save(tmp_path / "a.npy", array)
    save_file({"x": array, "y": array[:2]}, tmp_path / "a.safetensors")
    for found in (
        read_vectors(tmp_path / "a.npy", ids),
        read_vectors(tmp_path / "a.safetensors", ids, "x"),
    ):
        assert list(found.ids) == IDS
        assert found.vectors.dtype == (np.float16 if dtype == "f2" else np.float32)
        np.testing.assert_array_equal(found.vectors, array.astype(found.vectors.dtype))


def test_numpy_arrays_are_mapped_and_not_read(tmp_path, ids):
    np.save(tmp_path / "a.npy", VECTORS)
    assert isinstance(read_vectors(tmp_path / "a.npy", ids).vectors, np.memmap)
    np.save(tmp_path / "b.npy", np.asfortranarray(VECTORS))
    np.testing.assert_array_equal(read_vectors(tmp_path / "b.npy", ids).vectors, VECTORS)


@pytest.mark.parametrize("header", ["4 3\n", ""])
@pytest.mark.parametrize("packed", [False, True])
def test_word2vec_s_text_with_and_without_its_header(tmp_path, header, packed):
    rows = zip(IDS, VECTORS.tolist(), strict=True)
    lines = [f"{name} {' '.join(map(repr, row))} \n" for name, row in rows]
    if not header:
        lines[1] = lines[1].replace("Q 2", "Q2")
    text = (header + "".join(lines)).encode()
    path = tmp_path / ("a.vec.gz" if packed else "a.txt")
    path.write_bytes(gzip.compress(text) if packed else text)
    found = read_vectors(path)
    assert list(found.ids) == (IDS if header else ["Q1", "Q2", *IDS[2:]])
    np.testing.assert_array_equal(found.vectors, VECTORS)


def test_ids_may_be_a_column_or_a_list(tmp_path):
    (tmp_path / "a.tsv").write_text("Q1\tone\nQ2\ttwo\n", encoding="utf-8")
    (tmp_path / "a.json").write_text('["Q1", "Q2"]', encoding="utf-8")
    assert read_ids(tmp_path / "a.tsv") == read_ids(tmp_path / "a.json") == ["Q1", "Q2"]
    (tmp_path / "b.json").write_text('["Q1", 2]', encoding="utf-8")
    with pytest.raises(DataError, match="no JSON list of texts"):
        read_ids(tmp_path / "b.json")
    (tmp_path / "b.txt").write_text("Q1\n\nQ2\n", encoding="utf-8")
    with pytest.raises(DataError, match="an id is empty") as caught:
        read_ids(tmp_path / "b.txt")
    assert caught.value.line == 2


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("2 3\na 1 2 3\nb 1 2\n", "2 numbers instead of 3", 3),
        ("a 1 2 3\nb 1 x 3\n", "'x' is not a number", 2),
        ("3 2\na 1 2\nb 3 4\n", "2 vectors instead of 3", None),
        ("", "0 vectors", None),
        ("a\n", "0 numbers instead of 0", 1),
        ("1 3\n 1 2 3\n", "3 numbers instead of 3", 2),
    ],
)
def test_broken_text_is_refused_with_its_line(tmp_path, text, message, line):
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_vectors(path)
    assert caught.value.line == line


def test_what_does_not_fit_is_refused(tmp_path, ids):
    np.save(tmp_path / "a.npy", VECTORS[:3])
    with pytest.raises(DataError, match="3 vectors, but 4 ids"):
        read_vectors(tmp_path / "a.npy", ids)
    np.save(tmp_path / "b.npy", np.arange(4))
    with pytest.raises(DataError, match=r"holds <i8 of shape \[4\]"):
        read_vectors(tmp_path / "b.npy", ids)
    np.save(tmp_path / "c.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"holds \|O of shape \[1\]"):
        read_vectors(tmp_path / "c.npy", ids)
    np.save(tmp_path / "a.npy", VECTORS)
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-1])
    with pytest.raises(DataError, match="is no whole NumPy array"):
        read_vectors(tmp_path / "a.npy", ids)
    (tmp_path / "d.npy").write_bytes(b"\x93NUMPY junk")
    with pytest.raises(DataError, match="is no NumPy array"):
        read_vectors(tmp_path / "d.npy", ids)
    save_file({"x": VECTORS, "y": VECTORS}, tmp_path / "a.safetensors")
    with pytest.raises(SettingsError, match="holds x, y") as caught:
        read_vectors(tmp_path / "a.safetensors", ids)
    assert "--tensor" in str(caught.value)
    with pytest.raises(SettingsError, match="is no format of vectors"):
        read_vectors(tmp_path / "a.bin", ids)
    with pytest.raises(SettingsError, match="holds no ids"):
        read_vectors(tmp_path / "a.npy")
    with pytest.raises(SettingsError, match="has its own ids"):
        read_vectors(tmp_path / "a.txt", ids)


# ---------------------------------------------------------------------------------------------
# Commands


def test_imported_vectors_are_a_table(tmp_path, ids):
    np.save(tmp_path / "a.npy", VECTORS)
    (tmp_path / "graph.tsv").write_text("Q1\tP1\tQ4\nQ1\tP1\tQ9\n", encoding="utf-8")
    target = tmp_path / "out" / "v.safetensors"
    flags = ("--ids", ids, "-o", target, "--kg", tmp_path / "graph.tsv")
    found = document("kg", "import", tmp_path / "a.npy", *flags)
    assert (found["entities"], found["dimension"]) == (4, 3)
    assert (found["in_graph"], found["graph_entities"]) == (2, 3)
    table = VectorTable.open(target)
    assert table.labels == tuple(IDS)
    np.testing.assert_array_equal(table.gather(np.arange(4)), VECTORS)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v, i: (v, ["Q1", "Q1", *i[2:]]), "labels repeat"),
        (lambda v, i: (np.where(v == 0, np.nan, v), i), "not finite"),
    ],
)
def test_vectors_that_cannot_be_used_are_not_written(tmp_path, spoil, message):
    vectors, names = spoil(VECTORS, IDS)
    np.save(tmp_path / "a.npy", vectors)
    (tmp_path / "ids.json").write_text(json.dumps(names), encoding="utf-8")
    target = tmp_path / "v.safetensors"
    result = run("kg", "import", tmp_path / "a.npy", "--ids", tmp_path / "ids.json", "-o", target)
    assert result.exit_code == 4
    assert message in result.stderr
    assert not target.exists()


GRAPH = "a\tr\tb\na\ts\tb\nc\tr\ta\nb\tr\td\nd\tr\te\n"
LABELS = "id\tlang\tlabel\na\ten\tAlpha\nb\ten\tBeta\nc\ten\tGamma\nd\ten\tBeta\n"


@pytest.fixture
def graph(tmp_path: Path) -> tuple[str | Path, ...]:
    (tmp_path / "g.tsv").write_text(GRAPH, encoding="utf-8")
    (tmp_path / "l.tsv").write_text(LABELS, encoding="utf-8")
    return ("--kg", tmp_path / "g.tsv", "--labels", tmp_path / "l.tsv")


def test_neighbours_by_name_and_by_id(graph):
    for wanted in ("Alpha", "a"):
        found = document("kg", "neighbours", wanted, *graph)
        assert (found["id"], found["label"], found["degree"]) == ("a", "Alpha", 3)
        rows = found["neighbours"]
        near = [(one["path"], one["id"], one["label"], one["degree"]) for one in rows]
        assert near == [
            (["^r"], "c", "Gamma", 1),
            (["r"], "b", "Beta", 3),
            (["s"], "b", "Beta", 3),
        ]


def test_neighbours_further_away_stand_behind_their_paths(graph):
    found = document("kg", "neighbours", "a", "--hops", "3", *graph)["neighbours"]
    assert [(one["hops"], one["id"], one["path"]) for one in found[3:]] == [
        (2, "d", ["r", "r"]),
        (3, "e", ["r", "r", "r"]),
    ]
    shown = run("kg", "neighbours", "a", "--hops", "3", "--limit", "2", *graph).stdout
    assert "Alpha (a)" in shown
    assert "3; --limit 5" in shown


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("Beta", "'Beta' names 2 entities: b, d"),
        ("Alhpa", "no entity 'Alhpa'; did you mean 'Alpha'?"),
    ],
)
def test_an_entity_that_is_not_there_or_not_one_is_told(graph, wanted, message):
    result = run("kg", "neighbours", wanted, *graph)
    assert result.exit_code == 4
    assert message in " ".join(result.stderr.split())

"""Artifacts on disk: whole or not there, and what is read is what was written."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preparing import example, name_annotator, prepare

from ptm_plus.errors import DataError, EnvironmentProblem
from ptm_plus.prepare import artifacts
from ptm_plus.prepare.artifacts import (
    ArrayFile,
    ArtifactWriter,
    disk_errors,
    part_matches,
    partial_folder,
    parts_folder,
    read_header,
    read_part,
    write_part,
)
from ptm_plus.prepare.store import SequenceStore, SpanStore, is_whole


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i4", "i8"])
def test_an_array_written_in_pieces_reads_as_one(tmp_path: Path, dtype: str) -> None:
    file = ArrayFile(tmp_path / "a.npy", dtype, 6)
    for piece in ([1, 2], [], [3, 4, 5, 6]):
        file.write(np.array(piece, np.int64))
    file.close()
    read = np.load(tmp_path / "a.npy", mmap_mode="r", allow_pickle=False)
    assert read.dtype == np.dtype(dtype)
    assert read.tolist() == [1, 2, 3, 4, 5, 6]


def test_an_array_that_lacks_values_is_an_error(tmp_path: Path) -> None:
    file = ArrayFile(tmp_path / "a.npy", "u2", 3)
    file.write(np.array([1, 2]))
    with pytest.raises(ValueError, match="1 values were announced"):
        file.close()


def test_an_artifact_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "key"
    write_part(parts_folder(folder) / "000000.npz", {"x": np.arange(3)}, {"first": 0, "rows": 3})

    def write_half() -> None:
        with ArtifactWriter(folder) as writer:
            writer.array("x", "u2", 3).write(np.arange(2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert not folder.exists()
    assert [path.name for path in partial_folder(folder).iterdir()] == ["parts"]
    with ArtifactWriter(folder) as writer:
        assert not is_whole(folder)
        writer.array("x", "u2", 3).write(np.arange(3))
        writer.finish({"rows": 3})
    assert is_whole(folder)
    assert not partial_folder(folder).exists()
    assert sorted(path.name for path in folder.iterdir()) == ["meta.json", "x.npy"]


def test_parts_carry_a_header_and_are_recognised(tmp_path: Path) -> None:
    path = tmp_path / "parts" / "000000.npz"
    write_part(path, {"x": np.arange(4)}, {"first": 500, "rows": 4, "names": ["ä"]})
    arrays, header = read_part(path)
    assert arrays["x"].tolist() == [0, 1, 2, 3]
    assert header == read_header(path) == {"first": 500, "rows": 4, "names": ["ä"]}
    assert part_matches(path, 500, 4)
    assert not part_matches(path, 500, 5)
    assert not part_matches(tmp_path / "none.npz", 500, 4)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert not part_matches(path, 500, 4)
    damaged = bytearray(whole)
    damaged[whole.index(np.arange(4).tobytes())] ^= 1
    path.write_bytes(damaged)
    assert not part_matches(path, 500, 4)


def test_a_full_disk_is_named_and_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(artifacts, "_write_flushed", full)
    with pytest.raises(EnvironmentProblem, match=rf"no space left.*{tmp_path.name}.*MiB free"):
        write_part(tmp_path / "000000.npz", {"x": np.arange(4)}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="cannot write to"), disk_errors(tmp_path):
        raise OSError(errno.EROFS, "Read-only file system")
    with pytest.raises(OSError, match="unrelated"), disk_errors(tmp_path):
        raise OSError(errno.EBADF, "unrelated")


@pytest.fixture
def store(tmp_path: Path) -> SequenceStore:
    return prepare(tmp_path, [example(0), example(1)], annotators=[name_annotator()])


def test_missing_and_broken_artifacts_are_refused(store: SequenceStore, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prepared data here"):
        SequenceStore.open(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds spans of format 3; expected tokens"):
        SequenceStore.open(store.spans["names"].folder)
    (store.folder / "meta.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="broken"):
        SequenceStore.open(store.folder)


def test_an_array_of_another_length_is_refused(store: SequenceStore) -> None:
    np.save(store.folder / "words.npy", np.zeros(3, np.uint16))
    with pytest.raises(DataError, match=r"words\.npy: holds 3 values; expected"):
        SequenceStore.open(store.folder)
    (store.folder / "words.npy").unlink()
    with pytest.raises(DataError, match=r"words\.npy: cannot be read"):
        SequenceStore.open(store.folder)


def test_a_span_table_of_other_sequences_is_refused(store: SequenceStore, tmp_path: Path) -> None:
    other = prepare(tmp_path, [example(0), example(1)], settings={"max_length": 12})
    with pytest.raises(DataError, match="made for other sequences"):
        SequenceStore.open(other.folder, {"names": store.spans["names"].folder})


def test_another_format_is_refused(store: SequenceStore) -> None:
    path = store.spans["names"].folder / "meta.json"
    meta = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**meta, "version": 99}), encoding="utf-8")
    with pytest.raises(DataError, match="spans of format 99; expected spans of format 3"):
        SpanStore.open(path.parent)


def test_an_empty_span_table_opens(tmp_path: Path) -> None:
    store = prepare(tmp_path, [example(2)])
    table = store.spans["given"]
    assert len(table) == 0
    assert table.offsets.tolist() == [0] * (len(store) + 1)


# Damage


def zipped() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, np.zeros(3))
    return stream.getvalue()


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
        lambda path: path.write_bytes(path.read_bytes().replace(b"}", b"]", 1)),
        lambda path: path.write_bytes(path.read_bytes().replace(b"<u2", b"<u9")),
        lambda path: np.save(path, np.load(path).astype("f4")),
        lambda path: np.save(path, np.load(path)[None]),
        lambda path: np.save(path, np.load(path).astype(">u2")),
        lambda path: path.write_bytes(zipped()),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_an_array_that_prepare_did_not_write_is_refused(store: SequenceStore, harm: Any) -> None:
    harm(store.folder / "words.npy")
    with pytest.raises(DataError, match=r"words\.npy: ") as caught:
        SequenceStore.open(store.folder)
    assert caught.value.hint


@pytest.mark.parametrize("values", [[0, 9, 5], [1, 5, 9], [0, 5, 8], [0, -1, 9]])
def test_borders_that_do_not_rise_are_refused(store: SequenceStore, values: list[int]) -> None:
    total = len(store.ids)
    found = np.array([value if value != 9 else total for value in values])
    assert len(found) == len(store.offsets)
    np.save(store.folder / "offsets.npy", found)
    with pytest.raises(DataError, match=rf"offsets\.npy: does not rise from 0 to {total}"):
        SequenceStore.open(store.folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fields": None}, "'fields': Input should be a valid array, found None"),
        ({"tokens": "7"}, "'tokens': Input should be a valid integer"),
        ({"tokens": -1}, "'tokens': .*greater than or equal to 0"),
        ({"sequences": float("inf")}, "'sequences'"),
        ({"labels": []}, "'labels'"),
        ({"labels": {"x" * 5000: None}}, "'labels.*at most 200 characters"),
        ({"columns": {"half": "u7"}}, r"'columns\.half': .*pattern"),
        ({"account": {"rows": 1}}, r"'account\.used': Field required"),
        ({"artifact": {}}, r"holds {} of format 3; expected tokens"),
    ],
)
def test_meta_that_prepare_did_not_write_is_refused(
    store: SequenceStore, change: dict[str, Any], message: str
) -> None:
    path = store.folder / "meta.json"
    meta = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**meta, **change}), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        SequenceStore.open(store.folder)


def test_meta_that_is_no_table_is_refused(store: SequenceStore) -> None:
    path = store.folder / "meta.json"
    for text in ("[" * 100_000, "[]", "7", "\udce9", '{"artifact": "tokens", "version": 3}'):
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(DataError, match=r"meta\.json: broken: "):
            SequenceStore.open(store.folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=r"meta\.json: broken: "):
        SequenceStore.open(store.folder)


def test_no_damage_makes_another_part(tmp_path: Path) -> None:
    path = tmp_path / "000000.npz"
    write_part(path, {"x": np.arange(4), "y": np.ones(2)}, {"first": 0, "rows": 4})
    whole = path.read_bytes()
    for at in range(len(whole)):
        for changed in (whole[:at], whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]):
            path.write_bytes(changed)
            if part_matches(path, 0, 4):
                arrays, header = read_part(path)
                assert header == {"first": 0, "rows": 4}
                assert {name: a.tolist() for name, a in arrays.items()} == {
                    "x": [0, 1, 2, 3],
                    "y": [1, 1],
                }

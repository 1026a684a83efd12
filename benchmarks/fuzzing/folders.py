"""Readers of what prepare and training wrote: prepared data and checkpoints."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from benchmarks.fuzzing.cases import Files, Reader
from benchmarks.fuzzing.rules import require
from ptm_plus.checkpoint import STATE, read_state
from ptm_plus.prepare.accounts import Account, SpanAccount
from ptm_plus.prepare.artifacts import ArtifactWriter, part_matches, read_part, write_part
from ptm_plus.prepare.meta import FORMAT_VERSION, META
from ptm_plus.prepare.store import SequenceStore, SpanStore
from ptm_plus.sealed import MANIFEST, damage
from ptm_plus.sources import parse_source, source_fingerprint
from ptm_plus.sources.fingerprint import MEMO

_COMMON = {"key": "k", "version": FORMAT_VERSION, "sequences": 2}
_TOKENS = _COMMON | {
    "artifact": "tokens",
    "stream": "text",
    "inputs": {"max_length": 8},
    "layout": "text",
    "columns": {"half": "u1"},
    "tokens": 6,
    "segments": 4,
    "fields": ["text"],
    "languages": ["en"],
    "strata": ["en"],
    "labels": {"n": None, "group": ["a", "b"]},
    "position": True,
    "versions": 2,
    "account": Account(rows=2, used=2, spans={"names": SpanAccount()}).to_json(),
}
_SPANS = _COMMON | {
    "artifact": "spans",
    "tokens_key": "k",
    "annotator": "names",
    "kinds": ["entity"],
    "ids": ["Q1", "Q2"],
    "rows": 3,
    "account": vars(SpanAccount(found=3, kept=3)),
}
_ARRAYS: Mapping[str, Mapping[str, tuple[str, list[int]]]] = {
    "tokens": {
        "ids": ("u2", [1, 2, 3, 4, 5, 6]),
        "words": ("u2", [0, 1, 65535, 0, 1, 65535]),
        "position": ("u2", [0, 1, 2, 0, 1, 2]),
        "char_start": ("u4", [0, 1, 2, 0, 1, 2]),
        "char_end": ("u4", [1, 2, 3, 1, 2, 3]),
        "column.half": ("u1", [0] * 6),
        "offsets": ("i8", [0, 3, 6]),
        "segments": ("i8", [0, 2, 4]),
        "example": ("i8", [0, 1]),
        "identity": ("u8", [7, 1 << 63]),
        "stratum": ("u2", [0, 0]),
        "version": ("u1", [0, 1]),
        "label.n": ("i8", [5, -1]),
        "label.group": ("i8", [0, 1]),
        "segment_length": ("u2", [1, 2, 2, 1]),
        "segment_flags": ("u1", [0, 1, 1, 0]),
        "segment_type": ("u1", [0] * 4),
        "segment_field": ("u1", [255, 0, 0, 255]),
        "segment_language": ("u2", [65535, 0, 0, 65535]),
    },
    "spans": {
        "offsets": ("i8", [0, 1, 3]),
        "start": ("u2", [0, 1, 2]),
        "length": ("u2", [1, 1, 1]),
        "segment": ("u1", [0] * 3),
        "kind": ("u1", [0] * 3),
        "id": ("i4", [0, 1, -1]),
    },
}


@functools.cache
def _artifact(what: str) -> Files:
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "k"
        with ArtifactWriter(folder) as writer:
            for name, (dtype, values) in _ARRAYS[what].items():
                writer.array(name, dtype, len(values)).write(np.array(values))
            writer.finish(_TOKENS if what == "tokens" else _SPANS)
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    return {META: files.pop(META), **files}


def _store(what: str, random: Random) -> Files:
    files = dict(_artifact(what))
    if random.random() < 0.2:
        name = random.choice([name for name in files if name != META])
        files[name] = _array(random)
    return files


def _array(random: Random) -> bytes:
    """Return an array as another program might write it."""
    dtype = random.choice(("f8", ">i8", "i8", "u1", "U3", "V2", "?", "M8[D]", [("a", "i4")]))
    shape = random.choice(((), (0,), (2,), (3,), (6,), (2, 3)))
    stream = io.BytesIO()
    save = random.choice((np.save, np.savez))
    save(stream, np.zeros(shape, dtype=dtype), allow_pickle=False)
    return stream.getvalue()


@functools.cache
def _part_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "000000.npz"
        write_part(path, {"x": np.arange(4), "y": np.ones(2, "u2")}, {"first": 0, "rows": 4})
        return path.read_bytes()


def _part(random: Random) -> Files:
    return {"000000.npz": _part_file()}


def _state(random: Random) -> Files:
    state = {
        "cursors": {"text": {"en": [0, 3], "fr": [1, 7]}},
        "progress": {"step": 3, "seconds": 1.5},
        "identity": {"plugins": {"tlm": "1"}, "data": {"text": "k"}, "tables": {}},
        "versions": {"torch": "2"},
        "processes": 2,
        "ahead": ["00", "ff"],
        "plugins": {"tlm": {"x": 1}},
    }
    return {"state.json": json.dumps(state).encode()}


def _sealed(random: Random) -> Files:
    state = _state(random)["state.json"]
    entry = {"size": len(state), "sha256": hashlib.sha256(state).hexdigest()}
    manifest = json.dumps({"files": {"state.json": entry}}, indent=1)
    return {MANIFEST: manifest.encode(), "state.json": state}


# ---------------------------------------------------------------------------------------------
# Rules


def _check_tokens(path: Path) -> int:
    store = SequenceStore.open(path.parent)
    for offsets, values in ((store.offsets, store.ids), (store.segments, store.segment_length)):
        _check_borders(offsets, len(store), len(values))
    require(store.ids.dtype.kind == "u", f"token ids of type {store.ids.dtype}")
    store.account.lines()
    return len(store)


def _check_spans(path: Path) -> int:
    store = SpanStore.open(path.parent)
    _check_borders(store.offsets, len(store.offsets) - 1, len(store))
    require(all(isinstance(name, str) for name in (*store.kinds, *store.ids)), "what is no name")
    return len(store)


def _check_borders(offsets: Any, pieces: int, values: int) -> None:
    require(offsets.dtype == np.int64, f"borders of type {offsets.dtype}")
    found = offsets.tolist()
    require(len(found) == pieces + 1, "borders of another number of pieces")
    require(found == sorted(found) and found[0] == 0 and found[-1] == values, "borders outside")


def _check_part(path: Path) -> int:
    if not part_matches(path, 0, 4):
        return 0
    arrays, header = read_part(path)
    require(header["rows"] == 4, "another header")
    require(arrays["x"].tolist() == [0, 1, 2, 3], "another part is taken for whole")
    return 4


def _check_sealed(path: Path) -> int:
    wrong = damage(path.parent, [STATE])
    state = path.parent / "state.json"
    require(isinstance(wrong, str), "no text")
    if not wrong:
        listed = json.loads(path.read_text(encoding="utf-8"))["files"]
        require(set(listed) == {state.name}, "a manifest without the files is taken for whole")
    require(bool(wrong) or state.read_bytes() == _state(Random())["state.json"], "damage unseen")
    return int(not wrong)


def _check_state(path: Path) -> int:
    state = read_state(path.parent)
    for strata in state.cursors.values():
        for epoch, row in strata.values():
            require(type(epoch) is int and type(row) is int, "cursors that are no numbers")
    held = json.loads(path.read_text(encoding="utf-8"))["cursors"]
    found = {name: dict(strata) for name, strata in state.cursors.items()}
    same = {name: {one: tuple(at) for one, at in strata.items()} for name, strata in held.items()}
    require(found == same, "cursors that the file does not have")
    tables = (state.progress, state.versions, *state.identity.values(), *state.plugins.values())
    require(all(isinstance(table, dict) for table in tables), "what is no table")
    return len(state.cursors)


def _memo(random: Random) -> Files:
    known = {"/a/b.txt": {"size": 1, "mtime_ns": 2, "sha256": "0" * 64}}
    return {MEMO: json.dumps(known).encode(), "a.txt": b"text"}


def _check_memo(path: Path) -> int:
    # The file is not that of the memo: whatever the memo holds, its own hash has to come out.
    spec = parse_source(str(path.parent / "a.txt"))
    found = source_fingerprint(spec, path.parent)
    require(found == source_fingerprint(spec), "another fingerprint with a memo than without")
    return 1


READERS = (
    Reader("fingerprints", _memo, _check_memo),
    Reader("tokens", functools.partial(_store, "tokens"), _check_tokens),
    Reader("spans", functools.partial(_store, "spans"), _check_spans),
    Reader("part", _part, _check_part),
    Reader("manifest", _sealed, _check_sealed),
    Reader("state", _state, _check_state),
)

"""No file bites: nothing on disk executes, headers that lie are refused, nobody is called."""

from __future__ import annotations

import json
import shutil
import socket
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from building import Seg, Seq, build_store
from cli_files import Files, run, write_files
from hostile import Trap, archive, array_file, tensors_file
from small_tokenizers import small_tokenizer
from tiny import folder as tiny_world
from tiny import tiny_run, tiny_settings

from ptm_plus.errors import DataError, EnvironmentProblem, SettingsError
from ptm_plus.exporting.export import export
from ptm_plus.exporting.plain_load import main as plain_load
from ptm_plus.files import read_json, refuse_links
from ptm_plus.knowledge import VectorTable, read_graph, read_labels
from ptm_plus.knowledge.links import read_links
from ptm_plus.model import build_backbone, build_config
from ptm_plus.prepare.artifacts import part_matches, read_header, read_part, write_part
from ptm_plus.prepare.store import META, SequenceStore
from ptm_plus.prepare.tokenization import load_tokenizer
from ptm_plus.prepared import prepare
from ptm_plus.progress import Silent
from ptm_plus.questions import read_questions
from ptm_plus.report import read_report
from ptm_plus.settings import ModelSettings
from ptm_plus.settings_files import resolve
from ptm_plus.sources import parse_source, read_pairs, read_text


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path)


@pytest.fixture(autouse=True)
def nobody_is_called(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """No test here reaches the network: every try is an error, and is seen even if it is caught."""
    calls: list[Any] = []

    def connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            calls.append(address)
            raise OSError("no network here")

    def look_up(*arguments: Any, **_: Any) -> Any:
        calls.append(arguments)
        raise socket.gaierror("no network here")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, connect)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield calls
    assert calls == []


# ---------------------------------------------------------------------------------------------
# Pickles under every name that is read


def test_the_trap_works(trap: Trap) -> None:
    import pickle

    import torch

    pickle.loads(trap.pickled()).close()  # noqa: S301 (that is what the trap is for)
    assert trap.ran()
    path = trap.mark.with_name("saved.bin")
    path.write_bytes(trap.saved_by_torch())
    torch.load(path, weights_only=False)["weight"].close()
    assert trap.ran()
    exec(trap.program())  # noqa: S102 (likewise)
    assert trap.ran()


def drain(reader: Callable[[Any], Iterator[Any]]) -> Callable[[Path], object]:
    return lambda path: list(reader(parse_source(str(path))))


INPUTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    **{f"text{s}": (f"a{s}", drain(read_text)) for s in (".txt", ".jsonl", ".tsv", ".csv")},
    **{f"text{s}": (f"a{s}", drain(read_text)) for s in (".parquet", ".jsonl.gz", ".txt.xz")},
    "pairs": ("a.tsv", drain(read_pairs)),
    "pairs.tmx": ("a.tmx", drain(read_pairs)),
    "pairs.parallel": ("a.en", lambda path: list(read_pairs(parse_source(f"en-fr={path},{path}")))),
    "questions": ("a.jsonl", drain(read_questions)),
    "graph": ("a.tsv", lambda path: read_graph([path])),
    "labels.jsonl": ("a.jsonl", lambda path: read_labels([path])),
    "labels.tsv": ("a.tsv", lambda path: read_labels([path])),
    "links": ("a.tsv", lambda path: read_links([path])),
    "vectors": ("a.safetensors", VectorTable.open),
    "report": ("report.json", lambda path: read_report(path.parent)),
}


@pytest.mark.parametrize("name", INPUTS)
def test_a_pickle_among_the_inputs(name: str, trap: Trap, tmp_path: Path) -> None:
    file, read = INPUTS[name]
    for content in (trap.pickled(), trap.saved_by_torch()):
        (tmp_path / file).write_bytes(content)
        trap.refused(4, read, tmp_path / file)


def test_a_pickle_for_labels_of_vectors(trap: Trap, tmp_path: Path) -> None:
    for name in ("vectors.safetensors", "vectors.ids.json"):
        shutil.copy(tiny_world() / name, tmp_path / name)
    assert len(VectorTable.open(tmp_path / "vectors.safetensors").labels) == 6
    (tmp_path / "vectors.ids.json").write_bytes(trap.pickled())
    trap.refused(4, VectorTable.open, tmp_path / "vectors.safetensors")


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "ha"}">' for n in range(12))
EVIL_TYPES = {
    "billion laughs": f"<!DOCTYPE tmx [{LAUGHS}]>",
    "quadratic": f'<!DOCTYPE tmx [<!ENTITY l11 "{"ha" * 50_000}">]>',
    "a file": '<!DOCTYPE tmx [<!ENTITY l11 SYSTEM "file:///etc/passwd">]>',
    "the network": '<!DOCTYPE tmx [<!ENTITY l11 SYSTEM "http://localhost:9/x">]>',
    "a parameter": '<!DOCTYPE tmx [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]>',
    "a type elsewhere": '<!DOCTYPE tmx SYSTEM "http://localhost:9/tmx.dtd">',
}


@pytest.mark.parametrize("name", EVIL_TYPES)
def test_a_memory_that_defines_entities(name: str, trap: Trap, tmp_path: Path) -> None:
    """Nothing is expanded, opened or called, whatever the document type says."""
    segments = "".join(f'<tuv lang="{code}"><seg>&l11;{code}</seg></tuv>' for code in ("en", "fr"))
    path = tmp_path / "a.tmx"
    path.write_text(f"{EVIL_TYPES[name]}<tmx><body><tu>{segments}</tu></body></tmx>")
    said = trap.refused(4, drain(read_pairs), path)
    assert "a.tmx:1: " in said
    assert "root:" not in said


def test_a_tag_without_end_is_not_kept_in_memory(
    trap: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptm_plus.sources.tmx.LONGEST_UNIT", 200_000)
    path = tmp_path / "a.tmx"
    path.write_bytes(b"<tmx a='" + b"x" * 2_000_000)
    assert "a tag of more than 200,000 bytes" in trap.refused(4, drain(read_pairs), path)
    path.write_bytes(b"<tmx><tu><tuv lang='en'><seg>" + b"x" * 2_000_000)
    assert "a segment of more than 200,000" in trap.refused(4, drain(read_pairs), path)


@pytest.mark.parametrize("command", ["train", "plan", "prepare", "preview", "config show"])
def test_a_pickle_for_settings(command: str, trap: Trap, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(trap.pickled())
    assert run(*command.split(), path).exit_code == 2
    assert run("resume", tmp_path).exit_code == 2
    assert run("export", tmp_path, "--to", tmp_path / "out").exit_code == 2
    assert not trap.ran()


@pytest.fixture
def store(tmp_path: Path) -> SequenceStore:
    return build_store(
        tmp_path / "store", [Seq([Seg([11, 12, 13], [0, 1, 2])]), Seq([Seg([14, 15], [0, 1])])]
    )


def test_a_pickle_in_prepared_data(store: SequenceStore, trap: Trap) -> None:
    names = sorted(path.name for path in store.folder.iterdir())
    assert {"ids.npy", META} <= set(names)
    for name in names:
        whole = (store.folder / name).read_bytes()
        for content in (trap.pickled(), trap.saved_by_torch()):
            (store.folder / name).write_bytes(content)
            trap.refused(4, SequenceStore.open, store.folder)
        (store.folder / name).write_bytes(whole)
    SequenceStore.open(store.folder)


def test_a_pickle_for_a_part(trap: Trap, tmp_path: Path) -> None:
    path = tmp_path / "000000.npz"
    inside = archive([("header.npy", array_file(OBJECTS, trap.pickled()))])
    for content in (trap.pickled(), trap.saved_by_torch(), inside):
        path.write_bytes(content)
        for read in (read_part, read_header):
            trap.refused(4, read, path)
        assert not part_matches(path, 0, 1)


OBJECTS = "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small finished run."""
    files = write_files(tmp_path_factory.mktemp("trained"))
    assert run("train", files.settings, "--quiet").exit_code == 0
    return files.folder / "run"


@pytest.fixture
def handed_over(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def checkpoint_of(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("step-*"))


def test_a_pickle_in_a_checkpoint(handed_over: Path, trap: Trap, tmp_path: Path) -> None:
    for other in (handed_over / "checkpoints").iterdir():
        if other != checkpoint_of(handed_over):
            shutil.rmtree(other)
    names = sorted(path.name for path in checkpoint_of(handed_over).iterdir())
    assert len(names) > 3
    for name in names:
        path = checkpoint_of(handed_over) / name
        whole = path.read_bytes()
        path.write_bytes(trap.pickled())
        trap.refused(4, export, handed_over, tmp_path / "out")
        path.write_bytes(whole)


# ---------------------------------------------------------------------------------------------
# Checkpoints of transformers


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and its tokenizer as transformers saves them."""
    home = tmp_path_factory.mktemp("saved")
    made = tiny_run("bert")
    made.encoder.backbone.set_attn_implementation("sdpa")
    made.encoder.backbone.float().save_pretrained(home)
    made.prepared.tokenizer.save_pretrained(home)
    return home


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def load_model(path: object, **values: Any) -> Any:
    settings = ModelSettings(path=str(path), **values)
    tokenizer = small_tokenizer("bert")
    config = build_config(settings, tokenizer, 64)
    return build_backbone(settings, config, [], tokenizer, "fp32")


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **values}), encoding="utf-8")


def test_pickled_weights_are_refused_with_the_way_to_convert_them(model: Path, trap: Trap) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(trap.saved_by_torch())
    said = trap.refused(2, load_model, model)
    assert "M.from_pretrained('OLD').save_pretrained('NEW')" in said


def test_a_pickle_for_weights_or_configuration(model: Path, trap: Trap) -> None:
    for name in ("model.safetensors", "config.json"):
        (model / name).write_bytes(trap.pickled())
        trap.refused(2, load_model, model)


@pytest.mark.parametrize("shard", ["evil.bin", "../evil.bin", "/evil.bin", "../a.safetensors"])
def test_an_index_of_shards_may_name_safetensors_of_the_folder_only(
    shard: str, model: Path, trap: Trap
) -> None:
    (model / "model.safetensors").unlink()
    for folder in (model, model.parent):
        (folder / "evil.bin").write_bytes(trap.saved_by_torch())
    index = {"metadata": {}, "weight_map": {"bert.embeddings.word_embeddings.weight": shard}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert repr(shard) in trap.refused(2, load_model, model)


@pytest.mark.parametrize("name", ["adapter_model.bin", "evil.safetensors.index.json"])
def test_a_configuration_may_not_name_pickled_weights(name: str, model: Path, trap: Trap) -> None:
    (model / "adapter_model.bin").write_bytes(trap.saved_by_torch())
    index = {"metadata": {}, "weight_map": {"a": "adapter_model.bin"}}
    (model / "evil.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    edit(model / "config.json", transformers_weights=name)
    assert "'adapter_model.bin'" in trap.refused(2, load_model, model)


def test_a_configuration_may_not_name_a_kernel(model: Path) -> None:
    edit(model / "config.json", attn_implementation="evil/kernel")
    assert load_model(model).config._attn_implementation == "ptm_plus"
    new = ModelSettings(config={"attn_implementation": "evil/kernel", "num_hidden_layers": 1})
    config = build_config(new, small_tokenizer("bert"), 64)
    assert build_backbone(new, config, [], small_tokenizer("bert"), "fp32") is not None


def test_code_beside_a_model_stays_where_it_is(model: Path, trap: Trap) -> None:
    """Where transformers knows the family it takes its own classes; where not, it is refused."""
    (model / "evil.py").write_text(trap.program(), encoding="utf-8")
    classes = {"AutoConfig": "evil.Config", "AutoModelForMaskedLM": "evil.Model"}
    edit(model / "config.json", auto_map=classes)
    edit(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Slow", "evil.Fast"]})
    assert type(load_model(model)).__name__ == "BertForMaskedLM"
    assert load_tokenizer(str(model)).is_fast
    assert not trap.ran()
    edit(model / "config.json", auto_map=classes, model_type="evil")
    assert "--set model.trust_remote_code=true" in trap.refused(2, load_model, model)
    (model / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["evil.Slow", "evil.Fast"]}}), encoding="utf-8"
    )
    assert "--set model.trust_remote_code=true" in trap.refused(5, load_tokenizer, str(model))


TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@pytest.mark.parametrize("name", TOKENIZER_FILES)
@pytest.mark.parametrize(
    "content", [None, b"{}", b"[]", b'{"auto_map": []}', b"[" * 100_000, b'{"model": {"type": 1}}']
)
def test_a_strange_file_of_a_tokenizer(
    name: str, content: bytes | None, model: Path, trap: Trap
) -> None:
    (model / name).write_bytes(trap.pickled() if content is None else content)
    with suppress(EnvironmentProblem):  # what is merely empty may be made up for
        load_tokenizer(str(model))
    assert not trap.ran()


@pytest.mark.parametrize("name", ["vocab.txt", "spiece.model", "vocab.pkl", "vocab.bin"])
def test_a_pickle_for_a_vocabulary(name: str, tmp_path: Path, trap: Trap) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / name).write_bytes(trap.pickled())
    trap.refused(5, load_tokenizer, str(folder))


@pytest.mark.parametrize("name", ["./none", "/none", "~/none", "~nobody-at-all/none", "a/b/none"])
def test_a_mistyped_path_is_no_hub_name(name: str, trap: Trap) -> None:
    assert "no such folder" in trap.refused(2, load_model, name)
    assert "no such folder" in trap.refused(2, load_tokenizer, name)
    assert "no such folder" in trap.refused(4, parse_source, f"hub:{name}")


def test_a_file_is_no_model(model: Path, trap: Trap) -> None:
    (model / "pytorch_model.bin").write_bytes(trap.saved_by_torch())
    assert "is a file" in trap.refused(2, load_model, model / "pytorch_model.bin")


def test_a_name_on_the_hub_is_asked_for(
    nobody_is_called: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(SettingsError, match="cannot load 'org/name'"):
        load_model("org/name")
    assert nobody_is_called
    nobody_is_called.clear()


def test_data_by_one_word_are_no_loader_over_the_working_folder(
    tmp_path: Path, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.pkl").write_bytes(trap.pickled())
    trap.refused(2, parse_source, "hub:pandas")
    (tmp_path / "pandas").mkdir()
    (tmp_path / "pandas" / "train.jsonl").write_text('{"text": "hello"}\n', encoding="utf-8")
    assert len(list(read_text(parse_source("hub:pandas")))) == 1


def test_the_proof_of_an_export_runs_nothing_of_it(
    handed_over: Path, trap: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export(handed_over, out, verify=False)
    (out / "evil.py").write_text(trap.program(), encoding="utf-8")
    edit(out / "config.json", auto_map={"AutoModelForMaskedLM": "evil.Model"})
    edit(out / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Slow", "evil.Fast"]})
    monkeypatch.setattr("sys.meta_path", list(__import__("sys").meta_path))
    assert plain_load([str(out)])["model"] == "BertForMaskedLM"
    (out / "model.safetensors").rename(out / "pytorch_model.bin")
    (out / "pytorch_model.bin").write_bytes(trap.saved_by_torch())
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        plain_load([str(out)])
    assert not trap.ran()


# ---------------------------------------------------------------------------------------------
# Headers that lie


FLOATS = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
LIES: dict[str, bytes] = {
    "huge header": tensors_file({"vectors": FLOATS}, bytes(24), length=2**63),
    "header beyond the file": tensors_file({"vectors": FLOATS}, length=10_000),
    "no header": b"\x00" * 8,
    "cut": tensors_file({"vectors": FLOATS}, bytes(20)),
    "too long": tensors_file({"vectors": FLOATS}, bytes(30)),
    "offsets backwards": tensors_file({"vectors": {**FLOATS, "data_offsets": [24, 0]}}, bytes(24)),
    "offsets below zero": tensors_file({"vectors": {**FLOATS, "data_offsets": [-8, 16]}}, b""),
    "offsets far away": tensors_file(
        {"vectors": {**FLOATS, "data_offsets": [2**40, 2**40 + 24]}}, bytes(24)
    ),
    "overlap": tensors_file({"vectors": FLOATS, "other": FLOATS}, bytes(24)),
    "sizes below zero": tensors_file({"vectors": {**FLOATS, "shape": [-2, -3]}}, bytes(24)),
    "huge shape": tensors_file({"vectors": {**FLOATS, "shape": [2**40, 2**40]}}, bytes(24)),
    "shape that overflows": tensors_file({"vectors": {**FLOATS, "shape": [2**63, 2]}}, bytes(24)),
    "another type": tensors_file({"vectors": {**FLOATS, "dtype": "I32"}}, bytes(24)),
    "no such type": tensors_file({"vectors": {**FLOATS, "dtype": "O"}}, bytes(24)),
    "a larger type": tensors_file({"vectors": {**FLOATS, "dtype": "F64"}}, bytes(24)),
    "deep": tensors_file('{"a":' * 5000 + "1" + "}" * 5000, bytes(24)),
    "no object": tensors_file("[]"),
    "twice": tensors_file(
        '{"vectors":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},'
        '"vectors":{"dtype":"F32","shape":[9,3],"data_offsets":[0,108]}}',
        bytes(24),
    ),
    "twice, the other way": tensors_file(
        '{"vectors":{"dtype":"F32","shape":[9,3],"data_offsets":[0,108]},'
        '"vectors":{"dtype":"F32","shape":[3,3],"data_offsets":[0,36]}}',
        bytes(36),
    ),
}


def test_an_honest_file_of_this_making_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(tensors_file({"vectors": FLOATS}, bytes(24)))
    (tmp_path / "a.ids.json").write_text('["Q1", "Q2"]', encoding="utf-8")
    assert VectorTable.open(path).vectors.tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("lie", LIES)
def test_vectors_that_lie(lie: str, trap: Trap, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(LIES[lie])
    (tmp_path / "a.ids.json").write_text('["Q1", "Q2"]', encoding="utf-8")
    trap.refused(4, VectorTable.open, path)


@pytest.mark.parametrize("lie", LIES)
def test_weights_that_lie(lie: str, trap: Trap, model: Path) -> None:
    (model / "model.safetensors").write_bytes(LIES[lie].replace(b"vectors", b"weights"))
    if lie in ("another type", "twice, the other way", "no header"):  # strange, but whole
        return
    trap.refused(2, load_model, model)


def header(descr: str = "'<u2'", shape: str = "(5,)", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


ARRAYS: dict[str, bytes] = {
    "objects": array_file(header("'|O'"), bytes(40)),
    "another type": array_file(header("'<f8'"), bytes(40)),
    "fields": array_file(header("[('a', '<u1'), ('b', '<u1')]"), bytes(10)),
    "huge": array_file(header(shape="(1000000000000000,)"), bytes(10)),
    "overflow": array_file(header(shape=f"({2**62}, {2**62})"), bytes(10)),
    "below zero": array_file(header(shape="(-5,)"), bytes(10)),
    "two axes": array_file(header(shape="(5, 1)"), bytes(10)),
    "cut": array_file(header(), bytes(8)),
    "no numbers": array_file(header(shape="('a',)"), bytes(10)),
    "no literal": array_file("__import__('os').abort()"),
    "deep": array_file("(" * 110),
    "deeper": b"\x93NUMPY\x02\x00" + (9000).to_bytes(4, "little") + b"-" * 9000,
    "huge header": b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little") + b"{}",
    "an archive": archive([("ids.npy", array_file(header(), bytes(10)))]),
    "empty": b"",
}


@pytest.mark.parametrize("lie", ARRAYS)
def test_prepared_arrays_that_lie(lie: str, store: SequenceStore, trap: Trap) -> None:
    path = store.folder / "ids.npy"
    path.write_bytes(array_file(header(), bytes(10)))
    assert SequenceStore.open(store.folder).ids.tolist() == [0] * 5
    path.write_bytes(ARRAYS[lie])
    assert "ids.npy" in trap.refused(4, SequenceStore.open, store.folder)


@pytest.mark.parametrize(
    "values",
    [
        {"tokens": -1},
        {"tokens": 10**30},
        {"tokens": "five"},
        {"sequences": None},
        {"columns": {"../../ids": "u2"}},
        {"columns": {"x": "O"}},
        {"columns": {"x": "no type"}},
        {"columns": 5},
        {"labels": {"/etc/passwd": None}},
        {"labels": []},
        {"account": {}},
        {"fields": 1},
        {"versions": "2"},
        {"version": 99},
        {"artifact": "pickle"},
    ],
)
def test_a_description_of_prepared_data_that_lies(
    values: dict[str, Any], store: SequenceStore, trap: Trap
) -> None:
    edit(store.folder / META, **values)
    trap.refused(4, SequenceStore.open, store.folder)


def test_a_name_in_prepared_data_leads_nowhere_else(store: SequenceStore, trap: Trap) -> None:
    (store.folder / "column.x").mkdir()
    np.save(store.folder.parent / "y.npy", np.zeros(5, np.uint16))
    edit(store.folder / META, columns={"x/../../y": "u2"})
    assert "is no name of an array" in trap.refused(4, SequenceStore.open, store.folder)


PART = {"first": 0, "rows": 1}


LISTED = b'{"arrays": [], "first": 0, "rows": 1}'


def part(name: str = "header.npy", text: bytes = LISTED) -> tuple[str, bytes]:
    return name, array_file(header("'|u1'", f"({len(text)},)"), text)


def test_an_honest_part_of_this_making_is_read(tmp_path: Path) -> None:
    for name, content in (("a", archive([part()])), ("b", None)):
        path = tmp_path / name
        if content is None:
            write_part(path, {}, PART)
        else:
            path.write_bytes(content)
        assert read_part(path) == ({}, PART)
        assert part_matches(path, 0, 1)
        assert not part_matches(path, 0, 2)


PARTS: dict[str, bytes] = {
    "no archive": b"nothing",
    "an array": array_file(header(), bytes(10)),
    "no header": archive([("other.npy", array_file(header(), bytes(10)))]),
    "no arrays": archive([("header.npy", b"text")]),
    "a list": archive([part(text=b"[1]")]),
    "deep": archive([part(text=b"[" * 60_000)]),
    "huge": archive([part(), ("x.npy", array_file(header(shape="(1000000000000000,)")))]),
    "objects": archive([part(), ("x.npy", array_file(header("'|O'"), bytes(40)))]),
    "nothing": archive([part(), ("x.npy", array_file(header("'|V0'"), bytes(10)))]),
    "compressed": archive(
        [part(), ("x.npy", array_file(header("'|u1'", "(1000000,)"), bytes(10**6)))],
        zipfile.ZIP_DEFLATED,
    ),
    "damaged": archive([part()]).replace(b"rows", b"ROWS"),
}


@pytest.mark.parametrize("lie", PARTS)
def test_parts_that_lie(lie: str, trap: Trap, tmp_path: Path) -> None:
    path = tmp_path / "000000.npz"
    path.write_bytes(PARTS[lie])
    trap.refused(4, read_part, path)
    assert not part_matches(path, 0, 1)


def test_names_in_a_part_are_no_paths(tmp_path: Path) -> None:
    path = tmp_path / "in" / "000000.npz"
    path.parent.mkdir()
    array = array_file(header(), bytes(10))
    listed = LISTED.replace(b"[]", b'["../out", "/tmp/out"]')
    members = [part(text=listed), ("../out.npy", array), ("/tmp/out.npy", array)]
    path.write_bytes(archive(members))
    arrays, _ = read_part(path)
    assert set(arrays) == {"../out", "/tmp/out"}
    assert [one.name for one in tmp_path.iterdir()] == ["in"]


def parquet(tmp_path: Path, metadata: dict[bytes, bytes] | None = None) -> bytes:
    schema = pyarrow.schema([("text", pyarrow.string())], metadata=metadata)
    table = pyarrow.table({"text": ["hello"] * 100}, schema=schema)
    pyarrow.parquet.write_table(table, tmp_path / "good.parquet")
    return (tmp_path / "good.parquet").read_bytes()


def test_parquet_that_lies(tmp_path: Path, trap: Trap) -> None:
    good, path = parquet(tmp_path), tmp_path / "a.parquet"
    end = len(good)
    footer = int.from_bytes(good[-8:-4], "little")
    for content in (
        b"PAR1" + b"\xff" * 100 + b"PAR1",
        good[:-8],
        good[: end // 2],
        good[:-8] + (2**31 - 1).to_bytes(4, "little") + b"PAR1",
        good[:-8] + (3).to_bytes(4, "little") + b"PAR1",
        good[:4] + b"\xff" * (end - 8 - footer - 4) + good[end - 8 - footer :],
    ):
        path.write_bytes(content)
        trap.refused(4, drain(read_text), path)
    rows = good[end - 8 - footer :].replace(b"\xc8\x01", b"\xfe\xff\xff\xff\x0f")  # 100, 2**32 - 1
    path.write_bytes(good[: end - 8 - footer] + rows)
    trap.refused(4, drain(read_text), path)


def test_damaged_parquet_never_ends_otherwise(tmp_path: Path) -> None:
    good, path = bytearray(parquet(tmp_path)), tmp_path / "a.parquet"
    for at in range(0, len(good), 7):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x15]) + good[at + 1 :])
        with suppress(DataError):
            list(read_text(parse_source(str(path))))


def test_parquet_with_a_pickled_type(tmp_path: Path, trap: Trap) -> None:
    field = pyarrow.field(
        "text",
        pyarrow.string(),
        metadata={
            b"ARROW:extension:name": b"arrow.py_extension_type",
            b"ARROW:extension:metadata": trap.pickled(),
        },
    )
    table = pyarrow.table({"text": ["hello"]}, schema=pyarrow.schema([field]))
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with suppress(DataError):
        list(read_text(parse_source(str(tmp_path / "a.parquet"))))
    assert not trap.ran()


DEEP = "[" * 100_000
LONG = "9" * 10_000


@pytest.mark.parametrize("text", [DEEP, '{"id":' * 50_000, LONG, f'{{"text": {LONG}}}'])
def test_json_that_is_a_bomb(text: str, trap: Trap, tmp_path: Path) -> None:
    for name, (file, read) in INPUTS.items():
        if file.endswith((".json", ".jsonl")):
            (tmp_path / file).write_text(text, encoding="utf-8")
            trap.refused(4, read, tmp_path / file), name
    (tmp_path / "deep.json").write_text(text, encoding="utf-8")
    trap.refused(4, read_json, tmp_path / "deep.json")


@pytest.mark.parametrize(
    "text",
    [
        f"a = {DEEP}",
        f"a = {'{b = ' * 5000}",
        f"train.steps = {LONG}",
        f"plugin.{'.'.join('abcd' * 200)} = 1",
        f"[plugin.{'.'.join('abcd' * 200)}]",
        f"model.config.a = {'[' * 200}{']' * 200}",
        'output = "a\\u0000b"',
        'data.text = ["a\\u0000b"]',
        'plugin."a\\u0000b" = {}',
        "train.steps = inf",
        "train.lr = nan",
        "train = 1979-05-27T07:32:00Z",
        '"__class__" = 1',
        "model.__init__ = 1",
        'plugins = ["../../evil"]',
        'plugins = ["os.path"]',
    ],
)
def test_settings_that_are_odd(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text, encoding="utf-8")
    result = run("plan", path)
    assert result.exit_code in (2, 3), result.output
    assert "error: " in str(result.stderr)


# ---------------------------------------------------------------------------------------------
# Links


def test_a_run_folder_with_links_is_not_gone_on_with(handed_over: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine", encoding="utf-8")
    log = handed_over / "log.jsonl"
    log.unlink()
    log.symlink_to(precious)
    for command in (["resume", handed_over], ["export", handed_over, "--to", tmp_path / "out"]):
        result = run(*command)
        assert result.exit_code == 4
        assert "is a symbolic link" in str(result.stderr)
    settings = handed_over / "settings.toml"
    assert run("train", settings, "-o", handed_over, "--overwrite").exit_code == 4
    assert precious.read_text(encoding="utf-8") == "mine"


def test_a_link_to_a_run_folder_is_one_s_own(handed_over: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(handed_over)
    assert run("resume", tmp_path / "link", "--quiet").exit_code == 0


@pytest.mark.parametrize("what", ["tokens", "tokens/parts", "spans", "tokenizers"])
def test_a_cache_with_links_is_not_written_through(what: str, tmp_path: Path) -> None:
    cache, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious.npy").write_text("mine", encoding="utf-8")
    settings = tiny_settings(**{"prepare.cache": str(cache)})
    prepare(settings, Silent())
    kind, _, below = what.partition("/")
    for folder in [one for one in (cache / kind).iterdir() if one.is_dir()]:
        shutil.rmtree(folder)
        link = cache / kind / f"{folder.name}.partial" / below
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(elsewhere)
    with pytest.raises(DataError, match="is a symbolic link"):
        prepare(settings, Silent())
    assert [one.name for one in elsewhere.iterdir()] == ["precious.npy"]


@pytest.mark.parametrize("kind", ["tokens", "tokenizers"])
def test_a_lock_that_is_a_link_is_not_written(kind: str, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine", encoding="utf-8")
    settings = tiny_settings(**{"prepare.cache": str(tmp_path / "cache")})
    prepare(settings, Silent())
    for lock in (tmp_path / "cache" / kind).glob("*.lock"):
        shutil.rmtree(lock.with_suffix(""))
        lock.unlink()
        lock.symlink_to(precious)
    with pytest.raises(DataError, match="is a symbolic link"):
        prepare(settings, Silent())
    assert precious.read_text(encoding="utf-8") == "mine"


def test_links_are_seen_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    refuse_links([tmp_path / "a", tmp_path / "none"])
    (tmp_path / "a" / "b" / "c").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"c: is a symbolic link to .*nowhere"):
        refuse_links([tmp_path / "a"])


# ---------------------------------------------------------------------------------------------
# The terminal


def test_text_in_files_does_not_steer_the_terminal(tmp_path: Path) -> None:
    steering = "\x1b]0;title\x07 \x1b[31m \x9b31m \r"
    named = tmp_path / "a.tsv"
    named.write_text(f"src\ttgt\t{steering}\nHello.\tBonjour.\n", encoding="utf-8")
    result = run("prepare", "--pairs", named, "--set", f"prepare.cache={tmp_path}")
    assert result.exit_code == 4
    files = write_files(tmp_path)
    files.text.write_text(
        json.dumps({"text": f"the {steering} river", "lang": "en"}) + "\n", encoding="utf-8"
    )
    wide = ("--set", "model.family='roberta'", "--set", "data.max_examples=40")
    shown = run("preview", files.settings, *wide)
    assert shown.exit_code == 0, shown.output
    said = str(result.stderr) + str(result.stdout) + str(shown.stdout) + str(shown.stderr)
    assert not set(said) & set("\x1b\x07\x9b\r")
    assert "\ufffd" in said


# ---------------------------------------------------------------------------------------------
# No network


def test_nothing_calls_anybody_for_local_files(
    saved: Path, tmp_path: Path, nobody_is_called: list[Any]
) -> None:
    files: Files = write_files(tmp_path)
    out = tmp_path / "out"
    for command in (
        ["plugins", "list"],
        ["doctor"],
        ["plan", files.settings],
        ["prepare", files.settings],
        ["preview", files.settings, "--count", "1"],
        ["plan", files.settings, "--model", saved, "--set", "prepare.max_length=64"],
        ["train", files.settings, "--pairs", files.pairs, "--plugin", "tlm", "--quiet"],
        ["resume", files.folder / "run", "--quiet"],
        ["export", files.folder / "run", "--to", out],
        ["train", files.settings, "--model", out, "-o", tmp_path / "three", "--quiet"],
        ["kg", "check", "--text", files.text, "--kg", files.kg, "--labels", files.labels],
    ):
        result = run(*command)
        assert result.exit_code == 0, (command, result.output)
        assert nobody_is_called == [], command


def test_settings_of_the_command_line_are_resolved_without_looking(tmp_path: Path) -> None:
    """Only what is used is looked for: settings may name a hub, and showing them asks nobody."""
    path = tmp_path / "a.toml"
    path.write_text('model.path = "org/name"\ndata.text = ["hub:org/name"]', encoding="utf-8")
    assert resolve(path).settings.model.path == "org/name"
    assert run("config", "show", path).exit_code == 0

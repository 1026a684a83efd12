"""No program of ours runs what it reads: no pickle, no eval, no loader that does either."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import PAGES, ROOT

SOURCES = sorted(
    path
    for pattern in ("ptm_plus/**/*.py", "plugins/*/ptm_plus_*/**/*.py", "benchmarks/*.py")
    for path in ROOT.glob(pattern)
)


MODULES = {
    *("cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "pickle", "_pickle", "shelve"),
    *("yaml", "torch.distributed.checkpoint", "torch.hub", "torch.package"),
}
"""What reads files that run, or would if it were asked to."""

NAMES = {
    *("eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"),
    *("torch.load", "torch.jit.load", "torch.serialization", "numpy.load"),
    *("pandas.read_pickle", "os.system", "os.popen"),
    *("importlib.util.spec_from_file_location", "multiprocessing.reduction.ForkingPickler"),
}

METHODS = {
    *("load_state", "save_state", "from_path_binary", "read_pickle", "allow_all_kernels"),
    *("all_gather_object", "gather_object", "broadcast_object_list", "scatter_object_list"),
    "recv_object_list",
}
"""Whatever they are called on: accelerate's states, PyKEEN's files, collectives that pickle."""

ALLOWED = {
    # A plugin in a file, which was asked for by its path: see test_consent.py.
    ("ptm_plus/discovery.py", "importlib.util.spec_from_file_location"),
    # Asks whether a component can be sent to our own worker processes; nothing is read back.
    ("ptm_plus/prepare/chunk_pool.py", "multiprocessing.reduction.ForkingPickler"),
}


def dangers(source: str) -> list[str]:
    """What in a program could run code from a file, by its full name."""
    tree = ast.parse(source)
    known: dict[str, str] = {}
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                known[one.asname or one.name.partition(".")[0]] = (
                    one.name if one.asname else one.name.partition(".")[0]
                )
                found += [one.name] if _within(one.name, MODULES) else []
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for one in node.names:
                full = f"{node.module}.{one.name}"
                known[one.asname or one.name] = full
                found += [full] if _within(full, MODULES | NAMES) else []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            head, _, tail = ast.unparse(node).partition(".")
            full = ".".join(filter(None, (known.get(head, head), tail)))
            in_store = isinstance(node.ctx, ast.Store)
            found += [full] if full in NAMES and not in_store else []
            found += [node.attr] if isinstance(node, ast.Attribute) and node.attr in METHODS else []
        elif isinstance(node, ast.Call):
            found += list(_arguments(node))
    return sorted(set(found))


def _within(name: str, names: set[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:size]) in names for size in range(1, len(parts) + 1))


def _arguments(call: ast.Call) -> Iterator[str]:
    given = {one.arg: ast.unparse(one.value) for one in call.keywords}
    if given.get("allow_pickle", "False") != "False":
        yield "allow_pickle"
    if given.get("trust_remote_code") == "True":
        yield "trust_remote_code"
    if given.get("shell", "False") != "False":
        yield "shell"
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    # Left to itself, transformers asks on the terminal whether to run what it found.
    if name in ("from_pretrained", "from_config") and not {"trust_remote_code", None} & set(given):
        yield name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_program_of_ours_runs_files(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    allowed = {what for where, what in ALLOWED if where == name}
    assert set(dangers(path.read_text(encoding="utf-8"))) == allowed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_example_runs_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```$", text, flags=re.M | re.S):
        assert set(dangers(block)) <= {"from_pretrained"}  # a user's own export


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", ["pickle"]),
        ("from pickle import loads", ["pickle.loads"]),
        ("import torch.distributed.checkpoint as dcp", ["torch.distributed.checkpoint"]),
        ("from torch.distributed import checkpoint", ["torch.distributed.checkpoint"]),
        ("import torch as t\nt.load('x')", ["torch.load"]),
        ("from torch import load", ["torch.load"]),
        ("from torch import load as read\nread('x')", ["torch.load"]),
        ("import torch\nread = torch.load", ["torch.load"]),
        ("import torch.nn\ntorch.load", ["torch.load"]),
        ("eval('1')", ["eval"]),
        ("import builtins\nbuiltins.exec('1')", ["builtins.exec"]),
        ("import numpy as np\nnp.load('x', allow_pickle=False)", ["numpy.load"]),
        ("f(allow_pickle=True)", ["allow_pickle"]),
        ("accelerator.load_state('x')", ["load_state"]),
        ("torch.distributed.all_gather_object(a, b)", ["all_gather_object"]),
        ("from yaml import load", ["yaml.load"]),
        ("subprocess.run(x, shell=True)", ["shell"]),
        ("AutoModel.from_pretrained('x')", ["from_pretrained"]),
        ("AutoModel.from_pretrained('x', trust_remote_code=False)", []),
        ("AutoModel.from_pretrained('x', trust_remote_code=True)", ["trust_remote_code"]),
        ("AutoModel.from_pretrained('x', **where)", []),
        ("model.eval()\nre.compile('x')\njson.load(x)\nimport torch\ntorch.save", []),
        ("module.load_state_dict(x)\neval = 1", []),
    ],
)
def test_the_check_sees_what_it_must(source: str, found: list[str]) -> None:
    assert dangers(source) == found

from __future__ import annotations

import subprocess
import sys

import pytest

from ptm_plus import knowledge

PROGRAM = """
import sys
import ptm_plus.knowledge, ptm_plus.knowledge.labels
assert "numpy" not in sys.modules
from ptm_plus.knowledge import *
heavy = {"torch", "transformers", "pykeen", "networkx", "safetensors", "ahocorasick_rs"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""


def test_every_public_name_exists_and_nothing_else():
    assert knowledge.__all__ == [
        "DictionaryLinker",
        "EntityLabels",
        "Graph",
        "Ledger",
        "Link",
        "LinkCounts",
        "Names",
        "VectorTable",
        "check",
        "read_graph",
        "read_labels",
        "write_table",
    ]
    assert all(getattr(knowledge, name) for name in dir(knowledge))
    with pytest.raises(AttributeError, match="no attribute 'Linker'"):
        _ = knowledge.Linker


def test_importing_it_is_light():
    subprocess.run(
        [sys.executable, "-c", PROGRAM],
        check=True,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
    )

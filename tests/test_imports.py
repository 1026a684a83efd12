"""What gets imported when, and that imports run one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import ptm_plus

CORE = Path(ptm_plus.__file__).parent
HEAVY = {"accelerate", "datasets", "pyarrow", "pykeen", "torch", "transformers"}


def imported_by(statement: str) -> set[str]:
    """Top-level modules that a fresh process has imported after a statement."""
    shown = f"{statement}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", shown], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


def test_the_check_sees_a_heavy_import() -> None:
    assert "pyarrow" in imported_by("import pyarrow") & HEAVY


@pytest.mark.parametrize(
    "statement",
    [
        "from ptm_plus import hookimpl, PluginInfo, Claim, Example, Span, DataError",
        "from ptm_plus import Section, Stream, Part, Objective, UnitKind",
        "from ptm_plus import ContextView, CONTRACT",
        "import ptm_plus.plugins",
        "from ptm_plus.plugins import discover; discover()",
        "import ptm_plus.settings_files, ptm_plus.rules",
    ],
)
def test_the_static_side_imports_nothing_heavy(statement: str) -> None:
    assert not imported_by(statement) & (HEAVY | {"numpy"})


def test_help_needs_no_settings() -> None:
    found = imported_by("import ptm_plus.cli.root")
    assert "typer" in found
    assert not found & (HEAVY | {"numpy", "pydantic", "packaging"})


def test_hookimpl_costs_pluggy_alone() -> None:
    before = imported_by("import pluggy")
    assert imported_by("from ptm_plus import hookimpl") - before == {"ptm_plus"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(CORE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(CORE.rglob("*.py"))}


def imported_at_load(source: str) -> set[str]:
    """Our modules that a module needs to load: not those in functions or for types only."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                waiting += node.orelse
            elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                waiting.append(node)
    # The face itself loads nothing, so asking it for a name is no import of the package.
    return {name for name in found if name in MODULES and name != "ptm_plus"}


def test_the_check_tells_what_is_needed_to_load() -> None:
    source = """
from typing import TYPE_CHECKING
import ptm_plus.errors
from ptm_plus import rules
from ptm_plus.keyed import Draws
if TYPE_CHECKING:
    from ptm_plus.views import View
def late():
    from ptm_plus.prepare.store import SequenceStore
"""
    assert imported_at_load(source) == {"ptm_plus.errors", "ptm_plus.rules", "ptm_plus.keyed"}


def test_imports_of_the_core_run_one_way() -> None:
    graph = {
        name: imported_at_load(path.read_text(encoding="utf-8")) - {name}
        for name, path in MODULES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(reversed(error.args[1]))}")

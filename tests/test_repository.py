"""The repository keeps to its own rules: one set of plugins, one-way imports."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CORE = sorted((ROOT / "ptm_plus").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").glob("*/ptm_plus_*/**/*.py"))

PUBLIC = {"ptm_plus", "ptm_plus.commands", "ptm_plus.knowledge"}
PLACES = (("recipes", "recipes"), ("plots", "report"), ("tasks", "tasks"), ("testing", "test"))
"""Folders and modules that import what an extra installs."""

EXTRAS_THAT_ARE_NO_PLUGIN = {"all", "dev", "recipes", "report", "tasks", "test"}
LOWER_BOUND = re.compile(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?>=[0-9]+(\.[0-9]+)*")
OWN_EXTRA = re.compile(r"ptm-plus\[[a-z,-]+\]")


def plugin_folders() -> set[str]:
    """Folders with a package in them, whether or not git tracks an empty one."""
    return {path.relative_to(ROOT / "plugins").parts[0] for path in PLUGINS}


def package_of(plugin: str) -> str:
    return f"ptm_plus_{plugin.replace('-', '_')}"


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module is not None
            yield node.module


def top_level(module: str) -> str:
    return module.partition(".")[0]


def test_every_list_names_the_same_plugins() -> None:
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    all_extra = re.fullmatch(r"ptm-plus\[(.*)\]", extras["all"][0])
    assert all_extra is not None

    named = plugin_folders()
    assert named
    assert set(project["entry-points"]["ptm_plus.plugins"]) == named
    assert set(extras) - EXTRAS_THAT_ARE_NO_PLUGIN == named
    assert set(all_extra[1].split(",")) == named | {"recipes", "report", "tasks"}
    assert set(wheel) == {"ptm_plus"} | {f"plugins/{n}/{package_of(n)}" for n in named}


@pytest.mark.parametrize("plugin", sorted(plugin_folders()))
def test_plugin_folder_is_complete(plugin: str) -> None:
    folder = ROOT / "plugins" / plugin
    assert (folder / "README.md").is_file()
    assert (folder / package_of(plugin) / "__init__.py").is_file()
    assert list((folder / "tests").glob("test_*.py"))


def test_entry_points_name_the_packages_of_their_plugins() -> None:
    for name, target in PROJECT["project"]["entry-points"]["ptm_plus.plugins"].items():
        assert target == f"{package_of(name)}:plugin"


def test_every_plugin_has_a_marker_and_a_tox_factor() -> None:
    factors = {package_of(name).removeprefix("ptm_plus_") for name in plugin_folders()}
    markers = {m.partition(":")[0] for m in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
    listed = re.search(r"py311-\{([a-z_,]+)\}", tox)
    assert listed is not None
    assert factors <= markers
    assert set(listed[1].split(",")) == factors
    for name in plugin_folders():
        assert f"{package_of(name).removeprefix('ptm_plus_')}: {name}\n" in tox


@pytest.mark.parametrize("path", CORE, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_core_imports_no_plugin(path: Path) -> None:
    theirs = {package_of(name) for name in plugin_folders()} | {"pykeen"}
    assert not {m for m in imported_modules(path) if top_level(m) in theirs}


@pytest.mark.parametrize("path", PLUGINS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_plugins_import_the_public_face_only(path: Path) -> None:
    own = next(part for part in path.parts if part.startswith("ptm_plus_"))
    ours = {m for m in imported_modules(path) if top_level(m).startswith("ptm_plus")}
    assert {m for m in ours if top_level(m) != own} <= PUBLIC


def test_dependencies_have_lower_bounds_only() -> None:
    project = PROJECT["project"]
    for requirement in project["dependencies"]:
        assert LOWER_BOUND.fullmatch(requirement), requirement
    for requirements in project["optional-dependencies"].values():
        for requirement in requirements:
            pattern = OWN_EXTRA if requirement.startswith("ptm-plus[") else LOWER_BOUND
            assert pattern.fullmatch(requirement), requirement


@pytest.mark.parametrize("path", CORE + PLUGINS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_import_is_a_declared_dependency(path: Path) -> None:
    declared = set(map(distribution, PROJECT["project"]["dependencies"]))
    for name in plugin_folders():
        if package_of(name) in path.parts:
            extra = PROJECT["project"]["optional-dependencies"][name]
            declared |= set(map(distribution, extra))
    for place, extra in PLACES:
        if place in path.parts or path.stem == place:
            needed = PROJECT["project"]["optional-dependencies"][extra]
            declared |= set(map(distribution, needed))
    for module in set(map(top_level, imported_modules(path))):
        if module in sys.stdlib_module_names or module.startswith("ptm_plus"):
            continue
        assert distribution(module) in declared, module


def distribution(requirement: str) -> str:
    name = requirement.partition(">=")[0].partition("[")[0].replace("_", "-").lower()
    return {"sklearn": "scikit-learn"}.get(name, name)


def test_constraints_cover_every_dependency_and_meet_its_bound() -> None:
    tested = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    requirements = [
        requirement
        for group in [
            PROJECT["project"]["dependencies"],
            *PROJECT["project"]["optional-dependencies"].values(),
        ]
        for requirement in group
        if not requirement.startswith("ptm-plus[")
    ]
    for requirement in requirements:
        name, bound = requirement.split(">=")
        assert version(tested[name.partition("[")[0]]) >= version(bound), requirement


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))

"""Code runs when the command line asks for it, never because a file does."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_files import Files, document, run, write_files
from hostile import Trap

from ptm_plus import cli
from ptm_plus.consent import ALLOW, consented
from ptm_plus.errors import SettingsError
from ptm_plus.exporting.export import export
from ptm_plus.run_folder import read_folder
from ptm_plus.settings_files import resolve

PLUGIN = """
from ptm_plus import PluginInfo, hookimpl


class Hooks:
    def __init__(self, settings, instance):
        pass

    @hookimpl
    def ptm_event(self, event):
        pass


plugin = PluginInfo(name="mine", hooks=Hooks)
"""
COMMANDS = ("train", "plan", "prepare", "preview")


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return write_files(tmp_path)


@pytest.fixture
def plugin(tmp_path: Path, trap: Trap) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(trap.program() + PLUGIN, encoding="utf-8")
    return path


def with_lines(files: Files, *lines: str, name: str = "handed over.toml") -> Path:
    """A settings file with lines at its top."""
    path = files.folder / name
    path.write_text("\n".join([*lines, files.settings.read_text("utf-8")]), encoding="utf-8")
    return path


def run_folder(files: Files, plugin: Path) -> Path:
    """A run folder that somebody hands over, with settings that name code."""
    folder = files.folder / "handed over"
    (folder / "checkpoints" / "step-000000001").mkdir(parents=True)
    with_lines(files, f"plugins = [{str(plugin)!r}]", name="handed over/settings.toml")
    return folder


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    return " ".join(str(result.stderr).split())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_settings_file_runs_no_plugin_file(
    command: str, files: Files, plugin: Path, trap: Trap
) -> None:
    path = with_lines(files, f"plugins = ['tlm', {str(plugin)!r}]")
    said = refused(command, "-c", path)
    assert not trap.ran()
    assert not (files.folder / "run").exists()
    assert said == (
        f"error: {path}: plugins: {str(plugin)!r} runs code, which a file may not ask for hint: "
        "read that code first; then allow it on the command line: "
        f"--allow-code, or --plugin tlm --plugin {plugin}"
    )


@pytest.mark.parametrize("value", ["true", '"yes"', "1"])
def test_a_settings_file_trusts_no_remote_code(value: str, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f"model.trust_remote_code = {value}", encoding="utf-8")
    said = refused("plan", path)
    assert f"{path}: model.trust_remote_code: true runs code" in said
    assert "--allow-code, or --set model.trust_remote_code=true" in said


@pytest.mark.parametrize("command", ["resume", "export"])
def test_a_run_folder_runs_no_code(command: str, files: Files, plugin: Path, trap: Trap) -> None:
    folder = run_folder(files, plugin)
    to = ["--to", files.folder / "out"] if command == "export" else []
    said = refused(command, folder, *to)
    assert not trap.ran()
    assert said.endswith("allow it on the command line: --allow-code")


def test_nor_does_it_for_who_calls_the_functions(files: Files, plugin: Path, trap: Trap) -> None:
    folder = run_folder(files, plugin)
    with pytest.raises(SettingsError, match="runs code"):
        consented(read_folder(folder), allow_code=False)
    with pytest.raises(SettingsError, match="runs code"):
        export(folder, files.folder / "out")
    assert not trap.ran()
    assert consented(read_folder(folder), allow_code=True).settings.plugins == (str(plugin),)


def test_the_command_line_may_ask_for_the_same(files: Files, plugin: Path, trap: Trap) -> None:
    path = with_lines(files, f"plugins = [{str(plugin)!r}]")
    for asked in (["--plugin", plugin], ["--set", f"plugins=[{str(plugin)!r}]"], [ALLOW]):
        assert document("plan", path, *asked)["plugins"][0]["instance"] == "mine"
        assert trap.ran()


def test_a_run_that_was_started_with_a_plugin_file_goes_on_with_the_flag(
    files: Files, plugin: Path, trap: Trap
) -> None:
    assert run("train", files.settings, "-p", plugin, "--quiet").exit_code == 0
    assert trap.ran()
    assert "--allow-code" in refused("resume", files.folder / "run")
    assert not trap.ran()
    assert run("resume", files.folder / "run", ALLOW, "--quiet").exit_code == 0
    assert run("export", files.folder / "run", "--to", files.folder / "o", ALLOW).exit_code == 0
    assert trap.ran()


def test_settings_are_shown_without_running_anything(
    files: Files, plugin: Path, trap: Trap
) -> None:
    path = with_lines(files, f"plugins = [{str(plugin)!r}]")
    assert document("config", "show", path)["plugins"] == [str(plugin)]
    assert not trap.ran()


def test_an_installed_plugin_may_be_named_by_a_file(files: Files) -> None:
    resolved = resolve(with_lines(files, "plugins = ['tlm', 'kg-fusion:two']"))
    assert consented(resolved, False) is resolved


@pytest.mark.parametrize("name", ["command line", "--set", "default"])
def test_a_file_cannot_pass_for_the_command_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("plugins = ['./evil.py']", encoding="utf-8")
    with pytest.raises(SettingsError, match="runs code"):
        consented(resolve(Path(name)), False)


def test_names_in_the_hint_are_safe_to_paste(tmp_path: Path) -> None:
    name = "./$(touch it-ran);'.py"
    path = tmp_path / "a.toml"
    path.write_text(f'plugins = ["{name}"]', encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        consented(resolve(path), False)
    assert shlex.split(caught.value.hint.partition(", or ")[2]) == ["--plugin", name]


def test_processes_import_nothing_from_the_folder_they_start_in(
    tmp_path: Path, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``cd`` into what was handed over, and go on with it: a baseline and workers are started."""
    (tmp_path / "numpy.py").write_text(trap.program(), encoding="utf-8")

    def start(environment: Any) -> None:
        command = [sys.executable, "-c", "import numpy"]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)

    start({**os.environ})
    assert trap.ran()
    monkeypatch.setenv("PYTHONSAFEPATH", "")  # so that it is undone
    monkeypatch.delenv("PYTHONSAFEPATH")
    monkeypatch.setattr(cli, "app", lambda prog_name: start({**os.environ}))
    cli.main()
    assert not trap.ran()

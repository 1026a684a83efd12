"""``plugins list`` and ``show``, commands of plugins, and what the light commands import."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
from cli_files import document, run

from ptm_plus.cli import external
from ptm_plus.cli.plugin_cards import full_card, settings_rows, type_words
from ptm_plus.settings import BatchSettings, EvaluateSettings

HEAVY = {"accelerate", "datasets", "numpy", "pyarrow", "pykeen", "torch", "transformers"}

PLUGIN = """
from ptm_plus import PluginInfo, Section, Claim, hookimpl

class Settings(Section):
    size: int = 3

class Base:
    @hookimpl
    def ptm_probes(self, context):
        return []

class Hooks(Base):
    def __init__(self, settings, instance):
        pass

    @hookimpl
    def ptm_masking(self, context):
        return []

plugin = PluginInfo(
    name="mine", summary="A test.", hooks=Hooks, settings=Settings,
    needs=("pairs",), claims=(Claim(resource="text truth", mode="own"),),
)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["kg", "--help"],
        ["config", "show"],
        ["plugins", "list"],
        ["plugins", "show", "kg-fusion"],
        ["plugins", "show", "tlm"],
    ],
)
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys; from ptm_plus.cli import app\n"
        f"code = app({arguments!r}, standalone_mode=False)\n"
        "names = {name.partition('.')[0] for name in sys.modules}\n"
        "print(*names, file=sys.stderr); sys.exit(code or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert not set(done.stderr.split()) & HEAVY
    assert done.stdout


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ptm_plus", "train", "--plugin", "no-such"],
        *(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.startswith("error: unknown plugin 'no-such'")
    assert "\nhint: " in done.stderr


def test_the_list_names_every_entry_point() -> None:
    listed = {card["name"] for card in document("plugins", "list")["plugins"]}
    assert listed == {entry.name for entry in metadata.entry_points(group="ptm_plus.plugins")}
    assert "kg-fusion" in run("plugins", "list").stdout


def test_a_plugin_in_a_file_is_shown_whole(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN, encoding="utf-8")
    card = document("plugins", "show", path)
    assert [hook["name"] for hook in card["hooks"]] == ["ptm_masking", "ptm_probes"]
    assert card["needs"] == ["pairs"]
    assert card["claims"] == [{"resource": "text truth", "mode": "own"}]
    assert card["settings"] == [{"key": "size", "type": "number", "default": "3", "help": ""}]
    shown = run("plugins", "show", path).stdout
    assert "text truth (own)" in shown


def test_hooks_are_read_from_source_without_importing_it() -> None:
    from ptm_plus.contract import HOOKS

    source = Path(__file__).parents[1] / "plugins" / "tlm" / "ptm_plus_tlm" / "hooks.py"
    written = source.read_text(encoding="utf-8")
    expected = [hook for hook in HOOKS if f"def {hook}(" in written]
    assert [hook["name"] for hook in full_card("tlm")["hooks"]] == expected


def test_an_unknown_plugin_has_no_card() -> None:
    result = run("plugins", "show", "tml")
    assert result.exit_code == 3
    assert "did you mean 'tlm'" in result.stderr


def test_settings_are_described_in_words() -> None:
    rows = {row["key"]: row for row in settings_rows(BatchSettings)}
    assert rows["rows"]["type"] == "number"
    assert rows["weights"]["default"] == "{}"
    rows = {row["key"]: row for row in settings_rows(EvaluateSettings)}
    assert (rows["pairs"]["type"], rows["pairs"]["default"]) == ("list of text", "[]")
    assert type_words(int | None) == "number"


# ---------------------------------------------------------------------------------------------
# Commands of plugins


class Entry:
    """An entry point, as metadata gives it."""

    def __init__(self, name: str, value: str, distribution: str) -> None:
        self.name, self.value = name, value
        self.dist = type("Dist", (), {"name": distribution, "version": "1.0"})()


def hello(context: typer.Context, count: int = 1) -> None:
    """Say hello."""
    typer.echo("hello " * count)


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> list[Entry]:
    entries = [Entry("kg.hello", f"{__name__}:hello", "outsider")]
    entries.append(Entry("kg.broken", "no_such_module_here:run", "outsider"))

    def fake(group: str) -> Any:
        return entries if group == external.GROUP else []

    monkeypatch.setattr(external.metadata, "entry_points", fake)
    return entries


def test_a_plugin_adds_a_command(entries: list[Entry]) -> None:
    listed = run("kg", "--help").stdout
    assert "hello" in listed
    assert "broken" in listed  # listed by metadata alone, so that it cannot break the help
    assert run("kg", "hello", "--count", "2").stdout == "hello hello \n"


def test_a_command_that_cannot_be_imported_is_the_plugins_fault(entries: list[Entry]) -> None:
    result = run("kg", "broken")
    assert result.exit_code == 3
    assert "no_such_module_here" in result.stderr


def test_two_distributions_with_one_command_are_refused(entries: list[Entry]) -> None:
    entries.append(Entry("kg.hello", "elsewhere:hello", "other"))
    result = run("kg", "hello")
    assert result.exit_code == 3
    assert "outsider 1.0 and other 1.0" in result.stderr


def test_a_plugin_cannot_take_a_command_of_the_core(entries: list[Entry]) -> None:
    entries.append(Entry("kg.check", "no_such_module_here:run", "outsider"))
    assert "--fail-below" in run("kg", "check", "--help").output

"""The test kit: each check catches the fault that it is there for, and passes what is right."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest
from cli_files import document, run

from ptm_plus.errors import SettingsError
from ptm_plus.testing import NotApplicable, check_names, plugin_checks
from ptm_plus.testing.template import write_plugin

HEAD = """
import itertools, os, random, time
from dataclasses import dataclass
import numpy as np
import torch
from pydantic import Field
from torch import nn
from ptm_plus import *
from ptm_plus import Claim, PluginInfo
from ptm_plus.settings import TrainSettings

class Settings(Section):
    weight: float = Field(1.0, description="Factor on the loss.")

class Silent(Section):
    weight: float = 1.0

class Needy(Section):
    file: str = Field(description="Its file.")

def states_of(batch, encode, parts):
    return encode(batch).top[batch.predicted]

def count(columns):
    return float(len(columns["predicted"]))

calls = itertools.count()

@dataclass
class Hooks:
    settings: object
    instance: str
"""
TAIL = """
plugin = PluginInfo(name="planted", hooks=Hooks{options})
"""
SQUARES = """
    @hookimpl
    def ptm_objectives(self, context):
        return [Objective(name=self.instance, count=count, compute=self.compute, streams=())]

    def compute(self, batch, encode, parts):
        states = states_of(batch, encode, parts)
        return Outcome(states.square().mean(-1).sum())
"""
HEADED = """
    @hookimpl
    def ptm_parts(self, context):
        width = context.model_config.hidden_size
        return [Part(name="head", build=lambda: nn.Linear(width, 1, dtype=torch.float64))]

    @hookimpl
    def ptm_objectives(self, context):
        return [Objective(name=self.instance, count=count, compute=self.compute, streams=())]

    def compute(self, batch, encode, parts):
        states = states_of(batch, encode, parts)
        return Outcome(parts["head"](states).square().sum())
"""
SHARED = ', settings=Settings, claims=(Claim(resource="backbone"),)'


def planted(folder: Path, body: str, options: str = SHARED, head: str = HEAD) -> str:
    path = folder / "planted.py"
    source = head + indent(dedent(body).strip("\n"), "    ") + TAIL.format(options=options)
    path.write_text(source, encoding="utf-8")
    return str(path)


def check(plugin: str, name: str, **options: Any) -> None:
    (found,) = (one for one in plugin_checks(plugin, **options) if one.name == name)
    found()


# ---------------------------------------------------------------------------------------------
# What is right


def test_a_plugin_that_keeps_the_contract_passes(tmp_path: Path) -> None:
    plugin = planted(tmp_path, HEADED)
    skipped = []
    for one in plugin_checks(plugin):
        if one.name in ("processes", "export") or one.name.startswith("with-"):
            continue  # tried below, and by the plugins' own tests
        try:
            one()
        except NotApplicable:
            skipped.append(one.name)
    assert skipped == ["light-import", "placebos", "unselected"]


# ---------------------------------------------------------------------------------------------
# Planted faults: check, body, options of the PluginInfo, words

ANNOTATED = """
    @hookimpl
    def ptm_features(self, context):
        return [Feature(name="drawn", compute=self.drawn)]

    def drawn(self, given):
        return {{"value": {value}}}
"""


PICKY = """
    @hookimpl
    def ptm_streams(self, context):
        if "pairs" not in context.inputs:
            raise SettingsError("no pairs")
        return []
"""


def objective(body: str) -> str:
    """Return an objective with another loss."""
    head = SQUARES[: SQUARES.index("    def compute")]
    return head + "    def compute(self, batch, encode, parts):\n" + indent(dedent(body), " " * 8)


PLACEBO = """
    @hookimpl
    def ptm_placebos(self, context):
        return [Placebo(name="none", summary="nothing", change=self.change)]

    def change(self, settings, folder, seed):
        return {made}
"""

FAULTS: dict[str, tuple[str, str, str, str]] = {
    "a key is not described": (
        "settings",
        SQUARES,
        ", settings=Silent",
        "keys without a description: weight",
    ),
    "a hook is not marked": (
        "hooks",
        SQUARES.replace("@hookimpl", "# forgotten") + ANNOTATED.format(value="np.zeros(1)"),
        SHARED,
        "has no @hookimpl",
    ),
    "a name is fixed": (
        "two-instances",
        SQUARES.replace("name=self.instance", 'name="squares"'),
        SHARED,
        "squares",
    ),
    "an input is needed and not declared": (
        "needs",
        PICKY + SQUARES,
        SHARED,
        "a run without pairs fails",
    ),
    "an input breaks it": (
        "needs",
        """
        @hookimpl
        def ptm_objectives(self, context):
            context.graph.entities
            return []
        """,
        SHARED,
        "failed: AttributeError",
    ),
    "the backbone is trained and not claimed": ("claims", SQUARES, "", "without claiming it"),
    "the backbone is claimed to be kept and changed": (
        "claims",
        SQUARES,
        ', claims=(Claim(resource="backbone", mode="keep"),)',
        "keeps the backbone, and changes",
    ),
    "a loss is not finite": (
        "finite-steps",
        objective("return Outcome(states_of(batch, encode, parts).sum() * float('inf'))"),
        SHARED,
        "not finite",
    ),
    "an objective never counts": (
        "finite-steps",
        SQUARES.replace("count=count", "count=lambda columns: 0.0"),
        SHARED,
        "never count anything: planted",
    ),
    "an objective applies nowhere": (
        "finite-steps",
        SQUARES.replace(", streams=()", ""),
        SHARED,
        "no stream names it",
    ),
    "a loss depends on the time": (
        "same-seed",
        objective(
            "states = states_of(batch, encode, parts)\n"
            "return Outcome(states.square().sum() * time.perf_counter())"
        ),
        SHARED,
        "the same seed gives other losses",
    ),
    "columns are drawn from a global generator": (
        "stateless-access",
        ANNOTATED.format(value="np.random.rand(1)"),
        SHARED,
        "the second time",
    ),
    "a global generator is touched": (
        "stateless-access",
        ANNOTATED.format(value="np.zeros(1) * random.random()"),
        SHARED,
        "global generator",
    ),
    "columns depend on how often they are made": (
        "stateless-access",
        ANNOTATED.format(value="np.full(1, next(calls))"),
        SHARED,
        "the second time",
    ),
    "a parameter gets no gradient": (
        "gradients",
        HEADED.replace('parts["head"](states)', '(states @ parts["head"].weight.T)'),
        SHARED,
        "no gradient in 4 steps: head.bias",
    ),
    "a mean is returned": (
        "split",
        objective(
            "states = states_of(batch, encode, parts)\nreturn Outcome(states.square().mean() * 10)"
        ),
        SHARED,
        "return sums",
    ),
    "columns depend on the process": (
        "processes",
        ANNOTATED.format(value="np.full(1, float(os.environ.get('RANK', 7)))")
        + objective(
            "states = states_of(batch, encode, parts)\n"
            "return Outcome(states.square().mean(-1).sum() * batch.column('planted', 'value')[0])"
        ),
        SHARED,
        "two processes compute other losses",
    ),
    "what the object remembers is lost": (
        "resume",
        objective(
            "self.seen = getattr(self, 'seen', 0) + 1\n"
            "states = states_of(batch, encode, parts)\n"
            "return Outcome(states.square().mean(-1).sum() * self.seen)"
        ),
        SHARED,
        "after resuming are others",
    ),
    "a part is needed and declared as training's own": (
        "export",
        """
        @hookimpl
        def ptm_parts(self, context):
            return [Part(name="gate", build=self.gate, taps=self.taps)]

        def gate(self):
            made = nn.Linear(1, 1, bias=False, dtype=torch.float64)
            nn.init.constant_(made.weight, 0.5)
            return made

        def taps(self, gate):
            def scale(context, block, states):
                return states * (1 + gate.weight[0, 0])
            yield Tap(site="block_out", blocks=(-1,), run=scale, writes=True)
        """,
        SHARED,
        "train-only",
    ),
    "an event changes weights": (
        "events",
        HEADED
        + """
    @hookimpl
    def ptm_event(self, event, context):
        if event.kind == "saving":
            with torch.no_grad():
                context.parts[self.instance]["head"].bias.add_(1)
""",
        SHARED,
        "at saving it changes",
    ),
    "a number is read off the device": (
        "no-waiting",
        objective(
            "states = states_of(batch, encode, parts)\n"
            "loss = states.square().mean(-1).sum()\n"
            "if loss.item() > 1e9:\n"
            "    loss = loss * 0\n"
            "return Outcome(loss)"
        ),
        SHARED,
        r"item\(\) in planted.py",
    ),
    "a placebo is the plugin itself": (
        "placebos",
        SQUARES + PLACEBO.format(made="settings"),
        SHARED,
        "'none' changes nothing",
    ),
    "a placebo trains less": (
        "placebos",
        SQUARES
        + PLACEBO.format(made="settings.model_copy(update={'train': TrainSettings(steps=1)})"),
        SHARED,
        "'none' trains in another way",
    ),
    "a shape depends on values": (
        "no-waiting",
        objective(
            "states = states_of(batch, encode, parts)\n"
            "return Outcome(states[states[:, 0] > 0].square().mean(-1).sum())"
        ),
        SHARED,
        "a boolean index in planted.py",
    ),
    "a loss goes from token to token": (
        "array-work",
        objective(
            "states = states_of(batch, encode, parts)\n"
            "return Outcome(sum(state.square().mean() for state in states))"
        ),
        SHARED,
        "a loop over tokens or sequences",
    ),
    "a column goes from token to token": (
        "array-work",
        SQUARES
        + """
    @hookimpl
    def ptm_features(self, context):
        return [Feature(name="odd", compute=self.odd)]

    def odd(self, given):
        return {"odd": np.array([int(one) % 2 for one in given.view.ids])}
""",
        SHARED,
        "a loop over tokens or sequences",
    ),
    "a setting has no default": (
        "settings",
        SQUARES,
        ', settings=Needy, claims=(Claim(resource="backbone"),)',
        "no default and no value: file; give the kit one",
    ),
    "it takes another plugin's name": (
        "with-tlm",
        SQUARES.replace("name=self.instance", 'name="tlm"'),
        SHARED,
        "tlm",
    ),
    "it does not go with everybody": (
        "with-all",
        SQUARES.replace("name=self.instance", 'name="tlm"'),
        SHARED,
        "tlm",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(tmp_path: Path, fault: str) -> None:
    name, body, options, words = FAULTS[fault]
    if name not in check_names():
        pytest.skip("needs the extra tlm")
    with pytest.raises(Exception, match=words) as caught:
        check(planted(tmp_path, body, options), name)
    assert not isinstance(caught.value, NotApplicable)


def test_every_check_is_documented() -> None:
    page = Path(__file__).parents[1] / "docs" / "writing-a-plugin.md"
    section = page.read_text(encoding="utf-8").partition("### The test kit")[2]
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", section, re.M))
    assert listed == {one for one in check_names() if not one.startswith("with-")}


def test_every_check_has_a_fault() -> None:
    tried = {name for name, *_ in FAULTS.values()}
    outside = {"light-import", "unselected"}  # below: these are of installed plugins
    assert {one for one in check_names() if not one.startswith("with-")} <= tried | outside


# ---------------------------------------------------------------------------------------------
# Installed plugins


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> None:
    """Let the template's plugin be found, with some of its files replaced."""
    write_plugin("planted-demo", folder / "src", "Demo")
    package = folder / "src" / "ptm_plus_planted_demo"
    for name, text in files.items():
        path = package / f"{name}.py"
        path.write_text(text + path.read_text(encoding="utf-8"), encoding="utf-8")
    about = folder / "src" / "ptm_plus_planted_demo-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: ptm-plus-planted-demo\nVersion: 0.1.0\n", encoding="utf-8"
    )
    (about / "entry_points.txt").write_text(
        "[ptm_plus.plugins]\nplanted-demo = ptm_plus_planted_demo:plugin\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(folder / "src"))
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder / "src"), before]))
    for name in [one for one in sys.modules if one.startswith("ptm_plus_planted_demo")]:
        monkeypatch.delitem(sys.modules, name)


def test_a_heavy_import_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, monkeypatch, __init__="import torch\n")
    with pytest.raises(AssertionError, match="imports torch"):
        check("planted-demo", "light-import")


def test_an_import_that_changes_other_runs_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch = (
        "import ptm_plus.optimizer as o\nimport torch.nn.functional as f\n"
        "real = f.gelu\nf.gelu = lambda *a, **k: real(*a, **k) * 1.01\n"
        "import torch\ntorch.nn.functional.linear = (\n"
        "    lambda x, w, b=None, real=torch.nn.functional.linear: real(x, w, b) * 1.01)\n"
    )
    installed(tmp_path, monkeypatch)
    hooks = tmp_path / "src" / "ptm_plus_planted_demo" / "hooks.py"
    text = hooks.read_text(encoding="utf-8")
    hooks.write_text(text + "\n" + patch, encoding="utf-8")
    with pytest.raises(AssertionError, match="importing it changes a run without it"):
        check("planted-demo", "unselected")


def test_the_template_passes_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, monkeypatch)
    names = ["light-import", "settings", "hooks", "two-instances", "needs", "claims", "resume"]
    flags = [word for one in names for word in ("--check", one)]
    found = document("plugins", "test", "planted-demo", *flags)
    assert {one["name"]: one["state"] for one in found["checks"]} == dict.fromkeys(names, "passed")
    own = tmp_path / "src" / "tests" / "test_planted_demo.py"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(own)),
            *("-k", "long_words or same-seed"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path / "src",
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


# ---------------------------------------------------------------------------------------------
# Expected failures, commands


def test_expected_failures_are_strict(tmp_path: Path) -> None:
    plugin = planted(tmp_path, SQUARES.replace("name=self.instance", 'name="squares"'))
    check(plugin, "two-instances", expected_failures={"two-instances": "one name"})
    with pytest.raises(AssertionError, match="passes, though it is expected to fail"):
        check(plugin, "settings", expected_failures={"settings": "none"})
    with pytest.raises(SettingsError, match=r"names 'setings', which is no check.*settings"):
        plugin_checks(plugin, expected_failures={"setings": "none"})


def test_the_command_tells_what_failed_and_why(tmp_path: Path) -> None:
    plugin = planted(tmp_path, SQUARES, "")
    flags = ("--check", "claims", "--check", "settings", "--check", "light-import")
    done = run("plugins", "test", plugin, *flags, "--json", "-q")
    assert done.exit_code == 3
    assert "1 of 3 checks failed: claims" in done.output
    shown = run("plugins", "test", plugin, *flags)
    assert "without claiming it" in shown.output
    assert "it has no settings" in shown.output
    unknown = run("plugins", "test", plugin, "--check", "claim")
    assert unknown.exit_code == 2
    assert "unknown" in unknown.output


@pytest.mark.parametrize(
    ("name", "words"), [("tlm", "is installed already"), ("Demo", "cannot be a plugin's name")]
)
def test_a_wrong_name_is_refused(tmp_path: Path, name: str, words: str) -> None:
    refused = run("plugins", "new", name, "--output", tmp_path / "x")
    assert refused.exit_code == 2
    assert words in refused.output
    assert not (tmp_path / "x").exists()


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("", encoding="utf-8")
    refused = run("plugins", "new", "demo-one", "--output", tmp_path)
    assert refused.exit_code == 2
    assert "is there already" in refused.output

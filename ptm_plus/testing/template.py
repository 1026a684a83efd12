"""The package that ``plugins new`` writes: it passes every check as it is."""

from __future__ import annotations

import re
from pathlib import Path

from ptm_plus._version import __version__
from ptm_plus.discovery import discover
from ptm_plus.errors import SettingsError
from ptm_plus.files import write_whole

_PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "ptm-plus-NAME"
version = "0.1.0"
description = "SUMMARY: a plugin for ptm-plus."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["ptm-plus>=VERSION"]

[project.optional-dependencies]
test = ["pytest>=8.3"]

[project.entry-points."ptm_plus.plugins"]
NAME = "ptm_plus_MODULE:plugin"

[tool.hatch.build.targets.wheel]
packages = ["ptm_plus_MODULE"]
"""

_INIT = '''\
"""SUMMARY."""

from ptm_plus import Claim, PluginInfo

# Hooks and settings are named by text, so that listing plugins imports neither numpy nor torch.
plugin = PluginInfo(
    name="NAME",
    summary="SUMMARY",
    hooks="ptm_plus_MODULE.hooks:CLASS",
    settings="ptm_plus_MODULE.hooks:CLASSSettings",
    claims=(Claim(resource="backbone"),),
)
'''

_HOOKS = '''\
"""Long words are masked more often than others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pydantic import Field

from ptm_plus import (
    Annotator,
    ContextView,
    Draws,
    Example,
    Section,
    Span,
    UnitKind,
    Units,
    View,
    hookimpl,
    span_units,
)

WORD = re.compile(r"[^\\W\\d_]+")


class CLASSSettings(Section):
    """``[plugin.NAME]``."""

    weight: float = Field(2.0, gt=0, description="Chance of a long word against others.")
    letters: int = Field(5, ge=1, description="Letters of the shortest long word.")


def long_words(examples: Sequence[Example], letters: int, kind: str) -> list[list[Span]]:
    """Return the spans of long words, one list per example.

    It runs once, in prepare, in worker processes: what it depends on belongs into the annotator's
    fingerprint.
    """
    return [
        [
            Span(field, word.start(), word.end(), kind)
            for field, text in example.fields.items()
            for word in WORD.finditer(text)
            if len(word.group()) >= letters
        ]
        for example in examples
    ]


def propose(view: View, draws: Draws, kind: str) -> Units:
    """Return one maskable unit per span; the one arbiter of the run draws among all units."""
    return span_units(view, kind, grouped=False)


@dataclass
class CLASS:
    """The plugin: each hook is called once, while a run is put together."""

    settings: CLASSSettings
    instance: str

    @hookimpl
    def ptm_annotators(self, context: ContextView) -> list[Annotator]:
        """Return the finder of long words."""
        letters, kind = self.settings.letters, self.instance
        return [
            Annotator(
                name=self.instance,
                annotate=partial(long_words, letters=letters, kind=kind),
                fingerprint=f"NAME 1 {letters} {kind}",
                kinds=(kind,),
            )
        ]

    @hookimpl
    def ptm_masking(self, context: ContextView) -> list[UnitKind]:
        """Return the kind of unit."""
        return [
            UnitKind(
                name=self.instance,
                propose=partial(propose, kind=self.instance),
                weight=self.settings.weight,
            )
        ]
'''

_TEST = '''\
"""The plugin's own functions, and the kit's checks."""

from ptm_plus import Example
from ptm_plus.testing import parametrize_with_checks
from ptm_plus_MODULE.hooks import long_words


def test_spans_are_the_long_words():
    example = Example("1", {"text": "In Lisbon it rained."}, {"text": "en"})
    (spans,) = long_words([example], letters=5, kind="long")
    assert [example.fields["text"][one.start : one.end] for one in spans] == ["Lisbon", "rained"]


# A check that the plugin cannot pass: expected_failures={"two-instances": "why"}
@parametrize_with_checks("NAME")
def test_the_contract(check):
    check()
'''

_README = """\
# NAME

SUMMARY.

## Use

    pip install ./FOLDER
    ptm-plus train --plugin NAME --text corpus.txt

## What it does

Words of five letters or more are twice as likely to be masked as others.

## Settings: `[plugin.NAME]`

| key | default | meaning |
|---|---|---|
| `weight` | `2.0` | chance of a long word against others |
| `letters` | `5` | letters of the shortest long word |

## Data

Any text.

## Sources

None yet: say which paper, and which section of it, each part follows, and where it departs.

## Tests

    pip install "./FOLDER[test]"
    pytest FOLDER              or: ptm-plus plugins test NAME
"""

_TOX = """\
[tox]
env_list = py311
isolated_build = true

[testenv]
extras = test
commands = pytest {posargs}
"""

_FILES = {
    "pyproject.toml": _PYPROJECT,
    "README.md": _README,
    "tox.ini": _TOX,
    "ptm_plus_MODULE/__init__.py": _INIT,
    "ptm_plus_MODULE/hooks.py": _HOOKS,
    "ptm_plus_MODULE/py.typed": "",
    "tests/test_MODULE.py": _TEST,
}
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def write_plugin(name: str, folder: Path, summary: str) -> list[Path]:
    """Write a plugin's package, and return its files.

    Args:
        name: the word after ``--plugin``.
        folder: where it goes; must not exist, or be empty.
        summary: one line.

    Raises:
        SettingsError: the name is none, or taken, or the folder is not empty or cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{name!r} cannot be a plugin's name", "lower-case letters and digits, joined by -"
        )
    if any(one.name == name for one in discover()):
        raise SettingsError(f"a plugin {name!r} is installed already", "choose another name")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(f"{folder}: is there already", "name an empty folder with --output")
    words = {
        "NAME": name,
        "MODULE": name.replace("-", "_"),
        "CLASS": "".join(part.capitalize() for part in name.split("-")),
        "SUMMARY": summary.rstrip("."),
        "VERSION": __version__,
        "FOLDER": folder.name,
    }
    pattern = re.compile("|".join(words))

    def filled(text: str) -> str:
        return pattern.sub(lambda found: words[found.group()], text)

    written = []
    for place, text in _FILES.items():
        path = folder / filled(place)
        try:
            write_whole(path, filled(text))
        except OSError as error:
            raise SettingsError(f"{path}: cannot be written: {error.strerror}") from error
        written.append(path)
    return written

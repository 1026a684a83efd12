"""The README: its commands, its table, its length."""

from __future__ import annotations

import re
import tomllib

from documents import ROOT, commands

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_it_says_what_it_is_in_five_lines() -> None:
    title, first, *_ = README.split("\n\n")
    assert title == "# ptm-plus"
    assert len(first.splitlines()) == 5


def test_the_two_commands_stand_there_as_they_are_run() -> None:
    run = (
        "    python -m venv .venv && . .venv/bin/activate && "
        'pip install -c constraints.txt -e ".[all]" && '
        "ptm-plus train --plugin kg-fusion --plugin tlm\n"
    )
    assert run in README
    assert '    pip install -c constraints.txt -e ".[all,test]" && pytest\n' in README
    assert {"all", "test"} <= set(PROJECT["optional-dependencies"])
    assert (ROOT / "constraints.txt").is_file()


def test_the_card_of_every_plugin_is_linked() -> None:
    plugins = PROJECT["entry-points"]["ptm_plus.plugins"]
    main = next(words for words in commands(ROOT / "README.md") if words[0] == "train")
    assert set(main) - {"train", "--plugin"} <= set(plugins)
    for name in plugins:
        assert f"[{name}](plugins/{name}/README.md)" in README


def test_the_sample_table_has_its_place() -> None:
    (table,) = re.findall(r"<!-- sample-table -->\n(.*?)\n<!-- /sample-table -->", README, re.S)
    assert table.strip()


def test_every_page_of_the_documentation_is_linked() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{page.name})" in README


def test_no_line_but_a_command_is_wider_than_a_terminal() -> None:
    long = [line for line in README.splitlines() if len(line) > 100]
    assert all(line.startswith(("    python -m venv", "    ptm-plus ")) for line in long)

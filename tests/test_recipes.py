"""The recipes that come with the package, and what a recipe may say."""

from __future__ import annotations

import importlib.util
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cli_files import document, run
from corpora import write_recipe, write_rows

from ptm_plus.errors import PluginError, SettingsError
from ptm_plus.recipes import finding
from ptm_plus.recipes.finding import all_recipes, find_recipe, own_folder
from ptm_plus.recipes.recipe import json_schema, read_recipe

NAMES = sorted(path.stem for path in own_folder().glob("*.toml"))
EXPECTED = {
    "biomedical": (8, 5),
    "chat": (9, 5),
    "clinical": (7, 5),
    "encyclopaedic": (5, 4),
    "financial": (7, 4),
    "legal": (10, 7),
    "multilingual": (12, 9),
    "patent": (5, 3),
    "scientific": (7, 5),
}
"""Documents of each sample, and those that are left, counted by hand (paragraphs for Wikipedia)."""


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_says_what_it_must(name: str) -> None:
    recipe = find_recipe(name).read()
    assert recipe.name == name
    assert recipe.papers
    assert all(paper.settings for paper in recipe.papers)
    for source in recipe.sources:
        assert source.access, source.name
        assert source.size, source.name
        assert (own_folder() / "samples" / source.sample).is_file()
    assert any(step.kind == "decontaminate" for step in recipe.steps)


def test_every_expected_recipe_is_shipped() -> None:
    assert list(EXPECTED) == NAMES
    listed = document("recipe", "list")
    assert [one["name"] for one in listed] == NAMES
    assert run("recipe", "show", "biomedical").exit_code == 0


@pytest.mark.recipes
@pytest.mark.parametrize("name", NAMES)
def test_the_sample_of_a_recipe_builds(name: str, tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    made = document("recipe", "build", name, "--sample", "-o", tmp_path / "c", "--workers", "1")
    assert (made["documents"]["in"], made["documents"]["out"]) == EXPECTED[name]
    assert (tmp_path / "c" / "account.html").is_file()
    if name == "encyclopaedic":
        assert made["mentions"] == 9
    if name == "multilingual":
        assert set(made["languages"]) == {"en", "de", "es", "fr", "ru", "zh", "sw"}


@pytest.mark.recipes
def test_evaluation_files_can_be_named_when_it_is_built(tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    words = "a third was lost within a month, and glycerol halved that loss"
    write_rows(tmp_path / "task.jsonl", [{"text": words}])
    given = ("biomedical", "--sample", "--against", tmp_path / "task.jsonl", "--workers", "1")
    assert document("recipe", "build", *given, "-o", tmp_path / "c")["contaminated"] == 1


# ---------------------------------------------------------------------------------------------
# What a recipe may say


def changed(folder: Path, **changes: Any) -> Path:
    import tomli_w

    path = write_recipe(folder, {"kind": "normalise"})
    recipe = tomllib.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(tomli_w.dumps(recipe), encoding="utf-8")
    return path


SOURCE = {"name": "a", "files": ["x"], "licence": "CC0", "provenance": "here"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"titel": "x"}, "unknown key 'titel'; did you mean 'title'?"),
        (
            {"steps": [{"kind": "normalize"}]},
            "steps[0].kind: found 'normalize'; did you mean 'norm",
        ),
        ({"steps": [{"unicode": "NFC"}]}, "steps[0].kind: missing"),
        ({"steps": [{"kind": "length", "min_word": 3}]}, "did you mean 'min_words'?"),
        ({"steps": [{"kind": "length", "min_words": -3}]}, "min_words: found -3"),
        ({"steps": [{"kind": "length", "min_words": True}]}, "has to be a number"),
        ({"steps": [{"kind": "mask", "patterns": {"a": "("}}]}, "no regular expression"),
        ({"languages": ["english!"]}, "is not a language code"),
        ({"languages": []}, "languages"),
        (
            {"sources": [{**SOURCE, "license": "x"}]},
            "sources[0].license: unknown key; did you mean",
        ),
        ({"sources": [{**SOURCE, "licence": ""}]}, "sources[0].licence"),
        ({"sources": [{**SOURCE, "hub": "a/b"}]}, "one of files, remote and hub"),
        ({"sources": [SOURCE, SOURCE]}, "two sources are named 'a'"),
        ({"sources": [{**SOURCE, "format": "doc"}]}, "sources[0].format: found 'doc'"),
        ({"name": "no name"}, "letters, digits"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = changed(tmp_path, **changes)
    with pytest.raises(SettingsError) as caught:
        read_recipe(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_line_of_broken_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('name = "a"\ntitle = b\n', encoding="utf-8")
    with pytest.raises(SettingsError, match=r"r\.toml:2"):
        read_recipe(path)


def test_a_new_recipe_can_be_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "my corpus.toml"
    assert run("recipe", "new", path).exit_code == 0
    assert read_recipe(path).name == "my-corpus"
    assert run("recipe", "new", path).exit_code == 2  # never over another
    missing = run("recipe", "check", path)
    assert missing.exit_code == 4
    assert "no file of the source 'reports'" in missing.output
    write_rows(tmp_path / "reports" / "a.jsonl.gz", [{"text": "x"}])
    assert document("recipe", "check", path)["shards"] == 1


def test_an_unknown_name_gets_the_nearest(tmp_path: Path) -> None:
    done = run("recipe", "show", "biomedcal")
    assert done.exit_code == 2
    assert "did you mean 'biomedical'?" in done.output


def test_the_schema_knows_every_step() -> None:
    schema = json.loads(run("recipe", "schema").output)
    assert schema == json_schema()
    assert {"Normalise", "NearDuplicates", "Decontaminate"} <= set(schema["$defs"])


class Entry:
    name, dist = "theirs", None

    def __init__(self, value: str) -> None:
        self.value = value


def test_recipes_of_other_packages_are_found_without_running_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "their_recipes"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('I ran')")
    write_recipe(package)
    (package / "recipe.toml").rename(package / "theirs.toml")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.util.find_spec("their_recipes")
    monkeypatch.setattr(finding.metadata, "entry_points", lambda group: [Entry("their_recipes")])
    assert [one.name for one in all_recipes() if one.owner != "ptm-plus"] == ["theirs"]
    assert find_recipe("theirs").read().title == "Planted cases"
    monkeypatch.setattr(finding.metadata, "entry_points", lambda group: [Entry("no_such_thing")])
    with pytest.raises(PluginError, match="no_such_thing"):
        all_recipes()

"""What the documentation shows is what happens: its code runs, its examples are read."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from documents import DOCS, PAGES, ROOT, Block, blocks, commands, file_of
from tiny import tiny_settings

from ptm_plus import components
from ptm_plus.cli.console import LoggedWatch
from ptm_plus.contract import HOOKS
from ptm_plus.errors import DataError
from ptm_plus.knowledge import read_graph, read_labels
from ptm_plus.knowledge.links import read_links
from ptm_plus.plugins import load
from ptm_plus.prepared import prepare
from ptm_plus.progress import Silent
from ptm_plus.questions import read_questions
from ptm_plus.settings import RunSettings
from ptm_plus.settings_files import read_toml, resolve
from ptm_plus.sources import parse_source, read_pairs, read_text
from ptm_plus.training_run import train

TUTORIAL = "writing-a-plugin.md"
TUTORIAL_PLUGINS = ("capitals.py", "guess_language.py", "some_words.py")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the module path; what is imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(("ptm_plus_capitals", "ptm_plus_file_")):
            del sys.modules[name]


def written(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).write_text(file_of(TUTORIAL, name), encoding="utf-8")
    return [str(folder / name) for name in names]


def trained(plugins: Sequence[str], output: Path, **values: Any) -> dict[str, Any]:
    """Train three steps and return the report."""
    settings = tiny_settings(plugins=plugins, output=output, **{"train.steps": 3, **values})
    return train(settings, LoggedWatch(Silent(), output), device="cpu")


# The tutorial


def test_every_plugin_of_the_tutorial_is_tried_here() -> None:
    names = [one.words[0] for one in blocks(DOCS / TUTORIAL, "file")]
    files = {name for name in names if "plugin = PluginInfo(" in file_of(TUTORIAL, name)}
    assert files == {*TUTORIAL_PLUGINS, "ptm_plus_capitals/__init__.py"}


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("name", TUTORIAL_PLUGINS)
def test_a_plugin_of_the_tutorial_trains(name: str, tmp_path: Path) -> None:
    report = trained(written(tmp_path, name), tmp_path / "run")
    assert report["steps"] == 3
    assert all(one["last"] > 0 for one in report["objectives"].values())


@pytest.mark.usefixtures("site")
def test_the_first_plugin_masks_more_and_says_how_well(tmp_path: Path) -> None:
    plugins = written(tmp_path, "capitals.py")

    def share(weight: float) -> float:
        table = {"plugin": {"capitals": {"weight": weight}}}
        report = trained(plugins, tmp_path / str(weight), **table)
        return float(report["evaluation"]["capitals"]["share"])

    assert 0 < share(0.3) < share(3.0) < share(30.0) < 1


@pytest.mark.usefixtures("site")
def test_the_second_plugin_is_two_instances_and_goes_with_the_first(tmp_path: Path) -> None:
    first, second = written(tmp_path, "capitals.py", "guess_language.py")
    names = ["guess-language:low", "guess-language:high"]
    one = trained([f"{second}:low", f"{second}:high", first], tmp_path / "one")
    two = trained([first, f"{second}:high", f"{second}:low"], tmp_path / "two")
    assert one["objectives"] == two["objectives"]
    assert {*names, "mlm"} == set(one["objectives"])
    assert "text/guess-language:low/accuracy" in one["evaluation"]["held_out"]


@pytest.mark.usefixtures("site")
def test_a_plugin_in_a_file_works_in_worker_processes(tmp_path: Path) -> None:
    (plugin,) = written(tmp_path, "capitals.py")
    text = tmp_path / "text.jsonl"
    rows = [json.dumps({"text": f"The river {n} near Bergen.", "lang": "en"}) for n in range(2100)]
    text.write_text("\n".join(rows), encoding="utf-8")
    settings = tiny_settings(
        plugins=[plugin],
        **{
            "data.text": [str(text)],
            "data.pairs": [],
            "prepare.workers": 2,
            "prepare.cache": str(tmp_path / "cache"),
        },
    )
    spans = prepare(settings, Silent()).accounts["text"].spans["capitals"]
    assert spans.kinds == {"capital": 2 * len(rows)}


def test_the_package_is_found_and_lists_without_its_hooks(site: Path) -> None:
    project = tomllib.loads(file_of(TUTORIAL, "pyproject.toml"))["project"]
    package = site / "ptm_plus_capitals"
    package.mkdir()
    init = "ptm_plus_capitals/__init__.py"
    (site / init).write_text(file_of(TUTORIAL, init), encoding="utf-8")
    hooks = file_of(TUTORIAL, "capitals.py").partition("\n\n\nplugin = PluginInfo(")[0]
    (package / "hooks.py").write_text(hooks, encoding="utf-8")
    metadata = site / "ptm_plus_capitals-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    entries = project["entry-points"]["ptm_plus.plugins"]
    lines = [f"{name} = {target}" for name, target in entries.items()]
    (metadata / "entry_points.txt").write_text("[ptm_plus.plugins]\n" + "\n".join(lines) + "\n")

    importlib.import_module("ptm_plus_capitals")
    assert "ptm_plus_capitals.hooks" not in sys.modules
    (plugin,) = load(["capitals"], {"capitals": {"weight": 2.0}}).instances
    assert plugin.label == "plugin 'capitals' (ptm-plus-capitals 0.1.0)"
    assert plugin.implementation.settings.weight == 2.0


def test_the_tests_of_the_tutorial_pass(tmp_path: Path) -> None:
    written(tmp_path, "capitals.py", "test_capitals.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_capitals.py"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env=quiet(tmp_path)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def quiet(folder: Path) -> Mapping[str, str]:
    """An environment in which pytest does not take the checkout's own settings."""
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def test_the_table_of_phases_agrees_with_the_contract() -> None:
    text = (DOCS / TUTORIAL).read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", text, flags=re.M))
    said = {phase: {word.strip() for word in hooks.split(",")} for phase, hooks in rows.items()}
    true: dict[str, set[str]] = {}
    for name, hook in HOOKS.items():
        true.setdefault(hook.phase, set()).add(name.removeprefix("ptm_").replace("_", " "))
    assert said == true


@pytest.mark.usefixtures("site")
def test_the_misspelt_setting_is_answered_as_shown(tmp_path: Path) -> None:
    said = "unknown key 'plugin.capitals.wieght'; did you mean 'plugin.capitals.weight'?"
    with pytest.raises(Exception, match=re.escape(said)):
        load(written(tmp_path, "capitals.py"), {"capitals": {"wieght": 1}})
    assert said in " ".join((DOCS / TUTORIAL).read_text(encoding="utf-8").split())


# Formats


def _lines(reader: Callable[..., Iterator[Any]]) -> Callable[[str], list[Any]]:
    return lambda source: list(reader(parse_source(source)))


READERS: Mapping[str, Callable[[str], Any]] = {
    "text": _lines(read_text),
    "pairs": _lines(read_pairs),
    "questions": _lines(read_questions),
    "graph": lambda path: read_graph([path]).triples.tolist(),
    "labels": lambda path: read_labels([path]).labelled,
    "links": lambda path: read_links([path]),
}
EXAMPLES = blocks(DOCS / "formats.md", "read")
COUNTS = {
    "en=news.txt": 2,
    "corpus.jsonl": 3,
    "table.tsv": 2,
    "table.csv": 2,
    "bitext.tsv": 2,
    "four.tsv": 2,
    "en-fr=two.tsv": 2,
    "bitext.jsonl": 2,
    "memory.tmx": 1,
    "triples.tsv": 3,
    "links.tsv": 3,
    "labels.jsonl": 2,
    "labels.tsv": 1,
    "questions.jsonl": 1,
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_readers_have_an_example() -> None:
    assert {one.words[0] for one in EXAMPLES} == set(READERS)


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda one: one.words[1])
def test_an_example_of_a_format_is_read(block: Block, here: Path) -> None:
    reader, source = block.words
    (here / source.rpartition("=")[2]).write_text(block.content, encoding="utf-8")
    found = READERS[reader](source)
    assert len(found) == COUNTS[source]
    assert all(type(one).__name__ != "Refused" for one in found)


def test_mentions_of_the_examples_mark_what_they_say(here: Path) -> None:
    marked = set()
    for block in EXAMPLES:
        if block.words[0] in ("text", "pairs", "questions"):
            (here / block.words[1].rpartition("=")[2]).write_text(block.content, encoding="utf-8")
            for one in READERS[block.words[0]](block.words[1]):
                marked |= {one.fields[s.field][s.start : s.end] for s in one.spans}
    assert marked == {"Paris", "France", "1990"}


def test_vectors_are_converted_as_shown(here: Path) -> None:
    (here / "convert.py").write_text(file_of("formats.md", "convert.py"), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("convert", here / "convert.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert json.loads((here / "vectors.ids.json").read_bytes()) == ["Q142", "Q90"]


BROKEN = (
    ("text", "a.jsonl", b'{"text": "one"}\n{"text": "two"\n'),
    ("text", "a.jsonl", b'{"text": "Paris", "mentions": [{"start": 0, "end": 9, "id": "Q90"}]}'),
    ("text", "a.txt", b"caf\xe9\n"),
    ("text", "a.txt", b""),
    ("pairs", "a.tsv", b"src\ttgt\tsrc_lang\ttgt_lang\nHello.\tBonjour.\ten\n"),
    ("pairs", "a.tsv", b"Hello.\tBonjour.\n"),
    ("graph", "a.tsv", b"Q90\tcapital_of\n"),
    ("labels", "a.tsv", b"id\tname\nQ90\tParis\n"),
)


@pytest.mark.parametrize(("reader", "name", "content"), BROKEN)
def test_a_broken_file_is_refused_as_shown(
    reader: str, name: str, content: bytes, here: Path
) -> None:
    (here / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        READERS[reader](name)
    assert f"error: {caught.value}\n" in (DOCS / "formats.md").read_text(encoding="utf-8")


# The report


FOLDER, REPORT, LOG = re.split("^## ", (DOCS / "report.md").read_text(encoding="utf-8"), flags=re.M)
SCHEMA = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", REPORT, flags=re.M)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that measures everything that a run alone can measure."""
    folder = tmp_path_factory.mktemp("report")
    plugin = folder / "capitals.py"
    plugin.write_text(file_of(TUTORIAL, "capitals.py"), encoding="utf-8")
    rows = [
        {**row, "target": 0, "group": group}
        for row, group in zip(_tiny_rows("text")[:40], ["in_text", "graph_only"] * 20, strict=True)
    ]
    questions = folder / "questions.jsonl"
    questions.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    data = tiny_settings().data
    asked = {"mentions": [str(questions)], "pairs": list(data.pairs), "text": list(data.text)}
    given = {f"evaluate.{name}": files for name, files in asked.items()}
    trained([str(plugin), "tlm"], folder / "run", **given)
    for name in [name for name in sys.modules if name.startswith("ptm_plus_file_")]:
        del sys.modules[name]
    return folder / "run"


@pytest.fixture
def report(run_folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_folder / "report.json").read_bytes())
    return found


def _tiny_rows(stream: str) -> list[dict[str, Any]]:
    (path,) = getattr(tiny_settings().data, stream)
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def paths(value: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every value that is no object and no list of objects."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = {"N": value[0]}
    if not isinstance(value, dict) or not value:
        yield prefix
        return
    for key, inner in value.items():
        yield from paths(inner, (*prefix, key))


def says(documented: str, path: tuple[str, ...]) -> bool:
    """Whether a documented key is this path or lies above it; capitals stand for any name."""
    words = documented.split(".")
    return len(words) <= len(path) and all(
        word == part or word.isupper() for word, part in zip(words, path, strict=False)
    )


def precise(documented: str) -> tuple[int, int]:
    words = documented.split(".")
    return len(words), -sum(word.isupper() for word in words)


def test_every_key_of_a_report_is_documented(report: dict[str, Any]) -> None:
    missing = [p for p in paths(report) if not any(says(key, p) for key, _ in SCHEMA)]
    assert missing == []


def test_every_documented_key_is_in_a_report(report: dict[str, Any]) -> None:
    documented = [key for key, text in SCHEMA if "*sample*" not in text]
    used = {max((k for k in documented if says(k, p)), key=precise) for p in paths(report)}
    assert used == set(documented)


def test_a_run_fills_its_own_column(report: dict[str, Any]) -> None:
    for probe in report["probes"].values():
        assert probe["without_plugins"] is None
        assert 0 <= probe["with_plugins"] <= 1
        assert probe["questions"] > 0


def test_the_folder_holds_what_is_shown(run_folder: Path) -> None:
    shown = set(re.findall(r"^ {8,}([\w.-]+\.\w+|\w+/) ", FOLDER, flags=re.M))
    names = {p.name for p in run_folder.rglob("*") if p.is_file()}
    assert shown == names
    assert (run_folder / "checkpoints" / "step-000000003").is_dir()


def test_the_log_has_the_kinds_and_keys_that_are_documented(run_folder: Path) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", LOG, flags=re.M))
    log = (run_folder / "log.jsonl").read_text(encoding="utf-8")
    seen: dict[str, set[str]] = {}
    for line in map(json.loads, log.splitlines()):
        assert list(line)[:2] == ["kind", "time"]
        seen.setdefault(line["kind"], set()).update(set(line) - {"kind", "time"})
    assert set(seen) == set(rows) - {"resumed", "initialised"}  # of other runs
    for kind in ("note", "account", "started", "step"):
        words = re.findall(r"`(\w+)`", re.sub(r"\(.*?\)|: .*", "", rows[kind]))
        assert seen[kind] == set(words), kind
    assert {"step", "held_out", "capitals"} <= seen["evaluation"]


# Pages made from the code


@pytest.fixture(scope="module")
def generator() -> Any:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["hooks.md", "settings.md"])
def test_a_generated_page_is_up_to_date(name: str, generator: Any) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == generator.PAGES[name](), (
        "run: python docs/generate.py"
    )


def test_every_component_has_a_rule_and_every_site_a_meaning(generator: Any) -> None:
    assert set(generator.COMPOSES) == {k.__name__ for hook in HOOKS.values() for k in hook.returns}
    assert set(generator.SITES) == set(get_args(components.Site))


def test_the_settings_file_that_is_shown_is_accepted(tmp_path: Path) -> None:
    (shown,) = re.findall(
        r"^```toml\n(.*?)^```$", (DOCS / "settings.md").read_text(encoding="utf-8"), re.M | re.S
    )
    path = tmp_path / "run.toml"
    path.write_text(shown, encoding="utf-8")
    assert set(read_toml(path)) <= set(RunSettings.model_fields)
    assert resolve(path).settings.plugins == ("kg-fusion", "tlm")


# All pages


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        place, _, anchor = target.partition("#")
        if place.startswith("https:"):
            continue
        other = (page.parent / place).resolve() if place else page
        assert other.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), flags=re.M)
            assert anchor in {slug(one) for one in headings}, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist_with_their_flags(page: Path) -> None:
    for words in commands(page):
        flags, values = parsed(words)
        assert flags is not None, f"no such command or flag: ptm-plus {' '.join(words)}"
        resolve(None, {}, values)


def parsed(words: Sequence[str]) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the flags of a command line and its ``--set`` values; ``None`` if it is wrong."""
    import click
    import typer

    from ptm_plus.cli import app

    command: Any = typer.main.get_command(app)
    rest = list(words)
    context = click.Context(command, info_name="ptm-plus")
    while isinstance(command, click.Group):
        _, command, rest = command.resolve_command(context, rest)
        context = click.Context(command, info_name=command.name, parent=context)
    command.parse_args(context, rest)
    return context.params, list(context.params.get("sets") or ())

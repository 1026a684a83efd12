"""Paths in settings: written down in full, so that a run can be resumed from any folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ptm_plus.discovery import Request, discover, find, read_info
from ptm_plus.hub import as_path
from ptm_plus.settings import RunSettings
from ptm_plus.sources.spec import HUB, split_argument, split_parallel

Change = Callable[[str], str]

_SOURCES = (
    ("data", ("text", "pairs", "kg", "labels", "links")),
    ("evaluate", ("mentions", "pairs")),
)
_NAMES = (("model", "path"), ("model", "init_from"), ("tokenizer", "path"))
_FILES = (("data", "vectors"), ("prepare", "cache"))


def absolute(path: str) -> str:
    """Return a path in full."""
    return str(Path(path).expanduser().absolute())


def anchored(settings: RunSettings) -> RunSettings:
    """Return the settings with absolute paths in place of relative ones.

    Names of the hub, of installed plugins, and languages before ``=`` stay as they are.
    """
    output = settings.output.expanduser().absolute()
    return _changed(settings, absolute).model_copy(update={"output": output})


def moved(settings: RunSettings, folder: Path) -> RunSettings:
    """Return the settings of a run folder that lies elsewhere now: what was in it still is.

    Args:
        settings: as they were written, with absolute paths.
        folder: where the run folder is.
    """
    before = settings.output

    def follow(path: str) -> str:
        inside = Path(path).is_relative_to(before) and before.is_absolute()
        return str(folder.absolute() / Path(path).relative_to(before)) if inside else path

    return _changed(settings, follow).model_copy(update={"output": folder})


def _changed(settings: RunSettings, change: Change) -> RunSettings:
    tree: dict[str, Any] = settings.model_dump(mode="json")
    for section, names in _SOURCES:
        for name in names:
            tree[section][name] = [with_path(one, change) for one in tree[section][name]]
    for section, name in _NAMES:
        value = tree[section][name]
        tree[section][name] = change(value) if value and as_path(value) is not None else value
    for section, name in _FILES:
        tree[section][name] = change(tree[section][name]) if tree[section][name] else ""
    _change_tables(tree["plugin"], settings.plugins, change)
    tree["plugins"] = [_plugin(one, change) for one in tree["plugins"]]
    return RunSettings.model_validate(tree)


def names_files(settings: RunSettings) -> bool:
    """Tell whether the settings of the run's plugins name files."""
    return bool(plugin_files(settings))


def plugin_files(settings: RunSettings) -> dict[str, tuple[str, ...]]:
    """Return the files that the settings of the run's plugins name, by dotted key."""
    found = {}
    for instance in settings.plugins:
        for table, name in _file_settings(settings.plugin, [instance]):
            given = table[name]
            if given:
                several = isinstance(given, list | tuple)
                found[f"{instance}.{name}"] = tuple(given) if several else (given,)
    return found


def _change_tables(tables: dict[str, Any], requests: Sequence[str], change: Change) -> None:
    """Change what installed plugins say are files among their settings."""
    for table, name in _file_settings(tables, requests):
        given = table[name]
        several = isinstance(given, list)
        changed = [with_path(one, change) for one in (given if several else [given]) if one]
        table[name] = changed if several else "".join(changed)


def _file_settings(
    tables: Mapping[str, Any], requests: Sequence[str]
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield table and key of every setting that is there and names files."""
    found = discover()
    for request in map(Request.parse, requests):
        instance = f"{request.name}:{request.suffix}" if request.suffix else request.name
        if request.is_file or instance not in tables:
            continue
        for dotted in read_info(find(request.name, found)).paths:
            *sections, name = dotted.split(".")
            table = tables[instance]
            for section in sections:
                table = table.get(section, {})
            if name in table:
                yield table, name


def with_path(argument: str, change: Change) -> str:
    """Return an argument as after ``--text`` with its paths changed; a name of the hub stays."""
    languages, path = split_argument(argument)
    if path.startswith(HUB):
        return argument
    changed = ",".join(change(one) for one in split_parallel(path) or (path,))
    return f"{languages}={changed}" if languages else changed


def _plugin(text: str, change: Change) -> str:
    request = Request.parse(text)
    if not request.is_file:
        return text
    return change(request.name) + (f":{request.suffix}" if request.suffix else "")

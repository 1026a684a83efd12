"""Which plugins are installed, by metadata alone, and their guarded import.

Nothing here imports a plugin that was not asked for.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ptm_plus.components import PluginInfo
from ptm_plus.errors import PluginError, PtmPlusError, nearest

if TYPE_CHECKING:
    from packaging.requirements import Requirement

GROUP = "ptm_plus.plugins"
"""Entry-point group of plugins, for first and third parties alike."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What plugins and instances may be called."""

_DISTRIBUTION = "ptm-plus"


@dataclass(frozen=True)
class Request:
    """What was asked for: ``name``, ``name:instance``, ``./file.py`` or ``./file.py:instance``.

    Attributes:
        name: the plugin's name, or the file's path.
        suffix: what follows the colon; empty for the plain plugin.
        is_file: whether ``name`` is a path.
    """

    name: str
    suffix: str
    is_file: bool

    @classmethod
    def parse(cls, text: str) -> Request:
        """Read a word after ``--plugin``.

        Raises:
            PluginError: it is none of these.
        """
        head, colon, suffix = text.rpartition(":")
        if not colon:
            head, suffix = suffix, ""
        is_file = head.endswith(".py")
        if (colon and not NAME.fullmatch(suffix)) or not (is_file or NAME.fullmatch(head)):
            raise PluginError(
                f"{text!r} does not name a plugin", "write NAME, NAME:INSTANCE or ./FILE.py"
            )
        return cls(head, suffix, is_file)


@dataclass(frozen=True)
class Found:
    """An installed plugin, as its distribution's metadata describes it.

    Attributes:
        name: the word after ``--plugin``.
        distribution: name of the distribution; the path for a plugin in a file.
        version: version of the distribution; a hash of the contents for a plugin in a file.
        target: where its PluginInfo lies, ``module:attribute``.
        missing: requirements of the extra with the plugin's name that are not met.
    """

    name: str
    distribution: str
    version: str
    target: str
    missing: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The plugin for messages, with distribution and version."""
        return f"plugin {self.name!r} ({self.distribution} {self.version})"

    @property
    def install(self) -> str:
        """The command that installs what the plugin's extra names."""
        return f'pip install "{self.distribution}[{self.name}]"'


def discover() -> list[Found]:
    """Return all installed plugins by name, then by distribution; imports none of them."""
    found = [
        Found(
            name=entry.name,
            distribution=entry.dist.name,
            version=entry.dist.version,
            target=entry.value,
            missing=tuple(_missing(entry.dist, entry.name)),
        )
        for entry in metadata.entry_points(group=GROUP)
        if entry.dist is not None
    ]
    return sorted(found, key=lambda one: (one.name, one.distribution))


def find(name: str, found: Sequence[Found]) -> Found:
    """Return the one plugin of a name, with nothing of its extra missing.

    Raises:
        PluginError: there is none or more than one, or its extra is not installed.
    """
    named = [one for one in found if one.name == name]
    if not named:
        names = sorted({one.name for one in found})
        raise PluginError(
            f"unknown plugin {name!r}{nearest(name, names)}",
            f'pip install "{_DISTRIBUTION}[{name}]"'
            if name in _extras()
            else f"installed: {', '.join(names) or 'none'}; a file is written ./{name}.py",
        )
    if len(named) > 1:
        both = " and ".join(f"{one.distribution} {one.version}" for one in named)
        raise PluginError(
            f"plugin {name!r} is installed by {both}",
            f"keep one: pip uninstall {named[-1].distribution}",
        )
    if named[0].missing:
        raise PluginError(
            f"{named[0].label} needs {', '.join(named[0].missing)}, which is not installed",
            named[0].install,
        )
    return named[0]


def read_info(found: Found) -> PluginInfo:
    """Import a plugin's static data.

    Raises:
        PluginError: it cannot be imported, or is not a PluginInfo of that name.
    """
    info = load_object(found.target, found)
    if not isinstance(info, PluginInfo):
        raise PluginError(
            f"{found.label}: {found.target} is a {type(info).__name__}, not a PluginInfo",
            "let the entry point name the PluginInfo: plugin = PluginInfo(name=…, hooks=…)",
        )
    if info.name != found.name:
        raise PluginError(
            f"{found.label}: its PluginInfo has the name {info.name!r}",
            "entry point and PluginInfo must have one name",
        )
    return info


def read_file(path: Path) -> tuple[Found, PluginInfo]:
    """Import a plugin from a Python file that holds ``plugin = PluginInfo(…)``.

    Raises:
        PluginError: there is no such file, it cannot be imported, or it holds no PluginInfo.
    """
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise PluginError(f"plugin file {path}: {error.strerror}", "check the path") from error
    # The name depends on the content's place only, so that its functions pickle by reference.
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    found = Found(path.stem, str(path), f"sha256:{digest}", f"ptm_plus_file_{place}:plugin")
    _import_file(path, found.target.partition(":")[0], found)
    info = load_object(found.target, found)
    if not isinstance(info, PluginInfo):
        raise PluginError(
            f"plugin file {path}: `plugin` is a {type(info).__name__}, not a PluginInfo",
            "write plugin = PluginInfo(name=…, hooks=…) at its end",
        )
    return Found(info.name, found.distribution, found.version, found.target), info


class FilePlugins:
    """The plugins in files that this process has imported, for a process that it starts.

    What refers to them is unpickled after them, by the names under which they were imported.

    Args:
        files: path by module name; those of this process by default.
    """

    def __init__(self, files: Mapping[str, str] | None = None) -> None:
        self.files = dict(_FILES if files is None else files)

    def __reduce__(self) -> tuple[Callable[..., FilePlugins], tuple[dict[str, str]]]:
        return _imported_again, (self.files,)


_FILES: dict[str, str] = {}


def _imported_again(files: Mapping[str, str]) -> FilePlugins:
    for name, path in files.items():
        _import_file(Path(path), name, Found(Path(path).stem, path, "", f"{name}:plugin"))
    return FilePlugins(files)


def load_object(target: str, found: Found) -> Any:
    """Import ``module:attribute`` of a plugin.

    Raises:
        PluginError: the module cannot be imported or has no such attribute; the message has the
            plugin, its distribution and the cause.
    """
    module, _, attributes = target.partition(":")
    value: Any = _guarded(lambda: importlib.import_module(module), module, found)
    for attribute in filter(None, attributes.split(".")):
        if not hasattr(value, attribute):
            raise PluginError(
                f"{found.label}: {module} has no {attribute!r}{nearest(attribute, dir(value))}",
                f"{target!r} must name something that exists",
            )
        value = getattr(value, attribute)
    return value


def _import_file(path: Path, name: str, found: Found) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"plugin file {path}: not a Python file", "its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    loader = spec.loader

    def run() -> ModuleType:
        # Registered before it runs: dataclasses look their own module up.
        sys.modules[name] = module
        loader.exec_module(module)
        return module

    try:
        _guarded(run, str(path), found)
    except PluginError:
        sys.modules.pop(name, None)
        raise
    _FILES[name] = str(path.resolve())


def _guarded(load: Callable[[], ModuleType], what: str, found: Found) -> ModuleType:
    try:
        return load()
    except PtmPlusError:
        raise
    except ModuleNotFoundError as error:
        raise PluginError(
            f"{found.label}: cannot import {what}: no module named {error.name!r}",
            "install what it imports" if found.distribution.endswith(".py") else found.install,
        ) from error
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"{found.label}: importing {what} failed: {type(error).__name__}: {error}",
            "the plugin is broken; mend it, or install another version",
        ) from error


def _extras() -> list[str]:
    try:
        return metadata.metadata(_DISTRIBUTION).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return []


def _missing(distribution: metadata.Distribution, extra: str) -> Iterator[str]:
    from packaging.requirements import InvalidRequirement, Requirement

    for text in distribution.requires or ():
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            yield text
            continue
        marker = wanted.marker
        of_extra = (
            marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})
        )
        if of_extra and not _installed(wanted):
            yield f"{wanted.name}{wanted.specifier}"


def _installed(wanted: Requirement) -> bool:
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return False
    return wanted.specifier.contains(version, prereleases=True)

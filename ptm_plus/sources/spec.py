"""What a flag such as ``--text en=news/*.jsonl`` names."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path

from ptm_plus.errors import DataError, SettingsError
from ptm_plus.files import exists, plain_suffix
from ptm_plus.hub import as_path
from ptm_plus.languages import valid_language

_LANGUAGES = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]+)*")
_TAG = r"[a-z]{2,3}(?:-(?:[A-Z][A-Za-z]+|[0-9]{3}))*"
_PAIR = re.compile(rf"({_TAG})-({_TAG})")
HUB = "hub:"
_ORG_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A dataset that ``datasets.load_dataset`` finds: on the hub, or a local folder.

    Attributes:
        name: ``org/name``, or the path of a folder.
        config: configuration; empty for the default one.
        split: part of the dataset.
    """

    name: str
    config: str = ""
    split: str = "train"

    def __str__(self) -> str:
        return f"{HUB}{self.name}:{self.config}:{self.split}"


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One source of examples.

    Attributes:
        argument: what the user wrote.
        languages: what stands before ``=``: ``en``, ``en-fr``, or nothing.
        files: paths in the order in which they are read; empty for a hub dataset.
        hub: the dataset, or ``None`` for files.
        parallel: the two files hold one half of each pair per line.
    """

    argument: str
    languages: str
    files: tuple[str, ...]
    hub: HubDataset | None = None
    parallel: bool = False

    def text_language(self) -> str:
        """Return the language of rows that name none; ``und`` when the flag gives none.

        Raises:
            SettingsError: what stands before ``=`` is not a language code.
        """
        return _checked(self.languages, self.argument)

    def pair_languages(self) -> tuple[str, str] | None:
        """Return the languages of the halves, ``None`` when the flag gives none.

        A subtag in lower case starts the second language: ``en-pt-BR`` is ``en`` and ``pt-BR``.

        Raises:
            SettingsError: what stands before ``=`` is not two language codes.
        """
        if not self.languages:
            return self._named_by_files() if self.parallel else None
        halves = _PAIR.fullmatch(self.languages)
        if halves is None:
            raise SettingsError(
                f"{self.languages!r} in {self.argument!r} does not name two languages",
                "write en-fr=FILE, or zh-Hant-en=FILE with script and region capitalised",
            )
        return _checked(halves[1], self.argument), _checked(halves[2], self.argument)

    def _named_by_files(self) -> tuple[str, str]:
        """Return the languages that the names of parallel files end in: ``corpus.en,corpus.fr``."""
        endings = [plain_suffix(path).removeprefix(".") for path in self.files]
        try:
            if "txt" in endings:  # a language, too
                raise DataError("their names end in .txt")
            src, tgt = (valid_language(ending) for ending in endings)
        except DataError as error:
            raise SettingsError(
                f"{self.argument!r} does not say which languages these are: {error.message}",
                "write en-fr=corpus.en,corpus.fr",
            ) from error
        return src, tgt


def parse_source(argument: str) -> SourceSpec:
    """Understand ``path``, ``en=path``, ``en-fr=path``, globs, and ``hub:name[:config[:split]]``.

    Two files with a comma between them, ``en-fr=corpus.en,corpus.fr``, are parallel.

    A path that exists as written is that path, whatever characters it holds.

    Raises:
        SettingsError: the argument names nothing.
        DataError: no such file, nothing matches the pattern, or it is a folder.
    """
    languages, path = split_argument(argument)
    if not path:
        raise SettingsError(f"{argument!r} names no file", "write a path, a pattern, or hub:NAME")
    if path.startswith(HUB):
        return SourceSpec(argument, languages, (), _parse_hub(path.removeprefix(HUB), argument))
    if (halves := split_parallel(path)) is not None:
        files = tuple(file for half in halves for file in _files(half))
        if len(files) != 2:
            raise SettingsError(
                f"{argument!r} names {len(files)} files", "write two, a comma between them"
            )
        return SourceSpec(argument, languages, files, parallel=True)
    return SourceSpec(argument, languages, _files(path))


def split_parallel(path: str) -> tuple[str, str] | None:
    """Return the two files of ``corpus.en,corpus.fr``; ``None`` where one file is meant."""
    first, _, second = path.partition(",")
    one_comma = bool(first and second) and "," not in second
    # A pattern over names with commas stays a pattern.
    if not one_comma or path.startswith(HUB) or glob.has_magic(path) or exists(path):
        return None
    return first, second


def split_argument(argument: str) -> tuple[str, str]:
    """Return the languages before ``=`` (or nothing), and the path or ``hub:`` name."""
    before, equals, after = argument.partition("=")
    if equals and _LANGUAGES.fullmatch(before) and not exists(argument):
        return before, after
    return "", argument


def _parse_hub(text: str, argument: str) -> HubDataset:
    name, *rest = text.split(":")
    # A name without ORG may be one of the library's own loaders, over whatever lies around here.
    path = as_path(name) if name else None
    if path is not None and not path.is_dir():
        raise DataError("cannot be opened: no such folder", "check the path", path=path)
    if len(rest) > 2 or (path is None and not _ORG_NAME.fullmatch(name)):
        raise SettingsError(
            f"{argument!r} is not a hub dataset", "write hub:ORG/NAME, hub:ORG/NAME:CONFIG:SPLIT"
        )
    config, split = (*rest, "", "")[:2]
    return HubDataset(name, config, split or "train")


def _files(path: str) -> tuple[str, ...]:
    try:
        files = _matching(str(Path(path).expanduser()))
        "".join(files).encode()  # a name that is not UTF-8 could be written into no record
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user, not UTF-8
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"is no path: {reason}", "check the path", path=path) from error
    return files


def _matching(path: str) -> tuple[str, ...]:
    if Path(path).is_dir():
        raise DataError("is a folder", f"name its files, for example '{path}/*.jsonl'", path=path)
    if Path(path).exists():
        return (path,)
    if glob.escape(path) == path:
        before, _, after = path.partition("=")
        meant = bool(after) and exists(after)
        hint = f"{before!r} is no language code: write en={after} or en-fr={after}"
        raise DataError("no such file", hint if meant else "check the path", path=path)
    files = sorted(name for name in glob.glob(path, recursive=True) if Path(name).is_file())
    if not files:
        raise DataError("no file matches this pattern", "check the path", path=path)
    return tuple(files)


def _checked(tag: str, argument: str) -> str:
    try:
        return valid_language(tag) if tag else "und"
    except DataError as error:
        raise SettingsError(f"{error.message} (in {argument!r})", error.hint) from error

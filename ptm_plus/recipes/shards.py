"""What a build reads: the files of the sources, their checksums, and how they are cut into shards.

A shard is what one task does, and what is kept or done again as a whole. A large file is read by
several: each takes every so-manieth document, which costs little beside what is done to it.
"""

from __future__ import annotations

import glob
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ptm_plus.errors import DataError, EnvironmentProblem, SettingsError
from ptm_plus.files import COMPRESSED, file_sha256
from ptm_plus.progress import Watch
from ptm_plus.recipes.recipe import Recipe, Remote, Source

SHARD_BYTES = 64 * 2**20
"""A file is cut into shards of about this size, compressed ones into shards of a third of it."""

MOST_PARTS = 16
"""Shards of a file: each of them reads the whole file."""

_HUB = "hub:"


@dataclass(frozen=True)
class SourceFile:
    """A file as it was when the build began.

    Attributes:
        source: number of the source in the recipe.
        path: absolute, or ``hub:NAME``.
        size: in bytes; 0 for a hub data set.
        mtime_ns: time of change.
        sha256: of its bytes; empty for a hub data set.
    """

    source: int
    path: str
    size: int
    mtime_ns: int
    sha256: str

    def check(self) -> None:
        """Check that the file is still the one that the build began with.

        Raises:
            DataError: it has vanished, or has changed.
        """
        if self.path.startswith(_HUB):
            return
        try:
            status = Path(self.path).stat()
        except OSError as error:
            raise _vanished(self.path) from error
        if (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns):
            return
        if file_sha256(self.path) != self.sha256:
            raise _changed(self.path)


@dataclass(frozen=True)
class Shard:
    """Every ``parts``-th document of a file, from the ``part``-th on."""

    file: int
    part: int
    parts: int


@dataclass(frozen=True)
class Inputs:
    """The files of a build, and its shards in order."""

    files: tuple[SourceFile, ...]
    shards: tuple[Shard, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {"files": [asdict(one) for one in self.files]}

    @classmethod
    def of(cls, files: tuple[SourceFile, ...]) -> Inputs:
        """Return the files cut into shards; the same files give the same shards."""
        shards = [
            Shard(number, part, parts)
            for number, file in enumerate(files)
            for parts in [_parts(file)]
            for part in range(parts)
        ]
        return cls(files, tuple(shards))


def find_inputs(
    recipe: Recipe,
    data: Path,
    samples: Path | None,
    downloads: Path,
    known: tuple[SourceFile, ...],
    watch: Watch,
) -> Inputs:
    """Find the files of all sources, fetch what is remote, and take checksums.

    Args:
        recipe: names them.
        data: folder that relative names start from.
        samples: the folder of the samples, to take those in the sources' place.
        downloads: where fetched files are kept.
        known: files of an earlier start; one whose size and time are unchanged is not read again.
        watch: takes progress.

    Raises:
        DataError: a source has no file, a file is empty, or its checksum is not what it must be.
        SettingsError: a sample is asked for and a source has none.
        EnvironmentProblem: an address cannot be reached.
    """
    files: list[SourceFile] = []
    memo = {(one.path, one.size, one.mtime_ns): one.sha256 for one in known}
    with watch.task("taking checksums") as task:
        for number, source in enumerate(recipe.sources):
            for path in _paths(source, data, samples, downloads, watch):
                files.append(_file(number, path, source, memo, sampled=samples is not None))
                task.update(len(files), None, Path(path).name)
    return Inputs.of(tuple(files))


def check_unchanged(now: tuple[SourceFile, ...], before: tuple[SourceFile, ...]) -> None:
    """Check that the files are those that the build began with.

    Raises:
        DataError: one is new, has vanished, or has changed; its name.
    """
    contents = {one.path: one.sha256 for one in now}
    for one in before:
        if one.path not in contents:
            raise _vanished(one.path)
        if contents[one.path] != one.sha256:
            raise _changed(one.path)
    new = sorted(set(contents) - {one.path for one in before})
    if new:
        raise DataError(
            "is new since the build began",
            "move it away to go on, or build into a new --output",
            path=new[0],
        )


def _paths(
    source: Source, data: Path, samples: Path | None, downloads: Path, watch: Watch
) -> Iterator[str]:
    if samples is not None:
        if not source.sample:
            raise SettingsError(
                f"the source {source.name!r} has no sample", "build without --sample"
            )
        yield str((samples / source.sample).resolve())
    elif source.hub:
        yield f"{_HUB}{source.hub}"
    elif source.remote:
        for remote in source.remote:
            yield str(_fetched(remote, downloads / source.name, watch))
    else:
        for pattern in source.files:
            yield from _matching(source, data, pattern)


def _matching(source: Source, data: Path, pattern: str) -> list[str]:
    place = data / Path(pattern).expanduser()
    if place.is_file():
        return [str(place.resolve())]
    found = sorted(name for name in glob.glob(str(place), recursive=True) if Path(name).is_file())
    if not found:
        how = f"; {source.access}" if source.access else ""
        raise DataError(
            f"no file of the source {source.name!r} there",
            f"give the folder that holds {pattern}: --data DIR{how}",
            path=place,
        )
    return [str(Path(name).resolve()) for name in found]


def _file(
    number: int,
    path: str,
    source: Source,
    memo: Mapping[tuple[str, int, int], str],
    *,
    sampled: bool,
) -> SourceFile:
    if path.startswith(_HUB):
        return SourceFile(number, path, 0, 0, "")
    try:
        status = Path(path).stat()
    except OSError as error:
        raise _vanished(path) from error
    if status.st_size == 0:
        raise DataError(
            "an empty file", "an empty file is usually a mistake; take it out", path=path
        )
    digest = memo.get((path, status.st_size, status.st_mtime_ns)) or file_sha256(path)
    wanted = source.sha256.get(Path(path).name)
    if wanted and wanted != digest and not sampled:
        raise DataError(
            f"its SHA-256 is {digest}, not {wanted} as the recipe says",
            "get the file again, or correct the recipe",
            path=path,
        )
    return SourceFile(number, path, status.st_size, status.st_mtime_ns, digest)


def _parts(file: SourceFile) -> int:
    bytes_each = SHARD_BYTES // (3 if file.path.endswith((*COMPRESSED, ".parquet")) else 1)
    return max(1, min(MOST_PARTS, file.size // bytes_each))


def _fetched(remote: Remote, folder: Path, watch: Watch) -> Path:
    """Return a remote file, fetched if it is not there; nothing counts before its checksum does."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", remote.url.rstrip("/").rpartition("/")[2])
    target = folder / f"{remote.sha256[:8]}-{name}"
    if target.exists() and file_sha256(target) == remote.sha256:
        return target.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    try:
        with (
            watch.task(f"fetching {remote.url}"),
            urllib.request.urlopen(remote.url, timeout=60) as answer,
            part.open("wb") as stream,
        ):
            shutil.copyfileobj(answer, stream, 2**20)
    except (urllib.error.URLError, TimeoutError) as error:
        raise EnvironmentProblem(
            f"{remote.url}: cannot be fetched: {error}",
            "check address and connection; run the same command again to go on",
        ) from error
    digest = file_sha256(part)
    if digest != remote.sha256:
        part.unlink()
        raise DataError(
            f"its SHA-256 is {digest}, not {remote.sha256} as the recipe says",
            "the file has changed at its source; look at it, then correct the recipe",
            path=remote.url,
        )
    part.replace(target)
    return target.resolve()


def _vanished(path: str) -> DataError:
    return DataError(
        "has vanished since the build began",
        "put it back; finished shards are kept",
        path=path,
    )


def _changed(path: str) -> DataError:
    return DataError(
        "has changed since the build began: its checksum is another",
        "put the old file back, or build into a new --output; finished shards are kept",
        path=path,
    )

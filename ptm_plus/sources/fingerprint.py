"""A source's content as one hash, so that what was made from it can be found again."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

from ptm_plus.errors import DataError
from ptm_plus.files import file_sha256, plain_suffix
from ptm_plus.sources.formats import open_hub
from ptm_plus.sources.spec import SourceSpec

MEMO = "fingerprints.json"
"""Name of the file, in the cache folder, that remembers the hashes of unchanged files."""

_Memo = dict[str, dict[str, str | int]]

_KNOWN = {"size": int, "mtime_ns": int, "sha256": str}


def source_fingerprint(spec: SourceSpec, cache: Path | None = None) -> str:
    """Return a hash of what the source holds and of how it is read.

    It covers content, format and order of the files and the languages that the flag gives, and not
    where the files lie. With ``cache``, a file whose path, size and time of change (in nanoseconds)
    are those of an earlier call is not read again.

    Raises:
        DataError: a file or a dataset cannot be read.
    """
    if spec.hub is not None:
        builder, _ = open_hub(spec.hub)
        content: list[list[str]] = [[str(spec.hub), str(builder.hash)]]
    else:
        hashes = _hashes(spec.files, cache)
        content = [[plain_suffix(path), hashes[path]] for path in spec.files]
    languages = spec.languages
    if spec.parallel:  # the names of the files may say
        languages = "-".join(spec.pair_languages() or ()) + " parallel"
    text = json.dumps({"languages": languages, "content": content})
    return hashlib.sha256(text.encode()).hexdigest()


def _hashes(files: tuple[str, ...], cache: Path | None) -> dict[str, str]:
    memo = {} if cache is None else _load(cache / MEMO)
    hashes = {}
    changed = False
    for path in files:
        key = str(Path(path).resolve())
        known = memo.get(key, {})
        # Looked at before the content: a write in between costs a second reading, never a miss.
        size, changed_at = _status(path)
        if (known.get("size"), known.get("mtime_ns")) != (size, changed_at):
            known = {"size": size, "mtime_ns": changed_at, "sha256": file_sha256(path)}
            memo[key] = known
            changed = True
        hashes[path] = str(known["sha256"])
    if cache is not None and changed:
        _save(memo, cache)
    return hashes


def _status(path: str) -> tuple[int, int]:
    try:
        status = Path(path).stat()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", "check the path", path=path) from error
    return status.st_size, status.st_mtime_ns


def _load(path: Path) -> _Memo:
    """Read the memo; one that is missing or damaged only costs reading the files again."""
    try:
        memo = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    whole = isinstance(memo, dict) and all(
        isinstance(known, dict) and {name: type(value) for name, value in known.items()} == _KNOWN
        for known in memo.values()
    )
    return memo if whole else {}


def _save(memo: _Memo, cache: Path) -> None:
    """Write beside and rename, so that a second process never reads half a memo."""
    cache.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=cache, prefix=MEMO)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(memo, stream, indent=0)
        Path(name).replace(cache / MEMO)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

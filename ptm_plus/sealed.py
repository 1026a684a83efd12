"""Sealed folders: whole or not there, with sizes and hashes to tell."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from ptm_plus.errors import DataError, shown
from ptm_plus.files import file_sha256, flush

MANIFEST = "manifest.json"


def seal(draft: Path, target: Path, manifest_name: str = MANIFEST) -> None:
    """Flush a draft folder, write its manifest and give it its final name.

    Args:
        draft: the folder, complete.
        target: its final name; what is there is replaced.
        manifest_name: path of the manifest (sizes and hashes) within the folder.
    """
    files = sorted(path for path in draft.rglob("*") if path.is_file())
    manifest = {
        path.relative_to(draft).as_posix(): {
            "size": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        for path in files
    }
    listed = json.dumps({"files": manifest}, indent=1)
    (draft / manifest_name).write_text(listed, encoding="utf-8")
    for path in [*files, draft / manifest_name]:
        flush(path)
    for folder in {path.parent for path in files} | {draft}:
        flush(folder)
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)
    flush(target.parent)


def damage(folder: Path, needed: Collection[str] = ()) -> str:
    """Say what is wrong with a sealed folder; empty when it is whole.

    Args:
        folder: the folder.
        needed: files that must be in it.
    """
    if not (folder / MANIFEST).is_file():
        return f"{MANIFEST} is missing"
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        missing = sorted(set(needed) - set(listed))
        if missing:
            return f"{MANIFEST} does not list {missing[0]}"
        return next(filter(None, (_wrong(folder, *entry) for entry in listed.items())), "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"
    except DataError as error:
        return error.message


def _wrong(folder: Path, name: str, expected: dict[str, object]) -> str:
    """Say what is wrong with one file; nothing outside the folder is ever looked at."""
    plain = PurePosixPath(name)
    if plain.is_absolute() or ".." in plain.parts or str(plain) != name or name == ".":
        return f"{MANIFEST} names {shown(name)}, which is no file in the folder"
    path = folder / plain
    if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
        return f"{name} is a link"
    if not path.is_file():
        return f"{name} is missing"
    if path.stat().st_size != expected["size"]:
        return f"{name} has {path.stat().st_size} bytes instead of {expected['size']}"
    if file_sha256(path) != expected["sha256"]:
        return f"{name} does not have the recorded hash"
    return ""

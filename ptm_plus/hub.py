"""Whether a name means a folder here or something on the hub: a typo must not ask the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptm_plus.errors import SettingsError
from ptm_plus.files import exists

_PATHS = (".", "/", "~")


def as_path(name: str) -> Path | None:
    """Return the path that a name stands for, ``None`` where it can only be a hub name.

    What exists is a path, and so is what looks like one, whether or not it is there: it starts with
    ``.``, ``/`` or ``~``, or has more than one ``/``.
    """
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # the home of a user that is not known
        path = Path(name)
    return path if exists(path) or name.startswith(_PATHS) or name.count("/") > 1 else None


NEEDS_CODE = (
    "it runs code of its own",
    "read that code first; then allow it: evaluate --allow-code, or in a run "
    "--set model.trust_remote_code=true",
)
"""Message and hint for what transformers would have to import from a checkpoint."""


def needs_code(error: Exception) -> bool:
    """Tell whether transformers refused a checkpoint because it would run code from it."""
    return "trust_remote_code" in str(error)


def pretrained(name: str, key: str, trust_remote_code: bool) -> tuple[str, dict[str, Any]]:
    """Return what ``from_pretrained`` of transformers takes: name and keyword arguments.

    Args:
        name: a folder, or ``ORG/NAME``.
        key: where it was given; for messages.
        trust_remote_code: whether code that comes with it may run.

    Raises:
        SettingsError: the name is a path, and no folder is there.
    """
    path = as_path(name)
    if path is not None and not path.is_dir():
        found = "is a file" if exists(path) else "no such folder"
        raise SettingsError(f"{key}: {name}: {found}", "give a folder, or a hub name")
    return (
        name if path is None else str(path),
        {"trust_remote_code": trust_remote_code, "local_files_only": path is not None},
    )

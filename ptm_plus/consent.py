"""What runs code counts only where the command line asks for it, never where a file does.

A settings file or a run folder may come from somebody else. Two settings run code that no
installation brought here: a plugin in a Python file, and ``model.trust_remote_code``.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from ptm_plus.discovery import Request
from ptm_plus.errors import SettingsError
from ptm_plus.settings import RunSettings
from ptm_plus.settings_files import Resolved

ALLOW = "--allow-code"
"""The flag that lets a settings file or a run folder name code."""


def consented(resolved: Resolved, allow_code: bool, *, flags: bool = True) -> Resolved:
    """Return the settings, in which nothing runs code on a file's word alone.

    Args:
        resolved: settings and their origins.
        allow_code: the file may name code.
        flags: whether the command takes ``--plugin`` and ``--set``; for the hint.

    Raises:
        SettingsError: the settings file names code, and neither a flag nor ``allow_code`` does.
    """
    for key, value, repeated in _code(resolved.settings):
        if not allow_code and resolved.origins[key] == resolved.file:
            instead = f", or {repeated}" if flags else ""
            raise SettingsError(
                f"{resolved.file}: {key}: {value} runs code, which a file may not ask for",
                f"read that code first; then allow it on the command line: {ALLOW}{instead}",
            )
    return resolved


def _code(settings: RunSettings) -> Iterator[tuple[str, str, str]]:
    """Yield key, value and the flags that say the same, for each setting that runs code."""
    files = [name for name in settings.plugins if Request.parse(name).is_file]
    if files:
        # A flag replaces the whole list. The names are a stranger's and will be pasted.
        repeated = " ".join(f"--plugin {shlex.quote(name)}" for name in settings.plugins)
        yield "plugins", ", ".join(map(repr, files)), repeated
    if settings.model.trust_remote_code:
        yield "model.trust_remote_code", "true", "--set model.trust_remote_code=true"

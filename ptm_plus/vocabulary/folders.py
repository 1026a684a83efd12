"""Tokenizer folders: written whole or not at all, and read back before they count."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ptm_plus.errors import EnvironmentProblem, SettingsError
from ptm_plus.prepare.tokenization import backend, load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_FILE, _CONFIG = "tokenizer.json", "tokenizer_config.json"
_PLAIN = "PreTrainedTokenizerFast"


def check_new(target: Path) -> None:
    """Check that a folder can be written anew, before any work.

    Raises:
        SettingsError: something is there.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        found = "is not empty" if target.is_dir() else "is a file"
        raise SettingsError(f"--output {target}: {found}", "name a new or an empty folder")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder that takes the target's place when all went well, and leaves nothing if not.

    Raises:
        SettingsError: something is in the target.
        EnvironmentProblem: it cannot be written.
    """
    check_new(target)
    target = target.absolute()
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        draft.mkdir(parents=True)
        yield draft
        if target.exists():
            target.rmdir()
        draft.replace(target)
    except OSError as error:
        raise EnvironmentProblem(
            f"{target}: cannot be written: {error.strerror or error}",
            "name another folder, or make room",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_tokenizer(tokenizer: PreTrainedTokenizerFast, core: Tokenizer, folder: Path) -> None:
    """Write a tokenizer so that plain ``AutoTokenizer`` loads just this backend.

    Some tokenizer classes build a backend of their own from the vocabulary; where that splits text
    in another way, the folder names the class that takes the backend as it is.

    Args:
        tokenizer: gives class, special tokens and limits.
        core: the backend to be written.
        folder: where.

    Raises:
        EnvironmentProblem: what is read back is something else.
    """
    tokenizer.save_pretrained(folder)
    (folder / _FILE).write_text(core.to_str(pretty=True), encoding="utf-8")
    if not _same(folder, core):
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        config["tokenizer_class"] = _PLAIN
        text = json.dumps(config, ensure_ascii=False, indent=2)
        (folder / _CONFIG).write_text(f"{text}\n", encoding="utf-8")
        if not _same(folder, core):
            raise EnvironmentProblem(
                "transformers reads another tokenizer than was written", "report this, please"
            )


def _same(folder: Path, core: Tokenizer) -> bool:
    return _parts(backend(load_tokenizer(str(folder)))) == _parts(core)


def _parts(core: Tokenizer) -> dict[str, object]:
    content = json.loads(core.to_str())
    return {name: part for name, part in content.items() if name not in ("truncation", "padding")}

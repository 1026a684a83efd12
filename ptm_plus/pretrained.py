"""Models that transformers saved, read without running anything that lies beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForMaskedLM
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, cached_file, logging

from ptm_plus.errors import SettingsError
from ptm_plus.hub import NEEDS_CODE, needs_code, pretrained
from ptm_plus.settings import ModelSettings

FIRST_ATTENTION = "eager"
"""Attention until the run's own is set: a configuration may name one that is downloaded and run."""

_CONVERT = (
    "only safetensors are read, no pickled weights (pytorch_model.bin); convert them once: "
    """python -c "from transformers import AutoModelForMaskedLM as M; """
    """M.from_pretrained('OLD').save_pretrained('NEW')", and copy the tokenizer's files"""
)


def load_config(settings: ModelSettings) -> Any:
    """Return the configuration of a checkpoint.

    Raises:
        SettingsError: it cannot be read, or it wants code that was not allowed.
    """
    name, where = _place(settings)
    with _explained(settings):
        return AutoConfig.from_pretrained(name, **where)


def load_model(settings: ModelSettings, config: Any) -> Any:
    """Return the masked-LM model of a checkpoint; its weights come from safetensors only.

    Args:
        settings: the model section.
        config: from :func:`load_config`.

    Raises:
        SettingsError: it cannot be read, or its weights are pickled.
    """
    return load_reported(settings, config)[0]


def load_reported(settings: ModelSettings, config: Any) -> tuple[Any, frozenset[str]]:
    """Return what :func:`load_model` does, and the names of weights that the checkpoint lacks.

    Raises:
        SettingsError: it cannot be read, or its weights are pickled.
    """
    name, where = _place(settings)
    with _explained(settings):
        for file in _weight_files(name, where["local_files_only"], config):
            # What has another suffix is unpickled, whatever use_safetensors says.
            path = Path(file)
            if path.suffix != ".safetensors" or path.is_absolute() or ".." in path.parts:
                raise OSError(f"its weights lie in {file!r}, not in safetensors of its own")
        model, report = AutoModelForMaskedLM.from_pretrained(
            name,
            config=config,
            use_safetensors=True,
            attn_implementation=FIRST_ATTENTION,
            output_loading_info=True,
            **where,
        )
    return model, frozenset(report["missing_keys"])


def _place(settings: ModelSettings) -> tuple[str, dict[str, Any]]:
    return pretrained(settings.path, "model.path", settings.trust_remote_code)


def _weight_files(name: str, local: bool, config: Any) -> list[str]:
    """Return the files that the configuration or the index of shards names; none by default."""
    named = getattr(config, "transformers_weights", None)
    if named is not None and not str(named).endswith(".json"):
        return [str(named)]
    index = cached_file(
        name,
        named or SAFE_WEIGHTS_INDEX_NAME,
        local_files_only=local,
        _raise_exceptions_for_missing_entries=False,
    )
    if index is None:
        return []
    return [str(file) for file in json.loads(Path(index).read_bytes())["weight_map"].values()]


@contextmanager
def without_bars() -> Iterator[None]:
    """Load or save models without transformers' progress bars, which no flag of ours would stop."""
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


@contextmanager
def _explained(settings: ModelSettings) -> Iterator[None]:
    """Turn whatever transformers raises about a checkpoint into an error that names it.

    Raises:
        SettingsError: in its place.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        words = str(error).strip()
        kind = "folder" if Path(settings.path).exists() else "folder or hub name"
        hint = f"give a {kind} that transformers' AutoModelForMaskedLM can load"
        reason = words.splitlines()[0] if words else type(error).__name__
        if needs_code(error):
            reason, hint = NEEDS_CODE
        elif isinstance(error, OSError) and "safetensors" in words:
            hint = _CONVERT
        raise SettingsError(f"model.path: cannot load {settings.path!r}: {reason}", hint) from error

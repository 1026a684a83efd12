"""Work with PyKEEN that leaves no trace: no files, no output, no random state changed."""

from __future__ import annotations

import logging
import os
import random
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np

from ptm_plus import EnvironmentProblem


@contextmanager
def pykeen_session() -> Iterator[ModuleType]:
    """Give the ``pykeen`` package, with ``evaluation`` and ``models`` imported.

    Raises:
        EnvironmentProblem: PyKEEN is not installed.
    """
    with _quiet():
        pykeen = _import_pykeen()
        with _own_randomness():
            yield pykeen


def _import_pykeen() -> ModuleType:
    """Import PyKEEN without letting it make its folders in the user's home."""
    homes = ("PYKEEN_HOME", "PYSTOW_HOME")
    before = {name: os.environ.get(name) for name in homes}
    try:
        with tempfile.TemporaryDirectory() as scratch:
            os.environ.update({name: value or scratch for name, value in before.items()})
            import pykeen.evaluation
            import pykeen.models
    except ImportError as error:
        raise EnvironmentProblem(
            f"PyKEEN cannot be imported: {error}", 'pip install "ptm-plus[kg-fusion]"'
        ) from error
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
    return pykeen


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the log lines and warnings of PyKEEN and its memory search from the terminal."""
    loggers = [logging.getLogger(name) for name in ("pykeen", "torch_max_mem")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Give back the random states that PyKEEN seeds: Python's, numpy's and torch's."""
    import torch

    python, legacy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)

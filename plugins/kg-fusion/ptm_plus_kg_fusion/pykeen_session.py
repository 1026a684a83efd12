"""Work with PyKEEN that leaves no trace: no files, no output, no random state changed."""

from __future__ import annotations

import gc
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
    """Give the ``pykeen`` package, with ``evaluation``, ``models`` and ``training`` imported.

    Raises:
        EnvironmentProblem: PyKEEN is not installed.
    """
    with _quiet():
        pykeen = _import_pykeen()
        with _own_randomness(), _cheap_collections():
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
            import pykeen.training
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
def _cheap_collections() -> Iterator[None]:
    """Set what exists aside from garbage collection.

    PyKEEN collects after every epoch: 0.4 s each with its imports on the heap, twenty times what
    an epoch of a small graph takes.
    """
    if gc.get_freeze_count():  # the caller has frozen, and it is not ours to thaw
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


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

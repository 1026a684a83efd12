"""The sample world: real facts from CLDR as a graph, linked sentences and translation pairs.

``build_world`` makes it, ``write_world`` puts it into files that ``ptm-plus train`` reads, and the
evaluation functions ask a trained model about facts in the text, about facts that only the graph
holds, and for translations that were never shown.  Nothing is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptm_plus.sample.cldr import LANGUAGES as LANGUAGES
    from ptm_plus.sample.evaluation import Score as Score
    from ptm_plus.sample.evaluation import majority_guess as majority_guess
    from ptm_plus.sample.evaluation import probe_examples as probe_examples
    from ptm_plus.sample.evaluation import retrieval_pairs as retrieval_pairs
    from ptm_plus.sample.evaluation import score as score
    from ptm_plus.sample.facts import Fact as Fact
    from ptm_plus.sample.files import SampleFiles as SampleFiles
    from ptm_plus.sample.files import write_world as write_world
    from ptm_plus.sample.world import World as World
    from ptm_plus.sample.world import build_world as build_world
    from ptm_plus.sample.world import shuffled as shuffled

_HOME = {
    "LANGUAGES": "cldr",
    "Fact": "facts",
    "SampleFiles": "files",
    "Score": "evaluation",
    "World": "world",
    "build_world": "world",
    "majority_guess": "evaluation",
    "probe_examples": "evaluation",
    "retrieval_pairs": "evaluation",
    "score": "evaluation",
    "shuffled": "world",
    "write_world": "files",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import the module that holds ``name`` when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)

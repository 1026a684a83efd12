"""Entities, their names, triples, vectors, and the dictionary linker that joins text to them.

Part of the public face: what a knowledge plugin may import. Names are loaded at first use, so that
reading labels does not import numpy, nor the command line any of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptm_plus.knowledge.graph import Graph as Graph
    from ptm_plus.knowledge.graph import read_graph as read_graph
    from ptm_plus.knowledge.labels import EntityLabels as EntityLabels
    from ptm_plus.knowledge.labels import Names as Names
    from ptm_plus.knowledge.labels import read_labels as read_labels
    from ptm_plus.knowledge.ledger import Ledger as Ledger
    from ptm_plus.knowledge.ledger import check as check
    from ptm_plus.knowledge.linker import DictionaryLinker as DictionaryLinker
    from ptm_plus.knowledge.linker import Link as Link
    from ptm_plus.knowledge.linker import LinkCounts as LinkCounts
    from ptm_plus.knowledge.table import VectorTable as VectorTable
    from ptm_plus.knowledge.table import write_table as write_table

_HOMES = {
    "graph": ("Graph", "read_graph"),
    "labels": ("EntityLabels", "Names", "read_labels"),
    "ledger": ("Ledger", "check"),
    "linker": ("DictionaryLinker", "Link", "LinkCounts"),
    "table": ("VectorTable", "write_table"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ptm_plus.knowledge' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"ptm_plus.knowledge.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

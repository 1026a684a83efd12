"""From files and hub datasets to examples.

``parse_source`` understands what a flag names, ``read_text`` and ``read_pairs`` yield one
``Example`` or one ``Refused`` per row, and ``source_fingerprint`` says whether anything changed.
What is structurally wrong stops with a ``DataError`` that names file and line; what is merely
useless (an empty text, a pair with equal halves) is refused and counted.
"""

from ptm_plus.sources.fingerprint import source_fingerprint
from ptm_plus.sources.formats import column_rows
from ptm_plus.sources.readers import read_pairs, read_text
from ptm_plus.sources.spec import HubDataset, SourceSpec, parse_source

__all__ = [
    "HubDataset",
    "SourceSpec",
    "column_rows",
    "parse_source",
    "read_pairs",
    "read_text",
    "source_fingerprint",
]

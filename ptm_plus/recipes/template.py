"""The recipe that ``recipe new`` writes."""

from __future__ import annotations

_TEMPLATE = """\
# A recipe: from raw files to a cleaned, deduplicated, measured corpus.
#
#     ptm-plus recipe check NAME.toml --data FOLDER
#     ptm-plus recipe build NAME.toml --data FOLDER --output CORPUS
#
# `ptm-plus recipe schema` prints what may stand here, as a JSON Schema for editors;
# `ptm-plus recipe show biomedical` shows a finished one.

name = "NAME"
title = "One line for lists"
description = "What the corpus is for."
languages = ["en"]

[[sources]]
name = "reports"
files = ["reports/*.jsonl.gz"]       # below --data; or remote = [{ url, sha256 }], or hub
format = "jsonl"                     # text, lines, jsonl, csv, tsv, parquet, pubmed, jats, wiki
text = ["text"]                      # columns; several make paragraphs
metadata = []                        # further columns to keep
language = "en"
licence = "CC BY 4.0"
provenance = "Who made it, and where it is."
access = "How to get it; what has to be asked for."

[[steps]]                            # in this order
kind = "normalise"

[[steps]]
kind = "language"
probability = 0.5

[[steps]]
kind = "length"
min_words = 20

[[steps]]
kind = "gopher-repetition"

[[steps]]
kind = "mask"
why = "E-mail addresses, telephone numbers and the like become placeholders."

[[steps]]
kind = "exact-duplicates"

[[steps]]
kind = "near-duplicates"

[[steps]]
kind = "decontaminate"
against = []                         # evaluation files, below --data: ["eval/*.jsonl"]

[mix]
general = []                         # general text to replay, as after --text
replay = 0.1                         # its share of the rows
guard = "stop"                       # or slow, or off: when general text is forgotten
margin = 0.1                         # by so much, in nats

[vocabulary]
decision = "keep"                    # keep, extend or train: ptm-plus recipe vocabulary CORPUS

[training]
steps = 10_000
lr = 5e-5
"""


def template(name: str) -> str:
    """Return a recipe to fill in."""
    return _TEMPLATE.replace("NAME.toml", f"{name}.toml").replace(
        'name = "NAME"', f'name = "{name}"'
    )

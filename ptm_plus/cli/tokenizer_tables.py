"""What the ``tokenizer`` commands found, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType

from ptm_plus.cli.rendering import columns, named_rows
from ptm_plus.errors import listed

_RATES = (
    ("fertility", "fertility", "{:.2f}"),
    ("split", "continued_share", "{:.1%}"),
    ("unknown", "unknown_rate", "{:.2%}"),
    ("partial", "partial_rate", "{:.1%}"),
    ("length", "characters_per_token", "{:.2f}"),
)
_SHOWN = 20


def training_table(document: Mapping[str, Any]) -> RenderableType:
    """Return what a tokenizer was trained on."""
    headings = ("language", "texts", "characters", "words", "share", "copies", "drawn")
    rows = [
        (
            language,
            *(f"{one[name]:,}" for name in ("texts", "characters", "words")),
            f"{one['share']:.1%}",
            f"{one['copies']:.3g}",
            f"{one['drawn']['characters']:,}",
        )
        for language, one in document["languages"].items()
    ]
    about = [
        ("kind", document["kind"]),
        ("vocabulary", f"{document['vocabulary']:,}"),
        *_refused(document),
    ]
    return Group(
        named_rows(f"tokenizer in {document['output']}", about),
        columns(headings, rows, right=headings[1:]),
    )


def report_table(document: Mapping[str, Any]) -> RenderableType:
    """Return rates by language; of two tokenizers, one row each."""
    several = document["tokenizers"]
    two = len(several) > 1
    rates = [
        (heading, key, pattern)
        for heading, key, pattern in _RATES
        if key != "partial_rate" or any(one["all"]["partial_rate"] for one in several)
    ]
    languages = list(several[0]["languages"])
    rows = []
    for name in [*languages, "all"] if len(languages) > 1 else languages:
        found = [one["all"] if name == "all" else one["languages"][name] for one in several]
        rows.append((name, f"{found[0]['words']:,}", *["A"][:two], *_report_row(found[0], rates)))
        if two:
            rows.append(("", "", "B", *_report_row(found[1], rates)))
    about = [
        (f"tokenizer {letter}" if two else "tokenizer", _named(one))
        for letter, one in zip("AB", several, strict=False)
    ]
    figures = ("tokens", *(heading for heading, _, _ in rates))
    headings = ("", "words", *[""][:two], *figures)
    return Group(
        named_rows("", [*about, *_refused(document)]),
        columns(headings, rows, right=("words", *figures)),
    )


def extension_table(document: Mapping[str, Any]) -> RenderableType:
    """Return what was added to a vocabulary, and what that changes."""
    added = f"{document['added']:,}"
    if document["characters"]:
        added += f", {document['characters']:,} of them single characters"
    about = [
        ("vocabulary", f"{document['vocabulary_before']:,} → {document['vocabulary']:,}"),
        ("added", added),
        *_asked(document),
        *_model(document["model"]),
        *([("most saved", best)] if (best := _best(document["pieces"])) else []),
    ]
    headings = ("language", "words", "tokens before", "after", "saved", "unknown", "split anew")
    rows = [
        (
            language,
            f"{one['words']:,}",
            f"{one['tokens_before']:,}",
            f"{one['tokens']:,}",
            f"{1 - one['tokens'] / max(1, one['tokens_before']):.1%}",
            f"{one['unknown_before']:,} → {one['unknown']:,}",
            f"{one['split_anew']:,}",
        )
        for language, one in document["languages"].items()
    ]
    parts: list[RenderableType] = [named_rows(f"extended, in {document['output']}", about)]
    if rows:
        parts.append(columns(headings, rows, right=headings[1:]))
    return Group(*parts)


def _report_row(one: Mapping[str, Any], rates: list[tuple[str, str, str]]) -> list[str]:
    values = [(one[key], pattern) for _, key, pattern in rates]
    cells = ["–" if value is None else pattern.format(value) for value, pattern in values]
    return [f"{one['tokens']:,}", *cells]


def _named(one: Mapping[str, Any]) -> str:
    return f"{one['name']} ({one['vocabulary']:,} entries)"


def _refused(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    return (
        [("refused", f"{document['refused']:,} rows without text")] if document["refused"] else []
    )


def _asked(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not document["words_asked"]:
        return []
    refused = document["words_refused"]
    rows = [("words", f"{document['words_asked']:,} asked for")]
    if refused:
        more = f" and {len(refused) - _SHOWN:,} more" if len(refused) > _SHOWN else ""
        rows.append(("no one piece", ", ".join(refused[:_SHOWN]) + more))
    return rows


def _model(model: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if model is None:
        return [("model", "none; the tokenizer alone")]
    rows = [("model", f"{model['rows_before']:,} → {model['rows']:,} rows of embeddings")]
    for name, key in (("left out", "left_out"), ("drawn anew", "drawn_anew")):
        if model.get(key):
            rows.append((name, f"{len(model[key]):,} weights: {listed(model[key])}"))
    return rows


def _best(pieces: list[Mapping[str, Any]]) -> str:
    saving = [one for one in pieces if one["saved"]]
    best = sorted(saving, key=lambda one: -one["saved"])[:_SHOWN]
    return "  ".join(one["text"] for one in best)

"""The data card of a corpus: what it is, where it is from, what was done, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ptm_plus import __version__
from ptm_plus.recipes.recipe import Recipe


def data_card(recipe: Recipe, account: dict[str, Any]) -> str:
    """Return the card; its head is what data hubs read."""
    return "\n".join(
        [
            *_head(recipe, account),
            *_what(recipe, account),
            *_sources(recipe, account),
            *_steps(account),
            *_contents(account),
            *_use(recipe),
        ]
    )


def _head(recipe: Recipe, account: dict[str, Any]) -> Iterator[str]:
    yield "---\nlanguage:"
    yield from (f"- {tag}" for tag in recipe.languages)
    yield "license: other\nconfigs:\n- config_name: default"
    yield '  data_files: "data/*.jsonl.gz"\n---\n'
    yield f"# {recipe.title}\n"


def _what(recipe: Recipe, account: dict[str, Any]) -> Iterator[str]:
    if recipe.description:
        yield f"{recipe.description.strip()}\n"
    documents, tokens = account["documents"], account["tokens"]
    sampled = ", from the recipe's samples" if account["sample"] else ""
    yield (
        f"{documents['out']:,} documents with {tokens['out']:,} tokens (words and marks), of "
        f"{documents['in']:,} documents and {tokens['in']:,} tokens in the sources. Built by "
        f"ptm-plus {__version__} after the recipe `{recipe.name}`{sampled}; `recipe.toml` is that "
        "recipe, `account.json` and `account.html` have the figures in full.\n"
    )


def _sources(recipe: Recipe, account: dict[str, Any]) -> Iterator[str]:
    yield "## Sources\n\n| source | documents | tokens | licence | provenance |"
    yield "|---|---:|---:|---|---|"
    for one in account["sources"]:
        yield (
            f"| {one['name']} | {one['documents']['out']:,} | {one['tokens']['out']:,} "
            f"| {_cell(one['licence'])} | {_cell(one['provenance'])} |"
        )
    yield ""


def _steps(account: dict[str, Any]) -> Iterator[str]:
    yield "## What was done\n\n| step | documents in | out | tokens in | out | dropped because |"
    yield "|---|---:|---:|---:|---:|---|"
    for one in account["steps"]:
        if one["kind"] == "work files":
            continue
        reasons = "; ".join(f"{name}: {count:,}" for name, count in one["dropped"].items())
        documents, tokens = one["documents"], one["tokens"]
        yield (
            f"| {one['kind']} | {documents['in']:,} | {documents['out']:,} "
            f"| {tokens['in']:,} | {tokens['out']:,} | {_cell(reasons)} |"
        )
    yield ""


def _contents(account: dict[str, Any]) -> Iterator[str]:
    yield "## Languages\n\n| language | documents | tokens |\n|---|---:|---:|"
    for name, one in account["languages"].items():
        yield f"| {name} | {one['documents']:,} | {one['tokens']:,} |"
    yield "\n## Lengths\n\n| tokens | documents |\n|---|---:|"
    for one in account["lengths"]:
        yield f"| {one['from']:,} to {2 * one['from'] - 1:,} | {one['documents']:,} |"
    yield ""


def _use(recipe: Recipe) -> Iterator[str]:
    yield (
        "## Use\n\n    ptm-plus recipe vocabulary . --model MODEL\n    ptm-plus train train.toml\n"
    )
    yield (
        "A row has `id`, `text`, `lang`, `source`, the columns that the recipe keeps, and "
        "`mentions` where the source marks entities.\n"
    )
    for paper in recipe.papers:
        link = f" <{paper.url}>" if paper.url else ""
        yield f"After: {paper.citation}{link}\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

"""The account as a page: one HTML file that needs nothing else and runs no script."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from ptm_plus.pages.page import bar, figures, page, table
from ptm_plus.recipes.recipe import Recipe


def account_page(recipe: Recipe, account: dict[str, Any]) -> str:
    """Return the page."""
    introduction = (
        f"Recipe <code>{escape(recipe.name)}</code>"
        f"{', built of its samples' if account['sample'] else ''}. A token is a word or a mark."
    )
    return page(
        f"{recipe.title}: account",
        introduction,
        [
            *_figures(account),
            *_steps(account),
            *_dropped(account),
            *_languages(account),
            *_lengths(account),
            *_sources(recipe, account),
            *_files(account),
        ],
    )


def _figures(account: dict[str, Any]) -> Iterator[str]:
    documents, tokens = account["documents"], account["tokens"]
    kept = tokens["out"] / tokens["in"] if tokens["in"] else 0
    cost = account["cost"]
    shown = [
        (f"{documents['out']:,}", f"documents of {documents['in']:,}"),
        (f"{tokens['out']:,}", f"tokens of {tokens['in']:,}"),
        (f"{100 * kept:.1f} %", "of the tokens kept"),
        *((f"{count:,}", name.replace("-", " ")) for name, count in account["duplicates"].items()),
        (f"{cost['tokens_per_second_and_core']:,}", "tokens per second and core"),
    ]
    yield from figures(shown)


def _steps(account: dict[str, Any]) -> Iterator[str]:
    yield "<h2>Steps</h2>"
    rows = []
    for one in account["steps"]:
        documents, tokens = one["documents"], one["tokens"]
        empty = one["kind"] == "work files"
        counts = (documents["in"], documents["out"], tokens["in"], tokens["out"], one["changed"])
        cells = ["" if empty else f"{count:,}" for count in counts]
        name = escape(one["kind"])
        why = f'<div class="soft">{escape(one["why"])}</div>' if one["why"] else ""
        rows.append([name + why, *cells, f"{100 * one['share_of_time']:.1f} %"])
    heads = ("step", "documents in", "out", "tokens in", "out", "changed", "of the time")
    yield from table(heads, rows)


def _dropped(account: dict[str, Any]) -> Iterator[str]:
    yield "<h2>What was dropped</h2>"
    none = True
    for one in account["steps"]:
        if not one["dropped"] and not one["counts"]:
            continue
        none = False
        yield f"<h3>{escape(one['kind'])}</h3>"
        counts = [(escape(name), f"{count:,}") for name, count in one["counts"].items()]
        if counts:
            yield from table(("counted", "times"), counts)
        for reason, count in one["dropped"].items():
            examples = one["examples"].get(reason, [])
            yield f"<details><summary>{count:,} × {escape(reason)}</summary>"
            for example in examples:
                place = f"{example['source']}, {example['id']}"
                yield f'<div class="soft">{escape(place)}</div>'
                yield f"<blockquote>{escape(example['text'])}</blockquote>"
            yield "</details>"
    if none:
        yield "<p>Nothing.</p>"


def _languages(account: dict[str, Any]) -> Iterator[str]:
    yield "<h2>Languages</h2>"
    most = max((one["tokens"] for one in account["languages"].values()), default=1)
    rows = [
        (escape(name), f"{one['documents']:,}", f"{one['tokens']:,}", bar(one["tokens"], most))
        for name, one in account["languages"].items()
    ]
    yield from table(("language", "documents", "tokens", ""), rows)


def _lengths(account: dict[str, Any]) -> Iterator[str]:
    yield "<h2>Lengths</h2>"
    most = max((one["documents"] for one in account["lengths"]), default=1)
    rows = [
        (
            f"{one['from']:,} to {2 * one['from'] - 1:,} tokens",
            f"{one['documents']:,}",
            bar(one["documents"], most),
        )
        for one in account["lengths"]
    ]
    yield from table(("length", "documents", ""), rows)


def _sources(recipe: Recipe, account: dict[str, Any]) -> Iterator[str]:
    yield "<h2>Sources and licences</h2>"
    access = {source.name: source.access for source in recipe.sources}
    rows = [
        (
            escape(one["name"]),
            f"{one['documents']['out']:,} of {one['documents']['in']:,}",
            f"{one['tokens']['out']:,} of {one['tokens']['in']:,}",
            f'<div class="words">{escape(one["licence"])}</div>',
            f'<div class="words">{escape(one["provenance"])} '
            f'<span class="soft">{escape(access[one["name"]])}</span></div>',
        )
        for one in account["sources"]
    ]
    yield from table(("source", "documents", "tokens", "licence", "provenance"), rows)


def _files(account: dict[str, Any]) -> Iterator[str]:
    yield "<h2>Files</h2>"
    rows = [
        (
            escape(one["source"]),
            escape(one["name"]),
            f"{one['bytes']:,}",
            f"<code>{one['sha256'][:16]}</code>",
        )
        for one in account["files"][:200]
    ]
    yield from table(("source", "file", "bytes", "SHA-256 (start)"), rows)
    if len(account["files"]) > len(rows):
        yield f"<p>And {len(account['files']) - len(rows):,} more; account.json has all.</p>"

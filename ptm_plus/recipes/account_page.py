"""The account as a page: one HTML file that needs nothing else and runs no script."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any

from ptm_plus.recipes.recipe import Recipe

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #3b6ea5; --soft: #8882; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th:first-child, td:first-child, .words { text-align: left; }
.bar { background: var(--bar); height: .75rem; border-radius: 2px; min-width: 1px; }
.soft { opacity: .7; }
blockquote { margin: .4rem 0; padding: .4rem .8rem; background: var(--soft); border-radius: 4px;
  white-space: pre-wrap; overflow-wrap: anywhere; }
code { overflow-wrap: anywhere; }
.figures { display: flex; gap: 2.5rem; flex-wrap: wrap; margin: 1.2rem 0; }
.figures b { display: block; font-size: 1.6rem; }
"""


def account_page(recipe: Recipe, account: dict[str, Any]) -> str:
    """Return the page."""
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{escape(recipe.title)}: account</title>\n<style>{_STYLE}</style>\n</head>",
            f"<body>\n<h1>{escape(recipe.title)}</h1>",
            f'<p class="soft">Recipe <code>{escape(recipe.name)}</code>'
            f"{', built of its samples' if account['sample'] else ''}. "
            "A token is a word or a mark.</p>",
            *_figures(account),
            *_steps(account),
            *_dropped(account),
            *_languages(account),
            *_lengths(account),
            *_sources(recipe, account),
            *_files(account),
            "</body>\n</html>\n",
        ]
    )


def _figures(account: dict[str, Any]) -> Iterator[str]:
    documents, tokens = account["documents"], account["tokens"]
    kept = tokens["out"] / tokens["in"] if tokens["in"] else 0
    cost = account["cost"]
    figures = [
        (f"{documents['out']:,}", f"documents of {documents['in']:,}"),
        (f"{tokens['out']:,}", f"tokens of {tokens['in']:,}"),
        (f"{100 * kept:.1f} %", "of the tokens kept"),
        *((f"{count:,}", name.replace("-", " ")) for name, count in account["duplicates"].items()),
        (f"{cost['tokens_per_second_and_core']:,}", "tokens per second and core"),
    ]
    yield '<div class="figures">'
    for figure, words in figures:
        yield f"<div><b>{figure}</b>{escape(words)}</div>"
    yield "</div>"


def _steps(account: dict[str, Any]) -> Iterator[str]:
    yield "<h2>Steps</h2>"
    rows = []
    for one in account["steps"]:
        documents, tokens = one["documents"], one["tokens"]
        empty = one["kind"] == "work files"
        figures = (documents["in"], documents["out"], tokens["in"], tokens["out"], one["changed"])
        cells = ["" if empty else f"{figure:,}" for figure in figures]
        name = escape(one["kind"])
        why = f'<div class="soft">{escape(one["why"])}</div>' if one["why"] else ""
        rows.append([name + why, *cells, f"{100 * one['share_of_time']:.1f} %"])
    heads = ("step", "documents in", "out", "tokens in", "out", "changed", "of the time")
    yield from _table(heads, rows)


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
            yield from _table(("counted", "times"), counts)
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
        (escape(name), f"{one['documents']:,}", f"{one['tokens']:,}", _bar(one["tokens"], most))
        for name, one in account["languages"].items()
    ]
    yield from _table(("language", "documents", "tokens", ""), rows)


def _lengths(account: dict[str, Any]) -> Iterator[str]:
    yield "<h2>Lengths</h2>"
    most = max((one["documents"] for one in account["lengths"]), default=1)
    rows = [
        (
            f"{one['from']:,} to {2 * one['from'] - 1:,} tokens",
            f"{one['documents']:,}",
            _bar(one["documents"], most),
        )
        for one in account["lengths"]
    ]
    yield from _table(("length", "documents", ""), rows)


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
    yield from _table(("source", "documents", "tokens", "licence", "provenance"), rows)


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
    yield from _table(("source", "file", "bytes", "SHA-256 (start)"), rows)
    if len(account["files"]) > len(rows):
        yield f"<p>And {len(account['files']) - len(rows):,} more; account.json has all.</p>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "<table>\n<tr>" + "".join(f"<th>{escape(head)}</th>" for head in heads) + "</tr>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
    yield "</table>"


def _bar(value: int, most: int) -> str:
    return f'<div class="bar" style="width:{100 * value / max(1, most):.1f}%"></div>'

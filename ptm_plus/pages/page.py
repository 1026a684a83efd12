"""What every page is made of: its frame, tables, bars, folded parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

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
.track { width: 14rem; }
.soft { opacity: .7; }
.wide { overflow-x: auto; }
.plot { background: #fff; border-radius: 6px; margin: .8rem 0; }
.plot svg { width: 100%; height: auto; display: block; }
.better { color: #2a8a3e; } .worse { color: #c2352b; }
mark { background: #f2c94c88; color: inherit; border-radius: 3px; padding: 0 .15em; }
u { text-decoration-color: var(--bar); text-underline-offset: 3px; }
blockquote { margin: .4rem 0; padding: .4rem .8rem; background: var(--soft); border-radius: 4px;
  white-space: pre-wrap; overflow-wrap: anywhere; }
pre { background: var(--soft); padding: .8rem; border-radius: 4px; overflow-x: auto; }
code { overflow-wrap: anywhere; }
.figures { display: flex; gap: 2.5rem; flex-wrap: wrap; margin: 1.2rem 0; }
.figures b { display: block; font-size: 1.6rem; }
"""


def page(title: str, introduction: str, parts: Iterable[str]) -> str:
    """Return a page.

    Args:
        title: of the page, as text.
        introduction: what stands below it, as HTML.
        parts: what follows, as HTML.
    """
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>",
            f"<body>\n<h1>{escape(title)}</h1>",
            f'<p class="soft">{introduction}</p>',
            *parts,
            "</body>\n</html>\n",
        ]
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a table; heads are text, cells HTML."""
    cells = list(rows)
    first = cells[0] if cells else [""] * len(heads)
    yield '<div class="wide"><table>'
    yield "<tr>" + "".join(map(_head, heads, first)) + "</tr>"
    for row in cells:
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
    yield "</table></div>"


def _head(head: str, below: str) -> str:
    """Return a head on the side on which its cells stand."""
    left = ' class="words"' if below.startswith('<div class="words">') else ""
    return f"<th{left}>{escape(head)}</th>"


def figures(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield large figures, each with its words below."""
    yield '<div class="figures">'
    for figure, words in pairs:
        yield f"<div><b>{escape(figure)}</b>{escape(words)}</div>"
    yield "</div>"


def bar(value: float, most: float) -> str:
    """Return a bar that is full at ``most``."""
    share = 100 * value / max(most, 1e-12)
    return f'<div class="track"><div class="bar" style="width:{share:.1f}%"></div></div>'


def words(text: str) -> str:
    """Return text that stands on the left of its cell."""
    return f'<div class="words">{escape(text)}</div>'


def folded(summary: str, inside: Iterable[str]) -> Iterator[str]:
    """Yield what is shown when somebody asks for it."""
    yield f"<details><summary>{escape(summary)}</summary>"
    yield from inside
    yield "</details>"


def plot(svg: str) -> str:
    """Return a picture on a ground of its own."""
    return f'<div class="plot">{svg}</div>'

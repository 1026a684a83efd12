"""Tables for people: the account of a stream, figures, settings; readable without colour."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ptm_plus.prepare.accounts import Account, SpanAccount

MOST_STRATA = 12
"""Languages or language pairs of an account that get a line of their own."""

SEPARATOR = " · "


def columns(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    right: Sequence[str] = (),
    title: str = "",
) -> Table:
    """Return a table with headings and no vertical lines.

    Args:
        headings: names of the columns.
        rows: cells; anything that is not text is turned into it.
        right: headings of columns that hold numbers.
        title: what stands above.
    """
    table = Table(
        box=SIMPLE_HEAD,
        title=Text(title, style="bold") if title else None,
        title_justify="left",
        pad_edge=False,
        header_style="bold",
    )
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return table


def named_rows(title: str, rows: Iterable[tuple[str, str]]) -> Padding:
    """Return ``name  value`` rows under a title, indented by two."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    if not title:
        return Padding(table, (0, 0, 0, 2), expand=False)
    outer = Table.grid()
    outer.add_row(Text(title, style="bold"))
    outer.add_row(Padding(table, (0, 0, 0, 2)))
    return Padding(outer, (0, 0, 0, 2), expand=False)


# ---------------------------------------------------------------------------------------------
# Accounts


def account_table(stream: str, account: Account) -> Padding:
    """Return the account of a stream as a compact table."""
    return named_rows(f"account of {stream}", account_rows(account))


def account_rows(account: Account) -> list[tuple[str, str]]:
    """Return the lines of an account as (name, figures)."""
    rows = [("rows", _read(account)), ("sequences", _made(account))]
    if account.unknown:
        share = 100 * account.unknown / max(1, account.tokens)
        rows.append(("unknown", f"{account.unknown:,} tokens ({share:.2f} %)"))
    rows += _strata(account)
    for name, spans in sorted(account.spans.items()):
        if spans.found or spans.counts:
            rows.append((f"spans {name}", _spans(spans)))
    speed = f"{account.tokens_per_second:,.0f} tokens/s"
    return [*rows, ("prepared in", f"{account.seconds:.1f} s{SEPARATOR}{speed}")]


def _read(account: Account) -> str:
    refused = sum(account.refused.values())
    text = f"{account.rows:,} read{SEPARATOR}{account.used:,} used{SEPARATOR}{refused:,} refused"
    reasons = ", ".join(_reason(account, *one) for one in _by_count(account.refused))
    return f"{text} ({reasons})" if reasons else text


def _reason(account: Account, reason: str, count: int) -> str:
    first = account.refused_first.get(reason)
    return f"{reason} {count:,}{f', first {first}' if first else ''}"


def _made(account: Account) -> str:
    parts = [f"{account.sequences:,}", f"{account.tokens:,} tokens"]
    if account.documents > account.used:
        parts.append(f"from {account.documents:,} edited copies")
    if account.truncated_tokens:
        parts.append(
            f"truncated {account.truncated_tokens:,} tokens of "
            f"{account.truncated_sequences:,} sequences"
        )
    return SEPARATOR.join(parts)


def _strata(account: Account) -> Iterator[tuple[str, str]]:
    ordered = _by_count(account.stratum_tokens)
    for name, tokens in ordered[:MOST_STRATA]:
        examples = account.stratum_examples.get(name, 0)
        yield name, f"{examples:,} examples{SEPARATOR}{tokens:,} tokens"
    if rest := ordered[MOST_STRATA:]:
        total = sum(tokens for _, tokens in rest)
        yield f"{len(rest)} more", f"{total:,} tokens: {', '.join(name for name, _ in rest)}"


def _spans(spans: SpanAccount) -> str:
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in _by_count(spans.kinds))
    kept = f"{spans.kept:,} kept" + (f" ({kinds})" if kinds else "")
    counts = [f"{name} {count:,}" for name, count in sorted(spans.counts.items())]
    return SEPARATOR.join([f"{spans.found:,} found", kept, f"{spans.cut:,} cut", *counts])


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


# ---------------------------------------------------------------------------------------------
# Figures of any kind


def figures_table(kind: str, values: Mapping[str, Any]) -> Padding:
    """Return nested figures as ``name  value`` rows with dotted names."""
    return named_rows(kind, [(name, number(value)) for name, value in flattened(values)])


def flattened(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) for every leaf of nested mappings."""
    values = plain_value(values)
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            yield from flattened(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, values


def readable(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return nested figures as (dotted name, words); a mean with its error is one figure."""
    rows: list[tuple[str, str]] = []
    for name, value in figures.items():
        if isinstance(value, Mapping) and {"mean", "error"} <= set(value):
            count = f" ({value['count']:,} sequences)" if value.get("count") else ""
            rows.append((name, f"{number(value['mean'])} ± {number(value['error'])}{count}"))
        elif isinstance(value, Mapping) and value:
            rows += [(f"{name}.{inner}", words) for inner, words in readable(value)]
        else:
            rows.append((name, number(value)))
    return rows


def number(value: Any) -> str:
    """Return a value as a person reads it: four figures after small points, commas in counts."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def quantity(value: float) -> str:
    """Return a big number in short: ``950``, ``12.3 k``, ``278 M``, ``1.2 G``."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f}"


def size(count: float) -> str:
    """Return a number of bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"


def duration(seconds: float) -> str:
    """Return a time as a person writes it: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def percent(share: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * share:.1f} %"


def span(low: float, high: float) -> str:
    """Return two figures as a range, or one where they look the same."""
    ends = f"{low:.1f}", f"{high:.1f}"
    return ends[0] if ends[0] == ends[1] else " – ".join(ends)


def firsts(rows: Iterable[tuple[str, ...]]) -> Iterator[tuple[bool, tuple[str, ...]]]:
    """Yield rows, and whether each is the first: a group is named once."""
    for place, row in enumerate(rows):
        yield place == 0, row


def plain_value(value: Any) -> Any:
    """Return a value as JSON holds it: accounts, dataclasses, arrays' scalars and paths too."""
    if isinstance(value, Account):
        return value.to_json()
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_value(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no word for it
    if hasattr(value, "item") and not isinstance(value, str | int | float):
        return plain_value(value.item())
    return value


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping of figures as JSON holds them."""
    return {name: plain_value(value) for name, value in values.items()}

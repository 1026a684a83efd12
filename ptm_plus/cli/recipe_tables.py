"""What the ``recipe`` commands print for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from ptm_plus.cli.rendering import columns, duration, named_rows, percent, size
from ptm_plus.cli.tokenizer_tables import extension_table, training_table
from ptm_plus.recipes.recipe import Recipe

Tables = Sequence[Callable[[], RenderableType]]


def recipes_table(document: Sequence[dict[str, Any]]) -> RenderableType:
    """Return the table of ``recipe list``."""
    rows = [
        (one["name"], one["title"], ", ".join(one["languages"]), one["from"]) for one in document
    ]
    return columns(("recipe", "what", "languages", "from"), rows)


def shown_recipe(recipe: Recipe) -> Tables:
    """Return the tables of ``recipe show``."""
    steps = [
        (number, step.kind, _settings(step.model_dump(mode="json")), step.why)
        for number, step in enumerate(recipe.steps)
    ]
    sources = [
        (one.name, one.licence, one.provenance, one.access, one.size) for one in recipe.sources
    ]
    return [
        lambda: named_rows(recipe.title, list(_head(recipe))),
        lambda: columns(
            ("source", "licence", "provenance", "access", "size"), sources, title="sources"
        ),
        lambda: columns(("step", "kind", "settings", "why"), steps, title="steps"),
        lambda: named_rows("papers", list(_papers(recipe))),
    ]


def _head(recipe: Recipe) -> Iterator[tuple[str, str]]:
    yield "name", recipe.name
    if recipe.description:
        yield "for", recipe.description.strip()
    yield "languages", ", ".join(recipe.languages)
    mix, vocabulary, training = recipe.mix, recipe.vocabulary, recipe.training
    yield "replay", f"{percent(mix.replay)} of general text. {mix.why}"
    yield "guard", f"{mix.guard}, margin {mix.margin:g} nats"
    yield "vocabulary", f"{vocabulary.decision} {vocabulary.entries or ''}. {vocabulary.why}"
    yield (
        "training",
        f"{training.steps:,} steps at {training.lr:g}, {training.max_length} tokens; "
        f"{training.why}",
    )


def _papers(recipe: Recipe) -> Iterator[tuple[str, str]]:
    for paper in recipe.papers:
        yield "", f"{paper.citation} {paper.url}"
        yield from paper.settings.items()


def _settings(values: dict[str, Any]) -> str:
    given = {key: value for key, value in values.items() if key not in ("kind", "why")}
    return ", ".join(f"{key} {value}" for key, value in given.items() if value not in ((), [], {}))


def check_table(document: dict[str, Any]) -> RenderableType:
    """Return the table of ``recipe check``."""
    total = sum(one["bytes"] for one in document["files"])
    rows = [
        ("files", f"{len(document['files']):,}, {size(total)}"),
        ("shards", f"{document['shards']:,}"),
    ]
    if document["not looked at"]:
        rows.append(("not looked at", f"{', '.join(document['not looked at'])} (not local files)"))
    if document["missing"]:
        rows.append(("missing", 'to build: pip install "ptm-plus[recipes]"'))
    return named_rows(f"the recipe {document['recipe']} is fine", rows)


def account_tables(account: dict[str, Any], output: Path) -> Tables:
    """Return the tables at the end of ``recipe build``."""
    return [
        lambda: _steps(account),
        lambda: named_rows("", list(_figures(account, output))),
    ]


def _steps(account: dict[str, Any]) -> RenderableType:
    heads = ("step", "documents in", "out", "tokens in", "tokens out", "time", "what it did")
    rows = []
    for one in account["steps"]:
        work = one["kind"] == "work files"
        figures = [one[what][way] for what in ("documents", "tokens") for way in ("in", "out")]
        reasons = [f"{count:,} × {name}" for name, count in one["dropped"].items()]
        if one["changed"]:
            reasons.insert(0, f"{one['changed']:,} changed")
        if one["kind"] in ("language", "mask", "decontaminate"):
            reasons += [f"{name}: {count:,}" for name, count in one["counts"].items()]
        if one["kind"] == "decontaminate" and not one["counts"]:
            reasons.append("no evaluation file was named: --against FILE")
        more = f"; {len(reasons) - 4} more" if len(reasons) > 4 else ""
        rows.append(
            (
                one["kind"],
                *("" if work else f"{figure:,}" for figure in figures),
                percent(one["share_of_time"]),
                "; ".join(reasons[:4]) + more,
            )
        )
    return columns(heads, rows, right=heads[1:6], title=account["title"])


def _figures(account: dict[str, Any], output: Path) -> Iterator[tuple[str, str]]:
    languages = [
        f"{name} {percent(one['tokens'] / max(1, account['tokens']['out']))}"
        for name, one in list(account["languages"].items())[:8]
    ]
    yield "languages", ", ".join(languages)
    for one in account["sources"]:
        yield (
            one["name"],
            f"{one['tokens']['out']:,} of {one['tokens']['in']:,} tokens; {one['licence']}",
        )
    cost = account["cost"]
    yield (
        "cost",
        f"{duration(cost['core_seconds'])} of a core, "
        f"{cost['tokens_per_second_and_core']:,} tokens per second and core, "
        f"at most {size(cost['peak_bytes_of_a_process'])} a process",
    )
    yield "corpus", f"{output / 'data'}"
    yield "account", f"{output / 'account.html'}; data card {output / 'README.md'}"
    yield "next", f"ptm-plus recipe vocabulary {output} --model MODEL"


def vocabulary_tables(found: dict[str, Any]) -> Tables:
    """Return the tables of ``recipe vocabulary``."""
    tables: list[Callable[[], RenderableType]] = []
    if "extended" in found:
        tables.append(lambda: extension_table(found["extended"]))
    if "trained" in found:
        tables.append(lambda: training_table(found["trained"]))
    rows = [
        ("decision", ". ".join(filter(None, (found["decision"], found["why"])))),
        ("next", f"ptm-plus train {found['settings']}"),
    ]
    return [*tables, lambda: named_rows("vocabulary", rows)]

"""Scoring links by names against the mentions that text comes with, file by file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from ptm_plus.cli.kg_commands import LinkRequest, entity_spans, single_files, used_rows
from ptm_plus.cli.rendering import columns, named_rows
from ptm_plus.errors import DataError, SettingsError
from ptm_plus.examples import Example
from ptm_plus.knowledge.linker import DictionaryLinker, Link
from ptm_plus.knowledge.links import read_links, representative
from ptm_plus.knowledge.scores import LinkScorer, LinkScores, total_scores
from ptm_plus.progress import Watch

_EVERY = 1000
_GOLD = ("gold", "without_name", "ambiguous", "common")
_COUNTS = ("linked", "right")
_SHARES = ("precision", "recall", "f1", "accuracy")
_SPAN_COUNTS = ("gold_spans", "linked", "same_span")
_SPAN_SHARES = ("span_precision", "span_recall", "span_f1")

FileScores = Mapping[str, Mapping[str, LinkScores]]
"""Scores by file and language."""


def score_files(request: LinkRequest, watch: Watch) -> FileScores:
    """Link text that comes with mentions as if it had none, and compare.

    Raises:
        SettingsError: no text or no names were given.
        DataError: an input is wrong, or the text comes without mentions.
    """
    if not request.text:
        raise SettingsError("no text was given", "give --text FILE, with its mentions")
    graph, names = request.graph(), request.names()
    if names is None:
        raise SettingsError("no names were given", "give --labels FILE")
    if graph is not None:
        names = names.restricted(set(graph.entities))
    linker = request.linker(names, graph, request.common(names, watch))
    one_id = read_links(request.links) if request.links else {}
    found = {}
    for name, spec in dict(single_files(request.text)).items():
        with watch.task(f"link {Path(name).name}") as task:
            found[name] = _score(linker, used_rows(spec), one_id, task)
    if not any(one.gold for scores in found.values() for one in scores.values()):
        raise DataError("the text comes without mentions", "give text whose entities are marked")
    return found


def _score(
    linker: DictionaryLinker, examples: Iterable[Example], one_id: Mapping[str, str], task: Any
) -> dict[str, LinkScores]:
    scorer, number = LinkScorer(linker), 0
    for number, example in enumerate(examples, start=1):
        known = [
            Link(span.start, span.end, representative(one_id, span.id))
            for span in entity_spans(example)
        ]
        scorer.add(example.fields["text"], example.languages.get("text", "und"), known)
        if number % _EVERY == 0:
            task.update(number)
    task.update(number)
    return dict(sorted(scorer.by_language.items()))


# ---------------------------------------------------------------------------------------------
# What is shown


def score_document(found: FileScores) -> dict[str, Any]:
    """Return the scores by language, of all text and of each file, as plain values."""
    return {
        "languages": _plain(total_scores(found.values())),
        "files": {name: _plain(scores) for name, scores in found.items()},
    }


def _plain(scores: Mapping[str, LinkScores]) -> dict[str, Any]:
    names = [one.name for one in fields(LinkScores)] + [*_SHARES, *_SPAN_SHARES]
    return {
        language: {name: getattr(one, name) for name in names} for language, one in scores.items()
    }


def score_table(found: FileScores, limit: int) -> RenderableType:
    """Return the scores as tables, with the most frequent mistakes of each language."""
    total = total_scores(found.values())
    several = len(found) > 1
    short = _short_names(found)
    rows = [(short[name], *row) for name in found for row in found[name].items() if several]
    rows += [("all" if several else "", *row) for row in total.items()]
    mistakes = [
        (f"{language}, {kind}", ", ".join(f"{word} {n:,}×" for word, n in most))
        for language, one in total.items()
        for kind, words in (("wrong", one.wrong), ("missed", one.missed))
        if (most := _most(words, limit))
    ]
    return Group(
        _figures("known mentions", rows, _GOLD, ()),
        _figures("links, characters and entity", rows, _COUNTS, _SHARES),
        _figures("links, characters alone", rows, _SPAN_COUNTS, _SPAN_SHARES),
        named_rows("most often", mistakes),
    )


def _short_names(files: Iterable[str]) -> dict[str, str]:
    """Return the files' names without their folders, unless two would be called the same."""
    names = {file: Path(file).name for file in files}
    return names if len(set(names.values())) == len(names) else {file: file for file in names}


def _figures(
    title: str,
    rows: Sequence[tuple[str, str, LinkScores]],
    counts: Sequence[str],
    shares: Sequence[str],
) -> RenderableType:
    cells = [
        (
            *([file] if file else []),
            language,
            *(f"{getattr(one, name):,}" for name in counts),
            *(f"{getattr(one, name):.3f}" for name in shares),
        )
        for file, language, one in rows
    ]
    figures = [name.removeprefix("span_").replace("_", " ") for name in (*counts, *shares)]
    where = ["text", "language"] if rows[0][0] else ["language"]
    return columns([*where, *figures], cells, right=figures, title=title)


def _most(words: Mapping[str, int], limit: int) -> list[tuple[str, int]]:
    return sorted(words.items(), key=lambda item: (-item[1], item[0]))[:limit]

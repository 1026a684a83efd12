"""The account of a corpus: what every step was given and left, and what came out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ptm_plus.errors import DataError
from ptm_plus.files import read_json
from ptm_plus.recipes.recipe import Recipe
from ptm_plus.recipes.stages import Stage, Work
from ptm_plus.recipes.steps import BARRIERS, Decontaminate
from ptm_plus.recipes.tally import Measures, Tally


def account_of(work: Work, stages: Sequence[Stage], *, sampled: bool) -> dict[str, Any]:
    """Sum up what the tasks of all stages counted.

    Raises:
        DataError: the record of a task is damaged.
    """
    recipe = work.recipe
    tallies = {number: Tally(number) for number in range(-1, len(recipe.steps) + 1)}
    measures = Measures()
    peak = 0
    for stage in stages:
        for rank in range(stage.tasks):
            path = stage.tallies(work) / f"{rank:05d}.json"
            document = read_json(path)
            try:
                for one in map(Tally.from_json, document["tallies"]):
                    tallies[one.step].add(one)
                for other in map(Measures.from_json, document["measures"]):
                    measures.add(other)
                peak = max(peak, int(document["peak_bytes"]))
            except (KeyError, TypeError, ValueError) as error:
                raise DataError("is damaged", "remove the output and build", path=path) from error
    return _document(work, tallies, measures, peak, sampled=sampled)


def _document(
    work: Work, tallies: dict[int, Tally], measures: Measures, peak: int, *, sampled: bool
) -> dict[str, Any]:
    recipe = work.recipe
    read, written = tallies[-1], tallies[len(recipe.steps)]
    seconds = sum(one.seconds for one in tallies.values())
    steps = [_step("read", "", {}, read, seconds)]
    for number, step in enumerate(recipe.steps):
        given = step.model_dump(mode="json", exclude={"kind", "why"})
        steps.append(_step(_kind(step), step.why, given, tallies[number], seconds))
    documents = sum(docs for docs, _ in measures.languages.values())
    tokens = sum(each for _, each in measures.languages.values())
    return {
        "recipe": recipe.name,
        "title": recipe.title,
        "sample": sampled,
        "documents": {"in": read.docs_in, "out": documents},
        "tokens": {"in": read.tokens_in, "out": tokens},
        "characters": measures.characters,
        "mentions": measures.mentions,
        "steps": [*steps, _step("work files", "", {}, written, seconds)],
        "duplicates": {
            name: sum(
                tallies[number].dropped.total()
                for number, step in enumerate(recipe.steps)
                if isinstance(step, BARRIERS) and _kind(step) == name
            )
            for name in dict.fromkeys(
                _kind(one) for one in recipe.steps if isinstance(one, BARRIERS)
            )
        },
        "contaminated": sum(
            tallies[number].dropped.total()
            for number, step in enumerate(recipe.steps)
            if isinstance(step, Decontaminate)
        ),
        "languages": _by_size(measures.languages),
        "sources": _sources(recipe, read, measures),
        "lengths": [
            {"from": int(low), "documents": count}
            for low, count in sorted(measures.lengths.items(), key=lambda one: int(one[0]))
        ],
        "files": [
            {
                "source": recipe.sources[one.source].name,
                "name": one.path.rpartition("/")[2],
                "bytes": one.size,
                "sha256": one.sha256,
            }
            for one in work.inputs.files
        ],
        "cost": {
            "core_seconds": round(seconds, 3),
            "tokens_per_second_and_core": round(read.tokens_in / seconds) if seconds else 0,
            "peak_bytes_of_a_process": peak,
        },
    }


def _kind(step: Any) -> str:
    return str(step.kind)


def _step(
    kind: str, why: str, settings: dict[str, Any], tally: Tally, seconds: float
) -> dict[str, Any]:
    share = tally.seconds / seconds if seconds else 0.0
    return {
        "kind": kind,
        "why": why,
        "settings": settings,
        "documents": {"in": tally.docs_in, "out": tally.docs_out},
        "tokens": {"in": tally.tokens_in, "out": tally.tokens_out},
        "changed": tally.changed,
        "mentions_lost": tally.mentions_lost,
        "dropped": dict(tally.dropped.most_common()),
        "counts": dict(sorted(tally.counts.items(), key=lambda one: (-one[1], one[0]))),
        "examples": tally.examples,
        "seconds": round(tally.seconds, 3),
        "share_of_time": round(share, 4) if math.isfinite(share) else 0.0,
    }


def _by_size(table: dict[str, list[int]]) -> dict[str, dict[str, int]]:
    rows = sorted(table.items(), key=lambda one: (-one[1][1], one[0]))
    return {name: {"documents": docs, "tokens": tokens} for name, (docs, tokens) in rows}


def _sources(recipe: Recipe, read: Tally, measures: Measures) -> list[dict[str, Any]]:
    rows = []
    for source in recipe.sources:
        docs, tokens = measures.sources.get(source.name, [0, 0])
        rows.append(
            {
                "name": source.name,
                "licence": source.licence,
                "provenance": source.provenance,
                "documents": {"in": read.counts[f"documents of {source.name}"], "out": docs},
                "tokens": {"in": read.counts[f"tokens of {source.name}"], "out": tokens},
            }
        )
    return rows

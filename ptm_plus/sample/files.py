"""Writing the sample world as files that ``ptm-plus train`` reads."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ptm_plus.errors import EnvironmentProblem
from ptm_plus.examples import Example
from ptm_plus.sample.facts import Fact
from ptm_plus.sample.trees import conllu_lines
from ptm_plus.sample.world import World


@dataclass(frozen=True, slots=True)
class SampleFiles:
    """Where the sample world was written.

    Attributes:
        text: sentences with language and mentions, for ``--text``.
        pairs: translations with the mentions of both halves, for ``--pairs``.
        triples: the graph, head, relation and tail separated by tabs, for ``--kg``.
        labels: names and aliases, for ``--labels``.
        relations: sentences that state one fact, with its relation, for plugins that learn those.
        trees: some of these sentences with the head of every word (CoNLL-U), likewise.
        facts: the graph's facts with whether the text tells them and when they are asked.
    """

    text: Path
    pairs: Path
    triples: Path
    labels: Path
    relations: Path
    trees: Path
    facts: Path


def _mentions(example: Example, field: str) -> list[dict[str, object]]:
    return [
        {"start": span.start, "end": span.end, "id": span.id, "kind": span.kind}
        for span in example.spans
        if span.field == field
    ]


def _text_row(example: Example) -> dict[str, object]:
    return {
        "id": example.id,
        "text": example.fields["text"],
        "lang": example.languages["text"],
        "mentions": _mentions(example, "text"),
    }


def _pair_row(example: Example) -> dict[str, object]:
    return {
        "id": example.id,
        "src": example.fields["src"],
        "tgt": example.fields["tgt"],
        "src_lang": example.languages["src"],
        "tgt_lang": example.languages["tgt"],
        "src_mentions": _mentions(example, "src"),
        "tgt_mentions": _mentions(example, "tgt"),
    }


def _relation_row(statement: tuple[Fact, Example]) -> dict[str, object]:
    fact, example = statement
    ends = {span.id: {"start": span.start, "end": span.end} for span in example.spans}
    return {
        "id": example.id,
        "text": example.fields["text"],
        "lang": example.languages["text"],
        "relation": fact.relation,
        "head": ends[fact.subject],
        "tail": ends[fact.object],
    }


def _json_lines(rows: Iterable[Mapping[str, object]]) -> Iterator[str]:
    return (json.dumps(row, ensure_ascii=False) for row in rows)


def _contents(world: World) -> dict[str, Iterator[str]]:
    return {
        "text.jsonl": _json_lines(map(_text_row, world.text)),
        "pairs.jsonl": _json_lines(map(_pair_row, world.pairs)),
        "triples.tsv": ("\t".join(triple) for triple in world.triples),
        "labels.jsonl": _json_lines(dict(label) for label in world.labels),
        "relations.jsonl": _json_lines(map(_relation_row, world.statements())),
        "trees.conllu": (line for one in world.statements() for line in conllu_lines(*one)),
        "facts.jsonl": _json_lines(map(asdict, world.facts)),
    }


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())


def write_world(world: World, folder: str | os.PathLike[str]) -> SampleFiles:
    """Write the world into a folder, which is made if need be.

    All files are written and flushed beside their places before the first takes its own, so that a
    full disk leaves what was there as it was.

    Raises:
        EnvironmentProblem: the folder cannot be made or written.
    """
    target = Path(folder)
    contents = _contents(world)
    try:
        target.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".writing-", dir=target))
        try:
            for name, lines in contents.items():
                _write_lines(draft / name, lines)
            for name in contents:
                (draft / name).replace(target / name)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise EnvironmentProblem(
            f"{target}: the sample world cannot be written: {error.strerror or error}",
            "name another folder, or make room on this disk",
        ) from error
    return SampleFiles(*(target / name for name in contents))

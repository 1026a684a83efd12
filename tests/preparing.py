"""Streams and components for the tests of prepare; the functions travel to worker processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from small_tokenizers import small_tokenizer

from ptm_plus.components import Annotator, Layout, Refused, Rewriter, Stream
from ptm_plus.errors import DataError
from ptm_plus.examples import Example, Span
from ptm_plus.keyed import Draws
from ptm_plus.prepare.layouts import (
    TEXT_LAYOUT,
    LaidOut,
    LayoutInput,
    field_segment,
    special_segment,
)
from ptm_plus.prepare.store import SequenceStore
from ptm_plus.prepare.stream import prepare_stream
from ptm_plus.settings import RunSettings

NAMES = {"Paris": "Q90", "France": "Q142", "Seine": "Q1471", "Spree": "Q1684"}
SENTENCES = (
    ("Paris is the capital of France. The river Seine flows through Paris.", "en"),
    ("Berlin ist die Hauptstadt; die Spree fließt.", "de"),
    ("東京は日本の首都です。", "ja"),
)


def example(number: int, spans: Sequence[Span] = ()) -> Example:
    text, language = SENTENCES[number % len(SENTENCES)]
    return Example(f"e{number}", {"text": text}, {"text": language}, list(spans))


def stream(rows: Sequence[Example | Refused], name: str = "text", content: str = "1") -> Stream:
    return Stream(name=name, examples=lambda: iter(rows), fingerprint=content)


@dataclass
class NameFinder:
    """Finds names by brute force; counts what it saw."""

    counts: dict[str, int] = field(default_factory=dict)

    def __call__(self, examples: Sequence[Example]) -> list[list[Span]]:
        self.counts["texts seen"] = self.counts.get("texts seen", 0) + len(examples)
        return [
            [
                Span(name, start, start + len(label), "entity", number)
                for name, text in one.fields.items()
                for label, number in NAMES.items()
                for start in range(len(text))
                if text.startswith(label, start)
            ]
            for one in examples
        ]

    def account(self) -> Mapping[str, int]:
        counts, self.counts = self.counts, {}
        return counts


def name_annotator(name: str = "names", version: str = "1", **changes: Any) -> Annotator:
    finder = NameFinder()
    return replace(
        Annotator(name=name, annotate=finder, fingerprint=version, account=finder.account),
        **changes,
    )


def swap_paris(one: Example, draws: Draws) -> Example:
    """Replace the first entity by Lyon or Nice, as the draws say, and move the spans."""
    entities = [span for span in one.spans if span.kind == "entity"]
    if not entities:
        return one
    first = min(entities, key=lambda span: span.start)
    city = ("Lyon", "Nice")[int(draws.integers("city", 2, 0))]
    text = one.fields["text"]
    shift = len(city) - (first.end - first.start)
    spans = [
        replace(span, end=span.end + shift, id="Q456")
        if span == first
        else replace(span, start=span.start + shift, end=span.end + shift)
        for span in one.spans
    ]
    fields = {"text": text[: first.start] + city + text[first.end :]}
    return replace(one, fields=fields, spans=spans)


def swapper(versions: int = 1, version: str = "1") -> Rewriter:
    return Rewriter(
        name="swap", rewrite=swap_paris, fingerprint=version, streams=("text",), versions=versions
    )


def pair_in_one(given: LayoutInput) -> list[LaidOut]:
    """Both fields in one sequence, cut to fit, with positions that start again and a column."""
    one, two = given.pieces["src"], given.pieces["tgt"]
    marks = given.template
    room = (given.max_length - 4) // 2
    first, second = min(len(one), room), min(len(two), room)
    languages = given.example.languages
    segments = (
        special_segment(marks.pair_prefix),
        field_segment(one, "src", languages["src"], 0, first, movable=True),
        special_segment(marks.middle),
        field_segment(
            two,
            "tgt",
            languages["tgt"],
            0,
            second,
            movable=True,
            restart=True,
            type=marks.types[3],
            parents=np.arange(second) // 2 - 1,
            columns={"half": np.ones(second)},
        ),
        special_segment(marks.pair_suffix, marks.types[4]),
    )
    lost = len(one) - first + len(two) - second
    return [LaidOut(segments, given.example.labels, lost)] if first and second else []


PAIR_LAYOUT = Layout(name="pair", lay_out=pair_in_one, fingerprint="1", columns={"half": "u1"})


def settings(**values: Any) -> RunSettings:
    examples = values.pop("max_examples", 0)
    chosen = {"max_length": 24, "workers": 1, **values}
    return RunSettings.model_validate({"prepare": chosen, "data": {"max_examples": examples}})


def prepare(cache: Path, rows: Sequence[Example | Refused], **values: Any) -> SequenceStore:
    """Call ``prepare_stream`` with defaults for what a test does not care about."""
    return prepare_stream(
        values.pop("stream", None) or stream(rows),
        values.pop("layout", TEXT_LAYOUT),
        values.pop("annotators", []),
        values.pop("rewriters", []),
        values.pop("tokenizer", None) or small_tokenizer("bert"),
        settings(**values.pop("settings", {})),
        cache,
        values.pop("progress", None),
        **values,
    )


def files_of(*folders: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of all files, without the wall time."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                if path.name == "meta.json":
                    lines = content.splitlines()
                    content = b"".join(line for line in lines if b"second" not in line)
                yield f"{folder.name}/{path.relative_to(folder)}", content


def bytes_of(store: SequenceStore) -> dict[str, bytes]:
    return dict(files_of(store.folder, *(table.folder for table in store.spans.values())))


def die(examples: Sequence[Example]) -> list[list[Span]]:
    """Kill the process that annotates."""
    os._exit(3)


def fail(examples: Sequence[Example]) -> list[list[Span]]:
    """Find a row at fault."""
    raise DataError("wrong row", "mend it", path="a.jsonl", line=3)


class Heavy:
    """An annotator with more to hand over than a pipe holds."""

    def __init__(self) -> None:
        self.dictionary = "x" * 2_000_000

    def __call__(self, examples: Sequence[Example]) -> list[list[Span]]:
        return [[] for _ in examples]

"""What is prepared, and under which keys: the cache as a graph.

The sequences of a stream have a key made of everything that they depend on; a span table has a key
made of the sequences' key and its annotator. So a new annotator adds its table, and whatever is not
in a key can be toggled without preparing anything again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ptm_plus.components import Annotator, Layout, Refused, Rewriter, Stream
from ptm_plus.errors import DataError, SettingsError
from ptm_plus.examples import Example
from ptm_plus.prepare.layouts import Template
from ptm_plus.prepare.meta import FORMAT_VERSION, META, read_meta
from ptm_plus.prepare.store import is_whole

CHUNK_ROWS = 500
"""Rows of a chunk."""

CHUNK_CHARACTERS = 1_000_000
"""A chunk of long rows is closed before it has more characters than this and one row."""

GIVEN = "given"
"""Name of the span table that holds the spans that came with the text."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a stream.

    Attributes:
        number: number of the chunk, and of its parts.
        first: number of its first row.
        rows: number of rows.
        examples: those that the source could read, with their numbers among the examples.
        refused: rows that it could not, by reason.
        refused_first: where the first of each reason stands, ``path:line``.
    """

    number: int
    first: int
    rows: int
    examples: tuple[tuple[int, Example], ...]
    refused: Mapping[str, int]
    refused_first: Mapping[str, str]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a chunk becomes; travels to the workers once.

    Attributes:
        stream: name of the stream.
        tokenizer: the fast tokenizer's JSON.
        template: its special tokens.
        vocabulary: one more than its highest id.
        layout: the stream's layout.
        annotators: those that read the stream, by name.
        rewriters: those that edit the stream, in order.
        max_length: longest sequence.
        seed: seed of the rewriters' draws.
        tokens: folder of the tokens artifact.
        spans: folders of the span artifacts by annotator name.
    """

    stream: str
    tokenizer: str
    template: Template
    vocabulary: int
    layout: Layout
    annotators: Mapping[str, Annotator]
    rewriters: tuple[Rewriter, ...]
    max_length: int
    seed: int
    tokens: Path
    spans: Mapping[str, Path]

    @property
    def versions(self) -> int:
        """Edited copies of each example."""
        return max((rewriter.versions for rewriter in self.rewriters), default=1)


def chunked(
    rows: Iterable[Example | Refused], limit: int, chunk_rows: int, chunk_characters: int
) -> Iterator[Chunk]:
    """Group the rows of a stream; the result depends on nothing but the rows and the sizes.

    Args:
        rows: what the stream yields.
        limit: read at most this many rows; 0 for all.
        chunk_rows: most rows of a chunk.
        chunk_characters: a chunk is closed when it has this many.
    """
    examples: list[tuple[int, Example]] = []
    refused: Counter[str] = Counter()
    places: dict[str, str] = {}
    number, first, count, characters, seen = 0, 0, 0, 0, 0
    for row in islice(rows, limit or None):
        if isinstance(row, Refused):
            refused[row.reason] += 1
            if row.path:
                places.setdefault(row.reason, f"{row.path}:{row.line}")
        else:
            examples.append((seen, row))
            seen += 1
            characters += sum(map(len, row.fields.values()))
        count += 1
        if count == chunk_rows or characters >= chunk_characters:
            yield Chunk(number, first, count, tuple(examples), refused, places)
            number, first, count, characters = number + 1, first + count, 0, 0
            examples, refused, places = [], Counter(), {}
    if count:
        yield Chunk(number, first, count, tuple(examples), refused, places)


@dataclass(frozen=True)
class Inputs:
    """What the sequences of a stream depend on, by name, as plain JSON values.

    Attributes:
        values: the inputs.
    """

    values: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Key of the tokens artifact."""
        return _hash(self.values)

    def span_key(self, annotator: Annotator | None) -> str:
        """Key of a span table; ``None`` for the spans that came with the text."""
        made_by = None if annotator is None else [annotator.fingerprint, sorted(annotator.kinds)]
        return _hash([self.key, "spans", made_by])


def stream_inputs(
    stream: Stream,
    layout: Layout,
    annotators: Sequence[Annotator],
    rewriters: Sequence[Rewriter],
    **others: Any,
) -> Inputs:
    """Return the inputs of a stream's sequences.

    Annotators count only when something is rewritten: rewriters see their spans. So does the seed.

    Args:
        stream: the stream; its name counts only for rewriters' draws.
        layout: its layout.
        annotators: those that read the stream.
        rewriters: those that edit it, in order.
        **others: ``tokenizer`` (fingerprint), ``template``, ``max_length``, ``max_examples``,
            ``seed``.
    """
    seed = others.pop("seed")
    values = {
        "format": FORMAT_VERSION,
        "source": stream.fingerprint,
        "layout": [layout.name, layout.fingerprint, dict(layout.columns)],
        "rewriters": [],
        **others,
    }
    if rewriters:
        values["rewriters"] = [
            [stream.name, seed],
            *([one.name, one.fingerprint, one.versions] for one in rewriters),
            *sorted([one.name, one.fingerprint] for one in annotators),
        ]
    return Inputs(values)


@dataclass(frozen=True)
class Planned:
    """One artifact of a stream.

    Attributes:
        stream: name of the stream.
        artifact: ``"tokens"``, or ``"spans:NAME"``.
        key: its key.
        present: whether it is in the cache already.
        reason: why it has to be made; empty when it is present.
    """

    stream: str
    artifact: str
    key: str
    present: bool
    reason: str = ""


def plan_artifacts(recipe: Recipe, inputs: Inputs) -> list[Planned]:
    """Say what is in the cache and what would be made, and why."""
    here = is_whole(recipe.tokens)
    why = "" if here else _difference(recipe, inputs)
    planned = [Planned(recipe.stream, "tokens", recipe.tokens.name, here, why)]
    for name, folder in recipe.spans.items():
        there = is_whole(folder)
        why = "" if there else "this annotator is new or has changed"
        why = why if here or there else "the sequences are made again"
        planned.append(Planned(recipe.stream, f"spans:{name}", folder.name, there, why))
    return planned


def check_annotators(annotators: Sequence[Annotator]) -> dict[str, Annotator]:
    """Return annotators by name, in the order of the names.

    Raises:
        SettingsError: two have one name, or one has the name of the spans given with the text.
    """
    by_name = {annotator.name: annotator for annotator in annotators}
    if len(by_name) < len(annotators) or GIVEN in by_name:
        raise SettingsError(
            f"annotators need names of their own, other than {GIVEN!r}; "
            f"found {', '.join(sorted(annotator.name for annotator in annotators))}"
        )
    return dict(sorted(by_name.items()))


def template_values(template: Template) -> list[Any]:
    """Return a template as a plain JSON value."""
    return [asdict(template)[name] for name in sorted(asdict(template))]


def _difference(recipe: Recipe, inputs: Inputs) -> str:
    """Name the inputs that differ from the closest artifact of the same stream in the cache."""
    wanted = json.loads(json.dumps(inputs.values))
    differences: list[list[str]] = []
    for path in sorted(recipe.tokens.parent.glob(f"*/{META}")):
        try:
            meta = read_meta(path.parent, "tokens")
        except DataError:  # broken, or of another format: nothing to compare with
            continue
        if meta["stream"] == recipe.stream:
            had = meta["inputs"]
            differences.append(
                sorted(name for name in {*wanted, *had} if wanted.get(name) != had.get(name))
            )
    if not differences:
        return "the stream was never prepared"
    closest = min(differences, key=lambda names: (len(names), names))
    return f"changed: {', '.join(closest)}"


def _hash(values: Any) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

"""What happens to a chunk of examples: annotate, rewrite, tokenise, lay out, write parts.

This runs in worker processes and imports neither torch nor transformers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptm_plus.components import Annotator
from ptm_plus.errors import DataError, PluginError, PtmPlusError
from ptm_plus.examples import Example, Span, is_unicode
from ptm_plus.holding_out import identity_of
from ptm_plus.keyed import Draws
from ptm_plus.prepare.artifacts import part_path, read_part, write_part
from ptm_plus.prepare.layouts import LayoutInput
from ptm_plus.prepare.preparation import GIVEN, Chunk, Recipe
from ptm_plus.prepare.sequence_parts import Document, SequencePart, stratum_of
from ptm_plus.prepare.span_parts import Places, span_part
from ptm_plus.prepare.store import SequenceStore, is_whole
from ptm_plus.prepare.tokenization import pieces, unknown_id

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class _Edited:
    """A document with the spans of every table, where rewriting has already moved them."""

    document: Document
    spans: Mapping[str, list[Span]] | None


class ChunkWorker:
    """Turns chunks into parts on disk.

    Args:
        recipe: what to do.
    """

    def __init__(self, recipe: Recipe) -> None:
        from tokenizers import Tokenizer

        self._recipe = recipe
        self._tokenizer: Tokenizer = Tokenizer.from_str(recipe.tokenizer)
        self._unknown = unknown_id(self._tokenizer)
        self._store = SequenceStore.open(recipe.tokens) if is_whole(recipe.tokens) else None
        for annotator in recipe.annotators.values():
            _drain(annotator)

    def run(self, chunk: Chunk) -> None:
        """Write those parts of the chunk that are missing.

        Raises:
            DataError: a span lies outside its text.
            PluginError: an annotator, rewriter or layout failed.
            EnvironmentProblem: the disk is full.
        """
        recipe, refused = self._recipe, Counter(chunk.refused)
        edited = list(self._edit(chunk, refused))
        tokens = part_path(recipe.tokens, chunk.number)
        if self._store is None and not tokens.exists():
            self._write_tokens(chunk, edited, refused, tokens)
        places = self._places(chunk, tokens)
        edited = [one for one in edited if places.has(one.document)]
        for name, folder in recipe.spans.items():
            path = part_path(folder, chunk.number)
            if not is_whole(folder) and not path.exists():
                self._write_spans(chunk, edited, places, name, path)

    def _write_tokens(
        self, chunk: Chunk, edited: list[_Edited], refused: Counter[str], path: Path
    ) -> None:
        recipe = self._recipe
        part = SequencePart(recipe.layout, recipe.max_length, recipe.vocabulary, self._unknown)
        documents = [one.document for one in edited]
        texts = [text for document in documents for text in document.example.fields.values()]
        found = iter(pieces(self._tokenizer, texts))
        used: dict[int, str] = {}
        without: dict[int, str] = {}
        for document in documents:
            example = document.example
            cut = {name: next(found) for name in example.fields}
            given = LayoutInput(example, cut, recipe.template, recipe.max_length)
            with _blame("layout", recipe.layout.name, f"example {example.id}"):
                sequences = recipe.layout.lay_out(given)
            if sequences:
                part.add(document, sequences)
                used[document.number] = stratum_of(example)
            elif any(len(piece) for piece in cut.values()):
                without[document.number] = f"nothing laid out by {recipe.layout.name}"
            else:
                without[document.number] = "no text"
        refused.update(why for number, why in without.items() if number not in used)
        part.account.rows, part.account.used = chunk.rows, len(used)
        part.account.refused = dict(refused)
        part.account.refused_first = dict(chunk.refused_first)
        part.account.stratum_examples = dict(Counter(used.values()))
        arrays, header = part.finish()
        write_part(path, arrays, _with_rows(chunk, header))

    def _places(self, chunk: Chunk, tokens: Path) -> Places:
        if self._store is None:
            return Places.from_part(*read_part(tokens))
        numbers = [number for number, _ in chunk.examples]
        first, last = (numbers[0], numbers[-1] + 1) if numbers else (0, 0)
        return Places.from_store(self._store, first, last)

    def _write_spans(
        self, chunk: Chunk, edited: list[_Edited], places: Places, name: str, path: Path
    ) -> None:
        documents = [one.document for one in edited]
        if self._recipe.rewriters:
            spans = [(one.spans or {}).get(name, []) for one in edited]
        else:
            spans = self._annotate(name, [document.example for document in documents])
        arrays, header = span_part(places, documents, spans)
        if name != GIVEN:
            header["account"]["counts"] = _drain(self._recipe.annotators[name])
        write_part(path, arrays, _with_rows(chunk, header))

    def _edit(self, chunk: Chunk, refused: Counter[str]) -> Iterator[_Edited]:
        """Yield the edited copies of the usable examples; count the others."""
        usable = []
        for number, example in chunk.examples:
            _check_spans(example, example.spans, f"example {example.id}: ", DataError)
            if is_unicode(example):
                usable.append((number, example))
            else:
                refused["half a surrogate pair in the text"] += 1
        if not self._recipe.rewriters:
            for number, example in usable:
                yield _Edited(Document(number, 0, identity_of(example), example), None)
            return
        examples = [example for _, example in usable]
        added = {name: self._annotate(name, examples) for name in sorted(self._recipe.annotators)}
        for place, (number, example) in enumerate(usable):
            spans = {name: found[place] for name, found in added.items()}
            for version in range(self._recipe.versions):
                yield self._rewrite(number, version, example, spans)

    def _rewrite(
        self, number: int, version: int, example: Example, added: Mapping[str, list[Span]]
    ) -> _Edited:
        """Run the chain of rewriters over an example with all its spans; sort the spans after."""
        recipe = self._recipe
        given = {span.kind for span in example.spans}
        spans = [*example.spans, *(span for found in added.values() for span in found)]
        copy = replace(example, fields=dict(example.fields), spans=spans)
        for rewriter in recipe.rewriters:
            # The draws belong to this example; a rewriter with fewer versions repeats them.
            owner = f"{recipe.stream}\x1f{number}\x1f{version % rewriter.versions}"
            draws = Draws(recipe.seed, rewriter.name, owner)
            with _blame("rewriter", rewriter.name, f"example {example.id}"):
                copy = rewriter.rewrite(copy, draws)
            blame = f"the rewriter {rewriter.name!r}, example {example.id}: "
            _check_spans(copy, copy.spans, blame, PluginError)
        tables: dict[str, list[Span]] = {name: [] for name in (GIVEN, *recipe.annotators)}
        for span in copy.spans:
            owners = [name for name in sorted(added) if span.kind in recipe.annotators[name].kinds]
            tables[GIVEN if span.kind in given or not owners else owners[0]].append(span)
        return _Edited(Document(number, version, identity_of(example), copy), tables)

    def _annotate(self, name: str, examples: Sequence[Example]) -> list[list[Span]]:
        """Return the spans of one table; those of kinds that came with a text are left alone."""
        if name == GIVEN:
            return [list(example.spans) for example in examples]
        annotator = self._recipe.annotators[name]
        kinds = [{span.kind for span in example.spans} for example in examples]
        open_kinds = [set(annotator.kinds) - given for given in kinds]
        asked = [place for place, free in enumerate(open_kinds) if free]
        with _blame("annotator", name, f"{len(asked)} examples"):
            found = annotator.annotate([examples[place] for place in asked])
        if len(found) != len(asked):
            raise PluginError(
                f"the annotator {name!r} returned {len(found)} lists for {len(asked)} examples"
            )
        spans: list[list[Span]] = [[] for _ in examples]
        for place, new in zip(asked, found, strict=True):
            example, blame = examples[place], f"the annotator {name!r}, example "
            _check_spans(example, new, f"{blame}{examples[place].id}: ", PluginError)
            strange = {span.kind for span in new} - set(annotator.kinds)
            if strange:
                raise PluginError(f"{blame}{example.id}: the kind {min(strange)!r} is undeclared")
            spans[place] = [span for span in new if span.kind in open_kinds[place]]
        return spans


def start_worker(recipe: Recipe) -> Callable[[Chunk], None]:
    """Return what makes the parts of a chunk; for a crew."""
    return ChunkWorker(recipe).run


@contextmanager
def _blame(what: str, name: str, where: str) -> Iterator[None]:
    """Name the component in errors that come out of foreign code."""
    try:
        yield
    except PtmPlusError:
        raise
    except Exception as error:
        raise PluginError(
            f"the {what} {name!r} failed on {where}: {type(error).__name__}: {error}"
        ) from error


def _check_spans(
    example: Example, spans: Sequence[Span], blame: str, kind: type[DataError | PluginError]
) -> None:
    for span in spans:
        text = example.fields.get(span.field)
        if text is None:
            raise kind(f"{blame}a span names the field {span.field!r}, which is not there")
        if not 0 <= span.start < span.end <= len(text):
            raise kind(
                f"{blame}the span {span.start} to {span.end} ({span.kind} {span.id}) lies outside "
                f"the field {span.field!r} of {len(text)} characters"
            )


def _drain(annotator: Annotator) -> dict[str, int]:
    return dict(annotator.account()) if annotator.account is not None else {}


def _with_rows(chunk: Chunk, header: dict[str, Any]) -> dict[str, Any]:
    return {**header, "first": chunk.first, "rows": chunk.rows}

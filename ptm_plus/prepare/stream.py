"""Prepare: from a stream of examples to its sequences and span tables on disk.

Chunks of rows become part files, in worker processes or here, and the parts become artifacts in
the order of the rows: the bytes do not depend on the number of workers. A run that is broken off
leaves its finished parts, and the next one goes on from there.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ptm_plus.components import Annotator, Layout, Rewriter, Stream
from ptm_plus.errors import DataError
from ptm_plus.files import refuse_links
from ptm_plus.prepare import preparation
from ptm_plus.prepare.artifacts import (
    disk_errors,
    part_path,
    partial_folder,
    parts_folder,
    read_header,
)
from ptm_plus.prepare.assembly import assemble_spans, assemble_tokens
from ptm_plus.prepare.chunk_pool import Progress, prepare_chunks
from ptm_plus.prepare.preparation import GIVEN, Inputs, Planned, Recipe
from ptm_plus.prepare.store import SequenceStore, is_whole
from ptm_plus.prepare.tokenization import backend, fingerprint, load_tokenizer, template
from ptm_plus.settings import RunSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def prepare_stream(
    stream: Stream,
    layout: Layout,
    annotators: Sequence[Annotator],
    rewriters: Sequence[Rewriter],
    tokenizer: str | Path | PreTrainedTokenizerFast,
    settings: RunSettings,
    cache: Path,
    progress: Progress | None = None,
    seed: int = 0,
) -> SequenceStore:
    """Return the sequences of a stream, making what is not in the cache yet.

    Args:
        stream: where the examples come from.
        layout: the layout that it names.
        annotators: those that read it; besides, the table ``given`` holds the spans that came with
            the text. An annotator leaves alone what was given: on an example with given spans of
            some kind it adds none of that kind.
        rewriters: those that edit it, in the order of the chain.
        tokenizer: a fast tokenizer, its folder or hub name.
        settings: the run's settings (``prepare`` and ``data.max_examples`` are read).
        cache: cache folder.
        progress: told about every finished chunk.
        seed: seed of the rewriters' draws.

    Raises:
        DataError: no row can be used, or a row is wrong.
        PluginError: an annotator, rewriter or layout failed.
        EnvironmentProblem: disk full, a worker process died, or the tokenizer cannot be loaded.
    """
    recipe, inputs = _recipe(
        stream, layout, annotators, rewriters, tokenizer, settings, cache, seed
    )
    folders = [recipe.tokens, *recipe.spans.values()]
    if not all(map(is_whole, folders)):
        from filelock import FileLock

        with disk_errors(recipe.tokens):
            recipe.tokens.parent.mkdir(parents=True, exist_ok=True)
        lock = recipe.tokens.with_name(recipe.tokens.name + ".lock")
        refuse_links([lock])
        # Another run that prepares the same sequences is waited for, and its work is used.
        with FileLock(lock):
            if not all(map(is_whole, folders)):
                _prepare(stream, recipe, inputs, settings, progress or _silent)
    return SequenceStore.open(recipe.tokens, recipe.spans)


def plan_stream(
    stream: Stream,
    layout: Layout,
    annotators: Sequence[Annotator],
    rewriters: Sequence[Rewriter],
    tokenizer: str | Path | PreTrainedTokenizerFast,
    settings: RunSettings,
    cache: Path,
    seed: int = 0,
) -> list[Planned]:
    """Say what :func:`prepare_stream` would find in the cache and what it would make, and why."""
    recipe, inputs = _recipe(
        stream, layout, annotators, rewriters, tokenizer, settings, cache, seed
    )
    return preparation.plan_artifacts(recipe, inputs)


def _recipe(
    stream: Stream,
    layout: Layout,
    annotators: Sequence[Annotator],
    rewriters: Sequence[Rewriter],
    tokenizer: str | Path | PreTrainedTokenizerFast,
    settings: RunSettings,
    cache: Path,
    seed: int,
) -> tuple[Recipe, Inputs]:
    reading = [one for one in annotators if not one.streams or stream.name in one.streams]
    editing = tuple(one for one in rewriters if stream.name in one.streams)
    by_name = preparation.check_annotators(reading)
    if isinstance(tokenizer, str | Path):
        tokenizer = load_tokenizer(str(tokenizer), settings.model.trust_remote_code)
    marks = template(tokenizer)
    inputs = preparation.stream_inputs(
        stream,
        layout,
        reading,
        editing,
        tokenizer=fingerprint(tokenizer),
        template=preparation.template_values(marks),
        max_length=settings.prepare.max_length,
        max_examples=settings.data.max_examples,
        seed=seed,
    )
    tables: dict[str, Annotator | None] = {GIVEN: None, **by_name}
    recipe = Recipe(
        stream=stream.name,
        tokenizer=backend(tokenizer).to_str(),
        template=marks,
        vocabulary=max(tokenizer.get_vocab().values()) + 1,
        layout=layout,
        annotators=by_name,
        rewriters=editing,
        max_length=settings.prepare.max_length,
        seed=seed,
        tokens=cache / "tokens" / inputs.key,
        spans={name: cache / "spans" / inputs.span_key(one) for name, one in tables.items()},
    )
    return recipe, inputs


def _prepare(
    stream: Stream, recipe: Recipe, inputs: Inputs, settings: RunSettings, progress: Progress
) -> None:
    started = time.perf_counter()
    missing = [one for one in (recipe.tokens, *recipe.spans.values()) if not is_whole(one)]
    refuse_links(map(partial_folder, missing))
    for folder in missing:
        with disk_errors(folder):
            parts_folder(folder).mkdir(parents=True, exist_ok=True)
    chunks = preparation.chunked(
        stream.examples(),
        settings.data.max_examples,
        preparation.CHUNK_ROWS,
        preparation.CHUNK_CHARACTERS,
    )
    count = prepare_chunks(recipe, chunks, missing, settings.prepare.workers, progress)
    if recipe.tokens in missing:
        _check_used(stream.name, recipe, count)
        progress(0, None, "writing the sequences")
        seconds = time.perf_counter() - started
        assemble_tokens(recipe, count, {"inputs": dict(inputs.values)}, seconds)
    for name, folder in recipe.spans.items():
        if not is_whole(folder):  # two annotators of one content share a table
            progress(0, None, f"writing the spans of {name}")
            assemble_spans(recipe, name, count)


def _check_used(name: str, recipe: Recipe, parts: int) -> None:
    headers = [read_header(part_path(recipe.tokens, number)) for number in range(parts)]
    if any(header["sequences"] for header in headers):
        return
    reasons: dict[str, int] = {}
    for header in headers:
        for reason, count in header["account"]["refused"].items():
            reasons[reason] = reasons.get(reason, 0) + count
    for folder in (recipe.tokens, *recipe.spans.values()):
        shutil.rmtree(partial_folder(folder), ignore_errors=True)
    why = ", ".join(f"{count:,} × {reason}" for reason, count in sorted(reasons.items()))
    raise DataError(
        f"the stream {name!r} has no usable row{f': {why}' if why else ''}",
        "check that its files are those that were meant",
    )


def _silent(done: int, total: int | None, detail: str) -> None:
    """Show nothing."""

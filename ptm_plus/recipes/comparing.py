"""Steps that compare documents with each other or with evaluation files, by datatrove's blocks."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
from datatrove.pipeline.dedup.exact_dedup import (
    ExactDedupConfig,
    ExactDedupFilter,
    ExactDedupSignature,
    ExactFindDedups,
)
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.sentence_dedup import (
    SentDedupConfig,
    SentenceDedupFilter,
    SentenceDedupSignature,
    SentenceFindDedups,
)
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.utils.hashing import create_hash_func
from datatrove.utils.text import TextNormConfig, ngrams, simplify_text

from ptm_plus.errors import DataError
from ptm_plus.recipes import steps
from ptm_plus.recipes.words import WORDS
from ptm_plus.sources import column_rows, parse_source

# Numbers stay: two rulings, lab reports or filings that differ in them alone are two documents.
_NORM = TextNormConfig(norm_numbers=False)
_WORD = re.compile(r"\w+")


def signature_block(step: steps.Step, folder: Path) -> PipelineStep:
    """Return the block that writes the signatures of a shard's documents."""
    place = str(folder / "signatures")
    match step:
        case steps.ExactDuplicates():
            return ExactDedupSignature(place, _exact())
        case steps.NearDuplicates():
            return MinhashDedupSignature(place, _minhash(step), language=WORDS)
        case steps.RepeatedLines():
            return SentenceDedupSignature(place, config=_lines(step), language=WORDS)
    raise AssertionError(step)


def finding_blocks(step: steps.Step, folder: Path) -> list[tuple[int, PipelineStep]]:
    """Return the blocks that find what is equal, each with its number of tasks."""
    signatures, found = str(folder / "signatures"), str(folder / "found")
    match step:
        case steps.ExactDuplicates():
            return [(1, ExactFindDedups(signatures, found, _exact(), lines_to_buffer=1000))]
        case steps.NearDuplicates():
            config, pairs = _minhash(step), str(folder / "pairs")
            buckets = MinhashDedupBuckets(signatures, pairs, config=config, lines_to_buffer=1000)
            cluster = MinhashDedupCluster(pairs, found, config=config, lines_to_buffer=1000)
            return [(step.buckets, buckets), (1, cluster)]
        case steps.RepeatedLines():
            find = SentenceFindDedups(signatures, found, config=_lines(step), lines_to_buffer=1000)
            return [(1, find)]
    raise AssertionError(step)


def dropping_block(step: steps.Step, folder: Path) -> tuple[PipelineStep, str]:
    """Return the block that drops what was found, and the reason to tell."""
    found = str(folder / "found")
    match step:
        case steps.ExactDuplicates():
            return ExactDedupFilter(found, _exact()), "the same words as another document"
        case steps.NearDuplicates():
            return MinhashDedupFilter(found), "nearly the same as another document"
        case steps.RepeatedLines():
            filter_ = SentenceDedupFilter(found, config=_lines(step), language=WORDS)
            return filter_, "too little left without lines that stand elsewhere"
    raise AssertionError(step)


def plain_words(document: Document) -> str:
    """Return what exact duplicates have in common: the words in lower case."""
    return " ".join(_WORD.findall(document.text.lower()))


def _exact() -> ExactDedupConfig:
    return ExactDedupConfig(content_getter=plain_words)


def _minhash(step: steps.NearDuplicates) -> MinhashConfig:
    return MinhashConfig(
        n_grams=step.ngrams,
        num_buckets=step.buckets,
        hashes_per_bucket=step.hashes,
        seed=step.seed,
        norm_config=_NORM,
    )


def _lines(step: steps.RepeatedLines) -> SentDedupConfig:
    return SentDedupConfig(
        n_sentences=step.lines,
        split_sentences=False,
        min_doc_words=step.min_doc_words,
        min_num_sentences=0,
        min_words_to_remove_span=step.min_words,
        norm_config=_NORM,
    )


# ---------------------------------------------------------------------------------------------
# Evaluation files


class IndexEvaluation(PipelineStep):
    """Writes the n-grams of evaluation files as the index that datatrove's filter reads."""

    type, name = "INDEX", "evaluation"

    def __init__(self, step: steps.Decontaminate, files: list[str], folder: Path) -> None:
        super().__init__()
        self.step, self.files, self.folder = step, files, folder
        self.counts: Counter[str] = Counter()

    def run(
        self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Write the index; yield nothing."""
        for path in self.files:
            long, short = set[int](), set[int]()
            for text in evaluation_texts(path, self.step.columns):
                words = WORDS.word_tokenize(simplify_text(text))
                if len(words) >= self.step.ngrams:
                    long |= _hashes(words, self.step.ngrams)
                elif len(words) >= self.step.short:
                    short |= _hashes(words, self.step.short)
                else:
                    self.counts["evaluation texts too short to look for"] += 1
                self.counts["evaluation texts"] += 1
            for name, hashes in (("long", long), ("short", short)):
                target = self.folder / name / f"{Path(path).name}.index.hashes"
                target.parent.mkdir(parents=True, exist_ok=True)
                np.array(sorted(hashes), dtype=np.uint64).tofile(target)
        yield from ()


class Uncontaminated(BaseFilter):
    """Drops documents that share an n-gram with an evaluation file."""

    type, name = "FILTER", "decontaminate"

    def __init__(self, step: steps.Decontaminate, folder: Path) -> None:
        super().__init__()
        self.filters = [
            NGramsDecontFilter(
                str(folder / name), config=NGramsDecontConfig(n_grams=size), language=WORDS
            )
            for name, size in (("long", step.ngrams), ("short", step.short))
            if any(path.stat().st_size for path in (folder / name).glob("*.hashes"))
        ]

    def filter(self, doc: Document) -> tuple[bool, str]:
        """Return whether a document shares nothing with them."""
        for one in self.filters:
            if one.filter(doc) is not True:
                return False, f"shares words with {doc.metadata['contaminated_task']}"
        return True, ""


def evaluation_files(step: steps.Decontaminate, data: Path) -> list[str]:
    """Return the evaluation files of a step.

    Raises:
        DataError: a pattern names no file.
    """
    files = []
    for pattern in step.against:
        place = data / Path(pattern).expanduser()
        found = [str(place)] if place.is_file() else sorted(glob.glob(str(place), recursive=True))
        if not found:
            raise DataError(
                "no evaluation file there", "check steps.against of the recipe", path=place
            )
        files += found
    return files


def evaluation_texts(path: str, columns: tuple[str, ...]) -> Iterator[str]:
    """Yield the texts of an evaluation file: strings, and lists of words as one text.

    Args:
        path: a file of a format that is read here.
        columns: which columns; all of them where none is named.
    """
    for _, _, row in column_rows(parse_source(path), columns):
        for column, value in (row or {}).items():
            if not columns or column in columns:
                yield from _texts(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        yield " ".join(value)
        yield from (one for one in value if " " in one)
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _hashes(words: list[str], size: int) -> set[int]:
    return {_HASH(" ".join(one)) for one in ngrams(words, size)}


_HASH = create_hash_func(NGramsDecontConfig().hash_config)

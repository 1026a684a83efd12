"""The training that benchmarks of speed give to both sides: text, tokenizer, model, size of a step.

Without text of one's own it is made, see ``corpus.py``; the model is a BERT of 4 blocks of 256.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.speed.corpus import (
    VOCABULARY,
    Corpus,
    given_texts,
    made_texts,
    made_words,
    write_corpus,
)
from benchmarks.speed.sides import Work

MODEL = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "max_position_embeddings": 512,
}
LENGTH, TOKENS, SEQUENCES = 256, 1024, 16
"""Of a sequence at most; of a step, about; of a step where sequences are counted."""

HELD_OUT = 200


def add_task(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is trained on what."""
    parser.add_argument("--text", type=Path, help="JSON lines instead of text that is made")
    parser.add_argument("--tokenizer", type=Path, help="of --text")
    parser.add_argument("--model", type=json.loads, default=MODEL, help="BERT's configuration")
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY, help="rows of the head")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="keeps the runs")


def checked(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return what the command line says; end with a message where it does not fit together."""
    given = parser.parse_args()
    if (given.text is None) != (given.tokenizer is None):
        parser.error("--text and --tokenizer go together")
    return given


def task(given: argparse.Namespace, folder: Path, steps: int) -> Work:
    """Write the text of a benchmark, and return what both sides do with it.

    Args:
        given: what the command line says.
        folder: gets the text.
        steps: that it has to be enough for.
    """
    corpus = _corpus(given, folder, SEQUENCES * steps * 2)
    vocabulary = max(given.vocabulary, _vocabulary(corpus.tokenizer))
    model = {**given.model, "vocab_size": vocabulary}
    return Work(corpus, model, LENGTH, TOKENS, SEQUENCES, threads=given.threads)


def _corpus(given: argparse.Namespace, folder: Path, count: int) -> Corpus:
    if given.text is None:
        words = made_words()
        return write_corpus(folder, made_texts(words), count, HELD_OUT, words)
    texts = (part for text in given_texts(given.text) for part in text.splitlines() if part.strip())
    corpus = write_corpus(folder, texts, count, HELD_OUT, None)
    return Corpus(corpus.lines, corpus.rows, corpus.held_out, given.tokenizer.resolve())


def _vocabulary(tokenizer: Path) -> int:
    """Return the size of a tokenizer's vocabulary."""
    from transformers import AutoTokenizer

    return len(AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False))

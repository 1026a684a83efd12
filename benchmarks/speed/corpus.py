"""The text and the tokenizer that both sides of a comparison get.

Without text of one's own it is made: lines of lognormal lengths, as sentences and paragraphs have
them, of words by Zipf's law, half of which follow from the word before, so that there is something
to learn.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ptm_plus import Example
from ptm_plus.sources import parse_source, read_text

MEDIAN, SIGMA, SHORTEST, LONGEST = 44, 0.8, 8, 256
"""Of the lengths in tokens, special ones included (how much padding costs depends on them)."""

VOCABULARY = 30_522
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Corpus:
    """What both sides read.

    Attributes:
        lines: one text a line, for the peer.
        rows: the same as JSON lines, for the product.
        held_out: further texts of the same kind, one a line, that nobody trains on.
        tokenizer: the folder of the tokenizer.
    """

    lines: Path
    rows: Path
    held_out: Path
    tokenizer: Path


def write_corpus(
    folder: Path, texts: Iterator[str], count: int, held_out: int, words: Sequence[str] | None
) -> Corpus:
    """Write the files of a corpus.

    Args:
        folder: where.
        texts: without line breaks.
        count: how many to train on.
        held_out: how many not to.
        words: the vocabulary of a tokenizer of whole words; ``None`` for one that is there already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    corpus = Corpus(
        folder / "lines.txt", folder / "rows.jsonl", folder / "held-out.txt", folder / "tokenizer"
    )
    with corpus.lines.open("w") as lines, corpus.rows.open("w") as rows:
        for text in itertools.islice(texts, count):
            lines.write(f"{text}\n")
            rows.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    with corpus.held_out.open("w") as lines:
        lines.writelines(f"{text}\n" for text in itertools.islice(texts, held_out))
    if words is not None:
        _whole_words(words, corpus.tokenizer)
    return corpus


def made_words(size: int = VOCABULARY) -> list[str]:
    """Return so many different words, the shortest first."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    lengths = itertools.count(1)
    every = ("".join(one) for n in lengths for one in itertools.product(letters, repeat=n))
    return list(itertools.islice(every, size - len(_SPECIAL)))


def made_texts(words: Sequence[str], seed: int = 0) -> Iterator[str]:
    """Yield texts without end."""
    rng = random.Random(seed)
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))
    follower = dict(zip(words, rng.sample(words, len(words)), strict=True))
    while True:
        length = round(MEDIAN * rng.lognormvariate(0, SIGMA))
        drawn = rng.choices(words, weights=None, cum_weights=weights, k=_within(length) - 2)
        for place in range(1, len(drawn)):
            if rng.random() < 0.5:
                drawn[place] = follower[drawn[place - 1]]
        yield " ".join(drawn)


def given_texts(path: Path) -> Iterator[str]:
    """Yield the texts of JSON lines, compressed or not."""
    for row in read_text(parse_source(str(path))):
        if isinstance(row, Example):
            yield row.fields["text"]


def _within(length: int) -> int:
    return min(max(length, SHORTEST), LONGEST)


def _whole_words(words: Sequence[str], folder: Path) -> None:
    """Write BERT's tokenizer with a vocabulary of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: number for number, word in enumerate((*_SPECIAL, *words))}
    core = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=512,
    ).save_pretrained(folder)

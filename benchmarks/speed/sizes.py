"""Runs of growing size along one axis, and what one of them costs."""

from __future__ import annotations

import itertools
import json
import resource
import string
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.speed.corpus import Corpus, made_texts, made_words, write_corpus
from benchmarks.speed.timing import spend
from ptm_plus.launch import launch
from ptm_plus.processes import make_accelerator
from ptm_plus.progress import Silent
from ptm_plus.settings_files import resolve
from ptm_plus.train import Trainer

MANY = Path(__file__).with_name("many.py")
MEAN_LENGTH = 58.8
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 256,
}
BENCH = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
}
WARM_UP, STEPS = 4, 16


@dataclass(frozen=True)
class Asked:
    """A run.

    Attributes:
        corpus: its text and tokenizer.
        text: as after ``--text``; the corpus by default.
        plugins: names.
        sets: further settings.
        model: BERT's configuration.
    """

    corpus: Corpus
    text: Sequence[str] = ()
    plugins: Sequence[str] = ()
    sets: Sequence[str] = ()
    model: Mapping[str, int] | None = None


def of_tokens(size: int, folder: Path) -> Asked:
    """Return a run on so many tokens."""
    return Asked(_corpus(folder, size))


def of_vocabulary(size: int, folder: Path) -> Asked:
    """Return a run whose vocabulary has so many entries."""
    return Asked(_corpus(folder, vocabulary=size), model=BENCH)


def of_languages(size: int, folder: Path) -> Asked:
    """Return a run on text of so many languages, together as long as ever."""
    corpus = _corpus(folder)
    lines = corpus.rows.read_text(encoding="utf-8").splitlines(keepends=True)
    # qaa to qtz are for private use (ISO 639-2)
    codes = map(
        "".join, itertools.product("q", string.ascii_lowercase[:20], string.ascii_lowercase)
    )
    text = []
    for number, code in enumerate(itertools.islice(codes, size)):
        file = folder / f"{code}.jsonl"
        file.write_text("".join(lines[number::size]), encoding="utf-8")
        text.append(f"{code}={file}")
    return Asked(corpus, text)


def of_streams(size: int, folder: Path) -> Asked:
    """Return a run with so many streams beside its own."""
    return Asked(_corpus(folder), plugins=[str(MANY)], sets=[f"plugin.many.streams={size}"])


def of_plugins(size: int, folder: Path) -> Asked:
    """Return a run with so many plugins."""
    return Asked(_corpus(folder), plugins=[f"{MANY}:many-{number}" for number in range(size)])


AXES: Mapping[str, tuple[Callable[[int, Path], Asked], Sequence[int]]] = {
    "tokens": (of_tokens, (250_000, 500_000, 1_000_000, 2_000_000, 4_000_000)),
    "vocabulary": (of_vocabulary, (8_000, 16_000, 32_000, 64_000, 128_000, 250_000)),
    "languages": (of_languages, (1, 4, 16, 64, 256)),
    "streams": (of_streams, (1, 2, 4, 8, 16)),
    "plugins": (of_plugins, (1, 2, 4, 8, 16)),
}


def cost(axis: str, size: int, folder: Path) -> dict[str, float]:
    """Return what a run costs; to be called once in a process.

    Args:
        axis: one of ``AXES``.
        size: its size.
        folder: an empty folder.
    """
    asked = AXES[axis][0](size, folder)
    torch.set_num_threads(1)
    settings = resolve(None, *_settings(asked, folder)).settings
    accelerator = make_accelerator("fp32", "cpu")
    before = _cpu()
    launch(settings, Silent(), accelerator.device)
    prepared = _cpu()
    run = launch(settings, Silent(), accelerator.device)
    composed = _cpu()
    trainer = Trainer(run, Silent(), accelerator)
    trainer.start()
    spend(trainer, 0, WARM_UP)
    spent = spend(trainer, 0, STEPS)
    return {
        "tokens": float(sum(sum(one.tokens.values()) for one in run.prepared.streams.values())),
        "seconds to prepare": (prepared - before) - (composed - prepared),
        "seconds to launch": composed - prepared,
        "milliseconds a step": 1000 * spent.whole / spent.steps,
        "of these ptm-plus's own": 1000 * spent.own / spent.steps,
        "MiB of the largest process": _peak(),
    }


def _corpus(folder: Path, tokens: int = 200_000, vocabulary: int = 8_000) -> Corpus:
    words = made_words(vocabulary)
    return write_corpus(folder / "corpus", made_texts(words), round(tokens / MEAN_LENGTH), 1, words)


def _settings(asked: Asked, folder: Path) -> tuple[dict[str, object], list[str]]:
    flags: dict[str, object] = {
        "plugins": list(asked.plugins),
        "output": str(folder / "run"),
        "data.text": list(asked.text) or [str(asked.corpus.rows)],
        "tokenizer.path": str(asked.corpus.tokenizer),
        "prepare.cache": str(folder / "cache"),
        "prepare.workers": 1,
        "batch.rows": 16,
        "batch.micro_rows": 16,
        "batch.row_tokens": 256,
        "prepare.max_length": 256,
        "train.threads": 1,
    }
    model = [f"model.config.{key}={json.dumps(one)}" for key, one in (asked.model or SMALL).items()]
    return flags, [*model, *asked.sets]


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _peak() -> float:
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(one).ru_maxrss for one in who) / 1024

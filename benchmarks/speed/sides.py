"""Training runs of either side, each in a process of its own, and what its clock said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w

from benchmarks.speed.corpus import Corpus
from benchmarks.speed.peer import MODES
from benchmarks.speed.spent import spent

OURS = "ptm-plus"
SIDES = (OURS, *MODES)
TITLES = {
    OURS: "ptm-plus",
    "lines": "stock, line by line",
    "grouped": "stock, grouped by length",
    "blocks": "stock, concatenated blocks",
}

CLOCK = Path(__file__).with_name("clock.py")
LR, WARMUP = 5e-4, 0.06


@dataclass(frozen=True)
class Work:
    """What both sides do.

    Attributes:
        corpus: the text and the tokenizer.
        model: configuration of BERT, vocabulary and all.
        length: longest sequence, and the size of a block.
        tokens: of an optimizer step, about.
        sequences: of an optimizer step where they are counted instead.
        dropout: hidden and attention dropout.
        threads: of torch.
        seed: of weights, order and masks.
        device: of the product.
        keep_every: steps between models that are kept as ``model-STEP``; 0 keeps the last alone.
    """

    corpus: Corpus
    model: Mapping[str, int]
    length: int
    tokens: int
    sequences: int
    dropout: float = 0.0
    threads: int = 1
    seed: int = 0
    device: str = "cpu"
    keep_every: int = 0


@dataclass(frozen=True)
class Measured:
    """What a training took, from one step to another.

    Attributes:
        tokens: without padding.
        cpu: seconds of the process, all threads.
        wall: seconds.
        model: folder of the trained model.
        ticks: the clock's lines, ``tokens`` in them where they are known.
    """

    tokens: int
    cpu: float
    wall: float
    model: Path
    ticks: Sequence[Mapping[str, Any]] = ()

    @property
    def rate(self) -> float:
        """Tokens per second of CPU."""
        return self.tokens / self.cpu


def trained(work: Work, side: str, folder: Path, steps: int, skipped: int) -> Measured:
    """Train one of ``SIDES``.

    Args:
        work: what to do.
        side: which.
        folder: gets everything; what is there is deleted.
        steps: optimizer steps.
        skipped: steps at the beginning that are not measured.
    """
    train = ours if side == OURS else partial(peer, mode=side)
    return train(work, folder=folder, steps=steps, skipped=skipped)


def ours(
    work: Work,
    folder: Path,
    steps: int,
    skipped: int,
    plugins: Sequence[str] = (),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Measured:
    """Train with the product.

    Args:
        work: what to do.
        folder: gets everything; what is there is deleted.
        steps: optimizer steps.
        skipped: steps at the beginning that are not measured.
        plugins: names.
        settings: further settings by section.
    """
    file, run = _fresh(folder) / "run.toml", folder / "run"
    document = _settings(work, folder, steps)
    for section, values in (settings or {}).items():
        document.setdefault(section, {}).update(values)
    top = {"plugins": [*plugins, str(CLOCK)], "output": str(run)}
    file.write_text(tomli_w.dumps({**top, **document}), encoding="utf-8")
    flags = ("--device", work.device, "--overwrite", "--quiet", "--allow-code")
    _program(work, "ptm_plus", "train", str(file), *flags)
    _program(work, "ptm_plus", "export", str(run), "--to", str(folder / "model"), "--allow-code")
    if work.keep_every:
        _program(work, "benchmarks.speed.exported", str(run), str(folder))
    logged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    tokens = {one["step"]: one["tokens"] for one in logged if "tokens" in one}
    ticks = [{**one, "tokens": tokens.get(one["step"])} for one in _ticks(folder / "clock.jsonl")]
    return _between(ticks, skipped, folder / "model")


def _settings(work: Work, folder: Path, steps: int) -> dict[str, dict[str, Any]]:
    """Return the product's settings, but for names of plugins and output."""
    rows = max(1, round(work.tokens / 512))
    every = work.keep_every
    kept = {"checkpoint_every": every, "keep": steps // every, "log_every": every} if every else {}
    return {
        "data": {"text": [str(work.corpus.rows)]},
        "tokenizer": {"path": str(work.corpus.tokenizer)},
        "model": {
            "family": "bert",
            "config": _without_vocabulary(work.model),
            "dropout": work.dropout,
        },
        "prepare": {"max_length": work.length, "cache": str(folder.parent / "cache")},
        "batch": {"row_tokens": 512, "rows": rows, "micro_rows": rows},
        "train": {
            "steps": steps,
            "lr": LR,
            "warmup": WARMUP,
            "seed": work.seed,
            "threads": work.threads,
            "checkpoint_every": steps,
            **kept,
        },
        "plugin": {"clock": {"file": str(folder / "clock.jsonl")}},
    }


def peer(work: Work, mode: str, folder: Path, steps: int, skipped: int) -> Measured:
    """Train with the stock trainer in one of its modes."""
    _fresh(folder)
    dropout = {"hidden_dropout_prob": work.dropout, "attention_probs_dropout_prob": work.dropout}
    batch = work.sequences if mode != "blocks" else max(1, work.tokens // work.length)
    given = {
        "mode": mode,
        "corpus": work.corpus.lines,
        "tokenizer": work.corpus.tokenizer,
        "config": json.dumps({**work.model, **dropout}),
        "length": work.length,
        "batch": batch,
        "steps": steps,
        "lr": LR,
        "warmup": WARMUP,
        "seed": work.seed,
        "threads": work.threads,
        "keep-every": work.keep_every,
        "output": folder,
    }
    flags = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    _program(work, "benchmarks.speed.peer", *flags)
    return _between(_ticks(folder / "clock.jsonl"), skipped, folder / "model")


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _without_vocabulary(model: Mapping[str, int]) -> dict[str, int]:
    return {name: value for name, value in model.items() if name != "vocab_size"}


def _program(work: Work, module: str, *arguments: str) -> None:
    spent("-m", module, *arguments, threads=work.threads)


def _ticks(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _between(ticks: Sequence[Mapping[str, Any]], skipped: int, model: Path) -> Measured:
    """Return what lies between two ticks that know the tokens seen."""
    known = [one for one in ticks if one["tokens"] is not None]
    first = next(one for one in known if one["step"] >= skipped)
    last = known[-1]
    return Measured(
        int(last["tokens"] - first["tokens"]),
        last["cpu"] - first["cpu"],
        last["wall"] - first["wall"],
        model,
        ticks,
    )

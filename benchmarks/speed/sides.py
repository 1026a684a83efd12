"""Training runs of either side, each in a process of its own, and what its clock said."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from benchmarks.speed.corpus import Corpus

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


@dataclass(frozen=True)
class Measured:
    """What a training took, from one step to another.

    Attributes:
        tokens: without padding.
        cpu: seconds of the process, all threads.
        wall: seconds.
        model: folder of the trained model.
    """

    tokens: int
    cpu: float
    wall: float
    model: Path

    @property
    def rate(self) -> float:
        """Tokens per second of CPU."""
        return self.tokens / self.cpu


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
    file, clock, run = _fresh(folder) / "run.toml", folder / "clock.jsonl", folder / "run"
    rows = max(1, round(work.tokens / 512))
    document: dict[str, dict[str, Any]] = {
        "data": {"text": [str(work.corpus.rows)]},
        "tokenizer": {"path": str(work.corpus.tokenizer)},
        "model": {"family": "bert", "config": _without_vocabulary(work.model)},
        "prepare": {"max_length": work.length, "cache": str(folder.parent / "cache")},
        "batch": {"row_tokens": 512, "rows": rows, "micro_rows": rows},
        "train": {"steps": steps, "lr": LR, "warmup": WARMUP, "seed": work.seed},
        "plugin": {"clock": {"file": str(clock)}},
    }
    document["model"]["dropout"] = work.dropout
    document["train"] |= {"threads": work.threads, "checkpoint_every": steps}
    for section, values in (settings or {}).items():
        document.setdefault(section, {}).update(values)
    top = {"plugins": [*plugins, str(CLOCK)], "output": str(run)}
    file.write_text(tomli_w.dumps({**top, **document}), encoding="utf-8")
    flags = ("--device", work.device, "--overwrite", "--quiet", "--allow-code")
    _process(work, "ptm_plus", "train", str(file), *flags)
    _process(work, "ptm_plus", "export", str(run), "--to", str(folder / "model"), "--allow-code")
    logged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    tokens = {one["step"]: one["tokens"] for one in logged if "tokens" in one}
    ticks = [{**one, "tokens": tokens.get(one["step"])} for one in _ticks(clock)]
    return _between(ticks, skipped, folder / "model")


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
        "output": folder,
    }
    flags = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    _process(work, "benchmarks.speed.peer", *flags)
    return _between(_ticks(folder / "clock.jsonl"), skipped, folder / "model")


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _without_vocabulary(model: Mapping[str, int]) -> dict[str, int]:
    return {name: value for name, value in model.items() if name != "vocab_size"}


def _process(work: Work, module: str, *arguments: str) -> None:
    """Run a module; one that fails ends the benchmark with what it said."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": str(work.threads), "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{module} {' '.join(arguments)} failed:\n{done.stderr[-4000:]}")


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
    )

"""What makes a step quick: layout, head, masking, attention, optimizer; alone, and together.

    python -m benchmarks.ladder --json ladder.json
    python -m benchmarks.ladder --quick --compile

A plain loop around transformers' BERT (4 blocks of 256, a vocabulary of 30,522) is the ground:
lines padded to the longest, logits everywhere, transformers' collator, scores with a mask, AdamW
parameter by parameter. Each part is then done in the way that ptm-plus does it: alone, and together
with all the parts before it. The last line is ptm-plus itself. All read the same sequences at the
same mask rate, in turn, on one thread; the time is the process's own CPU time. The losses of all
ways are equal to rounding, which the tests hold.

``--compile`` adds torch.compile, which pays on GPUs and takes minutes on CPUs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.corpus import VOCABULARY, made_texts, made_words, write_corpus
from benchmarks.speed.reporting import machine, markdown, options, ranged, report, spread
from benchmarks.speed.rungs import Rung, Ways
from benchmarks.speed.sides import LR
from benchmarks.speed.sizes import BENCH
from benchmarks.speed.timing import spend
from ptm_plus.launch import launch
from ptm_plus.processes import make_accelerator
from ptm_plus.progress import Silent
from ptm_plus.settings_files import resolve
from ptm_plus.train import Trainer

TITLES = {
    "layout": "sequences end to end",
    "head": "logits where something is predicted",
    "masking": "masking as array work",
    "attention": "attention by length",
    "compiled": "torch.compile",
    "optimizer": "fused AdamW",
}
GROUND, OURS = "plain loop", "ptm-plus"
SEQUENCES = 16

Step = Callable[[], int]
"""Takes a step and returns its tokens."""


def ladder(names: Sequence[str]) -> dict[str, Ways]:
    """Return the ways of each line: the ground, each part alone, and each with all before it."""
    found = {GROUND: Ways()}
    found |= {f"{TITLES[name]}, alone": Ways().with_(name) for name in names}
    ways = Ways()
    for number, name in enumerate(names):
        ways = ways.with_(name)
        if number:  # the first is the same alone
            found[f"… and {TITLES[name]}"] = ways
    return found


def measure(
    steps: Mapping[str, Step], rounds: int, of_a_turn: int, warm_up: int
) -> dict[str, list[float]]:
    """Let all take their steps in turn; return tokens per CPU-second, round by round."""
    for step in steps.values():
        for _ in range(warm_up):
            step()
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds):
        for name, step in steps.items():
            began = time.process_time()
            tokens = sum(step() for _ in range(of_a_turn))
            rates[name].append(tokens / (time.process_time() - began))
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return rates


def figures(rates: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return rates, and how many times the ground's they are, in the same round."""
    found = {}
    for name, own in rates.items():
        times = [one / ground for one, ground in zip(own, rates[GROUND], strict=True)]
        found[name] = {"tokens_per_cpu_second": statistics.median(own), "times": ranged(times)}
    return found


def table(found: Mapping[str, Any]) -> str:
    """Return the table."""
    rows = [
        [name, f"{one['tokens_per_cpu_second']:,.0f}", spread(one["times"], 2)]
        for name, one in found.items()
    ]
    return markdown(["", "tokens per CPU-second", "times the plain loop"], rows)


def run(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure, and return everything that is kept."""
    from transformers import AutoTokenizer, BertConfig

    torch.set_num_threads(1)
    on = machine()
    words = made_words(VOCABULARY)
    corpus = write_corpus(folder / "corpus", made_texts(words), SEQUENCES * 100, 1, words)
    tokenizer = AutoTokenizer.from_pretrained(corpus.tokenizer, trust_remote_code=False)
    lines = corpus.lines.read_text(encoding="utf-8").splitlines()
    sequences = tokenizer(lines, truncation=True, max_length=256)["input_ids"]
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(**BENCH, **dropout, vocab_size=len(tokenizer))
    names = [name for name in TITLES if given.compile or name != "compiled"]
    steps: dict[str, Step] = {
        name: Rung(ways, config, tokenizer, sequences, SEQUENCES, LR).step
        for name, ways in ladder(names).items()
    }
    steps[OURS] = _product(corpus.rows, corpus.tokenizer, folder)
    found = figures(measure(steps, given.rounds, given.steps, given.warm_up))
    return {"machine": on, "model": dict(BENCH), "lines": found}


def _product(rows: Path, tokenizer: Path, folder: Path) -> Step:
    """Return a step of ptm-plus over the same text, as long in tokens."""
    flags = {
        "data.text": [str(rows)],
        "tokenizer.path": str(tokenizer),
        "output": str(folder / "run"),
        "prepare.cache": str(folder / "cache"),
        "prepare.max_length": 256,
        "batch.rows": 2,
        "batch.micro_rows": 2,
        "train.lr": LR,
    }
    model = [f"model.config.{name}={value}" for name, value in BENCH.items()]
    accelerator = make_accelerator("fp32", "cpu")
    run = launch(resolve(None, flags, model).settings, Silent(), accelerator.device)
    trainer = Trainer(run, Silent(), accelerator)
    trainer.start()
    return lambda: spend(trainer, 0, 1).tokens


def main() -> None:
    """Run the benchmark from the command line."""
    parser = options(__doc__)
    parser.add_argument("--compile", action="store_true", help="torch.compile as well")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of a turn")
    parser.add_argument("--warm-up", type=int, default=1, help="steps that are not measured")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.steps = 1, 2
    with tempfile.TemporaryDirectory() as scratch:
        document = run(given, Path(scratch))
    report(document, [table(document["lines"])], given.json)


if __name__ == "__main__":
    main()

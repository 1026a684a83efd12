"""What optimizers, schedules and mask rates are worth at equal tokens, over seeds.

    python -m benchmarks.optimizers --quick --json optimizers.json
    python -m benchmarks.optimizers --text corpus.jsonl --tokenizer DIR --json optimizers.json

Every arm trains the same small BERT from scratch with ``ptm-plus train``, on the same rows of the
same text, and differs from the default in the settings that its line names. Then each is asked for
the same masked tokens of held-out text. Differences to the default are paired over seeds; one whose
t interval holds zero is reported as none.

One learning rate serves all arms, so what is told is what a setting changes where nothing else is
tuned. Muon is slow on a CPU, and asked for with a GPU or by name (``--arms``).

Everything finished is a file in the output folder, and is not done again.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.figures import summary
from benchmarks.speed.corpus import Corpus, made_texts, made_words, write_corpus
from benchmarks.speed.quality import held_out_loss
from benchmarks.speed.reporting import machine, report
from benchmarks.speed.reporting import options as options_of_all
from benchmarks.speed.sides import Work, ours
from benchmarks.steps import check_equal_tokens, claim, once

MODEL = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "max_position_embeddings": 512,
}
BASE = "adamw, linear"
"""The default."""

ARMS: dict[str, dict[str, dict[str, Any]]] = {
    BASE: {},
    "adamw, wsd": {"train": {"decay": "wsd"}},
    "adamw, constant": {"train": {"decay": "constant"}},
    "adamw, betas 0.9 0.999": {"train": {"betas": [0.9, 0.999]}},
    "stable-adamw, no clipping": {"train": {"optimizer": "stable-adamw", "clip": 0.0}},
    "stable-adamw, clipping": {"train": {"optimizer": "stable-adamw"}},
    "muon": {"train": {"optimizer": "muon"}},
    "mask rate 0.30": {"masking": {"rate": 0.3}},
    "mask rate 0.30 to 0.15": {"masking": {"rate": 0.3, "final_rate": 0.15}},
}
"""By name, the settings in which an arm differs from the default."""

SLOW = ("muon",)
"""Arms that a CPU does not run unless they are asked for."""

TITLES = {"loss": "held-out loss"}
LENGTH, STEP_TOKENS, SEQUENCES, HELD_OUT = 256, 1024, 16, 400


@dataclass(frozen=True)
class Options:
    """What the figures of an output folder depend on.

    Attributes:
        text: JSON lines; empty for text that is made.
        tokenizer: folder of the tokenizer of that text.
        model: configuration of BERT.
        vocabulary: number of words of made text.
        steps: optimizer steps.
        lr: peak learning rate of all arms.
        device: where the arms train.
    """

    text: str
    tokenizer: str
    model: Mapping[str, int]
    vocabulary: int
    steps: int
    lr: float
    device: str


def corpus_of(options: Options, folder: Path) -> Corpus:
    """Write the text that all arms read, made or given."""
    count = SEQUENCES * options.steps * 2
    if not options.text:
        words = made_words(options.vocabulary)
        return write_corpus(folder, made_texts(words), count, HELD_OUT, words)
    with open(options.text, encoding="utf-8") as lines:
        texts = (json.loads(line)["text"].splitlines() for line in lines)
        parts = (part for part in itertools.chain.from_iterable(texts) if part.strip())
        corpus = write_corpus(folder, parts, count, HELD_OUT, None)
    return replace(corpus, tokenizer=Path(options.tokenizer))


def measure(work: Work, options: Options, arm: str, folder: Path) -> dict[str, float]:
    """Train an arm, and return its held-out loss and what it took."""
    changed = ARMS[arm]
    settings = {**changed, "train": {"lr": options.lr, **changed.get("train", {})}}
    took = ours(work, folder, options.steps, 0, settings=settings)
    report = json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))
    corpus = work.corpus
    loss = held_out_loss(took.model, corpus.tokenizer, corpus.held_out, work.length)
    return {"loss": loss, "tokens": report["tokens"], "cpu": took.cpu, "wall": took.wall}


def of_seed(work: Work, options: Options, arms: Sequence[str], folder: Path) -> dict[str, Any]:
    """Do whatever of a seed is not done; return what was measured, by arm."""
    found = {}
    for arm in arms:
        name = f"{arm.replace(',', '').replace(' ', '-')}-{work.seed}"
        made = partial(measure, work, options, arm, folder / "runs" / name)
        found[arm] = once(folder / "scores" / f"{name}.json", made)
        said = f"loss {found[arm]['loss']:.4f}, {found[arm]['cpu']:.1f} CPU-seconds"
        print(f"seed {work.seed}, {arm}: {said}", file=sys.stderr, flush=True)
    check_equal_tokens(found)
    return found


def document(options: Options, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return everything that is kept."""
    scores = {arm: [seed[arm] for seed in seeds] for arm in seeds[0]}
    return {
        "machine": machine(),
        "options": asdict(options),
        "arms": {arm: ARMS[arm] for arm in scores},
        "tokens": seeds[0][BASE]["tokens"],
        "summary": {arm: of["loss"] for arm, of in summary(scores, TITLES, BASE).items()},
        "cpu_seconds": {arm: statistics.mean(s["cpu"] for s in of) for arm, of in scores.items()},
        "seeds": list(seeds),
    }


def table(found: Mapping[str, Any]) -> str:
    """Return the table of a document."""
    lines = [
        "| | held-out loss (lowest to highest) | against the default (95 % t interval) "
        "| difference | CPU seconds |",
        "|---|---|---|---|--:|",
    ]
    for arm, one in found["summary"].items():
        between = one.get("interval")
        apart = f"{one['difference']:+.4f}" if "difference" in one else "–"
        apart += f" ({between[0]:+.4f} to {between[1]:+.4f})" if between else ""
        lines.append(
            f"| {arm} | {one['mean']:.4f} ({one['lowest']:.4f} to {one['highest']:.4f}) | {apart} "
            f"| {one.get('verdict', '–')} | {found['cpu_seconds'][arm]:.1f} |"
        )
    lines += [
        "",
        f"{found['tokens']:,} tokens each, {len(found['seeds'])} seeds. Differences are "
        "paired over seeds; one whose interval holds zero is inside the spread: none.",
    ]
    return "\n".join(lines)


def arms_for(asked: Sequence[str] | None, gpu: bool) -> list[str]:
    """Return the arms to run, the default among them.

    Args:
        asked: names; ``None`` for those that the device does well.
        gpu: whether there is one.
    """
    if asked is None:
        return [arm for arm in ARMS if gpu or arm not in SLOW]
    return [arm for arm in ARMS if arm == BASE or arm in asked]


def run(options: Options, arms: Sequence[str], seeds: int, folder: Path) -> dict[str, Any]:
    """Measure every arm with every seed, and return everything that is kept."""
    from transformers import AutoTokenizer

    claim(folder, asdict(options))
    corpus = corpus_of(options, folder / "corpus")
    size = len(AutoTokenizer.from_pretrained(corpus.tokenizer, trust_remote_code=False))
    model = {**options.model, "vocab_size": size}
    work = Work(corpus, model, LENGTH, STEP_TOKENS, SEQUENCES, device=options.device)
    measured = [of_seed(replace(work, seed=seed), options, arms, folder) for seed in range(seeds)]
    return document(options, measured)


def main() -> None:
    """Run the benchmark from the command line."""
    import torch

    gpu = torch.cuda.is_available()
    parser = options_of_all(__doc__)
    parser.add_argument("--text", type=Path, help="JSON lines instead of text that is made")
    parser.add_argument("--tokenizer", type=Path, help="of --text")
    parser.add_argument("--model", type=json.loads, default=MODEL, help="BERT's configuration")
    parser.add_argument("--vocabulary", type=int, default=4_000, help="words of made text")
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), help="these and the default")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, default=2e-3, help="of all arms")
    parser.add_argument("--output", type=Path, help="keeps the runs; goes on with what is there")
    given = parser.parse_args()
    if (given.text is None) != (given.tokenizer is None):
        parser.error("--text and --tokenizer go together")
    if given.quick:
        given.steps, given.seeds = 40, 2
    text, tokenizer = (str(p.resolve()) if p else "" for p in (given.text, given.tokenizer))
    device = "cuda" if gpu else "cpu"
    options = Options(text, tokenizer, given.model, given.vocabulary, given.steps, given.lr, device)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (given.output or Path(scratch)).resolve()
        found = run(options, arms_for(given.arms, gpu), given.seeds, folder)
    report(found, [table(found)], given.json)


if __name__ == "__main__":
    main()

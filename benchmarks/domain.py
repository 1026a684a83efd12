"""What a recipe's parts are worth to an encoder that goes on to a domain, over seeds.

    python -m benchmarks.domain --data FOLDER --seeds 3 --output DIR --json domain.json

The folder holds biomedical articles (``domain/``), general text (``text/``) and a task
(``tasks/``: the sentences of abstracts, and which section each is of). A quarter of the articles is
kept for the questions, text and abstracts alike; a recipe makes the corpus of the rest, and takes
out what shares thirteen words in a row with a question.

For each seed a small ModernBERT is trained from scratch on general text, and goes on to the domain
at equal tokens: as it is, without plugins; with replay of general text; with its vocabulary
extended on the corpus; with both; with both and the guard, which slows a run that forgets. Each is
exported, and ``ptm-plus evaluate`` measures bits per character of whole words, which compare across
vocabularies, on held-out text of both kinds, and the accuracy of the task.

Everything finished is a file in the output folder, and is not done again.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w

from benchmarks.figures import BASE, compared, summary, table, told
from benchmarks.real_domain.data import write_inputs
from benchmarks.steps import check_equal_tokens, claim, once, planned_steps, ptm_plus, trained

FAMILY = "modernbert"
MODEL = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
}
VOCABULARY, ENTRIES, ROW_TOKENS, ROWS = 8_000, 1_000, 512, 2
RATES = {"general": 2e-3, "domain": 1e-3}
REPLAY, MARGIN, EVALUATIONS, LINES = 0.1, 0.1, 20, 1_500

TITLES = {
    "domain": "bits per character, domain",
    "general": "bits per character, general",
    "task": "accuracy of the task",
}
BEFORE = "before"
"""The encoder that all arms go on with."""


@dataclass(frozen=True)
class Arm:
    """One line of the table.

    Attributes:
        extended: the vocabulary is extended on the corpus.
        replay: general text is replayed.
        guard: a guard slows the run.
    """

    extended: bool = False
    replay: bool = False
    guard: bool = False


ARMS = {
    BASE: Arm(),
    "replay": Arm(replay=True),
    "extension": Arm(extended=True),
    "extension, replay": Arm(extended=True, replay=True),
    "extension, replay, guard": Arm(extended=True, replay=True, guard=True),
}


@dataclass(frozen=True)
class Bench:
    """Where everything is, and how much of it.

    Attributes:
        data: the folder of the data.
        output: the folder of the benchmark.
        tokens: that each encoder is trained on, in general text and in the domain.
    """

    data: Path
    output: Path
    tokens: int

    @property
    def inputs(self) -> Path:
        """The folder of what is read."""
        return self.output / "inputs"

    @property
    def corpus(self) -> Path:
        """The folder of the recipe's corpus."""
        return self.output / "corpus"

    def folder(self, arm: str, seed: int) -> Path:
        """Return the folder of a run."""
        return self.output / f"seed-{seed}" / arm.replace(", ", "+").replace(" ", "-")

    def settings(self, arm: str, seed: int, steps: int) -> dict[str, Any]:
        """Return the settings of a run; those of the encoder before are ``BEFORE``'s."""
        general = str(self.inputs / "general.jsonl")
        found: dict[str, Any] = {
            "prepare": {"max_length": 128, "workers": 1, "cache": str(self.output / "cache")},
            "masking": {"rate": 0.3},
            "batch": {"row_tokens": ROW_TOKENS, "rows": ROWS, "micro_rows": ROWS},
            "train": {
                "steps": steps,
                "lr": RATES["general" if arm == BEFORE else "domain"],
                "seed": seed,
                "threads": 1,
                "log_every": 50,
            },
        }
        if arm == BEFORE:
            tokenizer = {"path": str(self.inputs / "tokenizer")}
            model = {"family": FAMILY, "config": dict(MODEL)}
            return {**found, "data": {"text": [general]}, "tokenizer": tokenizer, "model": model}
        chosen = ARMS[arm]
        before = self.folder(BEFORE, seed)
        found["model"] = {"path": str(before / ("extended" if chosen.extended else "model"))}
        found["data"] = {"text": [str(self.corpus / "data" / "*.jsonl.gz")]}
        if chosen.replay:
            plugin: dict[str, Any] = {"general": [general], "replay": REPLAY}
            if chosen.guard:
                plugin["guard"] = {"action": "slow", "margin": MARGIN}
                found["train"]["evaluate_every"] = max(1, steps // EVALUATIONS)
            found |= {"plugins": ["domain"], "plugin": {"domain": plugin}}
        return found


# ---------------------------------------------------------------------------------------------
# What is done once


def recipe_of(bench: Bench) -> dict[str, Any]:
    """Return the recipe of the corpus."""
    source = {
        "name": "articles",
        "files": ["domain.jsonl"],
        "language": "en",
        "licence": "CC BY and CC0",
        "provenance": "PMC full text of randomised trials",
    }
    asked = [str(bench.inputs / f"{name}.jsonl") for name in ("asked.domain", "task.test")]
    kinds = ("normalise", "exact-duplicates", "near-duplicates")
    return {
        "name": "trials",
        "title": "Reports of randomised trials",
        "languages": ["en"],
        "sources": [source],
        "steps": [*({"kind": kind} for kind in kinds), {"kind": "decontaminate", "against": asked}],
        "vocabulary": {"decision": "extend", "entries": ENTRIES},
    }


def make_inputs(bench: Bench) -> dict[str, Any]:
    """Write the inputs, build the corpus, train the tokenizer; return what was counted."""
    counted = write_inputs(bench.data, bench.inputs)
    recipe = bench.inputs / "raw" / "recipe.toml"
    recipe.write_text(tomli_w.dumps(recipe_of(bench)), encoding="utf-8")
    output = ("--output", str(bench.corpus), "--workers", "1", "--json")
    account = json.loads(ptm_plus("recipe", "build", str(recipe), *output))
    text = ("--text", str(bench.inputs / "general.jsonl"))
    size = ("--vocabulary", str(VOCABULARY), "--kind", "byte-bpe", "--family", FAMILY)
    ptm_plus("tokenizer", "train", *text, *size, "--output", str(bench.inputs / "tokenizer"))
    return {**counted, "corpus": {name: account[name] for name in ("documents", "tokens")}}


def train(bench: Bench, arm: str, seed: int) -> dict[str, Any]:
    """Train a run, or go on with it, export it, and return what is kept of its report."""
    plan = bench.output / "plans" / f"{bench.folder(arm, 0).name}.toml"
    given = bench.settings(arm, 0, 1000)
    steps = once(plan.with_suffix(".json"), partial(planned_steps, plan, given, bench.tokens))
    report = trained(bench.folder(arm, seed), bench.settings(arm, seed, steps))
    return {name: report[name] for name in ("tokens", "seconds", "evaluation")}


def extend(bench: Bench, seed: int) -> dict[str, Any]:
    """Extend the vocabulary of the encoder before, on the corpus; return the tokens saved."""
    before = bench.folder(BEFORE, seed)
    text = ("--text", str(bench.corpus / "data" / "*.jsonl.gz"), "--pieces", str(ENTRIES))
    output = ("--output", str(before / "extended"), "--json")
    found = json.loads(ptm_plus("tokenizer", "extend", str(before / "model"), *text, *output))
    return {name: found[name] for name in ("vocabulary", "languages") if name in found}


def measure(bench: Bench, arm: str, seed: int) -> dict[str, Any]:
    """Return bits per character of held-out text, and the accuracy of the task."""
    model = str(bench.folder(arm, seed) / "model")
    common = ("--device", "cpu", "--json", "--limit", str(LINES))
    bits = {}
    for kind in ("domain", "general"):
        text = ("--probe", "perplexity", "--text", f"en={bench.inputs / f'asked.{kind}.jsonl'}")
        found = json.loads(ptm_plus("evaluate", model, *text, *common))
        bits[kind] = found["perplexity"]["languages"]["en"]["bits_per_character"]
    files = ",".join(str(bench.inputs / f"task.{side}.jsonl") for side in ("train", "test"))
    task = ("--task", f"text={files}", "--seeds", "1", *common)
    (learned,) = json.loads(ptm_plus("evaluate", model, *task))["tasks"]
    return {**bits, "task": learned["scores"]["accuracy"]["mean"]}


def of_seed(bench: Bench, seed: int) -> dict[str, Any]:
    """Do whatever of a seed is not done; return its runs and scores."""
    before = bench.folder(BEFORE, seed)
    runs = {BEFORE: once(before / "trained.json", partial(train, bench, BEFORE, seed))}
    extended = once(before / "extended.json", partial(extend, bench, seed))
    scores = {}
    for arm in (BEFORE, *ARMS):
        folder = bench.folder(arm, seed)
        runs[arm] = once(folder / "trained.json", partial(train, bench, arm, seed))
        scores[arm] = once(folder / "scores.json", partial(measure, bench, arm, seed))
        said = ", ".join(f"{title} {scores[arm][name]:.3f}" for name, title in TITLES.items())
        print(f"seed {seed}, {arm}: {said}", file=sys.stderr, flush=True)
    check_equal_tokens({arm: runs[arm] for arm in ARMS})
    return {"seed": seed, "runs": runs, "scores": scores, "extended": extended}


# ---------------------------------------------------------------------------------------------
# What is told


def document(bench: Bench, counted: Mapping[str, Any], seeds: Sequence[dict[str, Any]]) -> Any:
    """Return everything that is kept."""
    scores = {arm: [seed["scores"][arm] for seed in seeds] for arm in ARMS}
    before = [seed["scores"][BEFORE] for seed in seeds]
    return {
        "machine": platform.processor() or platform.machine(),
        "options": {"tokens": bench.tokens},
        "encoder": {"family": FAMILY, **MODEL, "vocabulary": VOCABULARY, "entries": ENTRIES},
        "data": counted,
        "tokens": {arm: seeds[0]["runs"][arm]["tokens"] for arm in ARMS},
        "summary": summary(scores, TITLES),
        "against_before": {arm: compared(scores[arm], before, TITLES) for arm in ARMS},
        "seeds": list(seeds),
    }


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/domain"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=3_000_000, help="for each encoder")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    bench = Bench(given.data.resolve(), given.output.resolve(), given.tokens)
    claim(bench.output, {"tokens": bench.tokens})
    counted = once(bench.output / "inputs.json", partial(make_inputs, bench))
    seeds = [of_seed(bench, seed) for seed in range(given.seeds)]
    found = document(bench, counted, seeds)
    print(table(found["summary"], found["tokens"], TITLES))
    for arm, apart in found["against_before"].items():
        print(f"{arm} against {BEFORE}:", told(apart, TITLES))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

"""What translation pairs are worth to a multilingual encoder on real text, over seeds.

    python -m benchmarks.languages --data FOLDER --seeds 3 --output DIR --json languages.json

The folder holds text (``text/``) and pairs (``parallel/``: Tatoeba, technical documentation, with
English). Training has text of English, German, French and Spanish, and pairs of German and French;
nothing of Italian, Dutch and Portuguese. In all but English, held-out Tatoeba sentences look for
their English translations, and these for them, among some 300.

For each seed the same small ModernBERT is trained from scratch by ``ptm-plus train``, at equal
tokens: on the text without plugins; on the text and the halves of the pairs, each as a text of its
own, without plugins, which tells what the sentences are worth apart from their being paired; with
``tlm``; with ``cross-lingual``; with both. Each is exported, and ``ptm-plus evaluate`` asks.

It is told as well by how much the loss on held-out pairs rises when a token may see its own half
only, which is what ``tlm`` measures; encoders that were trained without it do one step at a rate of
1e-9 with it. The same pairs are held out by all.

Everything finished is a file in the output folder, and is not done again: start a killed benchmark
once more, and ``ptm-plus resume`` goes on from the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w

from benchmarks.figures import BASE, compared, summary, table, told
from benchmarks.real_languages.data import GROUPS, TATOEBA, TEXTS, write_inputs
from benchmarks.steps import check_equal_tokens, claim, once, planned_steps, ptm_plus, trained

FAMILY = "modernbert"
MODEL = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
}
LAYER = 2
"""Whose states are compared: the middle one, which is what ``evaluate`` takes by itself."""

VOCABULARY, ROW_TOKENS, ROWS = 8_000, 512, 2
TITLES = {"pairs": "pairs and text", "text": "text only", "nothing": "neither"}
"""The groups of languages, by what training has of them."""

HALVES = "pairs as text"
RISE = {"rise": "rise of the loss without the other half"}


@dataclass(frozen=True)
class Arm:
    """One line of the table.

    Attributes:
        plugins: names.
        data: what it is given besides the text: ``pairs``, their ``halves`` as text, or nothing.
    """

    plugins: tuple[str, ...] = ()
    data: str = ""


ARMS = {
    BASE: Arm(),
    HALVES: Arm(data="halves"),
    "tlm": Arm(("tlm",), "pairs"),
    "cross-lingual": Arm(("cross-lingual",), "pairs"),
    "tlm, cross-lingual": Arm(("cross-lingual", "tlm"), "pairs"),
}


@dataclass(frozen=True)
class Bench:
    """Where everything is, and how much of it.

    Attributes:
        data: the folder of the data.
        output: the folder of the benchmark.
        tokens: that each encoder is trained on.
    """

    data: Path
    output: Path
    tokens: int

    @property
    def inputs(self) -> Path:
        """The folder of what the runs read."""
        return self.output / "inputs"

    def folder(self, arm: str, seed: int) -> Path:
        """Return the folder of a run."""
        return self.output / f"seed-{seed}" / arm.replace(", ", "+").replace(" ", "-")

    def texts(self) -> list[Path]:
        """Return the files of text."""
        return [self.inputs / f"text.{language}.jsonl" for language in TEXTS]

    def settings(self, arm: str, seed: int, steps: int) -> dict[str, Any]:
        """Return the settings of a run."""
        chosen = ARMS[arm]
        data: dict[str, Any] = {"text": [str(path) for path in self.texts()]}
        if chosen.data == "halves":
            data["text"].append(str(self.inputs / "halves.jsonl"))
        if chosen.data == "pairs":
            data["pairs"] = [str(self.inputs / "pairs.tsv")]
        return {
            "plugins": list(chosen.plugins),
            "data": data,
            "model": {"family": FAMILY, "config": dict(MODEL)},
            "masking": {"rate": 0.3},
            "tokenizer": {"path": str(self.inputs / "tokenizer")},
            "prepare": {"max_length": 128, "workers": 1, "cache": str(self.output / "cache")},
            "batch": {"row_tokens": ROW_TOKENS, "rows": ROWS, "micro_rows": ROWS},
            "train": {
                "steps": steps,
                "lr": 2e-3,
                "seed": seed,
                "threads": 1,
                "log_every": 50,
            },
        }


# ---------------------------------------------------------------------------------------------
# What is done once


def make_inputs(bench: Bench) -> dict[str, Any]:
    """Write the inputs, train the tokenizer on them, and return what was counted."""
    bench.inputs.mkdir(parents=True, exist_ok=True)
    counted = write_inputs(bench.data, bench.inputs)
    files = [*bench.texts(), bench.inputs / "halves.jsonl"]
    given = [part for path in files for part in ("--text", str(path))]
    output = str(bench.inputs / "tokenizer")
    ptm_plus("tokenizer", "train", *given, "--vocabulary", str(VOCABULARY), "--output", output)
    return counted


def train(bench: Bench, arm: str, seed: int) -> dict[str, Any]:
    """Train a run, or go on with it, export it, and return what is kept of its report."""
    plan = bench.output / "plans" / f"{bench.folder(arm, 0).name}.toml"
    given = bench.settings(arm, 0, 1000)
    steps = once(plan.with_suffix(".json"), partial(planned_steps, plan, given, bench.tokens))
    report = trained(bench.folder(arm, seed), bench.settings(arm, seed, steps))
    return {name: report[name] for name in ("tokens", "seconds", "evaluation")}


def retrieve(bench: Bench, arm: str, seed: int) -> dict[str, Any]:
    """Ask an encoder for translations; return the accuracy by language and by group."""
    model = str(bench.folder(arm, seed) / "model")
    files = [str(bench.inputs / f"questions.{language}.tsv") for language in TATOEBA]
    given = [part for path in files for part in ("--pairs", path)]
    asked = ("--probe", "retrieval", "--layer", str(LAYER), "--device", "cpu", "--json")
    found = json.loads(ptm_plus("evaluate", model, *asked, *given))
    return by_group(accuracies(found))


def other_half(bench: Bench, arm: str, seed: int) -> dict[str, Any]:
    """Return the loss on held-out pairs, and how far it rises when the other half is hidden."""
    trained_run = bench.folder(arm, seed) / "run"
    if "tlm" in ARMS[arm].plugins:
        return told_by(trained_run)
    asked = bench.folder(arm, seed) / "asked"
    settings = bench.settings("tlm", seed, 1)
    settings["train"]["lr"] = 1e-9
    file = asked.with_suffix(".toml")
    file.write_text(tomli_w.dumps({**settings, "output": str(asked)}), encoding="utf-8")
    options = ("--init-from", str(trained_run), "--device", "cpu", "--overwrite", "--quiet")
    ptm_plus("train", str(file), *options)
    return told_by(asked)


def told_by(run: Path) -> dict[str, Any]:
    """Return what a run's report says of the other half."""
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    found = report["evaluation"]["tlm_other_half"]
    return {**found, "rise": found["rise"]["mean"], "error": found["rise"]["error"]}


def accuracies(found: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean accuracy of both directions by language, from what ``evaluate`` printed."""
    (layer,) = found["retrieval"]
    return {pair.removesuffix("-en"): one["accuracy"] for pair, one in layer["pairs"].items()}


def by_group(accuracy: Mapping[str, float]) -> dict[str, Any]:
    """Return the means over groups of languages, and the languages."""
    means = {
        group: statistics.mean(accuracy[language] for language in languages)
        for group, languages in GROUPS.items()
    }
    return {**means, "languages": dict(accuracy)}


def of_seed(bench: Bench, seed: int) -> dict[str, Any]:
    """Do whatever of a seed is not done; return its runs, scores and losses."""
    runs, scores, halves = {}, {}, {}
    for arm in ARMS:
        folder = bench.folder(arm, seed)
        runs[arm] = once(folder / "trained.json", partial(train, bench, arm, seed))
        scores[arm] = once(folder / "scores.json", partial(retrieve, bench, arm, seed))
        halves[arm] = once(folder / "other-half.json", partial(other_half, bench, arm, seed))
        said = ", ".join(f"{title} {scores[arm][group]:.3f}" for group, title in TITLES.items())
        rise = halves[arm]["rise"]
        print(f"seed {seed}, {arm}: {said}, rise {rise:+.3f}", file=sys.stderr, flush=True)
    check_equal_tokens(runs)
    return {"seed": seed, "runs": runs, "scores": scores, "other_half": halves}


# ---------------------------------------------------------------------------------------------
# What is told


def document(bench: Bench, counted: Mapping[str, Any], seeds: Sequence[dict[str, Any]]) -> Any:
    """Return everything that is kept."""
    scores = {arm: [seed["scores"][arm] for seed in seeds] for arm in ARMS}
    paired = (arm for arm in ARMS if ARMS[arm].data == "pairs")
    return {
        "machine": platform.processor() or platform.machine(),
        "options": options(bench),
        "encoder": {"family": FAMILY, **MODEL, "vocabulary": VOCABULARY, "layer": LAYER},
        "data": counted,
        "tokens": {arm: one["tokens"] for arm, one in seeds[0]["runs"].items()},
        "summary": summary(scores, TITLES),
        "against_pairs_as_text": {
            arm: compared(scores[arm], scores[HALVES], TITLES) for arm in paired
        },
        "other_half": summary(
            {arm: [seed["other_half"][arm] for seed in seeds] for arm in ARMS}, RISE
        ),
        "seeds": list(seeds),
    }


def options(bench: Bench) -> dict[str, int]:
    """Return what an output folder was made with."""
    return {"tokens": bench.tokens}


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/languages"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=3_000_000, help="for each encoder")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    bench = Bench(given.data.resolve(), given.output.resolve(), given.tokens)
    claim(bench.output, options(bench))
    counted = once(bench.output / "inputs.json", partial(make_inputs, bench))
    seeds = [of_seed(bench, seed) for seed in range(given.seeds)]
    found = document(bench, counted, seeds)
    print(table(found["summary"], found["tokens"], TITLES))
    print(table(found["other_half"], found["tokens"], RISE))
    for arm, apart in found["against_pairs_as_text"].items():
        print(f"{arm} against {HALVES}:", told(apart, TITLES))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

"""What the ways of putting knowledge into an encoder are worth on real text, over seeds.

    python -m benchmarks.knowledge --data FOLDER --seeds 3 --output DIR --json knowledge.json

The folder holds Wikipedia sentences with entity links, a Wikidata graph, FewRel's validation
relations and English dependency trees: ``linked/wiki_silver.jsonl.xz``, ``linked/fewrel.jsonl.gz``,
``kg/wikidata-merged/train.tsv.xz``, ``tasks/ud_en-ewt.train.jsonl.gz``.

For each seed the same small encoder is pre-trained by ``ptm-plus train`` on the linked sentences,
at equal tokens: without plugins, with ``ernie-masking``, with ``kg-fusion``, and with ``kg-fusion``
on vectors of a shuffled graph. ``k-adapter`` is trained beside the frozen encoder without plugins:
one adapter on sentences that the graph labels with a relation, one on dependency trees; its tokens
come on top, and are given. Then each is fine-tuned alike on FewRel's training sentences and asked
about the held-out ones. ``kg-fusion`` is read twice: as plain transformers loads it, and with its
fusion, at the marked mentions that the graph knows.

Everything finished is a file in the output folder, and is not done again: start a killed benchmark
once more, and ``ptm-plus resume`` goes on from the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.figures import BASE, compared, summary, table, told
from benchmarks.real_knowledge.data import read_questions, write_inputs, write_shuffled
from benchmarks.steps import check_equal_tokens, claim, once, ptm_plus, trained
from ptm_plus.files import file_sha256

MODEL = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
}
TITLES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
"""What is measured."""

ROW_TOKENS, ROWS, FILL = 512, 4, 0.97
"""Tokens of a row, rows of a step, and the least share of them that packing fills."""


@dataclass(frozen=True)
class Arm:
    """One line of the table.

    Attributes:
        run: the pre-training run that it reads.
        how: how it is read, see ``classify.reader``.
        graph: the graph whose vectors it is given.
    """

    run: str
    how: str = "plain"
    graph: str = "graph"


ARMS = {
    BASE: Arm("no-plugin"),
    "ernie-masking": Arm("ernie-masking"),
    "kg-fusion": Arm("kg-fusion", "fused"),
    "kg-fusion, read without fusion": Arm("kg-fusion"),
    "shuffled graph": Arm("kg-fusion-shuffled", "fused", "shuffled"),
    "shuffled graph, read without fusion": Arm("kg-fusion-shuffled", "plain", "shuffled"),
    "k-adapter": Arm("k-adapter", "adapted"),
}
PLUGINS = {
    "no-plugin": [],
    "ernie-masking": ["ernie-masking"],
    "kg-fusion": ["kg-fusion"],
    "kg-fusion-shuffled": ["kg-fusion"],
    "k-adapter": ["k-adapter:fac", "k-adapter:lin"],
}
VECTORS = {"kg-fusion": "graph", "kg-fusion-shuffled": "shuffled"}


@dataclass(frozen=True)
class Bench:
    """Where everything is, and how much of it.

    Attributes:
        data: the folder of the data.
        output: the folder of the benchmark.
        tokens: that each encoder is pre-trained on, at least.
        adapter_tokens: that the adapters are trained on, both together.
        epochs: of the vectors; 0 for as many as the product takes.
    """

    data: Path
    output: Path
    tokens: int
    adapter_tokens: int
    epochs: int

    def folder(self, seed: int) -> Path:
        """Return the folder of a seed."""
        return self.output / f"seed-{seed}"

    def settings(self, run: str, seed: int) -> dict[str, Any]:
        """Return the settings file of a pre-training run."""
        folder = self.folder(seed)
        adapter = run == "k-adapter"
        tokens = self.adapter_tokens if adapter else self.tokens
        settings: dict[str, Any] = {
            "plugins": PLUGINS[run],
            "model": {"family": "bert", "config": dict(MODEL)},
            "prepare": {"max_length": 128, "workers": 1, "cache": str(self.output / "cache")},
            "batch": {"row_tokens": ROW_TOKENS, "rows": ROWS, "micro_rows": ROWS},
            "train": {
                "steps": -int(-tokens // (ROW_TOKENS * ROWS * FILL)),
                "lr": 1e-3,
                "seed": seed,
                "threads": 1,
                "log_every": 50,
            },
        }
        if adapter:
            settings["model"]["init_from"] = str(folder / "no-plugin" / "run")
            settings["tokenizer"] = {"path": str(folder / "no-plugin" / "run" / "tokenizer")}
            settings["plugin"] = {
                "k-adapter:fac": {"relations": [str(self.output / "inputs" / "relations.jsonl")]},
                "k-adapter:lin": {
                    "dependencies": [str(self.data / "tasks" / "ud_en-ewt.train.jsonl.gz")]
                },
            }
        else:
            settings["tokenizer"] = {"vocabulary": 8000}
            settings["data"] = {"text": [str(self.output / "inputs" / "text.jsonl")]}
        if run in VECTORS:
            settings["data"]["vectors"] = str(vectors_of(folder, VECTORS[run]))
        return settings


def vectors_of(folder: Path, graph: str) -> Path:
    """Return the vectors of a graph in the folder of a seed."""
    return folder / f"{graph}.safetensors"


# ---------------------------------------------------------------------------------------------
# What is done once


def inputs(bench: Bench) -> dict[str, Any]:
    """Write the inputs and return what was counted."""
    folder = bench.output / "inputs"
    folder.mkdir(parents=True, exist_ok=True)
    return write_inputs(bench.data, folder)


def train_vectors(bench: Bench, graph: str, seed: int) -> dict[str, Any]:
    """Train the vectors of the graph, or of a shuffled one, and return what they are."""
    folder, path = bench.folder(seed), bench.output / "inputs" / "graph.tsv"
    folder.mkdir(parents=True, exist_ok=True)
    if graph == "shuffled":
        path = folder / "shuffled.tsv"
        write_shuffled(bench.output / "inputs" / "graph.tsv", path, seed)
    target = vectors_of(folder, graph)
    epochs = ("--epochs", str(bench.epochs)) if bench.epochs else ()
    given = ("--kg", str(path), "--output", str(target), "--seed", str(seed))
    ptm_plus("kg", "train", *given, "--device", "cpu", "--quiet", *epochs)
    return {"vectors": str(target)}


def pretrain(bench: Bench, run: str, seed: int) -> dict[str, Any]:
    """Train a run, or go on with it, export it, and return what is kept of its report."""
    folder = bench.folder(seed) / run
    report = trained(folder, bench.settings(run, seed))
    return {
        "encoder": file_sha256(folder / "model" / "model.safetensors"),
        "tokenizer": file_sha256(folder / "model" / "tokenizer.json"),
        "tokens": report["tokens"],
        "seconds": report["seconds"],
        "evaluation": report["evaluation"],
        "accounts": report["accounts"],
    }


def classify(bench: Bench, arm: Arm, seed: int) -> dict[str, Any]:
    """Fine-tune an arm and return its scores."""
    import torch

    from benchmarks.real_knowledge.classify import measure

    torch.set_num_threads(1)
    folder = bench.folder(seed)
    vectors = vectors_of(folder, arm.graph)
    model = folder / arm.run / "model"
    return measure(arm.how, model, read_questions(bench.data), seed, vectors)


def of_seed(bench: Bench, seed: int) -> dict[str, Any]:
    """Do whatever of a seed is not done; return its runs and scores."""
    folder = bench.folder(seed)
    for graph in ("graph", "shuffled"):
        once(folder / f"{graph}.json", partial(train_vectors, bench, graph, seed))
    runs = {
        run: once(folder / run / "pretrained.json", partial(pretrain, bench, run, seed))
        for run in PLUGINS
    }
    check(runs)
    scores = {}
    for name, arm in ARMS.items():
        file = folder / "scores" / f"{name.replace(' ', '-')}.json"
        scores[name] = once(file, partial(classify, bench, arm, seed))
        print(f"seed {seed}, {name}: {scores[name]['accuracy']:.3f}", file=sys.stderr, flush=True)
    return {"seed": seed, "runs": runs, "scores": scores}


# ---------------------------------------------------------------------------------------------
# What is told


def check(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Check of a seed's runs what the comparison stands on.

    Raises:
        SystemExit: tokenizers or tokens differ, or the adapters' encoder is not the one without
            plugins, bit for bit.
    """
    if len({one["tokenizer"] for one in runs.values()}) > 1:
        raise SystemExit("the runs have different tokenizers")
    if runs["k-adapter"]["encoder"] != runs["no-plugin"]["encoder"]:
        raise SystemExit("the encoder beside the adapters has changed")
    check_equal_tokens({run: one for run, one in runs.items() if run != "k-adapter"}, 0.001)


def tokens_of(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return the tokens that each arm was pre-trained on; those of the adapters come on top."""
    found = {name: runs[arm.run]["tokens"] for name, arm in ARMS.items()}
    found["k-adapter"] += found[BASE]
    return found


def document(bench: Bench, counted: Mapping[str, Any], seeds: list[dict[str, Any]]) -> Any:
    """Return everything that is kept."""
    from benchmarks.real_knowledge.classify import budget

    scores = {name: [seed["scores"][name] for seed in seeds] for name in ARMS}
    for seed in seeds:
        for one in seed["scores"].values():
            one.pop("predicted")  # stays in the seed's folder
    return {
        "machine": platform.processor() or platform.machine(),
        "options": options(bench),
        "encoder": MODEL,
        "fine_tuning": budget(),
        "arms": {name: vars(arm) for name, arm in ARMS.items()},
        "data": counted,
        "tokens": tokens_of(seeds[0]["runs"]),
        "summary": summary(scores, TITLES),
        "graph_against_shuffled": compared(scores["kg-fusion"], scores["shuffled graph"], TITLES),
        "seeds": seeds,
    }


def options(bench: Bench) -> dict[str, int]:
    """Return what an output folder was made with."""
    return {
        "tokens": bench.tokens,
        "adapter_tokens": bench.adapter_tokens,
        "epochs": bench.epochs,
    }


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/knowledge"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=3_000_000, help="for each encoder")
    parser.add_argument("--adapter-tokens", type=int, default=1_000_000, help="for the adapters")
    parser.add_argument("--epochs", type=int, default=0, help="of the vectors")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    bench = Bench(
        given.data.resolve(),
        given.output.resolve(),
        given.tokens,
        given.adapter_tokens,
        given.epochs,
    )
    claim(bench.output, options(bench))
    counted = once(bench.output / "inputs.json", partial(inputs, bench))
    seeds = [of_seed(bench, seed) for seed in range(given.seeds)]
    found = document(bench, counted, seeds)
    print(table(found["summary"], found["tokens"], TITLES))
    print("kg-fusion against the shuffled graph:", told(found["graph_against_shuffled"], TITLES))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

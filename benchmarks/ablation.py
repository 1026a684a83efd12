"""What the plugins are worth on real data beside their placebos, as ``ptm-plus ablate`` says.

    python -m benchmarks.ablation --data FOLDER --seeds 3 --output DIR --json ablation.json

Two ablations, each one settings file and one command:

- ``knowledge``: an encoder from scratch on linked Wikipedia sentences and on translation pairs
  (German and French with English), without plugins, with ``ernie-masking``, ``kg-fusion``,
  ``k-adapter`` and ``tlm``. Asked are facts that only the graph holds and facts that the text
  holds, translations from Tatoeba, relations (FewRel) and dependency heads.
- ``domain``: an encoder that was trained on general text goes on to biomedical articles, without
  plugins and with ``domain``. Asked is held-out text of both kinds, and which section of an
  abstract a sentence is from.

What is asked is taken out of what is trained on: see ``real_knowledge`` (sentences, facts and
triples), ``real_languages`` (pairs) and ``real_domain`` (articles). Everything finished is kept in
the output folder; the same command goes on where it was broken off.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w

from benchmarks.real_domain import data as real_domain
from benchmarks.real_knowledge import data as real_knowledge
from benchmarks.real_knowledge.facts import split_by_fact
from benchmarks.real_languages import data as real_languages
from benchmarks.steps import claim, once, planned_steps, ptm_plus, trained

MODEL = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
}
FAMILY, VOCABULARY, ROW_TOKENS, ROWS = "modernbert", 8_000, 512, 2
LANGUAGES = real_languages.TRAINED

MOST = {"facts": 1_000, "relation": 3_000, "heads": 900}
"""Questions of a group of facts, and sentences that a task learns from: they cost time."""

EVALUATIONS = 3
"""Of each run, while it is trained."""

GENERAL_TOKENS = 3_000_000
"""That the encoder is trained on before it goes on to the domain."""

KEPT = (
    "design",
    "seeds",
    "arms",
    "measures",
    "comparisons",
    "resolution",
    "equal_time",
    "verdicts",
)
"""What is kept of ``ablation.json``."""


@dataclass(frozen=True)
class Bench:
    """Where everything is, and how much of it.

    Attributes:
        data: the folder of the data.
        output: the folder of the benchmark.
        tokens: that each run is trained on.
        seeds: how many.
        jobs: runs at a time.
    """

    data: Path
    output: Path
    tokens: int
    seeds: int
    jobs: int

    def inputs(self, name: str) -> Path:
        """Return the folder of what an ablation reads."""
        return self.output / "inputs" / name

    def settings(self, **tables: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the settings of all runs have in common, and tables of their own."""
        common: dict[str, dict[str, Any]] = {
            "masking": {"rate": 0.3},
            "prepare": {"max_length": 128, "workers": 1, "cache": str(self.output / "cache")},
            "batch": {"row_tokens": ROW_TOKENS, "rows": ROWS, "micro_rows": ROWS},
            "train": {"lr": 2e-3, "threads": 1, "log_every": 50},
        }
        keys = {*common, *tables}
        return {key: {**common.get(key, {}), **tables.get(key, {})} for key in sorted(keys)}


# ---------------------------------------------------------------------------------------------
# Knowledge and languages


def knowledge_inputs(bench: Bench) -> dict[str, Any]:
    """Write text, relations, graph, pairs, questions and tasks; return what was counted."""
    folder, languages = bench.inputs("knowledge"), bench.inputs("languages")
    for one in (folder, languages):
        one.mkdir(parents=True, exist_ok=True)
    counted = real_knowledge.write_inputs(bench.data, folder)
    pairs = real_languages.write_inputs(bench.data, languages)
    linked = list(real_knowledge.read_rows(folder / "text.jsonl"))
    graph = real_knowledge.read_triples(folder / "graph.tsv")
    training, questions = split_by_fact(linked, graph)
    named = {row["text"] for row in training}
    asked = [
        question
        for group in sorted({one["group"] for one in questions})
        for question in [one for one in questions if one["group"] == group][: MOST["facts"]]
    ]
    relations = real_knowledge.read_rows(folder / "relations.jsonl")
    rows = {
        "linked": training,
        "questions": asked,
        "labelled": [row for row in relations if row["text"] in named],
        **_relation_task(bench),
        **_heads_task(bench),
    }
    for name, of in rows.items():
        real_knowledge.write_rows(folder / f"{name}.jsonl", of)
    groups = Counter(one["group"] for one in asked)
    return {
        "sentences": len(training),
        "triples": counted["triples"],
        "pairs": pairs["pairs"],
        "questions": {**groups, **{k: pairs["questions"][k] for k in LANGUAGES}},
        **{name: len(of) for name, of in rows.items() if "." in name},
    }


def _relation_task(bench: Bench) -> dict[str, list[Any]]:
    sides: dict[str, list[Any]] = {"relation.train": [], "relation.test": []}
    for row in real_knowledge.read_rows(bench.data / "linked" / "fewrel.jsonl.gz"):
        sides[f"relation.{'train' if row['split'] == 'train' else 'test'}"].append(row)
    return {**sides, "relation.train": sides["relation.train"][: MOST["relation"]]}


def _heads_task(bench: Bench) -> dict[str, list[Any]]:
    rows = list(real_knowledge.read_rows(bench.data / "tasks" / "ud_en-ewt.dev.jsonl.gz"))
    return {"heads.train": rows[: MOST["heads"]], "heads.test": rows[MOST["heads"] :]}


def knowledge_settings(bench: Bench) -> dict[str, Any]:
    """Return the settings of the run with all plugins."""
    folder, languages = bench.inputs("knowledge"), bench.inputs("languages")
    questions = [str(languages / f"questions.{language}.tsv") for language in LANGUAGES]
    return {
        "plugins": ["ernie-masking", "kg-fusion", "k-adapter", "tlm"],
        **bench.settings(
            data={
                "text": [str(folder / "linked.jsonl")],
                "pairs": [str(languages / "pairs.tsv")],
                "kg": [str(folder / "graph.tsv")],
            },
            evaluate={"mentions": [str(folder / "questions.jsonl")], "pairs": questions},
            model={"family": FAMILY, "config": MODEL},
            tokenizer={"vocabulary": VOCABULARY},
            plugin={
                "k-adapter": {
                    "relations": [str(folder / "labelled.jsonl")],
                    "dependencies": [str(bench.data / "tasks" / "ud_en-ewt.train.jsonl.gz")],
                }
            },
        ),
    }


# ---------------------------------------------------------------------------------------------
# A domain


def domain_inputs(bench: Bench) -> dict[str, Any]:
    """Write the inputs, and train the encoder that goes on; return what was counted."""
    folder = bench.inputs("domain")
    counted = real_domain.write_inputs(bench.data, folder)
    general, before = str(folder / "general.jsonl"), bench.output / "before"
    settings = bench.settings(
        data={"text": [general]},
        model={"family": FAMILY, "config": MODEL},
        tokenizer={"vocabulary": VOCABULARY},
        train={"steps": 1},
    )
    steps = planned_steps(bench.output / "plans" / "before.toml", settings, GENERAL_TOKENS)
    settings["train"]["steps"] = steps
    return {**counted, "before": {"tokens": trained(before, settings)["tokens"]}}


def domain_settings(bench: Bench) -> dict[str, Any]:
    """Return the settings of the run with the plugin."""
    folder = bench.inputs("domain")
    return {
        "plugins": ["domain"],
        **bench.settings(
            data={"text": [str(folder / "raw" / "domain.jsonl")]},
            evaluate={
                "text": [str(folder / f"asked.{kind}.jsonl") for kind in ("domain", "general")]
            },
            model={"path": str(bench.output / "before" / "model")},
            train={"lr": 1e-3},
            plugin={"domain": {"general": [str(folder / "general.jsonl")]}},
        ),
    }


# ---------------------------------------------------------------------------------------------
# Both

ABLATIONS = {
    "knowledge": (knowledge_inputs, knowledge_settings, ("relation", "heads")),
    "domain": (domain_inputs, domain_settings, ("text",)),
}
"""What is done once, the settings, and the kinds of tasks."""


def task(folder: Path, kind: str) -> str:
    """Return a task as ``--task`` takes it."""
    stem = "task" if kind == "text" else kind
    return f"{kind}={folder / f'{stem}.train.jsonl'},{folder / f'{stem}.test.jsonl'}"


def ablate(bench: Bench, name: str) -> dict[str, Any]:
    """Run one of the ablations, or go on with it, write its page, and return what is kept."""
    make, settings_of, kinds = ABLATIONS[name]
    counted = once(bench.output / f"inputs.{name}.json", partial(make, bench))
    settings, file = settings_of(bench), bench.output / f"{name}.toml"
    base = {key: value for key, value in settings.items() if key not in ("plugins", "plugin")}
    plan = bench.output / "plans" / f"{name}.toml"
    steps = once(plan.with_suffix(".json"), partial(planned_steps, plan, base, bench.tokens))
    settings["train"] |= {"steps": steps, "evaluate_every": steps // EVALUATIONS}
    file.write_text(tomli_w.dumps(settings), encoding="utf-8")
    output = bench.output / name
    tasks = [part for kind in kinds for part in ("--task", task(bench.inputs(name), kind))]
    many = ("--seeds", str(bench.seeds), "--jobs", str(bench.jobs))
    command = ("ablate", str(file), *tasks, *many, "--device", "cpu", "--output", str(output))
    finished = subprocess.run([sys.executable, "-m", "ptm_plus", *command], check=False)
    if finished.returncode:
        raise SystemExit(f"ptm-plus {' '.join(command)} ended with {finished.returncode}")
    ptm_plus("report", str(output), "--to", str(bench.output / f"{name}.html"))
    found = json.loads((output / "ablation.json").read_text(encoding="utf-8"))
    return {"data": counted, **{key: found[key] for key in KEPT}}


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--only", choices=sorted(ABLATIONS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, on one thread each")
    parser.add_argument("--tokens", type=int, default=1_500_000, help="of each run")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    output = given.output.resolve()
    bench = Bench(given.data.resolve(), output, given.tokens, given.seeds, given.jobs)
    claim(bench.output, {"tokens": bench.tokens})
    names = [given.only] if given.only else list(ABLATIONS)
    found = {
        "machine": platform.processor() or platform.machine(),
        "tokens": bench.tokens,
        "encoder": {"family": FAMILY, **MODEL, "vocabulary": VOCABULARY},
        **{name: ablate(bench, name) for name in names},
    }
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

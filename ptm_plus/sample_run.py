"""The main job with no files given: train on the sample world, with and without the plugins.

The run without plugins is a second process with the same seed, data and number of steps, side by
side with the first; nothing in the table is stored beforehand.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ptm_plus.consent import ALLOW
from ptm_plus.errors import PtmPlusError
from ptm_plus.examples import Example
from ptm_plus.launched import environment_alone, is_main_process
from ptm_plus.plugins import load
from ptm_plus.progress import Watch
from ptm_plus.report import GROUPS, read_report, write_report
from ptm_plus.run_folder import SETTINGS, checkpoints, write_settings
from ptm_plus.sample import World, build_world, majority_guess, probe_examples, write_world
from ptm_plus.sample.evaluation import head_questions, retrieval_pairs
from ptm_plus.sample.facts import Half
from ptm_plus.settings import RunSettings
from ptm_plus.settings_files import Resolved
from ptm_plus.stages import one_after_the_other
from ptm_plus.stopping import FOLLOWING
from ptm_plus.training_run import Resume, train

DEFAULTS: Mapping[str, Any] = {
    "model.config": {
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 512,
    },
    "tokenizer.vocabulary": 6000,
    "prepare.max_length": 96,
    "masking.rate": 0.3,
    "batch.row_tokens": 256,
    "batch.rows": 4,
    "batch.max_epochs": 100.0,
    "train.steps": 2000,
    "train.lr": 2e-3,
    "train.weight_decay": 0.01,
    "train.log_every": 20,
    "train.threads": 1,
}
"""Settings of the sample, under whatever the user sets; tuned on development facts."""

_GUESS = "majority_guess.json"

_LEARNED = 200
"""Sentences that the task learns from: with all of them, any encoder gets nearly every head."""

PLUGIN_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "kg-fusion": {"vectors": {"dimension": 64}, "mention_weight": 4.0, "lr": 3.0},
}
"""Likewise for plugins that are asked for."""


def train_sample(resolved: Resolved, watch: Watch, *, device: str = "auto") -> dict[str, Any]:
    """Train on the sample world and return the report.

    With plugins, the run without them is trained beside it and its figures join the report.

    Args:
        resolved: what the user set.
        watch: where progress goes.
        device: device of the run with plugins.
    """
    settings = sample_settings(resolved, build_world(), watch)
    return compare(settings, watch, device=device)


def is_sample(settings: RunSettings) -> bool:
    """Return whether a run folder holds a run on the sample world."""
    home = settings.output.absolute() / "sample"
    text = tuple(Path(one).absolute() for one in settings.data.text)
    return (home / _GUESS).is_file() and text == (home / "text.jsonl",)


def compare(
    settings: RunSettings, watch: Watch, *, device: str = "auto", resume: Resume | None = None
) -> dict[str, Any]:
    """Train on the sample's files, and without plugins beside it, and return the joint report.

    Args:
        settings: settings of the run with plugins, from :func:`sample_settings`.
        watch: where progress goes.
        device: device of the run with plugins.
        resume: go on with both runs, each from where it stands.
    """
    began = time.perf_counter()
    if not is_main_process():
        return train(settings, watch, device=device, resume=resume)
    if not settings.plugins:
        return _with_guess(train(settings, watch, device=device, resume=resume), settings)
    with _beside(_without_plugins(settings), resume is not None) as baseline:
        report = train(settings, watch, device=device, resume=resume)
        with watch.task("the run without plugins"):
            _wait(baseline, settings.output / "without-plugins.log")
    other = read_report(settings.output / "without-plugins")
    for name, probe in report["probes"].items():
        for mine, theirs in _beside_each_other(probe, other["probes"][name]):
            mine["without_plugins"] = theirs["without_plugins"]
    report["baseline"] = {
        key: other[key] for key in ("objectives", "speed", "tokens", "steps", "seconds")
    }
    report["seconds"] = round(time.perf_counter() - began, 2)
    return _with_guess(report, settings)


def sample_settings(
    resolved: Resolved, world: World, watch: Watch, *, half: Half = "reported"
) -> RunSettings:
    """Write the sample's files into the run folder and return the run's settings.

    Args:
        resolved: what the user set; it wins over the sample's defaults.
        world: the sample world.
        watch: where progress goes.
        half: ``development`` asks for the facts that settings are tuned on.
    """
    folder = resolved.settings.output / "sample"
    files = write_world(world, folder)
    questions = folder / f"questions-{half}.jsonl"
    _write_lines(questions, _questions(world, half))
    _write_lines(folder / "retrieval.jsonl", map(_pair, retrieval_pairs(world)))
    guess = {
        name: asdict(majority_guess(world, probe_examples(world, in_text=text, half=half)))
        for name, text in (("in_text", True), ("graph_only", False))
    }
    (folder / _GUESS).write_text(json.dumps(guess), encoding="utf-8")
    watch.note(
        f"sample world: {len(world.text):,} sentences, {len(world.pairs):,} pairs, "
        f"{len(world.triples):,} facts, in {folder}"
    )
    values = {
        **DEFAULTS,
        "data.text": [str(files.text)],
        "data.pairs": [str(files.pairs)],
        "data.kg": [str(files.triples)],
        "data.labels": [str(files.labels)],
        "evaluate.mentions": [str(questions)],
        "evaluate.pairs": [str(folder / "retrieval.jsonl")],
    }
    relations = {"relations": [str(files.relations)]}
    trees = {"dependencies": [str(files.trees)]}
    tables = {
        **PLUGIN_DEFAULTS,
        "domain": {"general": [str(files.relations)]},
        "k-adapter": {**relations, **trees},
        "k-adapter:fac": relations,
        "k-adapter:lin": trees,
    }
    return _staged(_under(resolved, values, tables))


def sample_tasks(settings: RunSettings) -> tuple[str, ...]:
    """Write tasks on the sample beside its files, and return them as ``--task`` takes them.

    Args:
        settings: of a run; on other data than the sample's there are none.
    """
    if not is_sample(settings):
        return ()
    world, folder = build_world(), settings.output.absolute() / "sample"
    learned, asked = folder / "heads.train.jsonl", folder / "heads.test.jsonl"
    _write_lines(learned, head_questions(world, "development")[:_LEARNED])
    _write_lines(asked, head_questions(world, "reported"))
    return (f"heads={learned},{asked}",)


def _under(
    resolved: Resolved, values: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]
) -> RunSettings:
    """Lay the sample's values under what the user set."""
    given = resolved.settings
    tree: dict[str, Any] = given.model_dump(mode="json")
    for key, value in values.items():
        section, name = key.split(".")
        if isinstance(value, Mapping):  # a table: each of its keys has an origin of its own
            tree[section][name] = {**value, **tree[section][name]}
        elif resolved.origins.get(key, "default") == "default":
            tree[section][name] = value
    for name in given.plugins:
        table = tables.get(name) or tables.get(name.partition(":")[0])
        if table:
            tree["plugin"][name] = {**table, **tree["plugin"].get(name, {})}
    return RunSettings.model_validate(tree)


def _staged(settings: RunSettings) -> RunSettings:
    """Let plugins that need the backbone unchanged train after it; the user's own stages win."""
    plugins = load(settings.plugins, settings.plugin).instances
    stages = settings.train.stages or one_after_the_other(plugins)
    return settings.model_copy(
        update={"train": settings.train.model_copy(update={"stages": stages})}
    )


def _without_plugins(settings: RunSettings) -> RunSettings:
    output = settings.output / "without-plugins"
    train = settings.train.model_copy(update={"stages": ()})
    changes = {"plugins": (), "plugin": {}, "train": train, "output": output}
    return settings.model_copy(update=changes)


@contextmanager
def _beside(settings: RunSettings, resume: bool) -> Iterator[subprocess.Popen[bytes]]:
    """Train a run in another process while the body runs; it never outlives the body."""
    settings.output.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ptm_plus"]
    if resume and checkpoints(settings.output):
        command += ["resume", str(settings.output)]
    else:
        write_settings(settings)
        command += ["train", "--config", str(settings.output / SETTINGS), "--overwrite"]
    if settings.model.trust_remote_code:  # allowed already, for the run that this one goes beside
        command += [ALLOW]
    command += ["--device", "cpu", "--quiet", "--json"]
    log = settings.output.parent / "without-plugins.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # its end tells the other process that this one was killed
            stdout=output,
            stderr=output,
            env={**environment_alone(), "OMP_NUM_THREADS": "1", FOLLOWING: "1"},
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _wait(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.wait():
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise PtmPlusError(
            f"the run without plugins failed: {lines[-1] if lines else 'no output'}", f"see {log}"
        )


def _beside_each_other(
    mine: dict[str, Any], theirs: dict[str, Any]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the columns of two runs' probes: accuracies, then means over objects."""
    yield mine, theirs
    if "over_objects" in mine:
        yield mine["over_objects"], theirs["over_objects"]


def _with_guess(report: dict[str, Any], settings: RunSettings) -> dict[str, Any]:
    guess = json.loads((settings.output / "sample" / _GUESS).read_text("utf-8"))
    for name, group in GROUPS.items():
        probe, score = report["probes"][name], guess[group]
        probe["majority_guess"] = score["plain"]
        probe["over_objects"]["majority_guess"] = score["over_objects"]
    write_report(report, settings.output)
    return report


def _questions(world: World, half: Half) -> Iterator[dict[str, Any]]:
    for group, in_text in (("in_text", True), ("graph_only", False)):
        for example in probe_examples(world, in_text=in_text, half=half):
            yield {
                "text": example.fields["text"],
                "lang": example.languages["text"],
                "mentions": [{"start": s.start, "end": s.end, "id": s.id} for s in example.spans],
                "target": example.labels["target"],
                "group": group,
            }


def _pair(example: Example) -> dict[str, str]:
    return {
        "src": example.fields["src"],
        "tgt": example.fields["tgt"],
        "src_lang": example.languages["src"],
        "tgt_lang": example.languages["tgt"],
    }


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

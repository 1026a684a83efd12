"""The sample world over seeds: with the plugins, without them, and with a shuffled graph.

    python -m benchmarks.sample --seeds 3 --output runs/benchmark --json sample.json --readme

Every run is trained here and now, two one-thread processes at a time. ``--readme`` writes the table
between the markers of the README.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ptm_plus.consent import ALLOW
from ptm_plus.progress import Silent
from ptm_plus.report import COLUMN_TITLES, GROUPS, read_report
from ptm_plus.sample import build_world, shuffled
from ptm_plus.sample_run import sample_settings
from ptm_plus.settings_files import dump_toml, resolve

PLUGINS = ("kg-fusion", "tlm")
RUNS = ("with_plugins", "without_plugins", "shuffled_graph")
MARKS = ("<!-- sample-table -->", "<!-- /sample-table -->")


def run_all(seeds: int, output: Path, sets: Sequence[str]) -> list[dict[str, dict[str, Any]]]:
    """Train every run of every seed, two at a time, and return the reports by seed and run."""
    folders = [{name: output / f"seed-{seed}" / name for name in RUNS} for seed in range(seeds)]
    commands = [
        _command(name, seed, folders[seed][name], sets) for seed in range(seeds) for name in RUNS
    ]
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(_run, commands):
            print(f"done: {done}", file=sys.stderr, flush=True)
    return [{name: read_report(folder) for name, folder in one.items()} for one in folders]


def _run(command: Sequence[str]) -> str:
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(f"{command[5]} failed:\n{finished.stderr}")
    return command[5]


def _command(name: str, seed: int, folder: Path, sets: Sequence[str]) -> list[str]:
    plugins = () if name == "without_plugins" else PLUGINS
    flags = {"plugins": list(plugins), "train.seed": seed, "output": str(folder)}
    world = build_world()
    shutil.rmtree(folder, ignore_errors=True)
    settings = sample_settings(resolve(None, flags, sets), world, Silent())
    if name == "shuffled_graph":
        graph = folder / "sample" / "shuffled.tsv"
        graph.write_text("".join("\t".join(t) + "\n" for t in shuffled(world, seed)), "utf-8")
        data = settings.data.model_copy(update={"kg": (str(graph),)})
        settings = settings.model_copy(update={"data": data})
    file = folder / "run.toml"
    file.write_text(dump_toml(settings), encoding="utf-8")
    return [
        *(sys.executable, "-m", "ptm_plus", "train", "--config", str(file)),
        *("--device", "cpu", "--quiet", ALLOW),  # the file is made of our own flags
    ]


def figures(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the figures of one seed: ``probe.run.measure``."""
    found = {}
    for run, report in reports.items():
        own = "without_plugins" if run == "without_plugins" else "with_plugins"
        for probe in (*GROUPS, "translation_retrieval"):
            entry = report["probes"][probe]
            found[f"{probe}.{run}.accuracy"] = entry[own]
            if "over_objects" in entry:
                found[f"{probe}.{run}.over_objects"] = entry["over_objects"][own]
        found[f"speed.{run}"] = report["speed"]["tokens_per_second"]
    return found


def table(seeds: Sequence[Mapping[str, float]], guess: Mapping[str, Any]) -> str:
    """Return the table: mean and (smallest to largest) over seeds."""
    rows = [
        ("facts in the text", "in_text_facts", "accuracy"),
        ("… mean over objects", "in_text_facts", "over_objects"),
        ("facts only in the graph", "graph_only_facts", "accuracy"),
        ("… mean over objects", "graph_only_facts", "over_objects"),
        ("translation retrieval", "translation_retrieval", "accuracy"),
    ]
    lines = [f"| | {' | '.join(COLUMN_TITLES.values())} |", "|---|" + "---|" * len(COLUMN_TITLES)]
    for title, probe, measure in rows:
        cells = [_cell([s.get(f"{probe}.{run}.{measure}") for s in seeds]) for run in RUNS]
        group = guess.get(GROUPS.get(probe, ""), {})
        value = group.get("plain" if measure == "accuracy" else measure)
        cells.append("–" if value is None else f"{value:.2f}")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    return f"{statistics.mean(known):.2f} ({min(known):.2f}–{max(known):.2f})"


def fill(readme: Path, text: str) -> None:
    """Put text between the markers of the README."""
    before, _, rest = readme.read_text(encoding="utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    readme.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", encoding="utf-8")


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--readme", action="store_true")
    parser.add_argument("--set", action="append", default=[], help="as for ptm-plus train")
    given = parser.parse_args()
    seeds = [figures(reports) for reports in run_all(given.seeds, given.output, given.set)]
    sample = given.output / "seed-0" / "with_plugins" / "sample"
    guess = json.loads((sample / "majority_guess.json").read_text(encoding="utf-8"))
    text = table(seeds, guess)
    print(text)
    if given.json:
        given.json.write_text(json.dumps({"seeds": seeds, "guess": guess}, indent=1), "utf-8")
    if given.readme:
        fill(Path(__file__).parent.parent / "README.md", text)


if __name__ == "__main__":
    main()

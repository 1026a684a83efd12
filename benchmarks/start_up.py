"""Seconds until a command has answered, and until training has done its first step.

    python -m benchmarks.start_up --quick --json start-up.json

Every program runs in fresh processes, in turn, after one that is not counted, so that files are in
memory; beside them the imports that training cannot do without. Training is that of the built-in
sample, with all data and vectors prepared, and is timed up to the end of its first step by a
plugin (``speed/arrival.py``), which also tells what was imported by the end: ``datasets``,
``pyarrow`` and ``pykeen`` are for preparing, and cost seconds where they are not needed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed import reporting
from benchmarks.speed.spent import spent
from ptm_plus.progress import Silent
from ptm_plus.sample import build_world
from ptm_plus.sample_run import sample_settings
from ptm_plus.settings import RunSettings
from ptm_plus.settings_files import dump_toml, resolve

ARRIVAL = Path(__file__).parent / "speed" / "arrival.py"
WATCHED = ("datasets", "pyarrow", "pykeen")
"""What training from prepared data has no use for."""

PLUGINS = ("kg-fusion", "tlm")

IMPORTS = {
    "import torch": ("-c", "import torch"),
    "import transformers": ("-c", "import transformers"),
    "… and its BERT": ("-c", "from transformers import BertForMaskedLM"),
}
COMMANDS = {
    "ptm-plus --help": ("-m", "ptm_plus", "--help"),
    "ptm-plus plugins list": ("-m", "ptm_plus", "plugins", "list"),
}


def watching(folder: Path, plugins: Sequence[str]) -> dict[str, Any]:
    """Return the settings by which a run tells when it has done its first step.

    Args:
        folder: gets ``arrivals.jsonl``.
        plugins: of the run; the one that looks at the clock is added.
    """
    return {
        "plugins": [*plugins, str(ARRIVAL)],
        "plugin.arrival.file": str(folder / "arrivals.jsonl"),
        "plugin.arrival.watched": list(WATCHED),
    }


def short_run(folder: Path, plugins: Sequence[str]) -> RunSettings:
    """Return the settings of a short run on the sample, whose files are written."""
    flags = {
        **watching(folder, plugins),
        "output": str(folder),
        "prepare.cache": str(folder / "cache"),
        "train.steps": 2,
    }
    sets = ["plugin.kg-fusion.vectors.epochs=2"] if "kg-fusion" in plugins else []
    settings = sample_settings(resolve(None, flags, sets), build_world(), Silent())
    return settings.model_copy(update={"output": folder / "run"})


def prepared(settings: RunSettings, folder: Path) -> Path:
    """Write the settings of a run, and prepare all that it needs."""
    file = folder / "run.toml"
    file.write_text(dump_toml(settings), encoding="utf-8")
    spent("-m", "ptm_plus", "plan", str(file), "--prepare", "--quiet", "--allow-code")
    return file


def to_first_step(file: Path) -> dict[str, Any]:
    """Train, and return the seconds until the first step was done, and what was imported."""
    arrivals = file.with_name("arrivals.jsonl")
    arrivals.unlink(missing_ok=True)
    flags = ("--device", "cpu", "--overwrite", "--quiet", "--allow-code")
    took = spent("-m", "ptm_plus", "train", str(file), *flags)
    found = [json.loads(line) for line in arrivals.read_text(encoding="utf-8").splitlines()]
    return {
        "wall": found[0]["time"] - took.began,
        "cpu": found[0]["cpu"],
        "imported": found[-1]["imported"],
    }


def whole(arguments: Sequence[str]) -> dict[str, Any]:
    """Run a program, and return the seconds that it took."""
    took = spent(*arguments)
    return {"wall": took.wall, "cpu": took.cpu}


def measure(
    programs: Mapping[str, Sequence[str]], trainings: Mapping[str, Path], repeats: int
) -> dict[str, Any]:
    """Run everything so often, in turn, after once that is not counted.

    Args:
        programs: arguments of Python, by title.
        trainings: settings, by title.
        repeats: how often.
    """
    found: dict[str, list[dict[str, Any]]] = {title: [] for title in (*programs, *trainings)}
    for number in range(repeats + 1):
        for title, taken in found.items():
            one = whole(programs[title]) if title in programs else to_first_step(trainings[title])
            if number:
                taken.append(one)
                told = f"{one['wall']:.2f} s, {one['cpu']:.2f} CPU-seconds"
                print(f"{title}: {told}", file=sys.stderr, flush=True)
    return {title: figures(taken) for title, taken in found.items()}


def figures(taken: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of a program."""
    seconds = {name: reporting.ranged([one[name] for one in taken]) for name in ("wall", "cpu")}
    imported = {name for one in taken for name in one.get("imported", ())}
    return {**seconds, **({"imported": sorted(imported)} if "imported" in taken[0] else {})}


def table(found: Mapping[str, Any]) -> str:
    """Return the table of the programs."""
    rows = []
    for title, one in found.items():
        imported = ", ".join(one["imported"]) or "none" if "imported" in one else "–"
        seconds = (reporting.spread(one[name], 2) for name in ("wall", "cpu"))
        rows.append([title, *seconds, imported])
    headings = ["", "seconds (lowest to highest)", "CPU-seconds", f"of {', '.join(WATCHED)}"]
    return reporting.markdown(headings, rows)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = reporting.options(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    if given.quick:
        given.repeats = 1
    with tempfile.TemporaryDirectory() as scratch:
        document = run(given, Path(scratch))
    reporting.report(document, [table(document["programs"])], given.json)


def run(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure every program, and return everything that is kept."""
    files = {}
    for plugins in ((), PLUGINS):
        place = folder / "-".join(("with", *plugins))
        files[plugins] = prepared(short_run(place, plugins), place)
    plan = ("-m", "ptm_plus", "plan", str(files[()]), "--allow-code")
    trainings = {
        "ptm-plus train, to the first step": files[()],
        f"… with {' and '.join(PLUGINS)}": files[PLUGINS],
    }
    machine = reporting.machine()
    programs = {**IMPORTS, **COMMANDS, "ptm-plus plan": plan}
    return {"machine": machine, "programs": measure(programs, trainings, given.repeats)}


if __name__ == "__main__":
    main()

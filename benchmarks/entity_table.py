"""What a table of millions of entity vectors costs: memory that stays private, time of a gather.

    python -m benchmarks.entity_table --json entity_table.json

Tables of several sizes (fp16, 100 wide) are written to a temporary folder. For each, a process of
its own trains a small encoder with fusion on text that mentions entities from all over the table,
and reads off its private memory (``RssAnon``), the file pages that it has touched (``RssFile``),
GPU memory where there is a GPU, and the share of the step that the columns with the gathered
vectors take. Private and GPU memory must not grow with the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

DIMENSION = 100
SIZES = (50_000, 500_000, 5_000_000)
_WORDS = 2_000
_BLOCK = 100_000
_WARM = 4


def write_inputs(folder: Path, entities: int, rows: int, seed: int = 0) -> None:
    """Write a table of vectors and text whose mentions are drawn evenly from all of it."""
    from ptm_plus.knowledge import write_table

    rng = np.random.default_rng(seed)
    vectors = np.lib.format.open_memmap(
        folder / "vectors.npy", mode="w+", dtype=np.float16, shape=(entities, DIMENSION)
    )
    for first in range(0, entities, _BLOCK):
        block = vectors[first : first + _BLOCK]
        block[:] = rng.standard_normal(block.shape).astype(np.float16)
    labels = [f"Q{number}" for number in range(entities)]
    write_table(folder / "vectors.safetensors", labels, vectors)
    (folder / "vectors.npy").unlink()
    with (folder / "text.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in _rows(rng, entities, rows))


def _rows(rng: np.random.Generator, entities: int, rows: int) -> Iterator[dict[str, Any]]:
    """Yield sentences of 40 words, each with four mentions."""
    for _ in range(rows):
        words = [f"w{number}" for number in rng.integers(0, _WORDS, 40)]
        starts = np.cumsum([0, *(len(word) + 1 for word in words)])
        chosen = np.sort(rng.choice(40, 4, replace=False))
        mentions = [
            {
                "start": int(starts[at]),
                "end": int(starts[at]) + len(words[at]),
                "id": f"Q{rng.integers(0, entities)}",
            }
            for at in chosen
        ]
        yield {"text": " ".join(words), "lang": "en", "mentions": mentions}


def train(folder: Path, steps: int) -> dict[str, Any]:
    """Train on the written inputs and return what was read off, in a process of its own."""
    import torch

    from ptm_plus.launch import launch
    from ptm_plus.processes import make_accelerator
    from ptm_plus.progress import Silent
    from ptm_plus.settings_files import resolve
    from ptm_plus.train import Trainer

    flags = {"plugins": ["kg-fusion"], "output": str(folder / "run"), "train.steps": steps}
    sets = [
        f"data.text=['{folder / 'text.jsonl'}']",
        f"data.vectors='{folder / 'vectors.safetensors'}'",
        f"prepare.cache='{folder / 'cache'}'",
        "prepare.workers=1",
        "tokenizer.vocabulary=4000",
        "model.config.hidden_size=256",
        "model.config.num_hidden_layers=4",
        "model.config.num_attention_heads=4",
        "model.config.intermediate_size=1024",
        "plugin.kg-fusion.fusion='in-block'",
    ]
    settings = resolve(None, flags, sets).settings
    torch.set_num_threads(1)
    accelerator = make_accelerator("auto")
    trainer = Trainer(launch(settings, Silent(), accelerator.device), Silent(), accelerator)
    run, memory, began = trainer.run, [], 0.0
    for step in range(steps):
        if step == _WARM:
            began = time.perf_counter()
        trainer.step(run.planner.plan(step))
        trainer.settle()
        if step % max(1, steps // 8) == 0:
            memory.append(_memory())
    elapsed = time.perf_counter() - began
    gather = _seconds_of_columns(run)
    step_seconds = elapsed / (steps - _WARM)
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return {
        "device": str(accelerator.device),
        "milliseconds_a_step": round(1e3 * step_seconds, 2),
        "milliseconds_of_columns": round(1e3 * gather, 3),
        "share_of_columns": round(gather / step_seconds, 4),
        "private_mib": [round(one["RssAnon"] / 2**20) for one in memory],
        "file_mib": [round(one["RssFile"] / 2**20) for one in memory],
        "gpu_mib": None if gpu is None else round(gpu / 2**20),
    }


def _seconds_of_columns(run: Any) -> float:
    """Return the mean time that a step's columns take, the gathered vectors among them."""
    from ptm_plus import Draws, FeatureInput

    owner, reader, given = run.collator.features[0], run.reader(), []
    for step in range(8):
        plan = run.planner.plan(step)
        for stream, rows in reader.step_rows(plan).items():
            view = run.collator.view(rows)
            masks = run.collator.masks(view, plan.mask_rate)
            spans = run.collator.step_spans(stream, rows)
            draws = Draws(run.settings.train.seed, owner.instance, stream)
            given.append(FeatureInput(view, masks, draws, spans))
    began = time.perf_counter()
    for one in given:
        owner.component.compute(one)
    return (time.perf_counter() - began) / len(given)


def _memory() -> dict[str, int]:
    lines = Path("/proc/self/status").read_text().splitlines()
    named = dict(line.split(":", 1) for line in lines)
    return {name: int(named[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile")}


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(train(given.one, given.steps)))
        return
    tables = []
    for entities in given.sizes:
        with tempfile.TemporaryDirectory(prefix="entity-table-") as scratch:
            write_inputs(Path(scratch), entities, rows=4_000)
            command = [sys.executable, "-m", "benchmarks.entity_table", "--one", scratch]
            done = subprocess.run(
                [*command, "--steps", str(given.steps)],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise SystemExit(done.stderr)
            found = json.loads(done.stdout.splitlines()[-1])
            size = (Path(scratch) / "vectors.safetensors").stat().st_size
            tables.append({"entities": entities, "table_mib": round(size / 2**20), **found})
            print(json.dumps(tables[-1]), flush=True)
    if given.json:
        machine = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        given.json.write_text(json.dumps({**machine, "tables": tables}, indent=1), "utf-8")


if __name__ == "__main__":
    main()

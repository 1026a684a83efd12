"""Microseconds per token of deciding what is masked, beside transformers' own collator.

    python -m benchmarks.masking --quick --json masking.json

The product's side is what a run on the built-in sample does for a micro-batch, on its real rows:
*masks* is the mask plan, by words alone, with the phrases and entities of ernie-masking, and with
the entities of kg-fusion, too; *all* is the batch whole, with the gathering of sequences before it
and the columns of plugins after it. The other side is ``DataCollatorForLanguageModeling`` on the
same sequences at the same rate, which masks single tokens, padding to the longest as it works.

Its whole-word masking does not pad what it needs to know of words, so it is tried on sequences as
they are, and on sequences that were padded before the clock started.

Numpy's calls cost the same for few tokens as for many, so batches of several sizes are measured.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorForLanguageModeling

from benchmarks.speed import reporting
from ptm_plus.data import Row
from ptm_plus.launch import launch
from ptm_plus.progress import Silent
from ptm_plus.run import Run
from ptm_plus.sample import build_world
from ptm_plus.sample_run import sample_settings
from ptm_plus.settings_files import resolve
from ptm_plus.views import View

ARMS: dict[str, tuple[str, ...]] = {
    "ptm-plus, words": (),
    "ptm-plus, ernie-masking": ("ernie-masking",),
    "ptm-plus, kg-fusion and ernie-masking": ("kg-fusion", "ernie-masking"),
}
STOCK = "stock collator, tokens"
WORDS, PADDED = "stock collator, whole words", "… on sequences padded beforehand"
STREAM = "text"

PerToken = dict[str, float]
"""Microseconds of CPU per token, by part."""

Measure = Callable[[], PerToken]


def sample_run(folder: Path, plugins: Sequence[str]) -> Run:
    """Launch a run on the sample."""
    flags = {
        "plugins": list(plugins),
        "output": str(folder / "-".join(("run", *plugins))),
        "prepare.cache": str(folder / "cache"),
    }
    sets = ["plugin.kg-fusion.vectors.epochs=2"] if "kg-fusion" in plugins else []
    return launch(sample_settings(resolve(None, flags, sets), build_world(), Silent()), Silent())


def rows_of(run: Run, count: int) -> list[Row]:
    """Return the first rows of text that a run would train on."""
    rows: list[Row] = []
    reader, step = run.reader(), 0
    while len(rows) < count:
        rows += reader.step_rows(run.planner.plan(step)).get(STREAM, [])
        step += 1
    return rows[:count]


def batches(rows: Sequence[Row], size: int) -> list[Sequence[Row]]:
    """Return rows by so many."""
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def ours(run: Run, parts: Sequence[Sequence[Row]]) -> PerToken:
    """Make the micro-batches as a step does; return what the masks took, and all."""
    plan, masks_only, everything, tokens = run.planner.plan(0), 0.0, 0.0, 0
    for rows in parts:
        began = time.process_time()
        view = run.collator.view(rows)
        seen = time.process_time()
        masks = run.collator.masks(view, plan.mask_rate, plan.kind_weights)
        masked = time.process_time()
        run.collator.complete(view, masks, run.collator.step_spans(STREAM, rows))
        masks_only += masked - seen
        everything += time.process_time() - began
        tokens += len(view)
    return {"masks": 1e6 * masks_only / tokens, "all": 1e6 * everything / tokens}


def examples(view: View, words: bool) -> list[dict[str, list[Any]]]:
    """Return the sequences of a view as a tokenizer would give them to a collator.

    Args:
        view: the sequences.
        words: tell where tokens begin and end; those of one word touch, others do not.
    """
    found = []
    for first, end in zip(view.offsets[:-1], view.offsets[1:], strict=True):
        one = {
            "input_ids": view.ids[first:end].tolist(),
            "token_type_ids": view.types[first:end].tolist(),
            "attention_mask": [1] * int(end - first),
            "special_tokens_mask": (view.words[first:end] < 0).astype(int).tolist(),
        }
        if words:
            one["offset_mapping"] = _offsets(view.words[first:end])
        found.append(one)
    return found


def _offsets(words: np.ndarray[Any, Any]) -> list[tuple[int, int]]:
    gaps = np.cumsum(np.concatenate(([0], words[1:] != words[:-1])))
    start = np.arange(len(words)) + gaps
    return [
        (int(one), int(one) + 1) if word >= 0 else (0, 0)
        for one, word in zip(start, words, strict=True)
    ]


def padded(sequences: Sequence[Mapping[str, list[Any]]], pad: int) -> list[dict[str, list[Any]]]:
    """Return sequences of one length; what was added is special, as a tokenizer would mark it."""
    most = max(len(one["input_ids"]) for one in sequences)
    filling = {"input_ids": pad, "special_tokens_mask": 1, "offset_mapping": (0, 0)}
    return [
        {
            name: values + [filling.get(name, 0)] * (most - len(values))
            for name, values in one.items()
        }
        for one in sequences
    ]


def stock(
    collator: Any, parts: Sequence[Sequence[Mapping[str, list[Any]]]], tokens: int
) -> PerToken:
    """Collate batches of sequences of so many tokens, padding not counted."""
    began = time.process_time()
    for sequences in parts:
        collator(sequences)
    return {"all": 1e6 * (time.process_time() - began) / tokens}


def stock_sides(run: Run, parts: Sequence[Sequence[Row]]) -> dict[str, Measure]:
    """Return what measures the collator, in its forms, on the sequences of some micro-batches."""
    rate, tokenizer = run.planner.plan(0).mask_rate, run.prepared.tokenizer
    views = [run.collator.view(rows) for rows in parts]
    plain = DataCollatorForLanguageModeling(tokenizer, mlm_probability=rate)
    whole = DataCollatorForLanguageModeling(
        tokenizer,
        mlm_probability=rate,
        whole_word_mask=True,
        mask_replace_prob=1.0,
        random_replace_prob=0.0,
    )
    words = [examples(view, words=True) for view in views]
    level = [padded(one, int(tokenizer.pad_token_id)) for one in words]
    tokens = sum(map(len, views))
    return {
        STOCK: partial(stock, plain, [examples(view, words=False) for view in views], tokens),
        WORDS: partial(stock, whole, words, tokens),
        PADDED: partial(stock, whole, level, tokens),
    }


def tried(sides: Mapping[str, Measure]) -> dict[str, Measure | str]:
    """Return the sides, warmed up; what it says instead of one that does not work."""
    found: dict[str, Measure | str] = {}
    for side, measure in sides.items():
        try:
            measure()
            found[side] = measure
        except ValueError as error:
            found[side] = f"{type(error).__name__}: {shorten(str(error), 100)}"
    return found


def measured(sides: Mapping[str, Measure], repeats: int) -> dict[str, Any]:
    """Measure every side so often, in turn; return microseconds per token by part."""
    working = tried(sides)
    taken: dict[str, list[PerToken]] = {side: [] for side in working}
    for _ in range(repeats):
        for side, measure in working.items():
            if not isinstance(measure, str):
                taken[side].append(measure())
    return {
        side: {"failed": measure}
        if isinstance(measure, str)
        else {part: reporting.ranged([one[part] for one in taken[side]]) for part in taken[side][0]}
        for side, measure in working.items()
    }


def table(found: Mapping[str, Any]) -> str:
    """Return the table of a size of batches."""
    rows = []
    for side, one in found.items():
        if "failed" in one:
            rows.append([side, "–", "fails", "–"])
            continue
        masks = reporting.spread(one["masks"], 3) if "masks" in one else "–"
        times = found[STOCK]["all"]["median"] / one["all"]["median"]
        factor = "–" if side == STOCK else f"{times:.1f} ×"
        rows.append([side, masks, reporting.spread(one["all"], 3), factor])
    headings = ["µs per token (lowest to highest)", "masks", "all", f"quicker than {STOCK}"]
    return reporting.markdown(headings, rows)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = reporting.options(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[4, 32], help="of a micro-batch")
    parser.add_argument("--total", type=int, default=256, help="rows, all together")
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    if given.quick:
        given.total, given.repeats = 64, 3
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        document = run(given, Path(scratch))
    tables = [
        f"Micro-batches of {rows} rows, such as {one['tokens']:,} tokens in {one['sequences']:,} "
        f"sequences\n\n{table(one['sides'])}"
        for rows, one in document["rows"].items()
    ]
    failed = {
        f"{side}: {one['failed']}"
        for size in document["rows"].values()
        for side, one in size["sides"].items()
        if "failed" in one
    }
    reporting.report(document, [*tables, *sorted(failed)], given.json)


def run(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure every side on micro-batches of every size, and return everything that is kept."""
    runs = {arm: sample_run(folder, plugins) for arm, plugins in ARMS.items()}
    rows = {arm: rows_of(one, given.total) for arm, one in runs.items()}
    document: dict[str, Any] = {"machine": reporting.machine(), "rows": {}}
    plain = next(iter(ARMS))
    for size in given.rows:
        parts = {arm: batches(rows[arm], size) for arm in ARMS}
        sides = stock_sides(runs[plain], parts[plain])
        for arm, one in runs.items():
            sides[arm] = partial(ours, one, parts[arm])
        first = runs[plain].collator.view(parts[plain][0])
        document["rows"][str(size)] = {
            "tokens": len(first),
            "sequences": len(first.numbers),
            "sides": measured(sides, given.repeats),
        }
    return document


if __name__ == "__main__":
    main()

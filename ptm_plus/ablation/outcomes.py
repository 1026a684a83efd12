"""What a trained run gets right, item by item, so that two runs can be compared on the same items.

Run as ``python -m ptm_plus.ablation.outcomes JOB``, with a job as :func:`write_job` writes it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ptm_plus.errors import PtmPlusError
from ptm_plus.files import read_json, write_whole
from ptm_plus.probes import (
    MENTIONS,
    RETRIEVAL,
    ProbeContext,
    asked_texts,
    masked_words,
    mention_answers,
    translation_answers,
)
from ptm_plus.progress import Silent
from ptm_plus.run import Run
from ptm_plus.stages import CORE

ENTITY = "entity"
"""Span kind of mentions."""

OVER_OBJECTS = ", over objects"
"""Of a measure in which every entity that is asked for counts alike, however often it is."""

Unit = Literal["points", "nats"]
"""Of a share that is right, which is told in points of a hundred; of a loss."""


@dataclass
class Measure:
    """One measure of a run.

    Attributes:
        unit: what it is told in.
        higher: whether more is better.
        items: by name of the item, what belongs together with it, and its value.
    """

    unit: Unit
    higher: bool
    items: dict[str, tuple[str, float]] = field(default_factory=dict)


def outcomes(run: Run, tasks: Sequence[str] = (), seed: int = 0) -> dict[str, Any]:
    """Return every measure of a run, and how often its text mentions the entities asked for.

    ``words/STREAM`` is the loss on words of held-out text, ``words/FILE`` that on a file of
    ``evaluate.text``, masked alike in every run. ``mentions/GROUP`` are the questions of
    ``evaluate.mentions``; those about one set of entities belong together, in whatever language
    they are asked, and over objects every entity that is asked for counts alike.
    ``retrieval`` are the sentences of ``evaluate.pairs``.

    Args:
        run: with its weights, in evaluation mode.
        tasks: ``KIND=TRAIN,TEST``, fine-tuned on the plain export, with what plugins have read
            beside it.
        seed: of fine-tuning.
    """
    context = ProbeContext(run)
    measures: dict[str, Measure] = {}
    mentioned: dict[str, int] = {}
    with torch.no_grad():
        for stream in run.prepared.streams:
            if run.prepared.stream_owners[stream] == CORE:
                measures[f"words/{stream}"] = _masked_words(context, stream)
        for name in asked_texts(run.settings.evaluate.text):
            measures[f"words/{name}"] = _masked_words(context, name)
        if MENTIONS in run.prepared.sets:
            found, mentioned = _mentions(context)
            measures |= found
        if RETRIEVAL in run.prepared.sets:
            right = {str(n): (str(n), float(hit)) for n, hit in translation_answers(context)}
            measures["retrieval"] = Measure("points", True, right)
    for task in tasks:
        measures[f"task/{Path(task).name}"] = _task(run, task, seed)
    return {
        "measures": {name: asdict(one) for name, one in measures.items() if one.items},
        "mentioned": mentioned,
    }


def _masked_words(context: ProbeContext, stream: str) -> Measure:
    sums: dict[int, list[float]] = defaultdict(list)
    for numbers, losses, _ in masked_words(context, stream):
        for number, loss in zip(numbers.tolist(), losses.tolist(), strict=True):
            sums[number].append(loss)
    identity = np.asarray(context.data(stream).store.identity)
    seen: Counter[str] = Counter()
    items = {}
    for number in sorted(sums):
        document = f"{int(identity[number]):016x}"
        items[f"{document}.{seen[document]}"] = (document, float(np.mean(sums[number])))
        seen[document] += 1
    return Measure("nats", False, items)


def _mentions(context: ProbeContext) -> tuple[dict[str, Measure], dict[str, int]]:
    prepared = context.run.prepared
    labels = prepared.labels[ENTITY]
    streams = prepared.streams.values()
    counts = sum(data.maker.occurrences(ENTITY, len(labels)) for data in streams)
    measures: dict[str, Measure] = {}
    objects: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    mentioned = {}
    for one in mention_answers(context):
        asked, right = labels[one.asked], float(one.right)
        fact = " ".join([asked, *sorted({labels[n] for n in one.around if n >= 0})])
        measure = measures.setdefault(f"mentions/{one.group}", Measure("points", True))
        measure.items[f"{one.number} {asked}"] = (fact, right)
        objects[f"mentions/{one.group}{OVER_OBJECTS}"][asked].append(right)
        mentioned[asked] = int(np.asarray(counts)[one.asked])
    for name, of in objects.items():
        means = {asked: (asked, float(np.mean(right))) for asked, right in sorted(of.items())}
        measures[name] = Measure("points", True, means)
    return measures, mentioned


def _task(run: Run, task: str, seed: int) -> Measure:
    from ptm_plus.measures.fine_tuning import Budget
    from ptm_plus.measures.plain_model import loaded
    from ptm_plus.measures.tasks import right_items

    with loaded(str(run.output), str(run.device), True, Silent(), with_plugins=True) as model:
        right = right_items(model, task, seed, Budget(), Silent())
    return Measure("points", True, {str(n): (str(n), one) for n, one in enumerate(right)})


# ---------------------------------------------------------------------------------------------
# A process of its own


def write_job(path: Path, job: Mapping[str, Any]) -> None:
    """Write what a process is to do.

    Args:
        path: the file.
        job: ``run`` and ``target`` (paths), ``tasks``, ``seed``, ``device``.
    """
    write_whole(path, json.dumps(job))


def main(path: Path) -> None:
    """Measure the run of a job; a run whose code was allowed at its training may be loaded."""
    from ptm_plus.trained_run import trained_run

    job = read_json(path)
    device = torch.device(job["device"])
    run, _ = trained_run(Path(job["run"]), Silent(), allow_code=True, device=device)
    found = outcomes(run, job["tasks"], job["seed"])
    write_whole(Path(job["target"]), json.dumps(found))


if __name__ == "__main__":
    from ptm_plus.stopping import follow_starter

    follow_starter()
    try:
        main(Path(sys.argv[1]))
    except PtmPlusError as error:
        sys.stderr.write(f"error: {error.message}\n")
        raise SystemExit(error.exit_code) from error

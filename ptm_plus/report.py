"""``report.json``: every figure of a run, and the table that is made of it.

Schema (a test checks it): ``seconds`` of the whole command; ``speed.tokens_per_second``;
``memory.peak_bytes``; ``objectives.NAME.{first,last}`` mean training loss over streams, with
``streams`` beside;
``strata.STREAM.STRATUM`` with ``rows``, ``planned_rows``, ``tokens`` and ``epochs``;
``probes.in_text_facts`` and ``probes.graph_only_facts``, each with the accuracy ``with_plugins``,
``without_plugins``, of a ``shuffled_graph`` and of the ``majority_guess``, the same as means over
objects under ``over_objects``, and the number of ``questions``; ``probes.translation_retrieval``
likewise; ``evaluation``, all figures of all probes; ``plugins``; ``files``. What a run did not
measure is ``null``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ptm_plus.files import read_json
from ptm_plus.peak_memory import peak_memory
from ptm_plus.run import Run
from ptm_plus.sampling import expected
from ptm_plus.step import Progress

VERSION = 1

GROUPS = {"in_text_facts": "in_text", "graph_only_facts": "graph_only"}
"""Question group behind each fact probe."""

COLUMN_TITLES = {
    "with_plugins": "with plugins",
    "without_plugins": "without",
    "shuffled_graph": "shuffled graph",
    "majority_guess": "majority guess",
}
"""Whose accuracy a fact probe gives, and how that is called."""

COLUMNS = tuple(COLUMN_TITLES)


def make_report(
    run: Run, progress: Progress, evaluation: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """Return the report of a finished training.

    Args:
        run: the run.
        progress: where training ended.
        evaluation: figures of all probes.
        seconds: seconds of the whole command.
    """
    own = "with_plugins" if run.plugins.instances else "without_plugins"
    mentions = evaluation.get("masked_mentions", {})
    probes = {probe: probe_columns(own, mentions.get(group)) for probe, group in GROUPS.items()}
    retrieval = evaluation.get("translation_retrieval")
    probes["translation_retrieval"] = probe_columns(own, retrieval, COLUMNS[:2])
    return {
        "version": VERSION,
        "seconds": round(seconds, 2),
        "steps": progress.step,
        "tokens": progress.tokens,
        "speed": {"tokens_per_second": round(progress.tokens / max(progress.seconds, 1e-9), 1)},
        "memory": peak_memory(run.device),
        "objectives": objectives(progress),
        "strata": strata(run, progress),
        "probes": probes,
        "evaluation": _plain(evaluation),
        "plugins": [
            {"name": p.instance, "version": p.version, "distribution": p.distribution}
            for p in run.plugins.instances
        ],
        "accounts": {name: account.to_json() for name, account in run.prepared.accounts.items()},
        "linked_pairs": {n: asdict(found) for n, found in run.prepared.linked_pairs.items()},
        "files": [],
    }


def probe_columns(
    own: str, score: Mapping[str, Any] | None, columns: Sequence[str] = COLUMNS
) -> dict[str, Any]:
    """Return a probe's entry with one column filled.

    Args:
        own: the column.
        score: ``accuracy``, ``questions`` and, for facts, ``over_objects``; ``None`` if unmeasured.
        columns: all columns.
    """
    score = score or {}
    entry: dict[str, Any] = dict.fromkeys(columns)
    entry[own] = score.get("accuracy")
    entry["questions"] = score.get("questions")
    if len(columns) == len(COLUMNS):
        entry["over_objects"] = {**dict.fromkeys(columns), own: score.get("over_objects")}
    return entry


def objectives(progress: Progress) -> dict[str, Any]:
    """Return first and last mean loss by objective: the mean over streams, and each stream's."""
    found: dict[str, dict[str, Any]] = {}
    for key, last in progress.last.items():
        stream, name = key.split("/")
        streams = found.setdefault(name, {"streams": {}})["streams"]
        streams[stream] = {"first": progress.first[key], "last": last}
    for entry in found.values():
        for moment in ("first", "last"):
            values = [losses[moment] for losses in entry["streams"].values()]
            entry[moment] = sum(values) / len(values)
    return found


def strata(run: Run, progress: Progress) -> dict[str, Any]:
    """Return what the run took of each stratum beside what it was to take, by stream."""
    planned = expected(run.planner, run.prepared)
    found: dict[str, dict[str, Any]] = {}
    for (stream, stratum), plan in sorted(planned.items()):
        rows, tokens = progress.taken.get(f"{stream}/{stratum}", (0, 0))
        found.setdefault(stream, {})[stratum] = {
            "rows": rows,
            "planned_rows": round(plan.rows, 2),
            "tokens": tokens,
            "epochs": round(tokens / run.prepared.streams[stream].tokens[stratum], 3),
        }
    return found


def write_report(report: dict[str, Any], folder: Path) -> Path:
    """Write ``report.json`` whole or not at all, with the list of the run's files."""
    path = folder / "report.json"
    report["files"] = sorted(
        {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
        | {path.name}
    )
    draft = path.with_suffix(".partial")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(_plain(report), file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    return path


def read_report(folder: Path) -> dict[str, Any]:
    """Return the report of a finished run.

    Raises:
        DataError: there is none, or it is broken.
    """
    report: dict[str, Any] = read_json(folder / "report.json")
    return report


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: figures that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

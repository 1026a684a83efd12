"""From a run folder to a folder that plain transformers loads, with proof.

The exported model is the backbone alone. What that leaves out is stated per part: ``train-only``
parts are dropped and ``foldable`` ones folded, and the trained model's logits must equal the plain
ones; for ``needed`` parts the held-out losses with and without them are measured.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from ptm_plus import __version__
from ptm_plus.encoder import part_key
from ptm_plus.errors import EnvironmentProblem, GuardStop, SettingsError
from ptm_plus.exporting import plain_load
from ptm_plus.exporting.left_out import (
    LIMIT,
    LeftOut,
    check_classes,
    fold_parts,
    measured_parts,
    not_provable,
)
from ptm_plus.exporting.model_card import model_card
from ptm_plus.exporting.plain_samples import logits_of, make_samples, sample_tensors
from ptm_plus.measures.plain_model import Reader
from ptm_plus.pretrained import without_bars
from ptm_plus.progress import Silent, Watch
from ptm_plus.run import Run
from ptm_plus.sealed import seal
from ptm_plus.trained_run import trained_run

OWN = "ptm_plus"
"""Folder of everything that transformers does not read."""

_MANIFEST = "files.json"


def export(
    run_folder: Path,
    target: Path,
    verify: bool = True,
    watch: Watch | None = None,
    *,
    allow_code: bool = False,
) -> dict[str, Any]:
    """Export a run.

    Args:
        run_folder: folder of the run, whose newest whole checkpoint is taken, or a checkpoint.
        target: folder to write; must not exist, or be empty.
        verify: load the result in a fresh process that cannot import ptm-plus, and compare logits.
        watch: where progress goes.
        allow_code: run the code that the run folder names.

    Returns:
        ``target``, ``checkpoint``, ``left_out`` (one entry per part), ``verified`` (figures of the
        fresh process, ``None`` if it was not asked for) and ``files``.

    Raises:
        SettingsError: there is something in the target, or the run folder is none or names code.
        DataError: there is no whole checkpoint, or it belongs to other data.
        PluginError: a part is not what its export class says.
        GuardStop: plain transformers computes other logits.
        EnvironmentProblem: the folder cannot be written.
    """
    watch = watch or Silent()
    _check_target(target.absolute())
    run, checkpoint = trained_run(run_folder, watch, allow_code=allow_code)
    return export_run(run, checkpoint, target, verify, watch)


def export_run(
    run: Run, checkpoint: str, target: Path, verify: bool, watch: Watch
) -> dict[str, Any]:
    """Export a run that is loaded, and whose foldable parts are folded by that; see ``export``.

    Args:
        run: with the weights of the checkpoint.
        checkpoint: its name.
        target: folder to write; must not exist, or be empty.
        verify: compare logits with those of a fresh process.
        watch: where progress goes.
    """
    target = target.absolute()
    _check_target(target)
    samples = make_samples(run)
    needed = measured_parts(run, watch)
    before = logits_of(run, samples, without=not_provable(run))
    fold_parts(run)
    logits = logits_of(run, samples, without=[one.instance for one in run.plugins.instances])
    check_classes(run, before, logits)
    with _draft(target) as draft:
        _write_model(run, draft)
        _write_parts(run, draft / OWN, checkpoint)
        save_file(sample_tensors(samples, logits), draft / plain_load.SAMPLES)
        notes = _write_plugin_files(run, draft / OWN)
        verified = _verified(draft, watch) if verify else None
        card = model_card(run, needed, notes, verified)
        (draft / "README.md").write_text(card, encoding="utf-8")
        seal(draft, target, f"{OWN}/{_MANIFEST}")
    return {
        "target": str(target),
        "checkpoint": checkpoint,
        "left_out": [_entry(one) for one in needed],
        "verified": verified,
        "files": sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()),
    }


def readers(run: Run, target: Path) -> list[Reader]:
    """Return what reads files of the run's plugins beside the encoder that was exported with them.

    Args:
        run: the run.
        target: folder of the export.
    """
    return [
        partial(owner.component.read, _own_folder(target / OWN, owner.instance))
        for owner in run.exporters
        if owner.component.read is not None
    ]


# ---------------------------------------------------------------------------------------------
# Writing


def _check_target(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise SettingsError(f"--to {target}: is a file", "name a folder")
    if target.exists() and any(target.iterdir()):
        raise SettingsError(f"--to {target}: is not empty", "name a new or an empty folder")


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """Give a folder beside the target; nothing of it stays when something fails.

    Raises:
        EnvironmentProblem: it cannot be written.
    """
    draft = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        (draft / OWN).mkdir(parents=True)
        yield draft
    except (OSError, SafetensorError) as error:
        raise EnvironmentProblem(
            f"cannot write {target}: {getattr(error, 'strerror', '') or error}",
            "make room, or name another folder",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_model(run: Run, draft: Path) -> None:
    """Write model and tokenizer as transformers does, with its own attention."""
    backbone: Any = run.encoder.backbone
    backbone.set_attn_implementation("sdpa")
    with without_bars():
        backbone.save_pretrained(draft)
    tokenizer = run.prepared.tokenizer
    longest = run.encoder.card.longest(backbone.config)
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    tokenizer.save_pretrained(draft)


def _write_parts(run: Run, folder: Path, checkpoint: str) -> None:
    """Write the plugins' weights (those that were not folded) and what they belong to."""
    kept = [owner for owner in run.parts if owner.component.export != "foldable"]
    tensors = {
        f"{part_key(owner.instance, owner.component.name)}.{name}": value.contiguous()
        for owner in kept
        for name, value in _module(run, owner.instance, owner.component.name).state_dict().items()
    }
    if tensors:
        save_file(tensors, folder / "parts.safetensors")
    manifest = {
        "ptm_plus": __version__,
        "checkpoint": checkpoint,
        "step": int(checkpoint.rpartition("-")[2]),
        "plugins": [
            {
                "instance": one.instance,
                "distribution": one.distribution,
                "version": one.version,
                "settings": None if one.settings is None else one.settings.model_dump(mode="json"),
            }
            for one in run.plugins.instances
        ],
        "parts": [
            {"plugin": o.instance, "name": o.component.name, "export": o.component.export}
            for o in run.parts
        ],
        "tables": [
            {
                "plugin": o.instance,
                "name": o.component.name,
                "path": str(o.component.path),
                "sha256": o.component.sha256,
                "rows": o.component.rows,
            }
            for o in run.tables
        ],
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    (folder / "manifest.json").write_text(text, encoding="utf-8")


def _write_plugin_files(run: Run, folder: Path) -> list[str]:
    """Let plugins write their own files, each into a folder of its own; return their notes."""
    notes = []
    for owner in run.exporters:
        if owner.component.write is None:
            continue
        own = _own_folder(folder, owner.instance)
        own.mkdir(exist_ok=True)
        notes += [
            f"{owner.instance}: {note}"
            for note in owner.component.write(own, run.encoder.parts_of(owner.instance))
        ]
    return notes


def _own_folder(folder: Path, instance: str) -> Path:
    return folder / instance.replace(":", "-")


def _module(run: Run, instance: str, name: str) -> Any:
    return run.encoder.parts_of(instance)[name]


def _entry(left: LeftOut) -> dict[str, Any]:
    return {name: value for name, value in vars(left).items() if value is not None}


# ---------------------------------------------------------------------------------------------
# Proof


def _verified(folder: Path, watch: Watch) -> dict[str, Any]:
    """Load the folder in a fresh process that cannot import ptm-plus.

    Raises:
        GuardStop: it cannot be loaded, or its logits are not the stored ones.
    """
    with watch.task("load in a fresh process"):
        command = [sys.executable, "-I", str(plain_load.__file__), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise GuardStop(
            f"plain transformers cannot load the export: {last}",
            "nothing was written; please report this with the model's family",
        )
    figures: dict[str, Any] = json.loads(done.stdout)
    if not figures["max_difference"] < LIMIT:
        raise GuardStop(
            f"plain transformers computes other logits: they differ by "
            f"{figures['max_difference']:.2g} on {figures['logits']} positions",
            "nothing was written; please report this with the model's family",
        )
    return figures

"""Checkpoints: whole or not there.

A checkpoint is a folder written under a temporary name, flushed, given a manifest with sizes and
hashes, and renamed. Nothing in it executes: safetensors and JSON only, optimizer state by
parameter name.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import AdamW

from ptm_plus.data import Cursors
from ptm_plus.errors import DataError, EnvironmentProblem
from ptm_plus.files import file_sha256, flush
from ptm_plus.progress import Watch
from ptm_plus.run import Run

if TYPE_CHECKING:
    from ptm_plus.step import Progress

MANIFEST = "manifest.json"
_MODEL, _PARTS, _OPTIMIZER, _PLUGINS, _STATE = (
    "backbone.safetensors",
    "parts.safetensors",
    "optimizer.safetensors",
    "plugins.safetensors",
    "state.json",
)


@dataclass(frozen=True)
class State:
    """What a checkpoint says beside the tensors.

    Attributes:
        cursors: (epoch, row) by stream and stratum.
        progress: fields of the trainer's progress.
        identity: what the run depends on.
        plugins: by instance, what its hook object's ``state_dict`` holds beside tensors.
    """

    cursors: Cursors
    progress: dict[str, Any]
    identity: dict[str, Any]
    plugins: dict[str, dict[str, Any]]


def identity(run: Run) -> dict[str, Any]:
    """Return what a checkpoint's run depends on: plugins, data, tables."""
    return {
        "plugins": {one.instance: one.version for one in run.plugins.instances},
        "data": {name: data.store.meta["key"] for name, data in run.prepared.streams.items()},
        "tables": {f"{t.instance}.{t.component.name}": t.component.sha256 for t in run.tables},
    }


def save_checkpoint(run: Run, optimizer: AdamW, cursors: Cursors, progress: Progress) -> Path:
    """Write a checkpoint and drop the oldest beyond ``train.keep``.

    Raises:
        EnvironmentProblem: the disk is full or cannot be written.
    """
    home = run.output / "checkpoints"
    target = home / f"step-{progress.step:09d}"
    draft = home / f".{target.name}.partial"
    fields = {k: v for k, v in vars(progress).items() if k != "tally"}
    tensors, values = _plugin_state(run)
    state = State({k: dict(v) for k, v in cursors.items()}, fields, identity(run), values)
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        save_file(_tensors(run.encoder.backbone), draft / _MODEL)
        save_file(_tensors(run.encoder.parts), draft / _PARTS)
        save_file(_optimizer_tensors(run.encoder, optimizer), draft / _OPTIMIZER)
        save_file(tensors, draft / _PLUGINS)
        (draft / _STATE).write_text(json.dumps(asdict(state)), encoding="utf-8")
        seal(draft, target)
    except (OSError, SafetensorError) as error:  # safetensors wraps what the disk says
        shutil.rmtree(draft, ignore_errors=True)
        raise EnvironmentProblem(
            f"cannot write the checkpoint {target}: {getattr(error, 'strerror', '') or error}",
            "free some space and resume; earlier checkpoints are whole",
        ) from error
    for old in whole_checkpoints(run.output)[: -run.settings.train.keep]:
        shutil.rmtree(old)
    return target


def seal(draft: Path, target: Path, manifest_name: str = MANIFEST) -> None:
    """Flush a draft folder, write its manifest and give it its final name.

    Args:
        draft: the folder, complete.
        target: its final name; what is there is replaced.
        manifest_name: path of the manifest (sizes and hashes) within the folder.
    """
    files = sorted(path for path in draft.rglob("*") if path.is_file())
    manifest = {
        str(path.relative_to(draft)): {"size": path.stat().st_size, "sha256": file_sha256(path)}
        for path in files
    }
    listed = json.dumps({"files": manifest}, indent=1)
    (draft / manifest_name).write_text(listed, encoding="utf-8")
    for path in [*files, draft / manifest_name]:
        flush(path)
    for folder in {path.parent for path in files} | {draft}:
        flush(folder)
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)
    flush(target.parent)


def damage(folder: Path) -> str:
    """Say what is wrong with a sealed folder; empty when it is whole."""
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, expected in listed.items():
            path = folder / name
            if path.stat().st_size != expected["size"]:
                return f"{name} has {path.stat().st_size} bytes instead of {expected['size']}"
            if file_sha256(path) != expected["sha256"]:
                return f"{name} does not have the recorded hash"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def whole_checkpoints(output: Path) -> list[Path]:
    """Return the checkpoints that have their final name, oldest first."""
    return sorted((output / "checkpoints").glob("step-*"))


def newest_whole(output: Path) -> tuple[Path, list[str]]:
    """Return the newest undamaged checkpoint and what was wrong with newer ones.

    Raises:
        DataError: there is none.
    """
    skipped: list[str] = []
    for folder in reversed(whole_checkpoints(output)):
        problem = damage(folder)
        if not problem:
            return folder, skipped
        skipped.append(f"skipped damaged checkpoint {folder.name}: {problem}")
    raise DataError(
        "no whole checkpoint here" + (f" ({'; '.join(skipped)})" if skipped else ""),
        "train again, or name another run folder",
        path=output,
    )


def read_state(folder: Path) -> State:
    """Return the state of a checkpoint.

    Raises:
        DataError: the file is not a state.
    """
    try:
        found = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        cursors = {
            stream: {stratum: (int(e), int(r)) for stratum, (e, r) in strata.items()}
            for stream, strata in found["cursors"].items()
        }
        return State(
            cursors, dict(found["progress"]), dict(found["identity"]), dict(found["plugins"])
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"not a checkpoint state: {error}", path=folder / _STATE) from error


def load_checkpoint(run: Run, optimizer: AdamW | None = None, watch: Watch | None = None) -> State:
    """Load the newest whole checkpoint of the run folder.

    Args:
        run: the run.
        optimizer: gets its state back, too.
        watch: told of damaged checkpoints that were passed over.

    Raises:
        DataError: there is none, or it belongs to other plugins, data or tables.
    """
    folder, skipped = newest_whole(run.output)
    if watch is not None:
        for line in skipped:
            watch.note(line)
    state = read_state(folder)
    differences = _differences(state.identity, identity(run))
    if differences:
        raise DataError(
            "the checkpoint belongs to another run: " + "; ".join(differences),
            "resume with the same plugins and files",
            path=folder,
        )
    load_weights(run, folder)
    if optimizer is not None:
        _load_optimizer(run.encoder, optimizer, load_file(folder / _OPTIMIZER))
        _load_plugin_state(run, load_file(folder / _PLUGINS), state.plugins)
    return state


def load_weights(run: Run, folder: Path) -> None:
    """Load backbone and parts from a checkpoint folder.

    Raises:
        DataError: names or shapes do not fit.
    """
    for module, name in ((run.encoder.backbone, _MODEL), (run.encoder.parts, _PARTS)):
        own, found = _tensors(module), load_file(folder / name)
        wrong = sorted(
            key
            for key in own.keys() | found.keys()
            if key not in own or key not in found or own[key].shape != found[key].shape
        )
        if wrong:
            raise DataError(
                f"tensors do not fit the run: {', '.join(wrong[:5])}", path=folder / name
            )
        with torch.no_grad():
            for key, tensor in _named(module):
                tensor.copy_(found[key])


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{part} {name}: {then.get(name, 'none')} then, {values.get(name, 'none')} now"
        for part, values in now.items()
        for then in [before.get(part, {})]
        for name in sorted({*values, *then})
        if values.get(name) != then.get(name)
    ]


def _named(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and saved buffers; tied ones once, under their first name."""
    yield from module.named_parameters()
    saved = module.state_dict(keep_vars=True)
    for name, buffer in module.named_buffers():
        if name in saved:
            yield name, buffer


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in _named(module)}


def _optimizer_tensors(encoder: nn.Module, optimizer: AdamW) -> dict[str, Tensor]:
    return {
        f"{key}/{name}": value.detach().cpu().contiguous()
        for name, parameter in encoder.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _load_optimizer(encoder: nn.Module, optimizer: AdamW, found: Mapping[str, Tensor]) -> None:
    for name, parameter in encoder.named_parameters():
        keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}/{name}" in found]
        if keys:
            state = {key: found[f"{key}/{name}"].to(parameter.device) for key in keys}
            optimizer.state[parameter] = state


def _plugin_state(run: Run) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Return tensors and plain values of hook objects that have a ``state_dict``."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for plugin in run.plugins.instances:
        if not hasattr(plugin.implementation, "state_dict"):
            continue
        for key, value in plugin.implementation.state_dict().items():
            if isinstance(value, Tensor):
                tensors[f"{plugin.instance}/{key}"] = value.detach().cpu().contiguous()
            else:
                values.setdefault(plugin.instance, {})[key] = value
    return tensors, values


def _load_plugin_state(
    run: Run, tensors: Mapping[str, Tensor], values: Mapping[str, Mapping[str, Any]]
) -> None:
    for plugin in run.plugins.instances:
        if hasattr(plugin.implementation, "load_state_dict"):
            prefix = f"{plugin.instance}/"
            own = {
                key.removeprefix(prefix): tensor
                for key, tensor in tensors.items()
                if key.startswith(prefix)
            }
            plugin.implementation.load_state_dict({**values.get(plugin.instance, {}), **own})

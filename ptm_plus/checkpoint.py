"""Checkpoints: what a run needs to go on, taken from it, and put back.

A checkpoint is a sealed folder (:mod:`ptm_plus.sealed`). Nothing in it executes: safetensors and
JSON only, optimizer state by parameter name. :mod:`ptm_plus.checkpoint_writer` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from ptm_plus.data import Cursors, Reader
from ptm_plus.digest import AHEAD, digests_ahead
from ptm_plus.errors import DataError, PluginError, shown
from ptm_plus.identity import differences, identity, require_same, versions
from ptm_plus.label_lists import with_new_rows
from ptm_plus.processes import World, like, whole
from ptm_plus.progress import Watch
from ptm_plus.run import Run
from ptm_plus.run_folder import checkpoints
from ptm_plus.sealed import damage

if TYPE_CHECKING:
    from ptm_plus.step import Progress

MODEL, PARTS, OPTIMIZER, PLUGINS, STATE = (
    "backbone.safetensors",
    "parts.safetensors",
    "optimizer.safetensors",
    "plugins.safetensors",
    "state.json",
)
FILES = (MODEL, PARTS, OPTIMIZER, PLUGINS, STATE)

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class State:
    """What a checkpoint says beside the tensors.

    Attributes:
        cursors: (epoch, row) by stream and stratum.
        progress: the trainer's progress.
        identity: what the run depends on.
        versions: versions of what computes.
        processes: how many wrote it.
        ahead: digests of the steps that follow.
        plugins: by instance, what its hook object's ``state_dict`` holds beside tensors.
    """

    cursors: Cursors
    progress: dict[str, Any]
    identity: dict[str, Any]
    versions: dict[str, str]
    processes: int
    ahead: list[str]
    plugins: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Snapshot:
    """A copy of everything that goes into a checkpoint; training may go on meanwhile.

    Attributes:
        step: optimizer steps done.
        tensors: by file name, on the host.
        state: the :class:`State`, as JSON.
    """

    step: int
    tensors: Mapping[str, Tensors]
    state: str

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(value.nbytes for named in self.tensors.values() for value in named.values())


# ---------------------------------------------------------------------------------------------
# Taking


def take_snapshot(
    run: Run, optimizer: Optimizer, reader: Reader, progress: Progress, world: World
) -> Snapshot | None:
    """Copy what a checkpoint holds to the host; every process must call it.

    Returns:
        The snapshot in the main process, ``None`` in the others.
    """
    tensors = {
        MODEL: _copies(named_tensors(run.encoder.backbone), world.is_main),
        PARTS: _copies(named_tensors(run.encoder.parts), world.is_main),
        OPTIMIZER: _copies(_optimizer_state(run.encoder, optimizer), world.is_main),
    }
    standing = progress.to_json(world)
    if not world.is_main:
        return None
    tensors[PLUGINS], values = _plugin_state(run)
    state = State(
        cursors={name: dict(strata) for name, strata in reader.cursors.items()},
        progress=standing,
        identity=identity(run),
        versions=versions(),
        processes=world.size,
        ahead=digests_ahead(run, reader, progress.step, AHEAD),
        plugins=values,
    )
    return Snapshot(progress.step, tensors, json.dumps(asdict(state)))


def _copies(named: Iterator[tuple[str, Tensor]], keep: bool) -> Tensors:
    """Return host copies; of sharded tensors every process takes part, whether it keeps them."""
    copies = {}
    for name, tensor in named:
        value = whole(tensor)
        if keep:
            copies[name] = value.to("cpu", copy=True).contiguous()
    return copies


def named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and saved buffers; tied ones once, under their first name."""
    saved = set(module.state_dict(keep_vars=True))  # first: its hooks may shard parameters again
    yield from module.named_parameters()
    for name, buffer in module.named_buffers():
        if name in saved:
            yield name, buffer


def _optimizer_state(encoder: nn.Module, optimizer: Optimizer) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in encoder.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            yield f"{key}/{name}", value


def _plugin_state(run: Run) -> tuple[Tensors, dict[str, dict[str, Any]]]:
    """Return tensors and plain values of hook objects that have a ``state_dict``.

    Raises:
        PluginError: a value is neither a tensor nor a plain JSON value.
    """
    tensors: Tensors = {}
    values: dict[str, dict[str, Any]] = {}
    for plugin in run.plugins.instances:
        if not hasattr(plugin.implementation, "state_dict"):
            continue
        own = values[plugin.instance] = {}
        for key, value in plugin.implementation.state_dict().items():
            if isinstance(value, Tensor):
                copied = value.detach().to("cpu", copy=True).contiguous()
                tensors[f"{plugin.instance}/{key}"] = copied
            else:
                own[key] = value
        try:
            json.dumps(own)
        except (TypeError, ValueError) as error:
            raise PluginError(
                f"{plugin.label}: its state cannot be saved: {error}",
                "state_dict may hold tensors, numbers, texts, lists and dictionaries of these",
            ) from error
    return tensors, values


# ---------------------------------------------------------------------------------------------
# Finding


def newest_whole(output: Path) -> tuple[Path, list[str]]:
    """Return the newest undamaged checkpoint and what was wrong with newer ones.

    Raises:
        DataError: there is none.
    """
    skipped: list[str] = []
    for folder in reversed(checkpoints(output)):
        problem = damage(folder, FILES)
        if not problem:
            return folder, skipped
        skipped.append(f"skipped damaged checkpoint {folder.name}: {problem}")
    raise DataError(
        "no whole checkpoint here" + (f" ({'; '.join(skipped)})" if skipped else ""),
        "train again, or name another run folder",
        path=output,
    )


def whole_checkpoint(source: Path, needed: Collection[str] = FILES) -> tuple[Path, list[str]]:
    """Return an undamaged checkpoint: the one that is named, or the newest of a run folder.

    Args:
        source: checkpoint or run folder.
        needed: files that must be in a checkpoint that is named.

    Returns:
        The checkpoint, and what was wrong with newer ones.

    Raises:
        DataError: there is none, or the one that is named is damaged.
    """
    if not (source / STATE).is_file():
        return newest_whole(source)
    problem = damage(source, needed)
    if problem:
        raise DataError(f"damaged: {problem}", "take another checkpoint", path=source)
    return source, []


def read_state(folder: Path) -> State:
    """Return the state of a checkpoint.

    Raises:
        DataError: the file is not a state.
    """
    try:
        found = json.loads((folder / STATE).read_text(encoding="utf-8"))
        return State(
            cursors={
                stream: {stratum: _place(*at) for stratum, at in strata.items()}
                for stream, strata in _tables(found["cursors"]).items()
            },
            progress=_table(found["progress"]),
            identity=_tables(found["identity"]),
            versions=_table(found["versions"]),
            processes=_number(found["processes"]),
            ahead=[str(digest) for digest in found["ahead"]],
            plugins=_tables(found["plugins"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"not a checkpoint state: {type(error).__name__}: {error}", path=folder / STATE
        ) from error


def _place(epoch: Any, row: Any) -> tuple[int, int]:
    return _number(epoch), _number(row)


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{shown(value)} is not a number from 0 on")
    return value


def _tables(value: Any) -> dict[str, dict[str, Any]]:
    return {name: _table(table) for name, table in _table(value).items()}


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{shown(value)} is not a table")
    return value


# ---------------------------------------------------------------------------------------------
# Putting back


def load_checkpoint(
    run: Run,
    optimizer_for: Callable[[State], Optimizer] | None = None,
    watch: Watch | None = None,
    *,
    allow_changes: bool = False,
    folder: Path | None = None,
) -> State:
    """Load the newest whole checkpoint of the run folder, or a given one.

    Args:
        run: the run.
        optimizer_for: gives the optimizer that gets its state back; plugins get theirs anyway.
        watch: told of damaged checkpoints that were passed over, and of what has changed.
        allow_changes: go on although the run is not the one that wrote the checkpoint.
        folder: the checkpoint, which is known to be whole.

    Raises:
        DataError: there is none, or it belongs to other plugins, data, tables or settings.
    """
    folder, told = newest_whole(run.output) if folder is None else (folder, [])
    state = read_state(folder)
    now = identity(run)
    if allow_changes:
        told += [f"changed: {one}" for one in differences(state.identity, now)]
    else:
        require_same(state.identity, now, folder)
    told += [
        f"{one}; results may differ in their last bits"
        for one in differences({"version of": state.versions}, {"version of": versions()})
    ]
    for line in told if watch is not None else ():
        assert watch is not None
        watch.note(line)
    load_weights(run, folder)
    if optimizer_for is not None:
        _load_optimizer(run, optimizer_for(state), read_tensors(folder / OPTIMIZER))
    _load_plugin_state(run, read_tensors(folder / PLUGINS), state.plugins)
    return state


def read_tensors(path: Path) -> Tensors:
    """Return the tensors of a safetensors file.

    Raises:
        DataError: it is not one.
    """
    try:
        found: Tensors = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"not a whole safetensors file: {error}", path=path) from error
    return found


def load_weights(run: Run, folder: Path) -> None:
    """Load backbone and parts from a checkpoint folder.

    Raises:
        DataError: names or shapes do not fit.
    """
    for module, name in ((run.encoder.backbone, MODEL), (run.encoder.parts, PARTS)):
        own, found = dict(named_tensors(module)), read_tensors(folder / name)
        if name == PARTS:
            found = {
                key: with_new_rows(run, key, tensor, own[key]) if key in own else tensor
                for key, tensor in found.items()
            }
        wrong = sorted(
            key
            for key in own.keys() | found.keys()
            if key not in own or key not in found or own[key].shape != found[key].shape
        )
        if wrong:
            raise DataError(
                f"tensors do not fit the run: {', '.join(wrong[:5])}",
                "a run goes on with the parts and shapes that it has; to take over what fits, "
                f"start a new one with --init-from {run.output}",
                path=folder / name,
            )
        with torch.no_grad():
            for key, tensor in own.items():
                tensor.copy_(like(found[key], tensor))


def _load_optimizer(run: Run, optimizer: Optimizer, found: Mapping[str, Tensor]) -> None:
    """Give parameters their state back; one that another optimizer kept begins anew."""
    optimizer.state.clear()
    kept = {one: group["keeps"] for group in optimizer.param_groups for one in group["params"]}
    for name, parameter in run.encoder.named_parameters():
        keys = kept.get(parameter, ())
        if keys and all(f"{key}/{name}" in found for key in keys):
            optimizer.state[parameter] = {
                key: found[f"step/{name}"].to(parameter.device)
                if key == "step"
                else like(_moments(run, name, found[f"{key}/{name}"], parameter), parameter)
                for key in keys
            }


def _moments(run: Run, name: str, found: Tensor, parameter: Tensor) -> Tensor:
    """Return moments with zeros for rows of labels that came later."""
    return with_new_rows(run, name.removeprefix("parts."), found, torch.zeros_like(parameter))


def _load_plugin_state(
    run: Run, tensors: Mapping[str, Tensor], values: Mapping[str, Mapping[str, Any]]
) -> None:
    for plugin in run.plugins.instances:
        if plugin.instance in values and hasattr(plugin.implementation, "load_state_dict"):
            prefix = f"{plugin.instance}/"
            own = {
                key.removeprefix(prefix): tensor
                for key, tensor in tensors.items()
                if key.startswith(prefix)
            }
            plugin.implementation.load_state_dict({**values[plugin.instance], **own})

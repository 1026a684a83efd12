"""Checks of a plugin among others: with them, without it, and over several processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ptm_plus.discovery import discover
from ptm_plus.launch import launch
from ptm_plus.progress import Silent
from ptm_plus.settings import RunSettings
from ptm_plus.testing.contract import output_of
from ptm_plus.testing.failing import NotApplicable, expect
from ptm_plus.testing.subject import Recorder, Subject, train, trainer_of
from ptm_plus.testing.world import World

_OWN = "ptm-plus"
_MINUTES = 3
_CLOSE = 1e-9


def unselected(subject: Subject) -> None:
    """Its being imported changes no run that does not ask for it."""
    if subject.is_file:
        raise NotApplicable("a plugin in a file is imported only when it is asked for")
    info = subject.info
    hooks = info.hooks if isinstance(info.hooks, str) else ""
    modules = [subject.module, *([hooks.partition(":")[0]] if hooks else [])]
    told = []
    for imported in ([], modules):
        settings = subject.settings([], without="vectors")
        code = (
            f"from importlib import import_module; list(map(import_module, {imported!r})); "
            f"from ptm_plus.testing.together import work; work({_dumped(settings)!r}, 2)"
        )
        told.append(json.loads(output_of(code)))
    expect(told[0] == told[1], "importing it changes a run without it, in data or losses")


def processes(subject: Subject) -> None:
    """Two processes see the same rows and masks as one, and compute the same losses."""
    if not torch.distributed.is_available():
        raise NotApplicable("torch was built without distributed")
    alone = _told(subject, 1)
    together = _told(subject, 2)
    expect(
        alone["digests"] == together["digests"], "two processes see other rows, masks or columns"
    )
    for one, two in zip(alone["losses"], together["losses"], strict=True):
        apart = {name for name in one if not np.isclose(one[name], two[name], rtol=_CLOSE, atol=0)}
        expect(
            not apart,
            f"two processes compute other losses: {', '.join(sorted(apart))}; return sums, and "
            "counts that are taken from columns",
        )


@dataclass(frozen=True)
class Combination:
    """Its training together with others.

    Attributes:
        others: their names.
    """

    others: tuple[str, ...]

    def __call__(self, subject: Subject) -> None:
        """It trains together with others, its losses finite."""
        others = [one for one in self.others if one != subject.instance]
        if not others:
            raise NotApplicable("it is the only one")
        tables = {name: needed_settings(name, subject.world) for name in others}
        together = {**tables, **subject.tables}
        sets = subject.settings([*others, subject.request], {"plugin": together})
        watch = Recorder()
        train(trainer_of(launch(sets, Silent()), watch), 2)
        bad = [name for one in watch.losses() for name, v in one.items() if not np.isfinite(v)]
        expect(not bad, f"losses that are not finite: {', '.join(sorted(set(bad)))}")


def first_party() -> list[str]:
    """Return the plugins that come with ptm-plus and can be loaded here."""
    return [one.name for one in discover() if one.distribution == _OWN and not one.missing]


def needed_settings(name: str, world: World) -> Mapping[str, Any]:
    """Return the settings that a plugin of ptm-plus cannot do without, on the small world."""
    files = {
        "domain": {"general": [str(world.text)]},
        "k-adapter": {"relations": [str(world.relations)]},
    }
    return files.get(name, {})


# ---------------------------------------------------------------------------------------------
# Processes


def work(dumped: str, steps: int) -> None:
    """Train some steps of a run, and print digests and losses; what other processes do.

    Args:
        dumped: the settings, as JSON.
        steps: how many.
    """
    torch.set_num_threads(1)
    settings = RunSettings.model_validate_json(dumped)
    watch = Recorder()
    trainer = trainer_of(launch(settings, Silent()), watch)
    train(trainer, steps)
    if trainer.world.is_main:
        print(json.dumps({"digests": watch.digests(), "losses": watch.losses()}))  # noqa: T201
    del trainer  # before its group: torch may wait for ever for a reducer that outlives it
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _dumped(settings: RunSettings) -> str:
    return settings.model_dump_json()


def _told(subject: Subject, size: int) -> dict[str, Any]:
    """Return what so many processes tell of a run."""
    settings = subject.settings(changes={"batch.micro_rows": 2})
    code = f"from ptm_plus.testing.together import work; work({_dumped(settings)!r}, 2)"
    port = _free_port()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=_environment(rank, size, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    ended = _ended(started)
    for process, (_, said) in zip(started, ended, strict=True):
        expect(not process.returncode, f"a process failed: {said.strip()[-800:]}")
    found: dict[str, Any] = json.loads(ended[0][0].strip().splitlines()[-1])
    return found


def _ended(started: Sequence[subprocess.Popen[str]]) -> list[tuple[str, str]]:
    """Wait for processes, and return what they said; one that fails ends the others."""
    deadline = time.monotonic() + 60 * _MINUTES
    while any(one.poll() is None for one in started) and time.monotonic() < deadline:
        if any(one.poll() for one in started):
            break
        time.sleep(0.1)
    for one in started:
        if one.poll() is None:
            one.kill()
    said = [one.communicate() for one in started]
    first = [number for number, one in enumerate(started) if one.returncode not in (0, -9)]
    if first:
        raise AssertionError(f"a process failed: {said[first[0]][1].strip()[-800:]}")
    return said


def _environment(rank: int, size: int, port: int) -> dict[str, str]:
    alone = {} if size == 1 else {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    inherited = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK")}
    return {
        **inherited,
        **alone,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(size),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port

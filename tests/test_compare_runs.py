"""The comparison behind the kill benchmark tells runs apart, so that it can fail."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny import tiny_settings

from ptm_plus.checkpoint import newest_whole
from ptm_plus.cli.console import LoggedWatch
from ptm_plus.progress import Silent
from ptm_plus.sealed import MANIFEST, seal
from ptm_plus.training_run import train

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def kill() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kill", ROOT / "benchmarks" / "kill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kill"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("compared") / "run"
    settings = tiny_settings("bert", output=output, sets=["train.precision=fp32"])
    train(settings, LoggedWatch(Silent(), output), device="cpu")
    return output


def changed_state(run: Path) -> None:
    folder, _ = newest_whole(run)
    state = json.loads((folder / "state.json").read_text())
    state["progress"]["tokens"] += 1
    resealed(folder, "state.json", json.dumps(state).encode())


def changed_weights(run: Path) -> None:
    folder, _ = newest_whole(run)
    content = bytearray((folder / "backbone.safetensors").read_bytes())
    content[-1] ^= 1
    resealed(folder, "backbone.safetensors", bytes(content))


def resealed(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    (folder / MANIFEST).unlink()
    draft = folder.rename(folder.with_name("draft"))
    seal(draft, folder)


def changed_log(run: Path) -> None:
    text = (run / "log.jsonl").read_text()
    (run / "log.jsonl").write_text(text.replace('"lr": ', '"lr": 1'))


def changed_report(run: Path) -> None:
    report: dict[str, Any] = json.loads((run / "report.json").read_text())
    report["tokens"] += 1
    (run / "report.json").write_text(json.dumps(report))


@pytest.mark.parametrize("change", [changed_state, changed_weights, changed_log, changed_report])
def test_any_change_is_seen(kill: ModuleType, trained: Path, tmp_path: Path, change: Any) -> None:
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    assert kill.difference(copy, trained) == ""
    change(copy)
    assert kill.difference(copy, trained)

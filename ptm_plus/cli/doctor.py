"""Is this machine able to run it: versions, devices, memory, disk, plugins, and one computation."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ptm_plus.cli.rendering import size
from ptm_plus.crew import cores

if TYPE_CHECKING:
    from packaging.requirements import Requirement

State = Literal["ok", "note", "wrong"]

_DISTRIBUTION = "ptm-plus"
_LEAST_MEMORY = 4 << 30
_LEAST_DISK = 5 << 30


def examine(cache: Path) -> dict[str, Any]:
    """Look at everything.

    Args:
        cache: the cache folder, whose disk must have room.

    Returns:
        ``checks``: rows of name, state (``ok``, ``note``, ``wrong``), what was found, how to
        mend it, and group; and ``ok``, whether none is wrong.
    """
    checks = [
        *_python(),
        *(check | {"group": "dependencies"} for check in dependencies()),
        *_devices(),
        *_memory(),
        *_disks({Path.cwd(), cache}),
        *_plugins(),
        _self_test(),
    ]
    return {"ok": all(check["state"] != "wrong" for check in checks), "checks": checks}


def _check(name: str, state: State, found: str, mend: str = "") -> dict[str, str]:
    return {"name": name, "state": state, "found": found, "mend": mend, "group": ""}


def _python() -> Iterator[dict[str, str]]:
    words = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    yield _check("python", "ok", words)
    yield _check(_DISTRIBUTION, "ok", metadata.version(_DISTRIBUTION))


def dependencies() -> Iterator[dict[str, str]]:
    """Compare every dependency with the lower bound, and with the tested set in a checkout."""
    from packaging.requirements import Requirement

    tested = tested_versions(Path(__file__).resolve().parents[2] / "constraints.txt")
    for text in sorted(metadata.requires(_DISTRIBUTION) or (), key=str.lower):
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        yield dependency(wanted, tested.get(wanted.name.lower()))


def dependency(wanted: Requirement, tested: str | None) -> dict[str, str]:
    """Return the check of one dependency.

    Args:
        wanted: what the package asks for.
        tested: the version that the tests ran with, if that is known.
    """
    install = f'pip install "{wanted.name}{wanted.specifier}"'
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return _check(wanted.name, "wrong", "not installed", install)
    if not wanted.specifier.contains(version, prereleases=True):
        return _check(wanted.name, "wrong", f"{version}, needs {wanted.specifier}", install)
    if tested is not None and version.partition("+")[0] != tested:
        return _check(wanted.name, "note", f"{version} (tests ran with {tested})")
    return _check(wanted.name, "ok", version)


def tested_versions(path: Path) -> dict[str, str]:
    """Return the versions in a constraints file by name; none where there is no such file."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.strip().lower(): version.strip() for name, _, version in pairs}


def _devices() -> Iterator[dict[str, str]]:
    yield _check("cpu", "ok", f"{cores()} cores")
    try:
        import torch
    except ImportError as error:
        yield _check("cuda", "wrong", f"torch cannot be imported: {error}", "reinstall torch")
        return
    if not torch.cuda.is_available():
        yield _check("cuda", "note", "none: training runs on the CPU")
        return
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        yield _check(f"cuda:{number}", "ok", f"{facts.name}, {size(facts.total_memory)}, {bf16}")


def _memory() -> Iterator[dict[str, str]]:
    import psutil

    memory = psutil.virtual_memory()
    words = f"{size(memory.available)} free of {size(memory.total)}"
    enough = memory.available >= _LEAST_MEMORY
    mend = "" if enough else "close something: the sample takes up to 4 GiB"
    yield _check("memory", "ok" if enough else "note", words, mend)


def _disks(folders: set[Path]) -> Iterator[dict[str, str]]:
    for folder in sorted(folders):
        existing = next(one for one in (folder, *folder.parents) if one.exists())
        words = f"{size(shutil.disk_usage(existing).free)} free at {folder}"
        if not os.access(existing, os.W_OK):
            yield _check("disk", "wrong", f"{existing} may not be written", "use another folder")
        elif shutil.disk_usage(existing).free < _LEAST_DISK:
            yield _check("disk", "note", words, "checkpoints and prepared data need room")
        else:
            yield _check("disk", "ok", words)


def _plugins() -> Iterator[dict[str, str]]:
    from ptm_plus.cli.plugin_cards import all_cards

    for card in all_cards():
        words = f"{card['distribution']} {card['version']}"
        if card["problem"]:
            # A plugin that nobody asks for harms no run.
            yield _check(f"plugin {card['name']}", "note", card["problem"], card["mend"])
        else:
            yield _check(f"plugin {card['name']}", "ok", words)


def _self_test() -> dict[str, str]:
    name = "packed attention"
    try:
        difference = packed_difference()
    except Exception as error:
        return _check(name, "wrong", f"{type(error).__name__}: {error}", "reinstall torch")
    words = f"packed and separate sequences differ by {difference:.1e}"
    return _check(
        name,
        "ok" if difference < 1e-5 else "wrong",
        words,
        "" if difference < 1e-5 else "report it with the versions above",
    )


def packed_difference() -> float:
    """Return how much packed attention over three sequences differs from each on its own."""
    import torch

    from ptm_plus.attention import Packing, packed_attention
    from ptm_plus.microbatch import MicroBatch, equal_blocks

    lengths, heads, width = [3, 5, 5], 2, 8
    total = sum(lengths)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(0)
    shape = (3, 1, heads, total, width)
    query, key, value = torch.randn(shape, generator=generator).to(device).unbind(0)
    plain = torch.zeros(total, dtype=torch.long, device=device)
    offsets = torch.tensor([0, 3, 8, 13], device=device)
    batch = MicroBatch(
        stream="self-test",
        ids=plain,
        positions=plain,
        types=plain,
        languages=plain,
        sequence=torch.repeat_interleave(torch.arange(3), torch.tensor(lengths)).to(device),
        segments=plain,
        offsets=offsets,
        blocks=equal_blocks(lengths),
        predicted=plain[:0],
        labels=plain[:0],
        kinds=(),
        kind=plain[:0],
        columns={},
    )
    packed, _ = packed_attention(
        torch.nn.Identity(), query, key, value, None, ptm_packing=Packing(batch)
    )
    worst = 0.0
    for first, length in zip([0, 3, 8], lengths, strict=True):
        part = slice(first, first + length)
        scores = query[..., part, :] @ key[..., part, :].transpose(-1, -2) / width**0.5
        alone = (scores.softmax(-1) @ value[..., part, :]).transpose(1, 2)
        worst = max(worst, float((packed[:, part] - alone).abs().max()))
    return worst

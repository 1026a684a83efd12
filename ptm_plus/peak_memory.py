"""The most memory that this process has held, by itself and on a device."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def peak_resident() -> int:
    """Return the bytes that this process held at most."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_memory(device: torch.device) -> dict[str, Any]:
    """Return the most memory that this process held: the device's, on the CPU its own."""
    if device.type == "cuda":
        import torch

        return {"device": "cuda", "peak_bytes": torch.cuda.max_memory_allocated(device)}
    return {"device": "cpu", "peak_bytes": peak_resident()}


def forget_peak(device: torch.device) -> None:
    """Begin anew to look for the most memory; a process's own is never forgotten."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)

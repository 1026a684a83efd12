"""The most memory that this process has held."""

from __future__ import annotations

import sys


def peak_resident() -> int:
    """Return the bytes that this process held at most."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

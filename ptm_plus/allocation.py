"""Memory that stays with the process between steps on a CPU.

glibc gives every large block back to the system when it is freed, and at the next step the system
hands it out again, zeroed, page by page. Every gradient of a matrix is such a block: this took a
fifteenth of a step with 30,000 word vectors, and more than a third with 250,000.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Of glibc's ``malloc.h``."""

_NEVER = -1


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed, for the rest of the process.

    Returns:
        Whether it could be told; only glibc can.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        tell = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # In this order: what lies in the heap is what the second one keeps from being given back.
    return bool(tell(_MMAP_MAX, 0)) and bool(tell(_TRIM_THRESHOLD, _NEVER))

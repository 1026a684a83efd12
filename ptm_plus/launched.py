"""What a launcher (``torchrun``, ``accelerate launch``) says of this process; imports nothing."""

from __future__ import annotations

import os

_OF_A_LAUNCHER = (
    *("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE"),
)


def rank() -> int:
    """Return the number of this process; 0 where there is only one."""
    number = os.environ.get("RANK", "0")
    return int(number) if number.isdigit() else 0


def is_main_process() -> bool:
    """Tell whether this process writes and speaks: rank 0, or the only one."""
    return rank() == 0


def environment_alone() -> dict[str, str]:
    """Return the environment for a process that does not belong to this one's group."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in _OF_A_LAUNCHER and not name.startswith("TORCHELASTIC_")
    }

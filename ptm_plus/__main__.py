"""``python -m ptm_plus``: the command line, also for ``torchrun`` and ``accelerate launch``."""

from __future__ import annotations

from ptm_plus.cli import main

if __name__ == "__main__":
    main()

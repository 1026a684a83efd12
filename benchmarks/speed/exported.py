"""Every checkpoint of a run as a model of plain transformers.

python -m benchmarks.speed.exported RUN FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from ptm_plus.exporting.export import export
from ptm_plus.run_folder import checkpoints


def main(run: Path, folder: Path) -> None:
    """Write the checkpoints of a run to ``model-STEP`` in a folder."""
    for checkpoint in checkpoints(run):
        step = int(checkpoint.name.removeprefix("step-"))
        export(checkpoint, folder / f"model-{step}", verify=False, allow_code=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

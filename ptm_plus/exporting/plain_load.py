"""Loads an exported model as anybody would, where ptm-plus cannot be imported.

Run as a program in a fresh process (``python -I plain_load.py FOLDER``); prints JSON. It imports
nothing of this package and makes sure that nobody else does.
"""

from __future__ import annotations

import importlib.abc
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SAMPLES = "ptm_plus/samples.safetensors"
_OWN = ("ptm_plus",)


class Blocked(importlib.abc.MetaPathFinder):
    """Refuses to import ptm-plus and its plugins."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        """Raise ``ImportError`` for our own packages."""
        if fullname.startswith(_OWN):
            raise ImportError(f"{fullname} may not be imported here")


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Load the folder, compare the logits of its samples, fill a mask.

    Args:
        arguments: the folder.
    """
    sys.meta_path.insert(0, Blocked())
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

    folder = Path(arguments[0])
    torch.set_num_threads(1)
    only = {"trust_remote_code": False, "local_files_only": True}
    model = AutoModelForMaskedLM.from_pretrained(folder, use_safetensors=True, **only).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, **only)
    worst, compared = _compare(model, folder / SAMPLES)
    fill = pipeline("fill-mask", model=model, tokenizer=tokenizer, trust_remote_code=False)
    guesses = fill(f"{tokenizer.mask_token}.")
    return {
        "max_difference": worst,
        "logits": compared,
        "model": type(model).__name__,
        "tokenizer": type(tokenizer).__name__,
        "pieces": len(tokenizer),
        "fill_mask": [guess["token_str"] for guess in guesses],
        "ptm_plus_imported": any(name.startswith(_OWN) for name in sys.modules),
    }


def _compare(model: Any, path: Path) -> tuple[float, int]:
    """Return the largest difference of logits, and how many rows of logits were compared."""
    import torch
    from safetensors.torch import load_file

    samples = load_file(path)
    worst, compared = 0.0, 0
    for number in range(len(samples["lengths"])):
        ids = samples[f"ids.{number}"][None].long()
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        stored = samples[f"logits.{number}"]
        difference = (logits[samples[f"positions.{number}"].long()] - stored).abs().max()
        worst, compared = max(worst, float(difference)), compared + len(stored)
        if not bool(torch.isfinite(difference)):
            return float("inf"), compared
    return worst, compared


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1:])))

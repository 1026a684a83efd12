"""From a recipe to the settings of a run on its corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptm_plus.recipes.recipe import ROWS, Recipe

TRAINING = "train.toml"
"""The settings in the folder of the corpus."""

_EVALUATIONS = 20
"""Of a run, so that its guard looks now and then."""


def rows_of(corpus: Path) -> Path:
    """Return the pattern of the files of a corpus, by its path in full."""
    return corpus.resolve() / ROWS / "*.jsonl.gz"


def training_settings(recipe: Recipe, corpus: Path) -> dict[str, Any]:
    """Return the recipe's training defaults as a settings file; the model is the user's choice.

    Args:
        recipe: gives the defaults, and general text where any is named.
        corpus: folder of the built corpus.
    """
    defaults, mix = recipe.training, recipe.mix
    found: dict[str, Any] = {
        "data": {"text": [str(rows_of(corpus))]},
        "prepare": {"max_length": defaults.max_length},
        "train": {"steps": defaults.steps, "lr": defaults.lr, "warmup": defaults.warmup},
    }
    if mix.alpha != 1:
        found["batch"] = {"alpha": {"text": mix.alpha}}
    if mix.general:
        every = max(1, defaults.steps // _EVALUATIONS)
        found["train"] |= {"evaluate_every": every, "checkpoint_every": every}
        found["plugins"] = ["domain"]
        found["plugin"] = {
            "domain": {
                "general": list(mix.general),
                "replay": mix.replay,
                "guard": {"action": mix.guard, "margin": mix.margin},
            }
        }
    return found

"""From a recipe to the settings of a run on its corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptm_plus.recipes.recipe import Recipe


def training_settings(recipe: Recipe, corpus: Path) -> dict[str, Any]:
    """Return the recipe's training defaults as a settings file; the model is the user's choice.

    Args:
        recipe: gives the defaults.
        corpus: folder of the built corpus.
    """
    defaults = recipe.training
    mix = {} if recipe.mix.alpha == 1 else {"batch": {"alpha": {"text": recipe.mix.alpha}}}
    return mix | {
        "data": {"text": [str(corpus.resolve() / "data" / "*.jsonl.gz")]},
        "prepare": {"max_length": defaults.max_length},
        "train": {"steps": defaults.steps, "lr": defaults.lr, "warmup": defaults.warmup},
    }

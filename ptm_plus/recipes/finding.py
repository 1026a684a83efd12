"""Which recipes there are: those of the package, of other distributions, and files."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ptm_plus.errors import PluginError, SettingsError, nearest
from ptm_plus.recipes.recipe import Recipe, read_recipe

GROUP = "ptm_plus.recipes"
"""Entry-point group of recipes: NAME = "package", a package whose folder holds .toml files."""

_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class FoundRecipe:
    """A recipe and where it lies.

    Attributes:
        name: what it is asked for by.
        path: its file.
        owner: the distribution that brought it; empty for a file that was named.
    """

    name: str
    path: Path
    owner: str

    def read(self) -> Recipe:
        """Read it.

        Raises:
            SettingsError: something in it is wrong.
        """
        return read_recipe(self.path)

    @property
    def samples(self) -> Path:
        """The folder of the sources' samples: ``samples``, beside the recipe."""
        return self.path.parent / "samples"


def own_folder() -> Path:
    """Return the folder of the package's recipes: in the wheel, or in the checkout."""
    inside = _PACKAGE / "data_recipes"
    return inside if inside.is_dir() else _PACKAGE.parent / "data_recipes"


def all_recipes() -> list[FoundRecipe]:
    """Return the recipes of the package and of other distributions, by name.

    Raises:
        PluginError: a distribution announces a package that is not there.
    """
    found = [FoundRecipe(path.stem, path, "ptm-plus") for path in own_folder().glob("*.toml")]
    for folder, owner in _other_folders():
        found += [FoundRecipe(path.stem, path, owner) for path in folder.glob("*.toml")]
    return sorted(found, key=lambda one: (one.name, one.owner))


def find_recipe(name: str) -> FoundRecipe:
    """Return a recipe by its name, or by the path of its file.

    Raises:
        SettingsError: there is none of that name, or more than one.
        PluginError: a distribution announces a package that is not there.
    """
    if name.endswith(".toml") or "/" in name:
        return FoundRecipe(Path(name).stem, Path(name), "")
    recipes = all_recipes()
    named = [one for one in recipes if one.name == name]
    if not named:
        names = sorted({one.name for one in recipes})
        raise SettingsError(
            f"there is no recipe {name!r}{nearest(name, names)}",
            f"recipes: {', '.join(names)}; a file is written ./{name}.toml",
        )
    if len(named) > 1:
        owners = " and ".join(one.owner for one in named)
        raise SettingsError(
            f"the recipe {name!r} comes from {owners}", f"name its file, such as {named[0].path}"
        )
    return named[0]


def _other_folders() -> Iterator[tuple[Path, str]]:
    """Yield the folders that entry points name; their packages are found, not run."""
    for entry in metadata.entry_points(group=GROUP):
        owner = entry.dist.name if entry.dist is not None else entry.value
        try:
            spec = importlib.util.find_spec(entry.value)
        except (ImportError, ValueError):
            spec = None
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        if not places:
            raise PluginError(
                f"{owner}: the entry point {entry.name!r} of {GROUP} names {entry.value!r}, which "
                "is no package",
                f"mend it, or: pip uninstall {owner}",
            )
        yield Path(places[0]), owner

"""Which data a command works on: what was given, or the built-in sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ptm_plus.progress import Watch
    from ptm_plus.settings import RunSettings
    from ptm_plus.settings_files import Resolved


def has_inputs(settings: RunSettings) -> bool:
    """Tell whether any data was named; without, the built-in sample is trained on.

    Files in the settings of a plugin (its ``paths``) are data as well.
    """
    from ptm_plus.settings_paths import names_files

    data = settings.data
    return bool(data.text or data.pairs or data.kg or data.labels) or names_files(settings)


def given_or_sample(resolved: Resolved, watch: Watch) -> RunSettings:
    """Return the run's settings; those of the sample, whose files are written, without inputs."""
    if has_inputs(resolved.settings):
        return resolved.settings
    from ptm_plus.sample import build_world
    from ptm_plus.sample_run import sample_settings

    return sample_settings(resolved, build_world(), watch)

"""What is held out: drawn by text, so that streams of the same sources hold out the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptm_plus.examples import Example
from ptm_plus.keyed import derive_key, uniform

if TYPE_CHECKING:
    from ptm_plus.settings import RunSettings


def identity_of(example: Example) -> int:
    """Return a hash of the text by which an example is held out: its own, or the one it names.

    Its own is the first: a pair's source, whatever a stream adds to it; repeated texts together.
    """
    return derive_key("identity", example.held_out_by or next(iter(example.fields.values()), ""))


def are_held_out(identities: ArrayLike, settings: RunSettings) -> NDArray[np.bool_]:
    """Return which identities are held out of training."""
    key = derive_key(settings.train.seed, "held out")
    return uniform(key, identities) < settings.data.held_out


def is_held_out(example: Example, settings: RunSettings) -> bool:
    """Tell whether an example is held out of training, in every stream that has it.

    A stream that makes one example of several keeps those apart that differ in it, has the share
    and the seed in its fingerprint, and says in ``held_out_by`` what goes with the whole.
    """
    return bool(are_held_out(np.array(identity_of(example), np.uint64), settings))

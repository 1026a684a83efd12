"""Random draws that depend on a key and an index, and on nothing else.

A draw is ``mix(key + golden · index)`` with the splitmix64 finaliser (Steele, Lea and Flood 2014,
"Fast splittable pseudorandom number generators"), so that any process, worker or device that knows
(seed, owner, stream, epoch, sequence, name) gets the same number, in numpy and in torch, bit for
bit. Nobody is ever handed a generator whose state depends on who drew before.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def derive_key(*words: str | int) -> int:
    """Return a 64-bit key for a tuple of words; order and types (text or integer) matter."""
    typed = [f"s{word}" if isinstance(word, str) else f"i{int(word)}" for word in words]
    text = "".join(f"{len(word)}:{word}" for word in typed)  # no two tuples give one text
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def mix(key: int, *indexes: ArrayLike) -> NDArray[np.uint64]:
    """Return 64 random bits for each (broadcast) index tuple.

    Args:
        key: from :func:`derive_key`.
        *indexes: integer arrays; each is folded in by one more round.
    """
    state = np.asarray(key, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for index in indexes:
            state = state + np.uint64(_GOLDEN) * (
                np.asarray(index).astype(np.uint64) + np.uint64(1)
            )
            state = (state ^ (state >> np.uint64(30))) * np.uint64(_FIRST)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(_SECOND)
            state = state ^ (state >> np.uint64(31))
    return state


def mix_torch(key: int, *indexes: Tensor) -> Tensor:
    """Return the bits of :func:`mix` as int64 tensors, on the indexes' device."""
    state: Tensor | int = _signed(key)
    for index in indexes:
        state = state + _signed(_GOLDEN) * (index.long() + 1)
        state = (state ^ _shift(state, 30)) * _signed(_FIRST)
        state = (state ^ _shift(state, 27)) * _signed(_SECOND)
        state = state ^ _shift(state, 31)
    assert not isinstance(state, int)
    return state


def uniform(key: int, *indexes: ArrayLike) -> NDArray[np.float64]:
    """Return draws in [0, 1) with 53 bits."""
    return (mix(key, *indexes) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def uniform_torch(key: int, *indexes: Tensor) -> Tensor:
    """Return the draws of :func:`uniform` as float64 tensors."""
    import torch

    return _shift(mix_torch(key, *indexes), 11).to(torch.float64) * 2.0**-53


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift(state: Tensor, bits: int) -> Tensor:
    """Logical right shift of an int64 tensor, as for unsigned numbers."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def sequence_keys(sequences: ArrayLike, epochs: ArrayLike) -> NDArray[np.uint64]:
    """Return the draw index of sequences in epochs (-1 is the frozen epoch of evaluation)."""
    shifted = (np.asarray(epochs, dtype=np.int64) + 1).astype(np.uint64) << np.uint64(40)
    return np.asarray(sequences).astype(np.uint64) + shifted


@dataclass(frozen=True, slots=True)
class Draws:
    """The draws of one owner for one stream.

    The first index is, as a rule, the sequence's key (``View.keys``), which holds its number in
    the store and the epoch; the second the token's place in the stored sequence.

    Attributes:
        seed: the run's seed.
        owner: plugin instance, or ``core``.
        stream: stream name.
    """

    seed: int
    owner: str
    stream: str

    def key(self, name: str) -> int:
        """Return the key of a named draw."""
        return derive_key(self.seed, self.owner, self.stream, name)

    def uniform(self, name: str, *indexes: ArrayLike) -> NDArray[np.float64]:
        """Return numbers in [0, 1), one per index tuple."""
        return uniform(self.key(name), *indexes)

    def integers(self, name: str, high: int, *indexes: ArrayLike) -> NDArray[np.int64]:
        """Return integers in [0, high), one per index tuple."""
        return (self.uniform(name, *indexes) * high).astype(np.int64)

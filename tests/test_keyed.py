"""Keyed draws: golden values, numpy and torch alike, uniform and independent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from building import chi_square_z
from hypothesis import given, settings
from hypothesis import strategies as st

from ptm_plus.keyed import (
    Draws,
    derive_key,
    mix,
    mix_torch,
    sequence_keys,
    uniform,
    uniform_torch,
)

KEYS = st.integers(0, 2**64 - 1)
INDEXES = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20)

# First outputs of splitmix64 as its authors' C program prints them (seed 1234567 is the one that
# Rosetta Code lists).
GOLDEN = {
    0: [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC],
    1234567: [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ],
}


def splitmix(state: int) -> int:
    """Return one output for a state, in Python integers."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


def reference(key: int, *indexes: int) -> int:
    state = key
    for index in indexes:
        state = splitmix((state + 0x9E3779B97F4A7C15 * (index % 2**64 + 1)) % 2**64)
    return state


def signed(bits: np.ndarray) -> list[int]:
    return bits.view(np.int64).tolist()


@pytest.mark.parametrize("seed", GOLDEN)
def test_golden_values(seed):
    assert mix(seed, np.arange(len(GOLDEN[seed]))).tolist() == GOLDEN[seed]


@given(KEYS, INDEXES, INDEXES)
@settings(deadline=None, max_examples=100)
def test_numpy_torch_and_python_agree_bit_for_bit(key, first, second):
    size = min(len(first), len(second))
    one, two = np.array(first[:size]), np.array(second[:size])
    bits = mix(key, one, two)
    assert bits.tolist() == [reference(key, *pair) for pair in zip(first, second, strict=False)]
    assert mix_torch(key, torch.tensor(one), torch.tensor(two)).tolist() == signed(bits)
    draws = uniform(key, one, two)
    assert uniform_torch(key, torch.tensor(one), torch.tensor(two)).tolist() == draws.tolist()
    assert draws.tolist() == [int(bit) // 2**11 / 2**53 for bit in bits]


def test_sequence_keys_serve_both_sides():
    keys = sequence_keys(np.array([5, 7, 2**39]), np.array([-1, 0, 3]))
    assert keys.tolist() == [5, 7 + 2**40, 2**39 + 4 * 2**40]
    tokens = np.arange(3)
    bits = mix(derive_key("k"), keys, tokens)
    as_torch = torch.tensor(keys.astype(np.int64))
    assert mix_torch(derive_key("k"), as_torch, torch.arange(3)).tolist() == signed(bits)


def test_indexes_broadcast():
    whole = mix(9, np.arange(3)[:, None], np.arange(4)[None, :])
    assert whole.shape == (3, 4)
    assert whole[2, 3] == reference(9, 2, 3)
    assert int(mix(9, 2, 3)) == reference(9, 2, 3)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, np.uint64])
def test_the_type_of_an_index_does_not_matter(dtype):
    assert mix(3, np.arange(9, dtype=dtype)).tolist() == mix(3, np.arange(9)).tolist()


def test_extremes_stay_below_one():
    # the largest 64-bit value must not round up to 1.0
    assert (2**64 - 1) // 2**11 * 2.0**-53 < 1
    values = uniform(1, np.arange(10**5))
    assert values.min() >= 0
    assert values.max() < 1


def test_keys_depend_on_words_their_order_and_types():
    words = [("a", "b"), ("b", "a"), ("ab",), ("a", "b", ""), (1,), ("1",), ("a", 1), ("a", "1")]
    assert len({derive_key(*word) for word in words}) == len(words)
    assert derive_key("a\x1fstr:b") != derive_key("a", "b")
    assert derive_key("rows", 3) == derive_key("rows", 3)
    assert 0 <= derive_key("x") < 2**64


def test_keys_take_numpy_integers_as_integers():
    assert derive_key("rows", np.int64(3)) == derive_key("rows", 3)


@given(st.lists(st.one_of(st.text(max_size=4), st.integers()), max_size=3), st.data())
def test_different_words_have_different_keys(words, data):
    other = data.draw(st.lists(st.one_of(st.text(max_size=4), st.integers()), max_size=3))
    assert (derive_key(*words) == derive_key(*other)) == (words == other)


def test_draws_are_separate_by_owner_stream_seed_and_name():
    keys = {
        Draws(seed, owner, stream).key(name)
        for seed in (0, 1)
        for owner in ("core", "tlm")
        for stream in ("text", "pairs")
        for name in ("race", "cross")
    }
    assert len(keys) == 16


@pytest.mark.parametrize("index", ["token", "sequence", "epoch", "key"])
def test_draws_are_uniform_along_every_index(index):
    count, bins = 100_000, 100
    along = np.arange(count)
    draws = {
        "token": lambda: uniform(derive_key("u"), sequence_keys(3, 1), along),
        "sequence": lambda: uniform(derive_key("u"), sequence_keys(along, 0), 5),
        "epoch": lambda: uniform(derive_key("u"), sequence_keys(3, along), 5),
        "key": lambda: np.array([uniform(derive_key("u", n), 0) for n in range(20_000)]),
    }[index]()
    counts = np.bincount((draws * bins).astype(int), minlength=bins)
    assert abs(chi_square_z(counts)) < 4.5
    # neighbours are independent: chi-square on the 10 x 10 table of successive draws
    cells = (draws[:-1] * 10).astype(int) * 10 + (draws[1:] * 10).astype(int)
    assert abs(chi_square_z(np.bincount(cells, minlength=100))) < 4.5


def test_neighbouring_keys_are_independent():
    one, two = (uniform(derive_key(0, "core", "text", name), np.arange(50_000)) for name in "ab")
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.02
    assert not np.any(one == two)


def test_integers_cover_their_range_evenly():
    values = Draws(0, "core", "text").integers("pick", 7, np.arange(70_000))
    counts = np.bincount(values)
    assert len(counts) == 7
    assert abs(chi_square_z(counts)) < 4.5

"""Index arithmetic against loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ptm_plus.ragged import cumsum_within, exclusive_cumsum, offsets_of, ragged_indexes

LENGTHS = st.lists(st.integers(0, 7), max_size=12)


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 7)), max_size=12))
def test_ragged_indexes_are_all_ranges_in_order(ranges):
    starts = np.array([start for start, _ in ranges], dtype=np.int64)
    lengths = np.array([length for _, length in ranges], dtype=np.int64)
    expected = [index for start, length in ranges for index in range(start, start + length)]
    found = ragged_indexes(starts, lengths)
    assert found.dtype == np.int64
    assert found.tolist() == expected


@given(LENGTHS)
def test_offsets_and_exclusive_sums(lengths):
    values = np.array(lengths, dtype=np.int64)
    assert offsets_of(values).tolist() == [sum(lengths[:n]) for n in range(len(lengths) + 1)]
    assert exclusive_cumsum(values).tolist() == [sum(lengths[:n]) for n in range(len(lengths))]


@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=5), max_size=8))
def test_running_sums_start_again_in_every_group(groups):
    values = np.array([value for group in groups for value in group], dtype=np.float64)
    numbers = np.repeat(np.arange(len(groups)) * 3, [len(group) for group in groups])
    expected = [sum(group[: n + 1]) for group in groups for n in range(len(group))]
    assert cumsum_within(values, numbers.astype(np.int64)).tolist() == expected

"""Row plans: whole, within bounds, repeatable, well filled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptm_plus.rows import RowPlan, plan_rows


def plan(lengths, row_tokens=64, numbers=None, **changes) -> RowPlan:
    lengths = np.asarray(lengths, dtype=np.int64)
    numbers = np.arange(len(lengths)) if numbers is None else np.asarray(numbers)
    key = {"seed": 0, "stream": "text", "stratum": "en", "epoch": 0, **changes}
    return plan_rows(numbers, lengths, row_tokens, **key)


def rows_of(found: RowPlan) -> list[list[int]]:
    return [found.row(number).tolist() for number in range(len(found))]


@given(st.lists(st.integers(1, 64), max_size=60), st.integers(0, 5))
@settings(deadline=None)
def test_every_sequence_once_and_no_row_too_long(lengths, epoch):
    numbers = np.arange(len(lengths)) * 3 + 100
    found = plan(lengths, numbers=numbers, epoch=epoch)
    rows = rows_of(found)
    assert sorted(number for row in rows for number in row) == numbers.tolist()
    sums = [sum(lengths[(number - 100) // 3] for number in row) for row in rows]
    assert all(0 < total <= 64 for total in sums)
    assert found.fill == pytest.approx(sum(lengths) / max(1, 64 * len(rows)))
    # best fit never leaves two rows that would have fitted into one, within a pool
    assert all(a + b > 64 for n, a in enumerate(sums) for b in sums[:n])


def test_all_sequences_once_over_several_pools():
    lengths = np.random.default_rng(0).integers(1, 65, size=10_000)
    found = plan(lengths)
    assert sorted(found.sequences.tolist()) == list(range(10_000))
    sums = np.add.reduceat(lengths[found.sequences], found.bounds[:-1])
    assert sums.max() <= 64
    assert sums.sum() == lengths.sum()


def best_fit(lengths: list[int], room: int) -> list[int]:
    """Return how full each row is, by the textbook loop: longest first, tightest row."""
    rows: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [
            (room - used - length, n) for n, used in enumerate(rows) if used + length <= room
        ]
        if fitting:
            rows[min(fitting)[1]] += length
        else:
            rows.append(length)
    return sorted(rows)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=50))
def test_packing_is_best_fit_decreasing(lengths):
    found = plan(lengths, row_tokens=50)
    sums = sorted(sum(lengths[number] for number in row) for row in rows_of(found))
    assert sums == best_fit(lengths, 50)


def test_same_key_same_plan_and_any_other_key_another():
    lengths = np.random.default_rng(1).integers(5, 60, size=500)
    one = plan(lengths)
    assert rows_of(plan(lengths)) == rows_of(one)
    changes = [{"epoch": 1}, {"seed": 1}, {"stream": "pairs"}, {"stratum": "fr"}]
    others = [rows_of(plan(lengths, **change)) for change in changes]
    assert len({str(rows) for rows in [rows_of(one), *others]}) == 5
    # other neighbours, not only another order of the same rows
    assert {tuple(sorted(row)) for row in others[0]} != {tuple(sorted(r)) for r in rows_of(one)}


def test_the_order_in_which_sequences_are_named_does_not_matter():
    lengths = np.random.default_rng(2).integers(5, 60, size=300)
    order = np.random.default_rng(3).permutation(300)
    assert rows_of(plan(lengths[order], numbers=order)) == rows_of(plan(lengths))


def test_rows_are_not_sorted_by_length():
    lengths = np.random.default_rng(4).integers(1, 65, size=4000)
    found = plan(lengths)
    longest = [int(lengths[found.row(n)].max()) for n in range(len(found))]
    half = len(longest) // 2
    # packed longest first; unshuffled, the first half would hold the long ones
    assert abs(np.mean(longest[:half]) - np.mean(longest[half:])) < 3


def test_fill_is_high_on_lengths_as_they_come():
    lengths = np.random.default_rng(5).lognormal(3.2, 0.6, size=6000).clip(4, 128).astype(int)
    assert plan(lengths, row_tokens=512).fill > 0.98


def test_no_sequences_no_rows():
    assert len(plan([])) == 0


def test_full_rows_take_nothing_more():
    assert [len(row) for row in rows_of(plan([64, 64, 64]))] == [1, 1, 1]

"""Digests of a step's data: equal however it is split, different when anything differs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import BOTH, tiny_run

from ptm_plus.digest import add_digests, batch_digest, digests_ahead, joined, split
from ptm_plus.local_batches import local_batches

WORD = st.integers(0, 2**64 - 1)


@given(st.lists(WORD, max_size=5))
def test_halves_summed_in_float64_give_the_sum_modulo_two_to_the_64(digests):
    low = sum(split(one)[0] for one in digests)
    high = sum(split(one)[1] for one in digests)
    assert joined(low, high) == add_digests(digests) == sum(digests) % 2**64


def step_of(run, number=0):
    reader = run.reader()
    for step in range(number + 1):
        plan = run.planner.plan(step)
        rows = reader.step_rows(plan)
    return rows, plan


def total(run, micro_rows, sizes, number=0):
    rows, plan = step_of(run, number)
    return add_digests(
        batch_digest(one.host)
        for rank in range(sizes)
        for one in local_batches(run, rows, plan, micro_rows, rank, sizes, level=True)
        if one.real
    )


@pytest.mark.parametrize("plugins", [(), BOTH], ids=["plain", "plugins"])
def test_no_split_changes_the_digest(plugins):
    run = tiny_run("bert", plugins)
    whole = total(run, 8, 1)
    assert {total(run, micro, size) for micro in (1, 3, 8) for size in (1, 2, 4)} == {whole}
    assert [f"{total(run, 8, 1, number):016x}" for number in range(3)] == digests_ahead(
        run, run.reader(), 0, 3
    )


def test_looking_ahead_moves_nothing_and_ends_with_the_run():
    run = tiny_run("bert")
    reader = run.reader()
    before = {name: dict(strata) for name, strata in reader.cursors.items()}
    assert len(digests_ahead(run, reader, 4, 16)) == 2  # of six steps
    assert reader.cursors == before


def test_every_change_shows():
    run = tiny_run("bert", BOTH)
    rows, plan = step_of(run)
    own = rows[sorted(rows)[0]]
    host = run.collator.batch(own, own, plan.mask_rate)
    seen = {batch_digest(host)}
    view, masks = host.view, host.plan
    (kind,) = masks.treatment
    others = [
        replace(host, view=replace(view, stream="other")),
        replace(host, view=replace(view, keys=view.keys + np.uint64(1))),
        replace(host, view=replace(view, ids=_bumped(view.ids))),
        replace(host, view=replace(view, positions=_bumped(view.positions))),
        replace(host, plan=replace(masks, ids=_bumped(masks.ids))),
        replace(host, plan=replace(masks, predicted=~masks.predicted)),
        replace(host, plan=replace(masks, treatment={kind: (masks.treatment[kind] + 1) % 3})),
    ]
    for other in others:
        digest = batch_digest(other)
        assert digest not in seen
        seen.add(digest)


def _bumped(values):
    changed = values.copy()
    changed[0] += 1
    return changed


def test_another_seed_gives_other_data():
    one = digests_ahead(tiny_run("bert"), tiny_run("bert").reader(), 0, 4)
    run = tiny_run("bert", sets=["train.seed=1"])
    assert not set(one) & set(digests_ahead(run, run.reader(), 0, 4))


def test_processes_without_rows_get_one_that_does_not_count():
    run = tiny_run("bert", sets=["batch.rows=3"], **{"data.pairs": []})
    rows, plan = step_of(run)
    found = [local_batches(run, rows, plan, 1, rank, 4, level=True) for rank in range(4)]
    assert [[one.real for one in of_rank] for of_rank in found] == [[True]] * 3 + [[False]]
    assert local_batches(run, rows, plan, 1, 3, 4) == []
    two = [local_batches(run, rows, plan, 1, rank, 2, level=True) for rank in range(2)]
    assert [[one.real for one in of_rank] for of_rank in two] == [[True, True], [True, False]]

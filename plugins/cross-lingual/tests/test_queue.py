"""The queue against a plain list."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ptm_plus_cross_lingual.contrast import Queue, contrast_loss

pytestmark = pytest.mark.cross_lingual

STEPS = st.lists(st.integers(0, 9), min_size=1, max_size=8)


def keys_of(first, count):
    """Return keys that say which they are."""
    return torch.arange(first, first + count, dtype=torch.float64)[:, None].repeat(1, 3)


def content(queue):
    keys, pairs = queue.negatives(torch.zeros(1, 3, dtype=torch.float64))
    return {(float(key[0]), int(pair)) for key, pair in zip(keys, pairs, strict=True) if pair >= 0}


@given(size=st.integers(1, 12), steps=STEPS, seed=st.integers(0, 99))
def test_the_queue_holds_the_newest_keys_whatever_their_order_within_a_step(size, steps, seed):
    queue, plain, first = Queue(size), [], 0
    generator = torch.Generator().manual_seed(seed)
    for count in steps:
        order = torch.arange(first, first + count)
        mixed = torch.randperm(count, generator=generator)
        queue.put(keys_of(first, count)[mixed], order[mixed] + 100, order[mixed])
        plain = (plain + [(float(n), n + 100) for n in order.tolist()])[-size:]
        first += count
        assert content(queue) == set(plain)


@given(size=st.integers(1, 12), steps=STEPS, cut=st.integers(0, 8))
def test_a_queue_that_was_saved_goes_on_as_if_it_had_not_been(size, steps, cut):
    whole, saved, first = Queue(size), Queue(size), 0
    for number, count in enumerate(steps):
        order = torch.arange(first, first + count)
        if number == cut:
            state = {
                n: v.clone() if hasattr(v, "clone") else v for n, v in saved.state_dict().items()
            }
            saved = Queue(size)
            saved.load_state_dict(state)
        for queue in (whole, saved):
            queue.put(keys_of(first, count), order, order)
        first += count
    for one, other in zip(*(q.negatives(keys_of(0, 1)) for q in (whole, saved)), strict=True):
        assert torch.equal(one, other)
    assert whole.place == saved.place


def test_keys_that_are_not_finite_are_no_negatives():
    queue, keys = Queue(4), keys_of(1, 3)
    keys[1, 2] = torch.nan
    queue.put(keys, torch.tensor([7, 8, 9]), torch.arange(3))
    assert content(queue) == {(1.0, 7), (3.0, 9)}
    assert bool(torch.isfinite(queue.negatives(keys)[0]).all())


def test_a_queue_of_another_size_begins_empty():
    queue, other = Queue(4), Queue(5)
    queue.put(keys_of(0, 3), torch.arange(3), torch.arange(3))
    other.load_state_dict(queue.state_dict())
    assert content(other) == set()
    assert Queue(4).state_dict() == {"place": 0}


def test_a_key_is_found_when_it_is_closer_than_every_negative():
    queries = torch.eye(4)
    keys = queries.unflatten(0, (-1, 2)).flip(1).flatten(0, 1).clone()
    keys[2] = 0  # what the fourth query looks for
    others = (torch.stack([queries[0], -queries[1], queries[2] / 2]), torch.tensor([9, 9, -1]))
    loss, found = contrast_loss(queries, keys, torch.tensor([5, 6]), others, 1.0)
    assert int(found) == 2  # the first is as close to another, and nothing is closer to the fourth
    _, of_own_pair = contrast_loss(queries, keys, torch.tensor([9, 6]), others, 1.0)
    assert int(of_own_pair) == 3
    e = torch.e
    wanted = [2 * e + 1, e + 1 + 1 / e, e + 2, 3]
    wanted = [torch.log(torch.tensor(total)) for total in wanted]
    assert float(loss) == pytest.approx(float(sum(wanted)) - 3, rel=1e-6)


def test_the_mean_of_past_steps_is_taken_off():
    queue = Queue(4)
    one, two = torch.tensor([[1.0, 3.0], [3.0, 5.0]]), torch.tensor([[12.0, 4.0]])
    assert queue.centred(one) is one
    queue.follow(one)
    assert queue.centred(one).tolist() == [[-1.0, -1.0], [1.0, 1.0]]
    queue.follow(torch.cat((two, torch.full((1, 2), torch.nan))))
    torch.testing.assert_close(queue.state_dict()["centre"], torch.tensor([3.0, 4.0]))
    queue.follow(torch.full((1, 2), torch.inf))
    torch.testing.assert_close(queue.state_dict()["centre"], torch.tensor([3.0, 4.0]))

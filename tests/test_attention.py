"""Attention over packed rows against brute force, sequence by sequence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ptm_plus.attention import Packing, attend, packed_attention
from ptm_plus.microbatch import MicroBatch, equal_blocks

EXACT = {"atol": 1e-12, "rtol": 1e-12}


def row_of(lengths, **columns) -> MicroBatch:
    """Return a micro-batch of sequences of the given lengths."""
    total = sum(lengths)
    sequence = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    empty = torch.zeros(total, dtype=torch.long)
    offsets = torch.tensor([0, *np.cumsum(lengths).tolist()])
    return MicroBatch(
        stream="s",
        ids=empty,
        positions=torch.arange(total) - offsets[sequence],
        types=empty,
        languages=empty,
        sequence=sequence,
        segments=empty,
        offsets=offsets,
        blocks=equal_blocks(lengths),
        predicted=empty[:0],
        labels=empty[:0],
        kinds=(),
        kind=empty[:0],
        columns=columns,
    )


def brute_force(query, key, value, visible, scale=None):
    """Attend query by query: ``[Q, H, D]`` with ``visible(i, j)``; zeros where nothing is seen."""
    result = torch.zeros_like(query)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    for i in range(len(query)):
        seen = [j for j in range(len(key)) if visible(i, j)]
        for head in range(query.shape[1]):
            if seen:
                scores = torch.stack([query[i, head] @ key[j, head] for j in seen]) * factor
                weights = torch.softmax(scores, 0)
                result[i, head] = sum(
                    w * value[j, head] for w, j in zip(weights, seen, strict=True)
                )
    return result


def tensors(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


lengths_of_rows = st.lists(st.integers(1, 7), min_size=1, max_size=5)


# ---------------------------------------------------------------------------------------------
# attend


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=5),
    heads=st.integers(1, 3),
    width=st.integers(1, 9),
    ruled=st.booleans(),
    seed=st.integers(0, 99),
)
def test_attend_is_brute_force_within_sequences(sizes, heads, width, ruled, seed):
    owner_q = [n for n, (queries, _) in enumerate(sizes) for _ in range(queries)]
    owner_k = [n for n, (_, keys) in enumerate(sizes) for _ in range(keys)]
    q, k, v = tensors(seed, *[(len(o), heads, width) for o in (owner_q, owner_k, owner_k)])
    allowed = torch.rand(
        len(owner_q), len(owner_k), generator=torch.Generator().manual_seed(seed)
    ).gt(0.4)
    rule = (lambda i, j: allowed[i, j]) if ruled else None
    found = attend(q, k, v, torch.tensor(owner_q).long(), torch.tensor(owner_k).long(), rule)
    expected = brute_force(
        q,
        k,
        v,
        lambda i, j: owner_q[i] == owner_k[j] and (not ruled or bool(allowed[i, j])),
    )
    torch.testing.assert_close(found, expected, **EXACT)


def test_queries_without_any_key_get_zeros_and_no_gradient_trouble():
    q, k, v = tensors(0, (3, 1, 4), (2, 1, 4), (2, 1, 4))
    for tensor in (q, k, v):
        tensor.requires_grad_()
    found = attend(q, k, v, torch.tensor([0, 1, 2]), torch.tensor([0, 2]))
    assert torch.equal(found[1], torch.zeros(1, 4, dtype=torch.float64))
    found.sum().backward()
    assert all(bool(torch.isfinite(t.grad).all()) for t in (q, k, v))
    assert not q.grad[1].any()
    assert not attend(q, k[:0], v[:0], torch.tensor([0, 1, 2]), torch.tensor([]).long()).any()


def test_attend_takes_sequences_that_do_not_start_at_zero():
    q, k, v = tensors(1, (2, 1, 3), (3, 1, 3), (3, 1, 3))
    own = [4, 7], [2, 4, 4]
    found = attend(q, k, v, torch.tensor(own[0]), torch.tensor(own[1]))
    expected = brute_force(q, k, v, lambda i, j: own[0][i] == own[1][j])
    torch.testing.assert_close(found, expected, **EXACT)


# ---------------------------------------------------------------------------------------------
# Packed attention


def packed(q, k, v, batch, rules=(), **arguments):
    heads = [tensor.transpose(0, 1)[None] for tensor in (q, k, v)]
    packing = Packing(batch, rules)
    found, weights = packed_attention(None, *heads, None, ptm_packing=packing, **arguments)
    assert weights is None
    return found[0]


@settings(max_examples=30, deadline=None)
@given(
    lengths=lengths_of_rows,
    window=st.sampled_from([None, 1, 2, 3, 9]),
    rule=st.sampled_from(["none", "left", "column", "both"]),
    seed=st.integers(0, 99),
)
def test_packed_attention_is_brute_force_within_sequences(lengths, window, rule, seed):
    total = sum(lengths)
    q, k, v = tensors(seed, *[(total, 2, 3)] * 3)
    color = torch.from_numpy(np.random.default_rng(seed).integers(0, 2, total))
    batch = row_of(lengths, **{"p.color": color})
    rules = {
        "none": [],
        "left": [lambda i, j, columns: j <= i],
        "column": [lambda i, j, columns: columns["p.color"][i] == columns["p.color"][j]],
    }
    rules["both"] = rules["left"] + rules["column"]
    sides = 10**6 if window is None else window - 1 if window > 1 else 10**6

    def visible(i, j):
        return (
            batch.sequence[i] == batch.sequence[j]
            and abs(i - j) <= sides
            and (rule not in ("left", "both") or j <= i)
            and (rule not in ("column", "both") or color[i] == color[j])
        )

    found = packed(q, k, v, batch, rules[rule], sliding_window=window, scaling=0.7)
    expected = brute_force(q, k, v, visible, scale=0.7)
    torch.testing.assert_close(found, expected, **EXACT)


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=2, max_size=6), seed=st.integers(0, 99))
def test_other_sequences_change_nothing(lengths, seed):
    q, k, v = tensors(seed, *[(sum(lengths), 2, 4)] * 3)
    batch = row_of(lengths)
    before = packed(q, k, v, batch)
    chosen = batch.sequence == seed % len(lengths)
    others = [torch.where(chosen[:, None, None], t, torch.randn_like(t)) for t in (q, k, v)]
    assert torch.equal(packed(*others, batch)[chosen], before[chosen])


def test_equal_lengths_are_one_block():
    assert [(b.start, b.count, b.length) for b in equal_blocks([2, 2, 3, 5, 5, 5])] == [
        (0, 2, 2),
        (4, 1, 3),
        (7, 3, 5),
    ]


def test_masks_are_built_once_per_block_and_window():
    calls = []

    def rule(i, j, columns):
        calls.append(1)
        return i == j

    batch = row_of([2, 2, 4])
    packing = Packing(batch, [rule])
    masks = [packing.mask(n, block, 0) for _ in range(3) for n, block in enumerate(batch.blocks)]
    assert len(calls) == 2
    assert masks[0].shape == (2, 1, 2, 2)
    assert packing.mask(1, batch.blocks[1], 1) is not masks[1]


def test_windows_wider_than_the_sequence_need_no_mask():
    batch = row_of([4])
    assert Packing(batch).mask(0, batch.blocks[0], 3) is None
    assert Packing(batch).mask(0, batch.blocks[0], 2) is not None


def test_attention_outside_of_a_pass_is_an_error():
    q = torch.zeros(1, 1, 2, 2)
    with pytest.raises(RuntimeError, match="outside of an encode pass"):
        packed_attention(None, q, q, q, None)

"""Fusion inside the blocks against the paper's equations, written straight down in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import perturb, step_gradients, tiny_run

from ptm_plus import SettingsError
from ptm_plus.data import Row
from ptm_plus.microbatch import to_device
from ptm_plus.selfcheck import self_check
from ptm_plus_kg_fusion.in_block import FusedBlock, heads_of
from ptm_plus_kg_fusion.settings import KgFusionSettings, fused_blocks

pytestmark = pytest.mark.kg_fusion

INSIDE = {"kg-fusion": {"fusion": "in-block", "blocks": [0, 1, 2]}}
FAMILIES = ("bert", "roberta", "xlm-roberta", "modernbert")
EXACT = {"atol": 1e-10, "rtol": 1e-10}


def host_of(run, numbers=range(40)):
    row = Row("text", "", 0, np.array(numbers))
    return run.collator.batch([row], [row], 0.3)


def on_device(run, host):
    return to_device(host, run.device, torch.float64)


def inside_run(family="bert", plugin=INSIDE, **values):
    run = tiny_run(family, ("kg-fusion",), plugin=plugin, **values)
    perturb(run)
    return run


def weights(run):
    named = {n.removeprefix("backbone."): p for n, p in run.encoder.named_parameters()}
    prefix = "parts.kg-fusion/fusion.blocks."
    return named, {n.removeprefix(prefix): p for n, p in named.items() if n.startswith(prefix)}


# ---------------------------------------------------------------------------------------------
# The reference: no module is called; sequences and heads one by one


def norm(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + eps) * weight + bias


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def affine(x, w, name):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def heads_attend(query, key, value, heads):
    """softmax(q k^T / sqrt(width)) v, head by head."""
    width = query.shape[1] // heads
    mixed = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = torch.exp(query[:, part] @ key[:, part].T / math.sqrt(width))
        mixed.append(scores / scores.sum(1, keepdim=True) @ value[:, part])
    return torch.cat(mixed, 1)


def bert_by_hand(run, batch, blocks, heads=2):
    """Return ``[T, d]`` last states of BERT with the equations of section 3.3."""
    w, f = weights(run)
    eps = run.encoder.backbone.config.layer_norm_eps
    e = "bert.embeddings."
    x = w[f"{e}word_embeddings.weight"][batch.ids]
    x = x + w[f"{e}position_embeddings.weight"][batch.positions]
    x = x + w[f"{e}token_type_embeddings.weight"][batch.types]
    x = norm(x, w[f"{e}LayerNorm.weight"], w[f"{e}LayerNorm.bias"], eps)
    vectors = batch.column("kg-fusion", "vectors")[batch.column("kg-fusion", "owner")]
    positions = batch.column("kg-fusion", "positions").tolist()
    tops = []
    for first, end in zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True):
        states, here = x[first:end], [n for n, p in enumerate(positions) if first <= p < end]
        entities, local = vectors[here], [positions[n] - first for n in here]
        for block in range(3):
            b = f"bert.encoder.layer.{block}."
            query, key, value = (
                affine(states, w, f"{b}attention.self.{name}") for name in ("query", "key", "value")
            )
            mixed = affine(heads_attend(query, key, value, heads), w, f"{b}attention.output.dense")
            n = f"{b}attention.output.LayerNorm"
            attended = norm(mixed + states, w[f"{n}.weight"], w[f"{n}.bias"], eps)
            inner = affine(attended, w, f"{b}intermediate.dense")
            if block in blocks and here:
                place = blocks.index(block)
                if place:
                    a = f"{place}.attention."
                    query, key, value = (
                        affine(entities, f, a + name) for name in ("query", "key", "value")
                    )
                    mixed = affine(
                        heads_attend(query, key, value, heads_of(entities.shape[1])), f, f"{a}out"
                    )
                    entities = norm(
                        mixed + entities, f[f"{a}norm.weight"], f[f"{a}norm.bias"], 1e-5
                    )
                rows = []
                for token in range(end - first):
                    row = inner[token]
                    if token in local:
                        row = row + f[f"{place}.into.weight"] @ entities[local.index(token)]
                    rows.append(row)
                inner = torch.stack(rows)
            hidden = gelu(inner)
            if block in blocks and here and place < len(blocks) - 1:
                passed = affine(hidden[local], f, f"{place}.out") + entities
                entities = norm(passed, f[f"{place}.norm.weight"], f[f"{place}.norm.bias"], 1e-5)
            n = f"{b}output.LayerNorm"
            out = affine(hidden, w, f"{b}output.dense") + attended
            states = norm(out, w[f"{n}.weight"], w[f"{n}.bias"], eps)
        tops.append(states)
    return torch.cat(tops)


@pytest.mark.parametrize("blocks", [[0, 1, 2], [1, 2], [0, 2], [2]])
def test_states_and_gradients_are_those_of_the_equations(blocks):
    run = inside_run(plugin={"kg-fusion": {"fusion": "in-block", "blocks": blocks}})
    batch = on_device(run, host_of(run))
    assert len(batch.column("kg-fusion", "positions")) > 20
    found, expected = run.encoder.encode(batch).top, bert_by_hand(run, batch, blocks)
    torch.testing.assert_close(found, expected, **EXACT)
    torch.manual_seed(0)
    behind = torch.randn_like(found)
    parameters = [
        p for n, p in run.encoder.named_parameters() if "cls." not in n and "head" not in n
    ]
    ours, theirs = (
        torch.autograd.grad(top, parameters, behind, allow_unused=True) for top in (found, expected)
    )
    moved = 0
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, **EXACT)
            moved += bool(one.abs().sum() > 0)
    assert moved > 50


@pytest.mark.parametrize("family", FAMILIES)
def test_the_feed_forward_of_a_fused_block_is_the_equation(family):
    """What goes into a block's feed-forward and what comes out, with e~ worked out by hand."""
    run = inside_run(family, {"kg-fusion": {"fusion": "in-block", "blocks": [1]}})
    batch = on_device(run, host_of(run))
    layer = run.encoder.card.block_list(run.encoder.backbone)[1]
    gated = family == "modernbert"
    before, after = (
        (layer.mlp.Wi, layer.mlp.Wo) if gated else (layer.intermediate.dense, layer.output.dense)
    )
    seen = {}
    handles = [
        module.register_forward_hook(
            lambda m, given, out, name=name: seen.update({name: (given[0][0], out[0])})
        )
        for name, module in (("before", before), ("after", after))
    ]
    run.encoder.encode(batch)
    for handle in handles:
        handle.remove()
    inner = seen["before"][0] @ before.weight.T + (0 if before.bias is None else before.bias)
    into = weights(run)[1]["0.into.weight"]
    vectors = batch.column("kg-fusion", "vectors")[batch.column("kg-fusion", "owner")]
    for number, token in enumerate(batch.column("kg-fusion", "positions").tolist()):
        inner[token, : into.shape[0]] += into @ vectors[number]
    hidden = gelu(inner)
    if gated:
        activated, gate = inner.chunk(2, -1)
        hidden = gelu(activated) * gate
    torch.testing.assert_close(seen["after"][0], hidden, **EXACT)


# ---------------------------------------------------------------------------------------------
# In a run


@pytest.mark.parametrize("family", FAMILIES)
def test_at_its_start_the_model_is_the_base_bit_for_bit(family):
    run, base = tiny_run(family, ("kg-fusion",), plugin=INSIDE), tiny_run(family)
    batch = on_device(run, host_of(run))
    logits = [one.encoder.logits(one.encoder.encode(batch).top) for one in (run, base)]
    assert torch.equal(*logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_self_check_passes_with_all_blocks_fused(family):
    self_check(tiny_run(family, ("kg-fusion", "tlm"), plugin=INSIDE))


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_recomputed_blocks_have_the_same_gradients(family):
    runs = [
        inside_run(family, **{"model.gradient_checkpointing": again}) for again in (False, True)
    ]
    kept, recomputed = (step_gradients(run) for run in runs)
    assert kept.keys() == recomputed.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(recomputed[name], gradient, atol=1e-12, rtol=1e-10)
    fusion = [g for name, g in kept.items() if "/fusion" in name]
    assert all(bool(gradient.abs().sum() > 0) for gradient in fusion)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_the_encoder_compiles_without_a_graph_break(family):
    run = inside_run(family)
    batch = on_device(run, host_of(run, numbers=range(4)))
    expected = run.encoder.encode(batch).top
    torch._dynamo.reset()
    try:
        encode = torch.compile(
            lambda: run.encoder.encode(batch).top, backend="eager", fullgraph=True
        )
        torch.testing.assert_close(encode(), expected, **EXACT)
    finally:
        torch._dynamo.reset()


def test_a_text_without_mentions_passes_as_it_is():
    run = inside_run()
    host = host_of(run)
    batch = on_device(run, host)
    nothing = {
        name: column[:0]
        if name.partition(".")[2] in ("positions", "owner", "table", "place")
        else column
        for name, column in batch.columns.items()
    }
    bare = replace(batch, columns=nothing)
    base = tiny_run("bert")
    base.encoder.backbone.load_state_dict(run.encoder.backbone.state_dict())
    torch.testing.assert_close(
        run.encoder.encode(bare).top, base.encoder.encode(batch).top, **EXACT
    )


def test_five_of_twelve_blocks_are_plain_by_default():
    inside = KgFusionSettings(fusion="in-block")
    assert fused_blocks(inside, 12) == (5, 6, 7, 8, 9, 10, 11)
    assert fused_blocks(inside, 3) == (1, 2)
    assert fused_blocks(inside, 1) == (0,)
    assert fused_blocks(KgFusionSettings(), 12) == (0,)
    assert fused_blocks(KgFusionSettings(blocks=(-1, 2, 0)), 12) == (0, 2, 11)
    with pytest.raises(SettingsError, match="fuses block 12"):
        fused_blocks(KgFusionSettings(blocks=(12,)), 12)


def test_heads_have_to_divide_the_width():
    assert [heads_of(width) for width in (100, 64, 9, 7)] == [4, 4, 3, 1]
    with pytest.raises(SettingsError, match="heads is 3, which does not divide"):
        tiny_run("bert", ("kg-fusion",), plugin={"kg-fusion": {"fusion": "in-block", "heads": 3}})


def test_the_last_fused_block_has_no_parameters_that_nothing_reads():
    block = FusedBlock(4, 8, 2, passes_on=False, dropout=0.0)
    assert {name.partition(".")[0] for name, _ in block.named_parameters()} == {"attention", "into"}


def test_rare_entities_alone_are_fused(monkeypatch):
    everyone = tiny_run("bert", ("kg-fusion",))
    counts = everyone.prepared.context.view("kg-fusion", "ptm_parts").occurrences["entity"]
    most = int(sorted(counts[counts > 0])[1])
    rare = tiny_run("bert", ("kg-fusion",), plugin={"kg-fusion": {"rare": most}})
    whole, some = (on_device(run, host_of(run)) for run in (everyone, rare))
    spans = host_of(rare).view.spans_of("entity")
    expected = {
        int(start)
        for start, entity in zip(spans.start, spans.id, strict=True)
        if entity >= 0 and counts[entity] <= most
    }
    found = set(some.column("kg-fusion", "positions").tolist())
    assert found <= expected
    assert found
    assert found < set(whole.column("kg-fusion", "positions").tolist())
    assert len(some.column("kg-fusion", "labels")) == len(whole.column("kg-fusion", "labels"))


def test_occurrences_are_those_of_a_loop():
    run = tiny_run("bert", ("kg-fusion", "tlm"))
    labels = run.prepared.labels["entity"]
    counted = dict.fromkeys(labels, 0)
    for data in run.prepared.streams.values():
        for spans in data.store.spans.values():
            for kind, number in zip(spans.kind.tolist(), spans.id.tolist(), strict=True):
                name = spans.ids[number] if spans.kinds[kind] == "entity" else ""
                if name in counted:
                    counted[name] += 1
    view = run.prepared.context.view("kg-fusion", "ptm_parts")
    assert dict(zip(labels, view.occurrences["entity"].tolist(), strict=True)) == counted
    assert sum(counted.values()) > 100

"""Passes of the encoder: independence of neighbours, taps, inputs, visibility, states."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import BOTH, FAMILIES, home_made, perturb, tiny_run
from torch import nn

from ptm_plus import (
    EmbeddingDelta,
    EmbeddingReplacement,
    GuardStop,
    Part,
    PluginError,
    SettingsError,
    Tap,
    Visibility,
    hookimpl,
)
from ptm_plus.data import Row
from ptm_plus.encoder import Encoder
from ptm_plus.families import CARDS, card_of
from ptm_plus.microbatch import to_device

LANGUAGES = {"tlm": {"language_embeddings": True}}


def batch_of(run, numbers, stream="text", step=None, rate=0.3):
    """Return the micro-batch of some sequences and their host batch."""
    row = Row(stream, "", 0, np.asarray(numbers))
    rows = [row] if step is None else [Row(stream, "", 0, np.asarray(step))]
    host = run.collator.batch([row], rows, rate)
    return host, to_device(host, run.device, torch.float64)


def by_number(host, states):
    parts = states.split(host.view.lengths.tolist())
    return dict(zip(host.view.numbers.tolist(), parts, strict=True))


# ---------------------------------------------------------------------------------------------
# Neighbours


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sequence_s_states_do_not_depend_on_its_neighbours(family):
    """Every sequence in several random packings, against the same sequence alone."""
    run = tiny_run(family, BOTH, plugin=LANGUAGES)
    perturb(run)
    rng = np.random.default_rng(0)
    for stream in ("text", "pairs"):
        step = rng.permutation(len(run.prepared.streams[stream].store))[:24]
        alone = {}
        for number in step.tolist():
            host, batch = batch_of(run, [number], stream, step)
            alone[number] = run.encoder.encode(batch).top
        for _ in range(4):
            numbers = rng.permutation(step)[: rng.integers(2, 24)]
            host, batch = batch_of(run, numbers, stream, step)
            found = by_number(host, run.encoder.encode(batch).top)
            for number, states in found.items():
                torch.testing.assert_close(states, alone[number], atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_changing_a_neighbour_s_tokens_changes_nothing_bit_for_bit(family):
    run = tiny_run(family)
    _, batch = batch_of(run, np.arange(12))
    before = run.encoder.encode(batch).top
    for sequence in (0, 5, 11):
        other = batch.sequence != sequence
        ids = torch.where(other, batch.ids.flip(0), batch.ids)
        after = run.encoder.encode(replace(batch, ids=ids)).top
        assert torch.equal(after[~other], before[~other])
        assert not torch.equal(after[other], before[other])


def test_the_sliding_window_is_stock_modernbert_s():
    """Packed states against transformers' own attention, layer types full and sliding."""
    run = tiny_run("modernbert")
    perturb(run)
    host, batch = batch_of(run, np.arange(10))
    model = run.encoder.backbone
    assert max(host.view.lengths) > 9  # longer than the window of 4 to each side
    found = by_number(host, run.encoder.encode(batch).top)
    ids = by_number(host, torch.from_numpy(host.plan.ids))
    model.set_attn_implementation("sdpa")
    for number, own in ids.items():
        expected = model.model(input_ids=own[None])[0][0]
        torch.testing.assert_close(found[number], expected, atol=1e-11, rtol=1e-9)
    unlimited = tiny_run("modernbert", sets=["model.config.local_attention=128"])
    unlimited.encoder.load_state_dict(run.encoder.state_dict())
    assert not torch.allclose(unlimited.encoder.encode(batch).top, run_states(found, host))


def run_states(found, host):
    return torch.cat([found[number] for number in host.view.numbers.tolist()])


@pytest.mark.parametrize("family", FAMILIES)
def test_visibility_rules_are_dense_masks(family):
    """A rule against a dense mask given to transformers' own attention."""
    run = tiny_run(family, sets=["model.config.local_attention=128"] if family[0] == "m" else ())
    perturb(run)
    host, batch = batch_of(run, np.arange(6))

    def rule(q, k, columns):
        near = (columns["positions"][q] - columns["positions"][k]).abs() <= 2
        return near | (columns["positions"][k] == 0)

    found = by_number(host, run.encoder.encode(batch, rules=[rule]).top)
    whole = by_number(host, run.encoder.encode(batch).top)
    ids = by_number(host, torch.from_numpy(host.plan.ids))
    run.encoder.backbone.set_attn_implementation("sdpa")
    base = run.encoder.card.encoder(run.encoder.backbone)
    for number, own in ids.items():
        place = torch.arange(len(own))
        seen = ((place[:, None] - place[None]).abs() <= 2) | (place[None] == 0)
        mask = torch.zeros(1, 1, *seen.shape, dtype=torch.float64)
        mask = mask.masked_fill(~seen, torch.finfo(torch.float64).min)
        if family == "modernbert":
            mask = {"full_attention": mask, "sliding_attention": mask}
        expected = base(input_ids=own[None], attention_mask=mask)[0][0]
        torch.testing.assert_close(found[number], expected, atol=1e-11, rtol=1e-9)
        assert not torch.allclose(found[number], whole[number])


# ---------------------------------------------------------------------------------------------
# Logits and states


@pytest.mark.parametrize("family", sorted(CARDS))
def test_every_family_card_gives_the_stock_model_s_logits_and_states(family):
    run = tiny_run(family)
    perturb(run)
    run.encoder.eval()
    _, batch = batch_of(run, [3])
    states = run.encoder.encode(batch)
    logits = run.encoder.logits(states.top)
    run.encoder.backbone.set_attn_implementation("sdpa")
    stock = run.encoder.backbone(input_ids=batch.ids[None], output_hidden_states=True)
    torch.testing.assert_close(logits, stock.logits[0], atol=1e-11, rtol=1e-9)
    torch.testing.assert_close(states.blocks[0], stock.hidden_states[1][0], atol=1e-11, rtol=1e-9)
    assert len(states.blocks) == run.encoder.blocks


@pytest.mark.parametrize("family", FAMILIES)
def test_state_dict_keys_are_the_stock_model_s(family):
    from transformers import AutoModelForMaskedLM

    run = tiny_run(family, BOTH)
    stock = AutoModelForMaskedLM.from_config(run.encoder.backbone.config)
    assert run.encoder.backbone.state_dict().keys() == stock.state_dict().keys()


def test_an_unknown_family_is_a_settings_error():
    with pytest.raises(SettingsError, match="'robertaa' has no family card; did you mean"):
        card_of("robertaa")


# ---------------------------------------------------------------------------------------------
# Taps


@dataclass
class Own:
    """A plugin of given components."""

    name: str = "own"
    parts: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)

    @hookimpl
    def ptm_parts(self, context):
        return self.parts

    @hookimpl
    def ptm_inputs(self, context):
        return self.inputs


def run_with(monkeypatch, *own, family="bert", **values):
    with home_made(monkeypatch, *own) as names:
        return tiny_run(family, names, **values)


def part(run, *, name="part", site="block_out", blocks=(1,), writes=True):
    tap = Tap(site=site, run=run, blocks=blocks, writes=writes)
    return Part(name=name, build=nn.Identity, taps=lambda module: [tap])


def slope(width):
    """Something that no layer norm takes away."""
    return torch.linspace(-1, 1, width, dtype=torch.float64)


SITES = ("embeddings", "block_in", "attn_out", "ffn_pre", "ffn_hidden", "block_out", "top")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("site", SITES)
def test_every_site_reads_and_writes(family, site, monkeypatch):
    seen = []

    def write(context, block, hidden):
        seen.append((block, hidden.shape))
        return hidden + slope(hidden.shape[1])

    run = run_with(monkeypatch, Own(parts=[part(write, site=site)]), family=family)
    perturb(run)
    _, batch = batch_of(run, np.arange(4))
    changed = run.encoder.encode(batch).top
    plain = run.encoder.encode(batch, taps=False).top
    if site == "top":
        torch.testing.assert_close(changed, plain + slope(32))
    assert not torch.allclose(changed, plain)
    ((block, shape),) = seen
    assert shape[0] == len(batch)
    assert block == {"embeddings": -1, "top": 3}.get(site, 1)


def test_what_block_out_writes_is_what_the_next_block_reads(monkeypatch):
    read = {}

    def keep(context, block, hidden):
        read[block] = hidden

    own = Own(
        parts=[
            part(lambda context, block, hidden: hidden * 2, name="writer", blocks=(0,)),
            part(keep, name="in", site="block_in", blocks=(1,), writes=False),
        ]
    )
    run = run_with(monkeypatch, own)
    _, batch = batch_of(run, np.arange(4))
    states = run.encoder.encode(batch)
    plain = run.encoder.encode(batch, taps=False)
    torch.testing.assert_close(read[1], plain.blocks[0] * 2)
    torch.testing.assert_close(states.blocks[0], plain.blocks[0] * 2)


def test_a_reader_cannot_change_states(monkeypatch):
    own = Own(parts=[part(lambda context, block, hidden: hidden * 3, writes=False)])
    run = run_with(monkeypatch, own)
    _, batch = batch_of(run, np.arange(4))
    assert torch.equal(run.encoder.encode(batch).top, run.encoder.encode(batch, taps=False).top)


def test_states_are_carried_from_block_to_block_within_a_pass(monkeypatch):
    found = []

    def carry(context, block, hidden):
        before = context.states.get(("own", block - 1))
        found.append((block, None if before is None else before.tolist()))
        context.states["own", block] = hidden.new_full((1,), float(block))

    own = Own(parts=[part(carry, blocks=(0, 1, -1), writes=False)])
    run = run_with(monkeypatch, own)
    _, batch = batch_of(run, np.arange(2))
    for _ in range(2):
        run.encoder.encode(batch)
    assert found == [(0, None), (1, [0.0]), (2, [1.0])] * 2


def test_silenced_plugins_neither_write_nor_edit(monkeypatch):
    delta = EmbeddingDelta(
        name="d", delta=lambda batch, parts: batch.positions[:, None] * slope(32)
    )
    own = Own(parts=[part(lambda context, block, hidden: hidden + slope(32))], inputs=[delta])
    run = run_with(monkeypatch, own)
    _, batch = batch_of(run, np.arange(4))
    changed = run.encoder.encode(batch).top
    with run.encoder.without(["own"]):
        plain = run.encoder.encode(batch).top
        with run.encoder.without(["other"]):
            assert torch.equal(run.encoder.encode(batch).top, plain)
    assert torch.equal(plain, tiny_run("bert").encoder.encode(batch).top)
    assert torch.equal(run.encoder.encode(batch).top, changed)
    assert not torch.allclose(changed, plain)


def test_hooks_rest_outside_of_our_passes(monkeypatch):
    """The stock forward of the same modules is the stock model's."""
    run = run_with(
        monkeypatch, Own(parts=[part(lambda context, block, hidden: hidden + slope(32))])
    )
    _, batch = batch_of(run, [0])
    run.encoder.backbone.set_attn_implementation("sdpa")
    stock = run.encoder.backbone(input_ids=batch.ids[None]).logits
    again = tiny_run("bert").encoder
    again.backbone.set_attn_implementation("sdpa")
    assert torch.equal(stock, again.backbone(input_ids=batch.ids[None]).logits)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"blocks": (3,)}, "taps block 3, but the model has 3 blocks"),
        ({"blocks": (-4,)}, "taps block -4"),
        ({"site": "router"}, "needs site 'router', which family 'bert' does not have"),
    ],
)
def test_taps_that_do_not_exist_are_refused(values, message, monkeypatch):
    with pytest.raises((SettingsError, PluginError), match=message):
        run_with(monkeypatch, Own(parts=[part(lambda *_: None, **values)]))


# ---------------------------------------------------------------------------------------------
# Inputs


@pytest.mark.parametrize("family", FAMILIES)
def test_deltas_of_plugins_are_summed(family, monkeypatch):
    def own(name, factor):
        def delta(batch, parts):
            return factor * batch.positions[:, None].double() * slope(32)

        delta = EmbeddingDelta(name="d", delta=delta)
        return Own(name=name, inputs=[delta])

    both = run_with(monkeypatch, own("a", 0.1), own("b", 0.2), family=family)
    one = run_with(monkeypatch, own("a", 0.3), family=family)
    _, batch = batch_of(both, np.arange(4))
    found, expected = both.encoder.encode(batch).top, one.encoder.encode(batch).top
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-8)
    assert not torch.allclose(found, tiny_run(family).encoder.encode(batch).top)


def replaces(name, places):
    def replace_(batch, parts):
        where = torch.tensor(places)
        return where, torch.ones(len(places), 32)

    return Own(name=name, inputs=[EmbeddingReplacement(name="r", replace=replace_)])


def test_replaced_vectors_stand_in_for_word_vectors(monkeypatch):
    run = run_with(monkeypatch, replaces("a", [1]), replaces("b", [2]))
    _, batch = batch_of(run, [0])
    found = run.encoder.encode(batch).top
    model = run.encoder.backbone
    with torch.no_grad():
        words = model.get_input_embeddings()(batch.ids)
        words[1:3] = 1.0
    model.set_attn_implementation("sdpa")
    expected = model.bert(inputs_embeds=words[None])[0][0]
    torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-9)


def test_two_plugins_may_not_replace_one_token(monkeypatch):
    run = run_with(monkeypatch, replaces("a", [1, 2]), replaces("b", [2]))
    _, batch = batch_of(run, [0])
    with pytest.raises(GuardStop, match="plugins 'a', 'b' replace the vector of the same token"):
        run.encoder.encode(batch)


def test_rules_of_plugins_are_combined_by_and(monkeypatch):
    def own(name, rule, streams=()):
        return Own(name=name, inputs=[Visibility(name="v", rule=rule, streams=streams)])

    left = own("left", lambda q, k, columns: k <= q)
    right = own("right", lambda q, k, columns: k >= q)
    elsewhere = own("elsewhere", lambda q, k, columns: k < 0, streams=("halves",))
    run = run_with(monkeypatch, left, right, elsewhere)
    _, batch = batch_of(run, np.arange(4))
    found = run.encoder.encode(batch).top
    alone = run_with(monkeypatch, own("self", lambda q, k, columns: q == k))
    torch.testing.assert_close(found, alone.encoder.encode(batch).top, atol=1e-12, rtol=1e-10)


def test_an_encoder_without_parts_computes_what_one_with_silent_parts_does():
    run = tiny_run("bert", BOTH)
    perturb(run)
    _, batch = batch_of(run, np.arange(8))
    bare = Encoder(run.encoder.backbone, run.encoder.card)
    with run.encoder.without(BOTH):
        assert torch.equal(run.encoder.encode(batch).top, bare.encode(batch).top)

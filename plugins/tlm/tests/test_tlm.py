"""Pairs at access, in the model, and in training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import FAMILIES, Recorder, perturb, tiny_run
from torch.nn.functional import cross_entropy

from ptm_plus.data import Row
from ptm_plus.evaluation import evaluate
from ptm_plus.microbatch import to_device
from ptm_plus.probes import ProbeContext
from ptm_plus_tlm.hooks import language_vectors, own_half

pytestmark = pytest.mark.tlm

LANGUAGES = {"tlm": {"language_embeddings": True}}


def views(run, epoch=0, numbers=None):
    chosen = np.arange(len(run.prepared.streams["pairs"].store)) if numbers is None else numbers
    return run.collator.view([Row("pairs", "", epoch, np.asarray(chosen))])


def batch_of(run, numbers=range(12), rate=0.3):
    row = Row("pairs", "", 0, np.asarray(numbers))
    host = run.collator.batch([row], [row], rate)
    return host, to_device(host, run.device, torch.float64)


def segments_of(view, sequence):
    """Return the segment of every token of a sequence, in order of the view."""
    return view.segments[view.offsets[sequence] : view.offsets[sequence + 1]]


# ---------------------------------------------------------------------------------------------
# Positions


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("manner", ["restart", "continue"])
def test_positions_by_hand(family, manner):
    run = tiny_run(family, ("tlm",), plugin={"tlm": {"positions": manner}})
    view = views(run)
    for sequence, (first, last) in enumerate(zip(view.offsets, view.offsets[1:], strict=False)):
        slots = segments_of(view, sequence)
        # prefix, first slot, middle up to where the second half is opened
        lead = 1 + int((slots == slots[1]).sum()) + 1
        size = int(last - first)
        expected = list(range(lead)) + list(range(size - lead))
        if manner == "continue":
            expected = list(range(size))
        assert view.positions[first:last].tolist() == expected


def test_the_family_s_offset_is_added_to_restarted_positions():
    run = tiny_run("roberta", ("tlm",), plugin={"tlm": {"positions": "restart"}})
    _, batch = batch_of(run)
    places = run.encoder.places(batch)["position_ids"][0]
    assert int((places == 2).sum()) == 2 * 12  # each half of each pair begins there
    assert torch.equal(places, batch.positions + run.encoder.backbone.config.pad_token_id + 1)
    assert int(places.min()) == 2


# ---------------------------------------------------------------------------------------------
# The order of the halves


def test_halves_change_places_about_half_the_time():
    run = tiny_run("bert", ("tlm",))
    swapped = [
        segments_of(view, sequence)[1] == 3
        for view in (views(run, epoch) for epoch in range(12))
        for sequence in range(len(view.numbers))
    ]
    share, error = np.mean(swapped), 0.5 / np.sqrt(len(swapped))
    assert len(swapped) > 1500
    assert abs(share - 0.5) < 4 * error


def test_without_swap_the_stored_order_stays():
    run = tiny_run("bert", ("tlm",), plugin={"tlm": {"swap": False}})
    view = views(run)
    assert all(segments_of(view, s)[1] == 1 for s in range(len(view.numbers)))


def test_words_spans_and_languages_move_along():
    """Every half reads the same, wherever it stands; its spans cover the same tokens."""
    run = tiny_run("bert", ("kg-fusion", "tlm"))
    still = tiny_run("bert", ("kg-fusion", "tlm"), plugin={"tlm": {"swap": False}})
    stored, moved = views(still), views(run)
    assert stored.numbers.tolist() == moved.numbers.tolist()
    swaps = 0
    for sequence in range(len(stored.numbers)):
        swaps += segments_of(moved, sequence)[1] == 3
        for half in (1, 3):
            assert half_of(moved, sequence, half) == half_of(stored, sequence, half)
    assert 0 < swaps < len(stored.numbers)
    # token types belong to the slot, not to the half
    assert moved.types.tolist() == [
        kind
        for sequence in range(len(moved.numbers))
        for kind in slot_types(segments_of(moved, sequence))
    ]


def half_of(view, sequence, half):
    own = (view.sequence == sequence) & (view.segments == half)
    spans = view.spans_of("entity")
    rows = np.flatnonzero((spans.sequence == sequence) & (spans.segment == half))
    mentions = [
        (view.ids[spans.start[r] : spans.start[r] + spans.length[r]].tolist(), int(spans.id[r]))
        for r in rows
    ]
    languages = set(view.languages[own].tolist())
    return view.ids[own].tolist(), view.source[own].tolist(), sorted(mentions), languages


def slot_types(segments):
    """BERT: 0 up to the first separator, 1 after it."""
    first = 1 + int((segments == segments[1]).sum()) + 1
    return [0] * first + [1] * (len(segments) - first)


def test_labels_are_the_tokens_that_stood_there():
    run = tiny_run("bert", ("tlm",))
    host, batch = batch_of(run)
    assert torch.equal(batch.labels, torch.from_numpy(host.view.ids)[batch.predicted])
    untouched = np.flatnonzero(~host.plan.predicted)
    assert (host.plan.ids[untouched] == host.view.ids[untouched]).all()
    assert (host.view.words[host.plan.predicted] >= 0).all()
    assert set(host.view.segments[host.plan.predicted]) == {1, 3}


# ---------------------------------------------------------------------------------------------
# Hiding the other half


@pytest.mark.parametrize("family", FAMILIES)
def test_own_half_blocks_the_other_half_exactly(family):
    """Changing one half's tokens leaves the other half's states as they were, bit for bit."""
    run = tiny_run(family, ("tlm",), plugin=LANGUAGES)
    perturb(run)
    _, batch = batch_of(run)
    for half, other in ((1, 3), (3, 1)):
        ids = torch.where(batch.segments == other, batch.ids.flip(0), batch.ids)
        changed = replace(batch, ids=ids)
        own = batch.segments == half
        before = run.encoder.encode(batch, rules=[own_half]).top
        after = run.encoder.encode(changed, rules=[own_half]).top
        assert torch.equal(before[own], after[own])
        assert not torch.equal(before[batch.segments == other], after[batch.segments == other])
        open_before, open_after = (run.encoder.encode(b).top for b in (batch, changed))
        assert not torch.allclose(open_before[own], open_after[own])


def test_own_half_lets_every_token_see_itself_and_the_frame():
    run = tiny_run("bert", ("tlm",))
    _, batch = batch_of(run, [0])
    columns = {"segments": batch.segments, "languages": batch.languages}
    place = torch.arange(len(batch))
    seen = own_half(place[:, None], place[None], columns)
    special = batch.languages < 0
    assert seen.diagonal().all()
    assert seen[:, special].all()
    for half in (1, 3):
        own = batch.segments == half
        assert torch.equal(seen[own], (own | special).expand(int(own.sum()), -1))
    assert not seen[special][:, ~special].any()


def test_the_probe_compares_the_same_tokens_with_and_without_the_other_half():
    run = tiny_run("bert", ("tlm",))
    perturb(run)
    figures = evaluate(run)["tlm_other_half"]
    whole, hidden = [], []
    with torch.no_grad():
        for host in ProbeContext(run).held_out("pairs"):
            batch = to_device(host, run.device, torch.float64)
            for rules, losses in (((), whole), ((own_half,), hidden)):
                top = run.encoder.encode(batch, rules=rules).top
                logits = run.encoder.logits(top[batch.predicted])
                losses.append(cross_entropy(logits.float(), batch.labels, reduction="none"))
    assert figures["loss"] == pytest.approx(float(torch.cat(whole).mean()), rel=1e-6)
    assert figures["loss_hidden"] == pytest.approx(float(torch.cat(hidden).mean()), rel=1e-6)
    assert figures["rise"]["count"] > 5
    assert figures["rise"]["error"] > 0
    assert figures.keys() == {"loss", "loss_hidden", "rise"}


# ---------------------------------------------------------------------------------------------
# Language vectors


def test_language_vectors_are_added_to_the_words_of_their_language():
    run = tiny_run("bert", ("tlm",), plugin=LANGUAGES)
    perturb(run)
    _, batch = batch_of(run)
    table = run.encoder.parts_of("tlm")["languages"].weight
    found = language_vectors(batch, run.encoder.parts_of("tlm"))
    codes = run.prepared.labels["language"]
    assert codes == ("de", "en")
    for token in range(len(batch)):
        row = int(batch.languages[token])
        expected = table[row] if row >= 0 else torch.zeros(32, dtype=torch.float64)
        assert torch.equal(found[token], expected)
    assert {int(row) for row in batch.languages} == {-1, 0, 1}


@pytest.mark.parametrize("family", FAMILIES)
def test_language_vectors_start_as_nothing(family):
    with_table = tiny_run(family, ("tlm",), plugin=LANGUAGES)
    without = tiny_run(family, ("tlm",))
    _, batch = batch_of(with_table)
    one, other = (run.encoder.encode(batch).top for run in (with_table, without))
    assert torch.equal(one, other)


# ---------------------------------------------------------------------------------------------
# In a run


def test_pairs_replace_the_halves_and_keep_their_own_loss():
    run = tiny_run("bert", ("tlm",))
    assert sorted(run.prepared.streams) == ["pairs", "text"]
    assert run.loss_keys() == [("pairs", "tlm"), ("text", "mlm")]
    plain = tiny_run("bert")
    assert plain.loss_keys() == [("halves", "mlm"), ("text", "mlm")]


def test_the_loss_falls_in_training():
    watch = Recorder()
    trained("bert", ("tlm",), ["train.steps=60", "train.lr=0.01"], watch)
    losses = [line["pairs/tlm"] for line in watch.losses()]
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])


def test_hiding_the_other_half_costs_a_model_that_learned_to_use_it_and_no_other():
    """After tlm the loss rises by a clear margin; after the halves as single texts it does not."""
    sets = ["train.steps=300", "train.lr=0.005", "data.held_out=0.3"]
    pairs, halves = (trained("bert", plugins, sets) for plugins in (("tlm",), ()))
    probed = tiny_run("bert", ("tlm",), sets=sets)
    assert probed.prepared.tokenizer.get_vocab() == halves.prepared.tokenizer.get_vocab()
    probed.encoder.backbone.load_state_dict(halves.encoder.backbone.state_dict())
    after_pairs, after_halves = (evaluate(run)["tlm_other_half"]["rise"] for run in (pairs, probed))
    assert after_pairs["count"] > 30
    assert after_pairs["mean"] > 0.1
    assert after_pairs["mean"] > 3 * after_pairs["error"]
    assert after_halves["mean"] < 0


def trained(family, plugins, sets, watch=None):
    from ptm_plus.processes import make_accelerator
    from ptm_plus.train import Trainer

    run = tiny_run(family, plugins, sets=sets)
    trainer = Trainer(run, watch or Recorder(), make_accelerator("fp32", "cpu"))
    for step in range(run.settings.train.steps):
        trainer.step(run.planner.plan(step))
        trainer.log()
    return run

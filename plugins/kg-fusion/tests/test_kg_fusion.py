"""The plugin in a run: identity at the start, dEA by hand, candidates of the step, modes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import FAMILIES, PLACES, folder, perturb, tiny_run, tiny_settings

from ptm_plus import DataError, PluginError, SettingsError
from ptm_plus.data import Row
from ptm_plus.knowledge import VectorTable, write_table
from ptm_plus.launch import launch
from ptm_plus.microbatch import to_device
from ptm_plus.probes import ProbeContext
from ptm_plus.progress import Silent
from ptm_plus_kg_fusion.entities import KEEP, MASK, RANDOM
from ptm_plus_kg_fusion.probes import entity_vectors, one_of_several, without_vectors
from ptm_plus_kg_fusion.settings import PRESETS

pytestmark = pytest.mark.kg_fusion

BOTH = ("kg-fusion", "tlm")


def host_of(run, stream="text", numbers=None, epoch=0, rate=0.3, step=None):
    chosen = np.arange(40) if numbers is None else np.asarray(numbers)
    row = Row(stream, "", epoch, chosen)
    rows = [row] if step is None else [Row(stream, "", epoch, np.asarray(step))]
    return run.collator.batch([row], rows, rate)


def on_device(run, host):
    return to_device(host, run.device, torch.float64)


def every_host(run, stream, epochs):
    """Yield micro-batches of all of a stream's sequences in several epochs."""
    numbers = np.arange(len(run.prepared.streams[stream].store))
    return (host_of(run, stream, numbers, epoch) for epoch in range(epochs))


# ---------------------------------------------------------------------------------------------
# Fusion


@pytest.mark.parametrize("family", FAMILIES)
def test_with_fusion_at_zero_the_logits_are_the_base_model_s_bit_for_bit(family):
    run, base = tiny_run(family, ("kg-fusion",)), tiny_run(family)
    for stream in ("text", "halves"):
        batch = on_device(run, host_of(run, stream))
        assert len(batch.column("kg-fusion", "positions")) > 5
        logits = [one.encoder.logits(one.encoder.encode(batch).top) for one in (run, base)]
        assert torch.equal(*logits)
    fusion = run.encoder.parts_of("kg-fusion")["fusion"]
    torch.nn.init.normal_(fusion.out[0].weight)
    assert not torch.equal(run.encoder.logits(run.encoder.encode(batch).top), logits[1])


@pytest.mark.parametrize("blocks", [(0,), (1, 2), (-1,)])
def test_fusion_happens_at_the_input_of_its_blocks(blocks):
    """The fused input of a block, worked out from the states before it."""
    settings = {"kg-fusion": {"blocks": list(blocks)}}
    run = tiny_run("bert", ("kg-fusion",), plugin=settings)
    perturb(run)
    batch = on_device(run, host_of(run))
    seen = {}
    layers = run.encoder.card.block_list(run.encoder.backbone)
    handles = [
        layer.attention.register_forward_pre_hook(
            lambda module, given, place=place: seen.update({place: given[0][0]})
        )
        for place, layer in enumerate(layers)
    ]
    states = run.encoder.encode(batch)
    embedded = run.encoder.backbone.bert.embeddings(
        batch.ids[None], batch.types[None], batch.positions[None]
    )[0]
    fusion = run.encoder.parts_of("kg-fusion")["fusion"]
    vectors = batch.column("kg-fusion", "vectors")[batch.column("kg-fusion", "owner")]
    positions = batch.column("kg-fusion", "positions")
    for place in range(len(layers)):
        before = embedded if place == 0 else states.blocks[place - 1]
        if place in {block % len(layers) for block in blocks}:
            number = [block % len(layers) for block in blocks].index(place)
            before = fusion(number, before, positions, vectors)
        torch.testing.assert_close(seen[place], before, atol=1e-12, rtol=1e-12)
    for handle in handles:
        handle.remove()


# ---------------------------------------------------------------------------------------------
# dEA


@pytest.mark.parametrize("stream", ["text", "pairs"])
def test_dea_is_a_softmax_over_the_candidates_by_hand(stream):
    run = tiny_run("bert", BOTH)
    perturb(run)
    host = host_of(run, stream)
    batch = on_device(run, host)
    states = run.encoder.encode(batch).top
    table = VectorTable.open(folder() / "vectors.safetensors")
    view, treatment = host.view, host.plan.treatment["entity"]
    spans, names = view.spans_of("entity"), run.prepared.labels["entity"]
    index = table.index(names)
    candidates = sorted({index[names[i]] for i in spans.id if i >= 0})
    vectors = torch.from_numpy(table.gather(np.array(candidates))).double()
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    head = run.encoder.parts_of("kg-fusion")["head"]
    total, count = 0.0, 0
    states = states.detach()
    head.requires_grad_(False)
    for row in range(len(spans)):
        if spans.id[row] < 0 or treatment[row] == KEEP:
            continue
        state = head.norm(torch.nn.functional.gelu(head.dense(states[spans.start[row]])))
        scores = (vectors @ state) * head.scale.exp()
        right = candidates.index(index[names[spans.id[row]]])
        total += float(torch.logsumexp(scores, 0) - scores[right])
        count += 1
    assert count > 10
    counts = run.root.count(host)
    assert counts[stream, "dea"] == count
    _, sums, metrics = run.root.losses(batch, counts, run.planner.plan(0).objective_weights)
    assert float(sums[stream, "dea"]) == pytest.approx(total, rel=1e-6)
    asked = sum(
        float(bottom)
        for (of, objective, _), (_, bottom) in metrics.items()
        if (of, objective) == (stream, "dea")
    )
    assert asked == count


def test_candidates_are_the_distinct_entities_of_all_rows_of_the_step():
    run = tiny_run("bert", BOTH)
    rows = run.reader().step_rows(run.planner.plan(0))
    for taken in rows.values():
        known = set()
        for row in taken:
            spans = run.collator.view([row]).spans_of("entity")
            known |= {run.prepared.labels["entity"][i] for i in spans.id if i >= 0}
        table = VectorTable.open(folder() / "vectors.safetensors")
        expected = table.gather(np.sort(table.rows(known))).astype(np.float64)
        expected /= np.sqrt((expected**2).mean(axis=1, keepdims=True))
        for first in range(len(taken)):
            host = run.collator.batch(taken[first : first + 1], taken, 0.3)
            found = host.columns["kg-fusion.candidates"]
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_step_s_columns_do_not_depend_on_the_split():
    """Vectors at every mention, labels and modes: one micro-batch, or one per sequence."""
    run = tiny_run("bert", BOTH)
    numbers = np.arange(30)
    whole = host_of(run, "pairs", numbers)
    carried = mentions_of(whole)
    alone = {}
    for number in numbers:
        alone |= mentions_of(host_of(run, "pairs", [number], step=numbers))
    assert carried.keys() == alone.keys()
    for key, (vector, label, mode) in carried.items():
        assert np.array_equal(vector, alone[key][0])
        assert (label, mode) == alone[key][1:]


def mentions_of(host):
    """Return what is attached and asked, by (sequence number, token in it)."""
    columns = {name.partition(".")[2]: column for name, column in host.columns.items()}
    found = {}
    for token, owner in zip(columns["positions"], columns["owner"], strict=True):
        found[key_of(host, token)] = [columns["vectors"][owner], None, None]
    for token, label, mode in zip(
        columns["labelled"], columns["labels"], columns["mode"], strict=True
    ):
        entry = found.setdefault(key_of(host, token), [np.zeros(0), None, None])
        entry[1:] = [int(label), int(mode)]
    return {key: tuple(value) for key, value in found.items()}


def key_of(host, token):
    sequence = host.view.sequence[token]
    return int(host.view.numbers[sequence]), int(token - host.view.offsets[sequence])


# ---------------------------------------------------------------------------------------------
# Modes


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_shares_of_keep_mask_and_random_by_whether_the_mention_is_masked(preset):
    run = tiny_run("bert", ("kg-fusion",), plugin={"kg-fusion": {"modes": preset}})
    counts = np.zeros((2, 3))
    for host in every_host(run, "text", 40):
        spans = host.view.spans_of("entity")
        hit, treatment = host.plan.hit["entity"], host.plan.treatment["entity"]
        # one draw per entity and sequence; it counts as masked if any of its mentions is
        keys = np.stack((spans.sequence, spans.id))
        for number in np.unique(keys, axis=1).T:
            rows = np.flatnonzero((number == keys.T).all(1))
            assert len(set(treatment[rows])) == 1
            counts[int(hit[rows].any()), treatment[rows[0]]] += 1
    for masked in (0, 1):
        total = counts[masked].sum()
        assert total > 500
        expected = np.array(PRESETS[preset][0 if masked else 1])
        error = np.sqrt(expected * (1 - expected) / total)
        assert (np.abs(counts[masked] / total - expected) <= 4.5 * error + 1e-12).all()


@pytest.mark.parametrize("stream", ["text", "pairs"])
def test_a_masked_entity_s_vector_is_attached_nowhere_in_its_sequence(stream):
    run = tiny_run("bert", BOTH)
    masked = 0
    for host in every_host(run, stream, 3):
        spans, treatment = host.view.spans_of("entity"), host.plan.treatment["entity"]
        columns = {n.partition(".")[2]: c for n, c in host.columns.items()}
        attached = columns["positions"]
        for row in np.flatnonzero((treatment == MASK) & (spans.id >= 0)):
            same = (spans.sequence == spans.sequence[row]) & (spans.id == spans.id[row])
            assert not np.isin(attached, spans.tokens(np.flatnonzero(same))).any()
            masked += 1
    assert masked > 50


def test_both_halves_of_a_pair_share_one_replacement():
    run = tiny_run("bert", BOTH)
    shared = 0
    for host in every_host(run, "pairs", 6):
        spans, treatment = host.view.spans_of("entity"), host.plan.treatment["entity"]
        columns = {n.partition(".")[2]: c for n, c in host.columns.items()}
        vector_at = dict(zip(columns["positions"], columns["owner"], strict=True))
        found: dict[tuple[int, int], set[tuple[int, int]]] = {}
        halves: dict[tuple[int, int], set[int]] = {}
        for row in np.flatnonzero(spans.id >= 0):
            key = (int(spans.sequence[row]), int(spans.id[row]))
            carried = vector_at.get(spans.start[row], -1)
            found.setdefault(key, set()).add((int(treatment[row]), int(carried)))
            halves.setdefault(key, set()).add(int(spans.segment[row]))
        for key, values in found.items():
            assert len(values) == 1
            ((what, carried),) = values
            assert (carried < 0) == (what == MASK)
            shared += what == RANDOM and len(halves[key]) == 2
    assert shared > 30


def test_a_mention_is_masked_in_one_half_unless_mirrored():
    for mirror in (0.0, 1.0):
        run = tiny_run("bert", BOTH, plugin={"kg-fusion": {"mirror": mirror}})
        seen = {1: 0, 2: 0}
        for host in every_host(run, "pairs", 4):
            spans, hit = host.view.spans_of("entity"), host.plan.hit["entity"]
            masked: dict[tuple[int, int], set[int]] = {}
            for row in np.flatnonzero(hit & (spans.id >= 0)):
                key = (int(spans.sequence[row]), int(spans.id[row]))
                masked.setdefault(key, set()).add(int(spans.segment[row]))
            for halves in masked.values():
                seen[len(halves)] += 1
        assert seen[1 if mirror else 2] == 0
        assert seen[2 if mirror else 1] > 100


# ---------------------------------------------------------------------------------------------
# Probe


def test_zeroed_vectors_change_only_what_the_vectors_say():
    run = tiny_run("bert", ("kg-fusion",))
    perturb(run)
    batch = on_device(run, host_of(run))
    zeroed = without_vectors(batch, "kg-fusion")
    assert not zeroed.column("kg-fusion", "vectors").any()
    assert batch.column("kg-fusion", "vectors").any()
    fusion = run.encoder.parts_of("kg-fusion")["fusion"]
    with torch.no_grad():
        fusion.entity[0].weight.zero_()
    assert torch.equal(run.encoder.encode(batch).top, run.encoder.encode(zeroed).top)


def test_the_probe_masks_one_of_several_entities_and_pairs_the_losses():
    run = tiny_run("bert", ("kg-fusion",))
    perturb(run, size=0.5)
    view = run.collator.view([Row("text", "", 0, np.arange(40))])
    chosen, spans = one_of_several(view), view.spans_of("entity")
    for sequence in range(len(view.numbers)):
        own = np.flatnonzero(spans.sequence == sequence)
        expected = [own[-1]] if len(set(spans.id[own].tolist())) > 1 else []
        assert own[chosen[own]].tolist() == expected
    with torch.no_grad():
        figures = entity_vectors(ProbeContext(run), instance="kg-fusion")
    for found in (figures[s][mode] for s in ("text", "halves") for mode in ("both", "tokens")):
        rise = found["rise"]
        assert rise["count"] > 3
        assert rise["mean"] != 0
        difference = found["loss_zeroed"] - found["loss"]
        assert np.sign(difference) == np.sign(rise["mean"]) or abs(difference) < 0.05
    assert figures["text"]["both"]["loss"] != figures["text"]["tokens"]["loss"]


# ---------------------------------------------------------------------------------------------
# Settings and refusals


def test_weights_and_rates_come_from_the_settings():
    settings = {"kg-fusion": {"dea_weight": 0.7, "lr": 3.0, "width": 5, "blocks": [0, 1]}}
    run = tiny_run("bert", ("kg-fusion",), plugin=settings)
    assert run.planner.plan(0).objective_weights["dea"] == 0.7
    fusion = run.encoder.parts_of("kg-fusion")["fusion"]
    assert fusion.out[1].weight.shape == (32, 5)
    assert {(rule.component.path, rule.component.lr) for rule in run.rules} == {
        ("parts.kg-fusion/fusion", 3.0),
        ("parts.kg-fusion/head", 3.0),
    }


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"modes": "ernie"}, "modes"),
        ({"mirror": 1.5}, "mirror"),
        ({"block": [0]}, "block"),
    ],
)
def test_wrong_settings_are_refused(setting, message):
    with pytest.raises(SettingsError, match=message):
        tiny_run("bert", ("kg-fusion",), plugin={"kg-fusion": setting})


def test_a_block_that_the_model_lacks_is_refused():
    with pytest.raises((SettingsError, PluginError), match="fuses block 7"):
        tiny_run("bert", ("kg-fusion",), plugin={"kg-fusion": {"blocks": [7]}})


def test_vectors_of_another_graph_are_refused(tmp_path):
    other = [f"other-{name}" for name in PLACES]
    path = tmp_path / "other.safetensors"
    write_table(path, other, np.ones((len(other), 4), dtype=np.float32))
    with pytest.raises(DataError, match="vectors of another graph") as error:
        tiny_run("bert", ("kg-fusion",), **{"data.vectors": str(path)})
    assert error.value.exit_code == 4


def test_neither_graph_nor_vectors_is_refused():
    settings = tiny_settings("bert", ("kg-fusion",))
    data = settings.data.model_copy(update={"kg": (), "vectors": ""})
    with pytest.raises(PluginError, match="needs entity vectors, or a graph"):
        launch(settings.model_copy(update={"data": data}), Silent())


def test_two_instances_have_their_own_parts_and_losses():
    names = ("kg-fusion:a", "kg-fusion:b")
    with pytest.raises(PluginError, match="kg-fusion:a"):
        tiny_run("bert", names)  # both fuse at block 0, without a declared order


def test_columns_reach_the_device_in_the_precision_of_the_weights():
    run = tiny_run("bert", ("kg-fusion",))
    batch = on_device(run, host_of(run))
    assert batch.column("kg-fusion", "vectors").dtype == torch.float64
    assert batch.column("kg-fusion", "positions").dtype == torch.int64

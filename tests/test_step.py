"""One step's gradient does not depend on how its rows are split, or over how many processes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from many import run_program
from safetensors.torch import load_file
from tiny import (
    BOTH,
    FAMILIES,
    perturb,
    relative_difference,
    step_gradients,
    tiny_run,
)
from torch.nn.functional import cross_entropy

from ptm_plus.keyed import derive_key
from ptm_plus.microbatch import to_device
from ptm_plus.processes import World, make_accelerator
from ptm_plus.run import Run
from ptm_plus.step import Passes, Tally, add_counts, add_outcome, shares
from ptm_plus.stepper import Stepper

LIMIT = 1e-9
TEXT = {"data.pairs": []}
"""One stream only: eight rows are one micro-batch of eight, or two of four."""


def gradients(family, plugins=(), seed=1, **values):
    run = tiny_run(family, plugins, **values)
    perturb(run, seed)
    return step_gradients(run)


# ---------------------------------------------------------------------------------------------
# Splits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("plugins", [(), ("kg-fusion",)], ids=["plain", "dea"])
def test_one_micro_batch_of_eight_and_two_of_four_give_one_gradient(family, plugins):
    whole = gradients(family, plugins, **TEXT)
    split = gradients(family, plugins, sets=["batch.micro_rows=4"], **TEXT)
    assert relative_difference(split, whole) < LIMIT
    if plugins:
        fusion = [name for name in whole if "fusion" in name and whole[name].abs().max() > 0]
        assert len(fusion) >= 6


@pytest.mark.parametrize("micro_rows", [1, 3])
def test_uneven_splits_of_two_streams_give_one_gradient(micro_rows):
    whole = gradients("bert", BOTH)
    split = gradients("bert", BOTH, sets=[f"batch.micro_rows={micro_rows}"])
    assert relative_difference(split, whole) < LIMIT


def test_the_gradient_tells_rows_apart():
    """The comparison above can fail: another seed of rows gives another gradient."""
    one = gradients("bert", **TEXT)
    other = gradients("bert", sets=["batch.rows=6"], **TEXT)
    assert relative_difference(other, one) > 1e-3


# ---------------------------------------------------------------------------------------------
# Tokens that nobody reads


def tail_of(run: Run) -> torch.nn.Module:
    """Return the feed-forward of the last block."""
    block = run.encoder.card.block_list(run.encoder.backbone)[-1]
    return block.get_submodule("mlp" if run.encoder.card.name == "modernbert" else "intermediate")


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_leaving_out_the_last_feed_forward_of_unread_tokens_changes_no_gradient(
    family, checkpointing
):
    sets = [f"model.gradient_checkpointing={str(checkpointing).lower()}"]
    found, seen = [], []
    for narrows in (True, False):
        run = tiny_run(family, ("tlm",), sets=sets)
        perturb(run)
        assert run.encoder._narrows
        run.encoder._narrows = narrows
        tail_of(run).register_forward_hook(lambda module, given, out: seen.append(given[0].shape))
        found.append(step_gradients(run))
    assert relative_difference(found[0], found[1]) < LIMIT
    narrow, whole = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert all(few[1] < 0.4 * all_[1] for few, all_ in zip(narrow, whole, strict=True))


def test_whoever_reads_all_tokens_gets_them_all(monkeypatch):
    """One objective that reads all, a tap in the last block, or nobody saying what is read."""
    run = tiny_run("bert", ("ernie-masking",), **TEXT)
    (row, *_), *_ = run.reader().step_rows(run.planner.plan(0)).values()
    batch = to_device(run.collator.batch([row], [row], 0.15), run.device, torch.float64)
    whole, only = run.encoder.encode(batch).top, batch.predicted
    few = run.encoder.encode(batch, only=only).top
    torch.testing.assert_close(few[only], whole[only], rtol=0, atol=1e-12)
    rest = torch.ones(len(batch), dtype=torch.bool).index_fill(0, only, False)
    assert not few[rest].any()
    assert whole[rest].any(1).all()

    asked = []
    monkeypatch.setattr(run.encoder, "encode", lambda *_, only, **__: asked.append(only) or 1 / 0)
    (owner,) = run.root.objectives["text"]
    for reads, expected in (("predicted", batch.predicted), ("all", None)):
        run.root.objectives["text"] = (
            replace(owner, component=replace(owner.component, reads=reads)),
        )
        with pytest.raises(ZeroDivisionError):
            run.root.losses(batch, {("text", "mlm"): 1.0}, {"mlm": 1.0})
        assert asked.pop() is expected

    tapped = tiny_run("bert", ("kg-fusion",), plugin={"kg-fusion": {"fusion": "in-block"}}, **TEXT)
    assert not tapped.encoder._narrows


# ---------------------------------------------------------------------------------------------
# Processes


PROGRAM = """
import os
from safetensors.torch import save_file
from tiny import perturb, step_gradients, tiny_run

for name, family, plugins, values in {cases!r}:
    run = tiny_run(family, plugins, **values)
    perturb(run)
    found = step_gradients(run)
    if os.environ["RANK"] == "0":
        save_file(found, os.path.join({out!r}, name))
"""


def test_two_processes_of_four_give_the_gradient_of_one_of_eight(tmp_path):
    cases = [
        (f"{family}-{len(plugins)}", family, plugins, {})
        for family in FAMILIES
        for plugins in ((), BOTH)
    ]
    cases.append(("a process without rows", "bert", (), {**TEXT, "sets": ["batch.rows=1"]}))
    cases += [
        (f"sharded {name}", family, plugins, {**rest, "train.parallel": "fsdp"})
        for name, family, plugins, rest in cases
    ]
    cases.append(
        ("sharded, in parts", "bert", BOTH, {"train.parallel": "fsdp", "batch.micro_rows": 1})
    )
    whole = {name: gradients(family, plugins, **rest) for name, family, plugins, rest in cases}
    run_program(PROGRAM.format(cases=cases, out=str(tmp_path)), 2)
    for name, expected in whole.items():
        assert relative_difference(load_file(tmp_path / name), expected) < LIMIT, name


# ---------------------------------------------------------------------------------------------
# A straight-line reference: each sequence alone, through stock transformers


def reference_gradients(run: Run, attention: str) -> dict[str, torch.Tensor]:
    """Return the gradient of the sum over streams of the mean loss over predicted tokens."""
    model = run.encoder.backbone
    plan = run.planner.plan(0)
    offset = model.config.pad_token_id + 1 if "roberta" in model.config.model_type else 0
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}
    model.set_attn_implementation(attention)
    for stream, rows in run.reader().step_rows(plan).items():
        host = run.collator.batch(rows, rows, plan.mask_rate)
        view, plan_ids = host.view, host.plan.ids
        for first, last in zip(view.offsets[:-1], view.offsets[1:], strict=True):
            given = {"input_ids": torch.from_numpy(plan_ids[None, first:last])}
            if model.config.model_type != "modernbert":
                given["position_ids"] = torch.from_numpy(view.positions[None, first:last]) + offset
                types = view.types[None, first:last] % model.config.type_vocab_size
                given["token_type_ids"] = torch.from_numpy(types)
            else:
                given["position_ids"] = torch.from_numpy(view.positions[None, first:last])
            logits = model(**given).logits[0]
            chosen = torch.from_numpy(host.plan.predicted[first:last])
            labels = torch.from_numpy(view.ids[first:last])
            losses = cross_entropy(logits[chosen], labels[chosen], reduction="none")
            sums[stream] = sums.get(stream, 0) + losses.sum()
            counts[stream] = counts.get(stream, 0) + int(chosen.sum())
    loss = sum(sums[stream] / counts[stream] for stream in sums)
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {
        f"backbone.{name}": torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("plugins", [(), ("tlm",)], ids=["text and halves", "text and pairs"])
def test_the_step_equals_sequences_run_alone_through_transformers(family, plugins, attention):
    run = tiny_run(family, plugins)
    perturb(run)
    found = step_gradients(run)
    run.encoder.zero_grad(set_to_none=True)
    expected = reference_gradients(run, attention)
    assert relative_difference(found, expected) < LIMIT


# ---------------------------------------------------------------------------------------------
# Checkpointing of blocks, shared passes, counts


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("site", ["block_in", "attn_out"])
def test_checkpointed_blocks_give_the_same_gradient(family, site, monkeypatch):
    """Two passes run before the backward pass; each block is recomputed with its own pass."""
    from ptm_plus_kg_fusion import hooks

    real = hooks.Tap
    monkeypatch.setattr(hooks, "Tap", lambda **values: real(**{**values, "site": site}))
    values = {"plugin": {"kg-fusion": {"blocks": [0, 2]}}}
    kept = two_passes(tiny_run(family, BOTH, **values))
    sets = ["model.gradient_checkpointing=true"]
    recomputed = two_passes(tiny_run(family, BOTH, sets=sets, **values))
    assert relative_difference(recomputed, kept) < 1e-12


def two_passes(run: Run) -> dict[str, torch.Tensor]:
    """Return the gradient of a function of the states of two passes with different columns."""
    from ptm_plus.microbatch import to_device

    perturb(run)
    run.encoder.train()
    total = 0
    for stream in ("text", "pairs"):
        rows = run.reader().step_rows(run.planner.plan(0))[stream]
        batch = to_device(run.collator.batch(rows, rows, 0.3), run.device, torch.float64)
        states = run.encoder.encode(batch)
        total = total + states.top.square().sum() + states.blocks[1].sin().sum()
    total.backward()
    assert any(
        p.grad is not None and float(p.grad.abs().max()) for p in run.encoder.parts.parameters()
    )
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in run.encoder.named_parameters()
    }


def test_checkpointing_recomputes_blocks():
    run = tiny_run("bert", sets=["model.gradient_checkpointing=true"])
    calls = []
    for block in run.encoder.card.block_list(run.encoder.backbone):
        block.intermediate.register_forward_hook(lambda *_: calls.append(1))
    step_gradients(run)
    assert len(calls) == 2 * run.encoder.blocks * len(run.prepared.streams)


def test_objectives_share_a_pass_unless_they_ask_for_another():
    run = tiny_run("bert", BOTH)
    rows = run.reader().step_rows(run.planner.plan(0))["text"]
    batch = run.collator.batch(rows, rows, 0.3)
    from ptm_plus.microbatch import to_device

    passes = Passes(run.encoder)
    on_device = to_device(batch, run.device, torch.float64)
    assert passes(on_device) is passes(on_device)
    assert passes(on_device, taps=False) is not passes(on_device)


def test_counts_are_sums_over_micro_batches():
    keys = [("text", "mlm"), ("text", "dea")]
    own = [{("text", "mlm"): 3.0}, {("text", "mlm"): 4.0, ("text", "dea"): 1.0}]
    assert add_counts(own, keys) == [7.0, 1.0]


def test_a_loss_without_anything_to_count_adds_nothing():
    run = tiny_run("bert", ("kg-fusion",), **TEXT)
    rows = run.reader().step_rows(run.planner.plan(0))["text"]
    host = run.collator.batch(rows, rows, 0.3)
    from ptm_plus.microbatch import to_device

    batch = to_device(host, run.device, torch.float64)
    divisors = dict.fromkeys(run.loss_keys(), 0.0)
    loss, sums, metrics = run.root.losses(batch, divisors, {"mlm": 1.0, "dea": 1.0})
    assert (float(loss), sums, metrics) == (0.0, {}, {})


def test_a_micro_batch_draws_what_its_key_alone_says():
    run = tiny_run("bert", ())
    stepper = Stepper(run, World(make_accelerator("fp32", "cpu")))
    drawn = []
    for key in ((3, 1), (3, 2), (3, 1)):
        torch.rand(5)  # what others drew before
        stepper._seed_device(*key)
        drawn.append(torch.rand(8))
    assert drawn[0].equal(drawn[2])
    assert not drawn[0].equal(drawn[1])
    torch.manual_seed(derive_key(run.settings.train.seed, "device", 3, 1, 0) % 2**63)
    assert drawn[0].equal(torch.rand(8))


def test_a_share_of_nothing_is_not_reported():
    tally = Tally()
    for right, asked in ((1, 4), (2, 4)):
        counted = (torch.tensor(right), torch.tensor(asked))
        nothing = (torch.tensor(0), torch.tensor(0))
        add_outcome(tally, {}, {("text", "a", "some"): counted, ("text", "a", "none"): nothing})
    metrics = {"/".join(name): pair for name, pair in tally.metrics.items()}
    assert shares(metrics) == {"text/a/some": 3 / 8}


def test_passes_over_changed_ids_are_never_mistaken():
    """What is changed for one pass alone is gone before the next; its memory is used again."""
    run = tiny_run("bert", **TEXT)
    run.encoder.eval()
    rows = run.reader().step_rows(run.planner.plan(0))["text"]
    batch = to_device(run.collator.batch(rows, rows, 0.3), run.device)
    passes = Passes(run.encoder)
    with torch.no_grad():
        for token in range(20, 30):
            top = passes(replace(batch, ids=batch.ids.index_fill(0, batch.predicted, token))).top
            again = batch.ids.index_fill(0, batch.predicted, token)
            assert top.equal(Passes(run.encoder)(replace(batch, ids=again)).top)

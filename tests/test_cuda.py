"""What only a CUDA device can show; skipped without one.

Where there is one: ``pytest tests/test_cuda.py``.
"""

from __future__ import annotations

import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from tiny import BOTH, Recorder, tiny_settings
from torch import distributed

from ptm_plus import stepper
from ptm_plus.attention import Packing, packed_attention
from ptm_plus.launch import launch
from ptm_plus.microbatch import MicroBatch, equal_blocks
from ptm_plus.processes import World, make_accelerator, wrapped
from ptm_plus.progress import Silent
from ptm_plus.train import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

LENGTHS = np.array([5, 5, 17, 100, 100, 511, 3, 1])


def trainer_of(device, precision, output, plugins=BOTH, watch=None, **values):
    values = {"train.precision": precision, **values}
    settings = tiny_settings("bert", plugins, output=output, **values)
    AcceleratorState._reset_state(reset_partial_state=True)  # it knows one device
    accelerator = make_accelerator(precision, device)
    run = launch(settings, Silent(), accelerator.device)
    return Trainer(run, watch or Silent(), accelerator)


def losses(trainer, steps=6):
    found = []
    for number in range(steps):
        trainer.step(trainer.run.planner.plan(number))
        found.append(float(trainer._done.loss))
        trainer.settle()
    return found


def weights(trainer):
    return {name: p.detach().cpu() for name, p in trainer.run.encoder.named_parameters()}


# ---------------------------------------------------------------------------------------------
# Attention in half precision against the formula in float64


@pytest.mark.parametrize("window", [None, 65])
@pytest.mark.parametrize(("heads", "width"), [(12, 64), (2, 32), (3, 48), (4, 25)])
def test_attention_in_bf16_is_the_formula(heads, width, window):
    """Widths that are no multiple of 8 do not fit the variable-length kernel."""
    torch.manual_seed(0)
    tokens = int(LENGTHS.sum())
    offsets = torch.tensor([0, *LENGTHS.cumsum()], device="cuda")
    column = torch.zeros(tokens, dtype=torch.int64, device="cuda")
    names = ("ids", "positions", "types", "languages", "sequence", "segments")
    batch = MicroBatch(
        stream="text",
        **dict.fromkeys(names, column),
        offsets=offsets,
        blocks=equal_blocks(LENGTHS),
        predicted=column[:0],
        labels=column[:0],
        kinds=(),
        kind=column[:0],
        columns={},
    )
    shape = (1, heads, tokens, width)
    given = [
        torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for _ in range(3)
    ]
    behind = torch.randn(1, tokens, heads, width, device="cuda", dtype=torch.bfloat16)
    scale = width**-0.5
    found, _ = packed_attention(
        torch.nn.Identity(),
        *given,
        None,
        scaling=scale,
        sliding_window=window,
        ptm_packing=Packing(batch),
    )
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    query, key, value = exact
    sequence = torch.from_numpy(np.repeat(np.arange(len(LENGTHS)), LENGTHS)).cuda()
    place = torch.arange(tokens, device="cuda")
    visible = sequence[:, None] == sequence
    if window:
        visible &= (place[:, None] - place).abs() < window
    scores = (query[0] @ key[0].mT * scale).masked_fill(~visible, -torch.inf)
    expected = (scores.softmax(-1) @ value[0]).transpose(0, 1)[None]
    pairs = zip(
        (found, *torch.autograd.grad(found, given, behind)),
        (expected, *torch.autograd.grad(expected, exact, behind.double())),
        strict=True,
    )
    for one, other in pairs:
        assert (one.double() - other).norm() < 5e-3 * other.norm()


# ---------------------------------------------------------------------------------------------
# Steps


@pytest.mark.parametrize(
    ("optimizer", "exact"),
    [("adamw", 1e-9), ("stable-adamw", 1e-6)],  # rates of tensors are float32 on CUDA
)
def test_losses_are_those_of_the_cpu(tmp_path, optimizer, exact):
    values = {"train.optimizer": optimizer}
    expected = losses(trainer_of("cpu", "fp64", tmp_path / "cpu", **values))
    assert losses(trainer_of("cuda", "fp64", tmp_path / "fp64", **values)) == pytest.approx(
        expected, rel=exact
    )
    assert losses(trainer_of("cuda", "fp32", tmp_path / "fp32", **values)) == pytest.approx(
        expected, rel=1e-5
    )
    assert losses(trainer_of("cuda", "bf16", tmp_path / "bf16", **values)) == pytest.approx(
        expected, rel=5e-3
    )


@pytest.mark.parametrize("optimizer", ["adamw", "stable-adamw", "muon"])
def test_nothing_in_a_step_waits_for_the_device(tmp_path, optimizer):
    trainer = trainer_of("cuda", "bf16", tmp_path, **{"train.optimizer": optimizer})
    losses(trainer, 3)
    take = trainer.stepper.take

    def watched(*given):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return take(*given)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    trainer.stepper.take = watched
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that the mode is a prototype
        assert len(losses(trainer, 3)) == 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_deterministic_runs_are_equal_and_resume_bit_for_bit(tmp_path, precision, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    values = {"train.deterministic": True, "model.dropout": 0.1, "train.checkpoint_every": 3}
    torch.use_deterministic_algorithms(True)
    try:
        whole = trainer_of("cuda", precision, tmp_path / "whole", **values)
        whole.fit()
        broken = trainer_of("cuda", precision, tmp_path / "broken", **values)
        for number in range(3):
            broken.step(broken.run.planner.plan(number))
        broken.save()
        broken.writer.finish()
        resumed = trainer_of("cuda", precision, tmp_path / "broken", **values)
        resumed.resume()
        resumed.fit()
    finally:
        torch.use_deterministic_algorithms(False)
    expected = weights(whole)
    assert all(torch.equal(p, expected[name]) for name, p in weights(resumed).items())


def test_micro_batches_are_halved_until_they_fit(tmp_path):
    watch = Recorder()
    values = {
        "model.config": {
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 8192,
        },
        "batch.row_tokens": 1024,
        "batch.rows": 32,
        "batch.micro_rows": 32,
    }
    trainer = trainer_of("cuda", "bf16", tmp_path, (), watch, **values)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 6e8) / total)
    try:
        assert len(losses(trainer, 2)) == 2
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 0 < trainer.progress.micro_rows < 32
    assert any("out of memory at step 0" in note for note in watch.notes)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_gradients_travel_by_nccl(tmp_path, monkeypatch, parallel):
    """One device takes one process: gradients go through NCCL, but to nobody else."""
    expected = losses(trainer_of("cuda", "fp64", tmp_path / "alone"))
    monkeypatch.setattr(
        World, "spread", lambda self, root, blocks, how: wrapped(root, blocks, how, "cuda", 1)
    )
    monkeypatch.setattr(stepper, "unsynchronised", nullcontext)
    store = f"file://{tmp_path / 'store'}"
    distributed.init_process_group("nccl", init_method=store, rank=0, world_size=1)
    try:
        values = {"train.parallel": parallel}
        found = losses(trainer_of("cuda", "fp64", tmp_path / parallel, **values))
    finally:
        distributed.destroy_process_group()
    assert found == pytest.approx(expected, rel=1e-9)

"""Losses and gradients against straight-line references: one sentence at a time, stock models."""

from __future__ import annotations

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from tiny import FAMILIES, perturb, tiny_run

from ptm_plus.data import Row
from ptm_plus.microbatch import to_device

pytestmark = pytest.mark.cross_lingual

NAME = "cross-lingual"
BLOCK = 1  # of three: two thirds


def run_of(family, **sections):
    run = tiny_run(family, (NAME,), plugin={NAME: {"contrast": {"weight": 0.0}, **sections}})
    perturb(run)
    return run


def batch_of(run, stream, numbers=range(9), epoch=0):
    row = Row(stream, "", epoch, np.asarray(numbers))
    host = run.collator.batch([row], [row], 0.3)
    return host, to_device(host, run.device, torch.float64)


def loss_and_gradients(run, host, batch, objective):
    """Return the mean loss and its gradient by parameter name, of one objective alone."""
    run.encoder.zero_grad(set_to_none=True)
    key = (batch.stream, objective)
    counts = {key: run.root.count(host)[key]}
    total, _, _ = run.root.losses(batch, counts, {objective: 1.0})
    total.backward()
    return float(total.detach()), counts[key], gradients_of(run)


def gradients_of(run):
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in run.encoder.named_parameters()
    }


def compare(run, host, batch, objective, reference):
    """Compare an objective with a reference that returns the sum of losses."""
    loss, count, found = loss_and_gradients(run, host, batch, objective)
    run.encoder.zero_grad(set_to_none=True)
    run.encoder.backbone.set_attn_implementation("sdpa")
    expected = reference() / count
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-9)
    wanted = gradients_of(run)
    assert sum(float(value.abs().max() > 0) for value in wanted.values()) > 10
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-7, atol=1e-11, msg=name)


def arguments_of(run, ids, vectors=None):
    """Return what a stock model is given for one sequence of its own."""
    model, count = run.encoder.backbone, len(ids)
    offset = model.config.pad_token_id + 1 if "roberta" in model.config.model_type else 0
    given = {"position_ids": torch.arange(count)[None] + offset}
    if vectors is None:
        return {**given, "input_ids": ids[None]}
    return {**given, "inputs_embeds": vectors[None]}


def sentences(batch):
    """Return the token indexes of both sentences of each pair, told apart by their positions."""
    found = []
    for first, last in zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True):
        starts = [n for n in range(first, last) if int(batch.positions[n]) == 0]
        assert len(starts) == 2
        found.append((list(range(first, starts[1])), list(range(starts[1], last))))
    return found


# ---------------------------------------------------------------------------------------------
# Contrast


def contrast_reference(run, host, batch, queue, slow, *, centre, cosine, mean, tau):
    fast = run.encoder.backbone
    weights = dict(run.encoder.named_parameters())
    matrix = weights[f"parts.{NAME}/projection.weight"]
    slow_matrix = run.encoder.averages[f"{NAME}/keys"].named()[f"parts.{NAME}/projection.weight"]

    def state(model, projection, tokens):
        ids = batch.ids[tokens]
        states = model(**arguments_of(run, ids), output_hidden_states=True)
        hidden = states.hidden_states[BLOCK + 1][0]
        words = [n for n, t in enumerate(tokens) if int(batch.languages[t]) >= 0]
        read = sum(hidden[n] for n in words) / len(words) if mean else hidden[0]
        vector = projection @ read - (centre if model is slow else 0)
        return vector / vector.square().sum().sqrt() if cosine else vector

    total = 0.0
    keys, numbers = queue
    for pair, halves in zip(host.view.numbers.tolist(), sentences(batch), strict=True):
        for own, other in (halves, halves[::-1]):
            query = state(fast, matrix, own)
            with torch.no_grad():
                key = state(slow, slow_matrix, other)
            found = [
                torch.exp(query @ keys[n] / tau)
                for n in range(len(keys))
                if int(numbers[n]) >= 0 and int(numbers[n]) != pair
            ]
            positive = torch.exp(query @ key / tau)
            total = total - torch.log(positive / (positive + sum(found)))
    return total


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("state", ["first", "mean"])
def test_contrast_is_its_formula(family, similarity, state):
    settings = {"weight": 1.0, "similarity": similarity, "state": state, "queue": 24}
    run = run_of(family, contrast={**settings, "temperature": 0.4})
    generator = torch.Generator().manual_seed(3)
    slow = deepcopy(run.encoder.backbone)  # hooks do nothing outside of a pass
    slow.set_attn_implementation("sdpa")
    average = run.encoder.averages[f"{NAME}/keys"]
    with torch.no_grad():
        own = dict(slow.named_parameters())
        for name, value in average.named().items():
            value.add_(0.02 * torch.randn(value.shape, generator=generator, dtype=value.dtype))
            if name.startswith("backbone."):
                own[name.removeprefix("backbone.")].copy_(value)
    keys = torch.randn(24, 32, generator=generator, dtype=torch.float64)
    numbers = torch.tensor([-1] * 5 + [0, 1, 2, 3, 4] + [40 + n for n in range(14)])
    plugin = run.plugins.instances[0].implementation
    centre = 0.3 * torch.randn(32, generator=generator, dtype=torch.float64)
    plugin.load_state_dict({"keys": keys, "pairs": numbers, "place": 0, "centre": centre})
    host, batch = batch_of(run, f"{NAME}-apart")
    assert int(batch.predicted.numel()) > 5  # sentences are compared as they are masked
    options = {"cosine": similarity == "cosine", "mean": state == "mean", "tau": 0.4}
    options["centre"] = centre
    compare(
        run,
        host,
        batch,
        "contrast",
        lambda: contrast_reference(run, host, batch, (keys, numbers), slow, **options),
    )


def test_an_empty_queue_costs_nothing():
    run = run_of("bert", contrast={"weight": 1.0})
    host, batch = batch_of(run, f"{NAME}-apart")
    loss, count, found = loss_and_gradients(run, host, batch, "contrast")
    assert loss == 0
    assert count == 18
    assert all(not value.any() for value in found.values())


# ---------------------------------------------------------------------------------------------
# Recovery


def recovery_reference(run, batch, original, chosen):
    model = run.encoder.backbone
    weights = dict(run.encoder.named_parameters())
    product, other = (weights[f"parts.{NAME}/translation.{n}"] for n in ("product", "other"))
    source = torch.linspace(-1, 1, 32, dtype=torch.float64)  # W's first third: any will do
    w = torch.cat((source, other, product))
    table = model.get_input_embeddings().weight

    def unit(vector):
        centred = vector - vector.mean()
        return centred / (centred.square().mean() + 1e-5).sqrt()

    total = 0.0
    for halves in sentences(batch):
        for own, others in (halves, halves[::-1]):
            y = [t for t in others if int(batch.languages[t]) >= 0]
            rows = []
            for token in own:
                x = table[original[token]]
                if int(batch.languages[token]) < 0:
                    rows.append(x)
                    continue
                scores = []
                for t in y:
                    one, two = unit(x), unit(table[original[t]])
                    scores.append(w @ torch.cat((one, two, one * two)))
                mixed = torch.softmax(torch.stack(scores), 0)
                rows.append(sum(a * table[original[t]] for a, t in zip(mixed, y, strict=True)))
            given = arguments_of(run, original[own], torch.stack(rows))
            logits = model(**given).logits[0]
            for place, token in enumerate(own):
                if token in chosen:
                    total = total - torch.log_softmax(logits[place], 0)[original[token]]
    return total


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_recovery_is_its_formula(family, share):
    run = run_of(family, recovery={"weight": 1.0, "share": share})
    host, batch = batch_of(run, f"{NAME}-apart", range(4))
    original = torch.from_numpy(host.view.ids)
    assert not torch.equal(batch.ids, original)  # masks are for the other objectives
    words = int((batch.languages >= 0).sum())
    chosen = batch.column(NAME, "recovered").tolist()
    assert len(chosen) == words if share == 1 else 0.3 * words < len(chosen) < 0.7 * words
    compare(
        run,
        host,
        batch,
        "recovery",
        lambda: recovery_reference(run, batch, original, set(chosen)),
    )


# ---------------------------------------------------------------------------------------------
# Paraphrase


def paraphrase_reference(run, host, batch):
    """Only what is shown: up to the separator behind the second text."""
    model = run.encoder.backbone
    weights = dict(run.encoder.named_parameters())
    matrix, bias = (weights[f"parts.{NAME}/paraphrase.{n}"] for n in ("weight", "bias"))
    total, labels = 0.0, []
    for first, last in zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True):
        special = [n for n in range(first, last) if int(batch.languages[n]) < 0]
        end = special[-1] + 1
        candidate = int(host.view.columns["candidate"][special[-1] - 1])
        labels.append(int(candidate == 1))
        ids = batch.ids[first:end]
        given = arguments_of(run, ids)
        positions = batch.positions[first:end]
        given["position_ids"] = given["position_ids"] - torch.arange(len(ids)) + positions
        if model.config.model_type == "bert":
            given["token_type_ids"] = batch.types[first:end][None]
        states = run.encoder.card.encoder(model)(**given)[0][0]
        total = total - torch.log_softmax(matrix @ states[0] + bias, 0)[labels[-1]]
    assert 0 < sum(labels) < len(labels)
    return total


@pytest.mark.parametrize("family", FAMILIES)
def test_paraphrase_is_its_formula(family):
    run = run_of(family, paraphrase={"weight": 1.0})
    host, batch = batch_of(run, f"{NAME}-paraphrases", range(20))
    compare(run, host, batch, "paraphrase", lambda: paraphrase_reference(run, host, batch))


def test_a_translation_is_shown_about_half_the_time_and_anew_in_each_epoch():
    run = run_of("bert", paraphrase={"weight": 1.0})
    numbers = range(len(run.prepared.streams[f"{NAME}-paraphrases"].store))
    labels = [
        batch_of(run, f"{NAME}-paraphrases", numbers, epoch)[1].column(NAME, "label")
        for epoch in range(10)
    ]
    shown = torch.stack(labels).double()
    assert shown.numel() > 1000
    assert abs(float(shown.mean()) - 0.5) < 4 * 0.5 / math.sqrt(shown.numel())
    assert float((shown[0] == shown[1]).double().mean()) < 0.7

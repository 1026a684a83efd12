"""The plugins of ``examples/``, written with the public face alone: formulas, splits, training."""

from __future__ import annotations

import ast
import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import Recorder, folder, tiny_run

from ptm_plus.microbatch import to_device
from ptm_plus.processes import make_accelerator
from ptm_plus.selfcheck import self_check
from ptm_plus.step import Passes
from ptm_plus.testing import NotApplicable, check_names, parametrize_with_checks, plugin_checks
from ptm_plus.train import Trainer

EXAMPLES = Path(__file__).parents[1] / "examples"
ORDER, REPLACED, KEPLER = (
    str(EXAMPLES / f"{name}.py") for name in ("sentence_order", "replaced_tokens", "kepler")
)


def documents(home):
    """Write texts of several sentences, and return their file."""
    rng = np.random.default_rng(3)
    words = ["river", "town", "lake", "hill", "old", "near", "Altona", "Berga"]
    path = home / "documents.jsonl"
    rows = []
    for _ in range(60):
        sentences = (" ".join(rng.choice(words, rng.integers(3, 9))) + "." for _ in range(9))
        rows.append({"text": " ".join(sentences), "lang": "en"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def described(home):
    """Write a graph and descriptions of its entities; return both files."""
    names = [f"E{number}" for number in range(9)]
    graph, descriptions = home / "graph.tsv", home / "descriptions.jsonl"
    triples = [f"{a}\tnear\t{b}\n" for a, b in zip(names, names[1:] + names[:1], strict=True)]
    triples += [f"{a}\tof\t{b}\n" for a, b in zip(names, names[3:] + names[:3], strict=True)]
    graph.write_text("".join(triples), encoding="utf-8")
    nouns = ("river", "town", "lake", "hill")
    texts = (f"{nouns[n % 4]} {'near ' * (n % 5 + 1)}" for n in range(8))
    rows = ({"id": name, "text": text} for name, text in zip(names, texts, strict=False))
    descriptions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return graph, descriptions


def order_run(tmp_path, family="bert", **values):
    given = {"data.text": [str(documents(tmp_path))], "data.pairs": [], **values}
    return tiny_run(family, (ORDER,), **given)


def kepler_run(tmp_path, family="bert", **values):
    graph, descriptions = described(tmp_path)
    given = {"data.kg": [str(graph)], "data.pairs": [], "prepare.max_length": 96, **values}
    plugin = {"kepler": {"descriptions": [str(descriptions)]}}
    return tiny_run(family, (KEPLER,), plugin=plugin, **given)


def first_host(run, stream):
    for step in range(20):
        rows = run.reader().step_rows(run.planner.plan(step)).get(stream)
        if rows:
            return run.collator.batch(rows, rows, 0.3)
    raise AssertionError(f"no rows of {stream}")


def compute(run, stream, name):
    """Return host batch, micro-batch, passes and outcome of an objective."""
    host = first_host(run, stream)
    batch = to_device(host, run.device, torch.float64)
    run.encoder.eval()
    passes = Passes(run.encoder, name)
    (owner,) = (one for one in run.objectives[stream] if one.component.name == name)
    parts = run.encoder.parts_of(name)
    with torch.no_grad():
        return host, batch, passes, owner.component.compute(batch, passes, parts)


def trained(run, steps):
    watch = Recorder()
    trainer = Trainer(run, watch, make_accelerator("fp32", "cpu"))
    for step in range(steps):
        trainer.step(run.planner.plan(step))
        trainer.log()
    return watch.losses()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_they_import_the_public_face_alone_and_are_short(path):
    source = path.read_text(encoding="utf-8")
    found = {
        node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ptm_plus")
    }
    assert found <= {"ptm_plus", "ptm_plus.knowledge"}
    assert len(source.splitlines()) <= 215


@parametrize_with_checks(ORDER)
def test_sentence_order_keeps_the_contract(check):
    check()


ONE_PLACE = "two cannot take over the one place of masked words"


@parametrize_with_checks(REPLACED, expected_failures={"two-instances": ONE_PLACE})
def test_replaced_tokens_keeps_the_contract(check):
    check()


@pytest.mark.parametrize("name", check_names())
def test_kepler_keeps_the_contract(tmp_path, name):
    path, texts = tmp_path / "described.jsonl", ("an old town", "a river near it", "a lake")
    rows = ({"id": f"Q{number + 1}", "text": texts[number % 3]} for number in range(6))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (check,) = (
        one
        for one in plugin_checks(KEPLER, sets=[f'plugin.kepler.descriptions=["{path}"]'])
        if one.name == name
    )
    try:
        check()
    except NotApplicable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "modernbert"])
def test_their_gradients_depend_on_no_split(tmp_path, family):
    self_check(order_run(tmp_path, family))
    self_check(tiny_run(family, (REPLACED,), **{"data.pairs": []}))
    self_check(kepler_run(tmp_path, family))


def test_stretches_are_whole_sentences_in_either_order(tmp_path):
    run = order_run(tmp_path)
    data = run.prepared.streams["sentence-order"]
    rows = [json.loads(line) for line in documents(tmp_path).read_text().splitlines()]
    host = first_host(run, "sentence-order")
    view, store, seen = host.view, data.store, set()
    for sequence, number in enumerate(view.numbers.tolist()):
        own = np.flatnonzero((view.sequence == sequence) & (view.languages >= 0))
        text = rows[int(store.example[number])]["text"]
        begin = store.offsets[number]
        start = store.char_start[begin + view.source[own]]
        end = store.char_end[begin + view.source[own]]
        border = int(np.flatnonzero(np.diff(view.segments[own]))[0]) + 1
        stretches = [text[start[0] : end[border - 1]], text[start[border] : end[-1]]]
        assert all(stretch.endswith(".") for stretch in stretches)
        changed = host.columns["sentence-order.changed"][sequence]
        before, behind = reversed(stretches) if changed else stretches
        assert f"{before} {behind}" in text
        seen.add(int(changed))
    assert seen == {0, 1}


def test_the_order_is_learned(tmp_path):
    """Texts that begin and end alike: their order can be told."""
    rng = np.random.default_rng(1)
    middles = [" ".join(rng.choice(["town", "lake", "hill", "river"], 4)) for _ in range(200)]
    rows = [{"text": f"alpha {middle}. omega {middle}.", "lang": "en"} for middle in middles]
    path = tmp_path / "framed.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    values = {"data.text": [str(path)], "data.pairs": [], "train.steps": 160, "train.lr": 5e-3}
    losses = trained(tiny_run("bert", (ORDER,), **values), 160)
    found = [one["sentence-order/sentence-order"] for one in losses if len(one) > 1]
    assert np.mean(found[:5]) > 0.5
    assert np.mean(found[-20:]) < 0.3


def test_tokens_are_drawn_by_the_inverse_of_the_distribution():
    (plugin,) = tiny_run("bert", (REPLACED,), **{"data.pairs": []}).plugins.instances
    drawn = vars(sys.modules[type(plugin.implementation).__module__])["drawn"]
    logits = torch.log(torch.tensor([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0], [0.2, 0.5, 0.3]]))
    chance = torch.tensor([0.19, 0.999, 0.71])
    assert drawn(logits, chance).tolist() == [0, 1, 2]
    many = drawn(logits[:1].expand(20_000, 3), torch.linspace(0, 1 - 1e-9, 20_000))
    assert torch.bincount(many).tolist() == pytest.approx([4000, 10_000, 6000], abs=2)


def test_detection_is_the_cross_entropy_over_all_words():
    run = tiny_run("bert", (REPLACED,), **{"data.pairs": []})
    host, batch, passes, outcome = compute(run, "text", "replaced-tokens")
    parts = run.encoder.parts_of("replaced-tokens")
    with torch.no_grad():
        chances = parts["generator"](batch, passes).softmax(-1).numpy()
    ids, wanted = host.view.ids.copy(), np.zeros(len(host.view))
    chance = host.columns["replaced-tokens.chance"]
    for number, place in enumerate(np.flatnonzero(host.plan.predicted)):
        token = int(np.searchsorted(np.cumsum(chances[number]), chance[number], side="right"))
        wanted[place], ids[place] = token != ids[place], token
    at = batch.ids.clone()
    at[batch.predicted] = torch.from_numpy(ids[host.plan.predicted])
    replaced = type(batch)(**{**vars(batch), "ids": at})
    with torch.no_grad():
        scores = parts["detector"](passes(replaced).top)[:, 0].numpy()
    loss = sum(
        np.log1p(np.exp(-score if one else score))
        for score, one, word in zip(scores, wanted, host.view.words, strict=True)
        if word >= 0
    )
    assert float(outcome.sum) == pytest.approx(loss, rel=1e-10)
    assert 0 < wanted.sum() <= host.plan.predicted.sum()


def test_generator_and_detector_learn():
    values = {"data.pairs": [], "train.steps": 120, "train.lr": 3e-3}
    run = tiny_run("bert", (REPLACED,), **values)
    losses = trained(run, 120)
    assert set(losses[0]) == {"text/replaced-tokens", "text/replaced-tokens-generator"}
    for name in losses[0]:
        assert np.mean([one[name] for one in losses[-10:]]) < 0.8 * losses[0][name]


def test_triples_are_embedded_as_in_the_paper(tmp_path):
    """Each description alone through the encoder, and equation 4 written out."""
    run = kepler_run(tmp_path)
    host, _, _, outcome = compute(run, "kepler", "kepler")
    which, view = host.columns["kepler.which"], host.view
    relations = run.encoder.parts_of("kepler")["relations"].weight.detach().numpy()
    plain = copy.deepcopy(run.encoder.backbone).eval()
    plain.set_attn_implementation("eager")
    expected = 0.0
    for sequence in range(len(view.numbers)):
        vectors = []
        for number in range(4):
            own = np.flatnonzero((view.sequence == sequence) & (which == number))
            ids = torch.from_numpy(view.ids[own])[None]
            with torch.no_grad():
                states = plain.bert(input_ids=ids)[0]
            vectors.append(states[0, 0].numpy())
        head, tail, other_head, other_tail = vectors
        relation = relations[host.columns["kepler.relation"][sequence]]
        true, *others = (
            np.abs(a + relation - b).sum()
            for a, b in ((head, tail), (other_head, tail), (head, other_tail))
        )
        expected += np.log1p(np.exp(true - 4.0))
        expected += sum(np.log1p(np.exp(4.0 - other)) for other in others) / 2
    assert float(outcome.sum) == pytest.approx(expected, rel=1e-9)


def test_others_are_others_and_triples_without_descriptions_are_left_out(tmp_path):
    run = kepler_run(tmp_path)
    store = run.prepared.streams["kepler"].store
    assert len(store) == 18 - 4  # E8 is described nowhere; each relation has it at both places
    losses = trained(run, 12)
    assert np.mean([one["kepler/kepler"] for one in losses[-3:] if "kepler/kepler" in one]) < (
        next(one["kepler/kepler"] for one in losses if "kepler/kepler" in one)
    )


def test_all_of_them_train_together(tmp_path):
    graph, descriptions = described(tmp_path)
    run = tiny_run(
        "bert",
        (KEPLER, ORDER, REPLACED),
        plugin={"kepler": {"descriptions": [str(descriptions)]}},
        **{
            "data.kg": [str(graph)],
            "data.text": [str(documents(tmp_path)), str(folder() / "text.jsonl")],
            "data.pairs": [],
        },
    )
    names = {name for one in trained(run, 12) for name in one}
    assert names == {
        "kepler/kepler",
        "sentence-order/mlm",
        "sentence-order/sentence-order",
        "text/replaced-tokens",
        "text/replaced-tokens-generator",
    }

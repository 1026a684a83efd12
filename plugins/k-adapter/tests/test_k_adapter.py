"""The plugin in runs: a frozen backbone, labels per word, files bound to their encoder."""

from __future__ import annotations

import json
import re
import runpy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import perturb, step_gradients, tiny_run, tiny_settings
from transformers import AutoModel, AutoModelForMaskedLM

from ptm_plus import DataError, PluginError, SettingsError
from ptm_plus.data import Row
from ptm_plus.exporting.export import OWN, export
from ptm_plus.initialisation import start_from
from ptm_plus.launch import launch
from ptm_plus.measures.fine_tuning import Body
from ptm_plus.measures.plain_model import loaded
from ptm_plus.microbatch import to_device
from ptm_plus.probes import ProbeContext
from ptm_plus.processes import make_accelerator
from ptm_plus.progress import Silent
from ptm_plus.run_folder import write_settings
from ptm_plus.selfcheck import self_check
from ptm_plus.settings_paths import anchored
from ptm_plus.step import Passes
from ptm_plus.train import Trainer
from ptm_plus_k_adapter.dependencies import WORD, DependencyColumns
from ptm_plus_k_adapter.files import AdaptedEncoder, weights_hash
from ptm_plus_k_adapter.settings import KAdapterSettings

pytestmark = pytest.mark.k_adapter

WORDS = ["the", "old", "river", "town", "lies", "near", "small", "lakes", "and", "people", "like"]
SPLIT = {"tokenizer.vocabulary": 280}
"""For byte-level BPE: hardly a word is one token."""

STAGES = [{"name": "first", "plugins": ["core"]}, {"name": "second", "plugins": ["k-adapter"]}]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Sentences whose relation a word tells, and trees in which words hang on the next one."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    relations, trees = [], []
    for number in range(160):
        words = rng.choice(WORDS, 9).tolist()
        kind = number % 3
        words[4] = ("lies", "like", "and")[kind]
        text = " ".join(words)
        ends = np.cumsum([len(word) + 1 for word in words])
        head, tail = {"start": 0, "end": len(words[0])}, {"start": int(ends[7]), "end": len(text)}
        relations.append(
            {"text": text, "relation": f"P{kind}", "head": head, "tail": tail, "lang": "en"}
        )
        size = int(rng.integers(2, 9))
        heads = [*range(2, size + 1), 0]
        trees.append(
            {"text": " ".join(words[:size]), "tokens": words[:size], "heads": heads, "lang": "en"}
        )
    for name, rows in (("relations", relations), ("trees", trees)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def adapted(
    files, *, family="bert", plugins=("k-adapter",), tasks=("relations", "dependencies"), **values
):
    given = {"relations": "relations.jsonl", "dependencies": "trees.jsonl"}
    table = {task: [str(files / given[task])] for task in tasks} | {"size": 16, "dropout": 0.0}
    alone = {"data.text": [], "data.pairs": []} if plugins == ("k-adapter",) else {}
    settings = {"plugin": {"k-adapter": {**table, **values.pop("table", {})}}, **alone, **values}
    return tiny_run(family, plugins, **settings)


def trainer_of(run):
    return Trainer(run, Silent(), make_accelerator("fp32", "cpu"))


def host_of(run, stream, numbers=range(30)):
    row = Row(stream, "", 0, np.array(numbers))
    return run.collator.batch([row], [row], 0.3)


# ---------------------------------------------------------------------------------------------
# The encoder stays as it is


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "modernbert"])
def test_training_leaves_the_encoder_bit_identical(files, family):
    run = adapted(files, family=family, **{"model.dropout": 0.2})
    assert run.loss_keys() == [("dependency", "dependency"), ("relation", "relation")]
    self_check(run)
    before = {n: p.detach().clone() for n, p in run.encoder.backbone.named_parameters()}
    parts = {n: p.detach().clone() for n, p in run.encoder.parts.named_parameters()}
    trainer = trainer_of(run)
    for step in range(3):
        trainer.step(run.planner.plan(step))
    for name, parameter in run.encoder.backbone.named_parameters():
        assert torch.equal(parameter, before[name]), name
        assert parameter.grad is None
        assert parameter not in trainer.stepper.optimizer.state
    assert not any(module.training for module in run.encoder.backbone.modules())
    for name, parameter in run.encoder.parts.named_parameters():
        if not name.endswith("key.bias"):  # which no softmax notices
            assert not torch.equal(parameter, parts[name]), name


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_recomputed_blocks_have_the_same_gradients(files, family):
    again = {"model.gradient_checkpointing": True}
    kept, recomputed = (step_gradients(adapted(files, family=family, **v)) for v in ({}, again))
    assert kept.keys() == recomputed.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(recomputed[name], gradient, atol=1e-12, rtol=1e-10)
        if not name.endswith("key.bias"):  # which no softmax notices
            assert bool(gradient.abs().sum() > 0) == name.startswith("parts.")


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_the_states_of_training_compile_without_a_graph_break(files, family):
    run = adapted(files, family=family)
    perturb(run)
    host = host_of(run, "dependency", range(4))
    expected = packed_states(run, host)
    torch._dynamo.reset()
    try:
        batch = to_device(host, run.device, torch.float64)
        hooks = next(p.implementation for p in run.plugins.instances)
        parts = run.encoder.parts_of("k-adapter")
        compiled = torch.compile(
            lambda: hooks._states((0, 1, 3), batch, Passes(run.encoder), parts),
            backend="eager",
            fullgraph=True,
        )
        torch.testing.assert_close(compiled(), expected, atol=1e-12, rtol=1e-10)
    finally:
        torch._dynamo.reset()


def test_nothing_is_masked_in_labelled_sentences(files):
    run = adapted(files)
    for stream in ("relation", "dependency"):
        plan = host_of(run, stream).plan
        assert not plan.predicted.any()
        assert np.array_equal(plan.ids, host_of(run, stream).view.ids)


def test_it_does_not_train_together_with_what_changes_the_encoder(files):
    with pytest.raises(PluginError, match="'k-adapter' needs 'backbone' unchanged, and 'core'"):
        adapted(files, plugins=("k-adapter", "tlm"))


@pytest.mark.kg_fusion
@pytest.mark.tlm
@pytest.mark.ernie_masking
def test_it_goes_together_with_every_other_plugin_in_stages(files, tmp_path):
    everyone = ("ernie-masking", "k-adapter", "kg-fusion", "tlm")
    stages = [{"name": "first", "plugins": ["core", *everyone[:1], *everyone[2:]]}, STAGES[1]]
    run = adapted(files, plugins=everyone, output=tmp_path, **{"train.stages": stages})
    self_check(run)
    trainer_of(run).fit()


def test_adapters_of_several_instances_train_side_by_side(files):
    tables = {
        "k-adapter:fac": {"relations": [str(files / "relations.jsonl")], "size": 16},
        "k-adapter:lin": {"dependencies": [str(files / "trees.jsonl")], "size": 16},
    }
    values = {"data.text": [], "data.pairs": [], "plugin": tables}
    run = tiny_run("bert", ("k-adapter:fac", "k-adapter:lin"), **values)
    assert run.loss_keys() == [
        ("dependency:lin", "dependency:lin"),
        ("relation:fac", "relation:fac"),
    ]
    self_check(run)
    trainer_of(run).step(run.planner.plan(0))


# ---------------------------------------------------------------------------------------------
# Labels


def test_every_word_is_asked_for_its_head_whatever_the_tokenizer_makes_of_it(files):
    """By a loop over words and the tokens that begin them; the tokenizer splits most words."""
    run = adapted(files, family="roberta", **SPLIT)
    host = host_of(run, "dependency")
    view, columns = host.view, {n.partition(".")[2]: c for n, c in host.columns.items()}
    assert np.bincount(view.words[view.words >= 0]).max() > 1
    spans, labels = view.spans_of(WORD), run.prepared.labels[WORD]
    width = columns["table"].shape[1]
    expected = {}
    for sequence in range(len(view.numbers)):
        tokens = {0: int(view.offsets[sequence])}
        pairs = []
        for row in np.flatnonzero(spans.sequence == sequence):
            number, head = map(int, labels[spans.id[row]].split(":"))
            tokens[number] = int(spans.start[row])
            pairs.append((number, head))
        expected |= {tokens[number]: tokens[head] for number, head in pairs}
    found = {}
    for asked, target in zip(columns["asked"], columns["target"], strict=True):
        row = columns["table"][asked // width]
        found[int(row[asked % width])] = int(row[target])
    assert found == expected
    assert len(found) > 100


def test_a_word_whose_head_was_cut_off_is_not_asked_about(files):
    whole = adapted(files, family="roberta", **SPLIT)
    short = adapted(files, family="roberta", **SPLIT, **{"prepare.max_length": 12})
    asked = [len(host_of(run, "dependency").columns["k-adapter.target"]) for run in (whole, short)]
    assert 0 < asked[1] < asked[0]
    host = host_of(short, "dependency")
    spans = host.view.spans_of(WORD)
    cut = len(spans) - asked[1]
    assert cut > 0  # the last kept word of a cut sentence hangs on one that is gone


def test_columns_of_no_words_are_empty():
    columns = DependencyColumns.of(())
    assert columns.number.tolist() == [-1]


def test_the_markers_of_a_relation_are_what_is_read(files):
    run = adapted(files, tasks=("relations",))
    host = host_of(run, "relation")
    tokenizer = run.prepared.tokenizer
    for name, sign in (("head", "@"), ("tail", "#")):
        tokens = tokenizer.convert_ids_to_tokens(host.view.ids[host.columns[f"k-adapter.{name}"]])
        assert {token.strip("▁Ġ") for token in tokens} == {sign}
    labels = run.prepared.labels["relation"]
    assert labels == ("P0", "P1", "P2")
    batch = to_device(host, run.device, torch.float64)
    perturb(run)
    owner = next(o for o in run.objectives["relation"] if o.component.name == "relation")
    parts = run.encoder.parts_of("k-adapter")
    outcome = owner.component.compute(batch, Passes(run.encoder), parts)
    assert run.root.count(host)["relation", "relation"] == 30
    assert float(outcome.metrics["accuracy"][1]) == 30


def test_adapters_learn_what_the_sentences_tell(files, tmp_path):
    values = {"train.steps": 60, "train.lr": 3e-3, "train.log_every": 60, "output": tmp_path}
    run = adapted(files, **values)
    trainer_of(run).fit()
    from ptm_plus.evaluation import evaluate

    found = evaluate(run)["k-adapter_tasks"]
    assert found["dependency"]["accuracy"] > 0.6  # chance is about one in six
    assert found["relation"]["asked"] > 5
    assert 0.1 < found["relation"]["most_frequent"] < 0.6  # three relations in turn
    # every word hangs on the next one, but for the root, which hangs on what stands before all
    assert 0.6 < found["dependency"]["most_frequent"] < 0.95


def figures_of(run):
    run.encoder.eval()
    with torch.no_grad():
        probe = next(o.component for o in run.probes if o.component.name == "k-adapter_tasks")
        return probe.run(ProbeContext(run))


def test_accuracy_stands_beside_the_commonest_answer_of_training(files):
    run = adapted(files)
    found = figures_of(run)
    for task, kind in (("relation", "relation"), ("dependency", WORD)):
        data, labels = run.prepared.streams[task], run.prepared.labels[kind]

        def answers(numbers, task=task, kind=kind, labels=labels):
            spans = host_of(run, task, numbers).view.spans_of(kind)
            words = [labels[row] for row in spans.id]
            if task == "relation":
                return words
            pairs = [tuple(map(int, word.split(":"))) for word in words]
            return [head - number for number, head in pairs]  # every word stands by itself

        asked, trained = answers(data.held_out), Counter(answers(data.training))
        commonest = trained.most_common(1)[0][0]
        assert found[task]["asked"] == len(asked)
        assert found[task]["most_frequent"] == asked.count(commonest) / len(asked)
    assert found["relation"] | {"unseen": 0, "cut": 0} == found["relation"]
    assert found["dependency"] | {"merged": 0, "joined": 0, "cut": 0} == found["dependency"]


def test_relations_that_no_sentence_of_training_has_are_counted(files, tmp_path):
    lines = (files / "relations.jsonl").read_text("utf-8").splitlines()
    each = [json.loads(line) | {"relation": f"R{n}"} for n, line in enumerate(lines)]
    path = tmp_path / "each.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in each), encoding="utf-8")
    run = adapted(files, tasks=(), table={"relations": [str(path)]})
    found = figures_of(run)["relation"]
    assert found["unseen"] == found["asked"] == len(run.prepared.streams["relation"].held_out)
    assert found["most_frequent"] == 0


def test_with_nothing_held_out_nothing_is_asked(files):
    run = adapted(files, **{"data.held_out": 1e-6})
    for figures in figures_of(run).values():
        assert figures["asked"] == 0
        assert "accuracy" not in figures


def test_what_is_not_asked_about_is_counted(files):
    short = {"prepare.max_length": 12, **SPLIT}
    run = adapted(files, family="roberta", **short)
    found = figures_of(run)
    store = run.prepared.streams["relation"].store
    kept = {"relation": 0, "dependency": 0}
    for task, column in (("relation", "relation"), ("dependency", "target")):
        numbers = np.arange(len(run.prepared.streams[task].store))
        kept[task] = len(host_of(run, task, numbers).columns[f"k-adapter.{column}"])
    assert found["relation"]["cut"] == 160 - kept["relation"] > 0
    trees = [json.loads(line) for line in (files / "trees.jsonl").read_text("utf-8").splitlines()]
    words = sum(len(tree["tokens"]) for tree in trees)
    split = run.prepared.streams["dependency"].store.account.spans["given"].cut
    assert found["dependency"]["cut"] == words - split - kept["dependency"] > 0
    assert len(store) > 160  # sentences were split


def test_words_in_one_token_are_counted_once_for_each_sentence(files, tmp_path):
    row = {"text": "the del town", "tokens": ["the", "de", "el", "town"], "heads": [4, 4, 4, 0]}
    other = {"text": "x", "tokens": ["a", "town"], "heads": [2, 0]}
    path = tmp_path / "trees.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in [row, other] * 30), "utf-8")
    run = adapted(files, tasks=(), table={"dependencies": [str(path)]})
    found = figures_of(run)["dependency"]
    assert {name: found[name] for name in ("merged", "joined", "cut")} == {
        "merged": 30,
        "joined": 30,
        "cut": 0,
    }


def test_weights_of_other_relations_are_refused(files, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text((files / "relations.jsonl").read_text("utf-8").replace("P0", "P9"), "utf-8")
    first = adapted(files, tasks=("relations",), output=tmp_path / "first", **{"train.steps": 1})
    trainer_of(first).fit()
    second = adapted(files, tasks=(), table={"relations": [str(other)]}, output=tmp_path / "second")
    start_from(second, tmp_path / "first", Silent())
    with pytest.raises(DataError, match="belong to other relations than the 3 of this run"):
        trainer_of(second).fit()


# ---------------------------------------------------------------------------------------------
# Settings


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"size": 15, "heads": 2}, "heads is 2, which does not divide the size, 15"),
        ({"blocks": [0, 9]}, "blocks: 9 is not from 0 to 3"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(files, table, message):
    with pytest.raises(SettingsError, match=message):
        adapted(files, table=table)


def test_without_anything_to_learn_from_it_is_refused():
    with pytest.raises(SettingsError, match="nothing to learn from"):
        tiny_run("bert", ("k-adapter",))


def test_it_reads_first_middle_and_last_by_default():
    settings = KAdapterSettings(relations=("a",))
    assert settings.places(24) == (0, 12, 24)
    assert settings.places(1) == (0, 1)
    assert KAdapterSettings(relations=("a",), blocks=(23, 0, 11)).places(24) == (0, 11, 23)


def test_its_files_are_absolute_in_a_run_folder(files, monkeypatch):
    monkeypatch.chdir(files)
    settings = tiny_settings(
        "bert", ("k-adapter",), plugin={"k-adapter": {"relations": ["relations.jsonl"]}}
    )
    table = anchored(settings).plugin["k-adapter"]
    assert table["relations"] == [str(files / "relations.jsonl")]


def test_its_files_may_lie_elsewhere_in_a_run_that_goes_on(files, tmp_path, monkeypatch):
    import shutil

    monkeypatch.chdir(files)
    table = {"relations": ["relations.jsonl"], "size": 16}
    values = {"data.text": [], "data.pairs": [], "output": tmp_path / "run"}
    trainer_of(tiny_run("bert", ("k-adapter",), plugin={"k-adapter": table}, **values)).fit()
    moved = shutil.copy(files / "relations.jsonl", tmp_path / "elsewhere.jsonl")
    table["relations"] = [str(moved)]
    again = trainer_of(tiny_run("bert", ("k-adapter",), plugin={"k-adapter": table}, **values))
    again.resume()
    assert again.progress.step == 6


# ---------------------------------------------------------------------------------------------
# Files


@pytest.fixture(scope="module", params=["bert", "roberta", "xlm-roberta", "modernbert"])
def exported(request, files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    values = {"train.steps": 2, "train.precision": "fp32", "model.dropout": 0.2}
    run = adapted(files, family=request.param, output=folder / "run", **values)
    perturb(run)
    write_settings(anchored(run.settings))
    trainer = trainer_of(run)
    trainer.fit()
    export(folder / "run", folder / "model", verify=request.param == "bert")
    run.encoder.eval()
    return run, folder / "model"


def packed_states(run, host):
    """Return the states that the objectives of a run read."""
    batch = to_device(host, run.device, run.float_dtype())
    hooks = next(p.implementation for p in run.plugins.instances if p.instance == "k-adapter")
    return hooks._states((0, 1, 3), batch, Passes(run.encoder), run.encoder.parts_of("k-adapter"))


def padded(run, host):
    """Return ids and mask of the sequences as anybody would pass them."""
    lengths = torch.from_numpy(host.view.lengths)
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    ids = torch.full(mask.shape, run.prepared.tokenizer.pad_token_id)
    ids[mask.bool()] = torch.from_numpy(host.view.ids)
    return ids, mask


def test_plain_transformers_and_a_file_give_the_states_of_training(exported):
    run, folder = exported
    host = host_of(run, "dependency", range(12))
    ids, mask = padded(run, host)
    assert not mask.all()
    model = AdaptedEncoder(AutoModel.from_pretrained(folder), [folder / "ptm_plus" / "k-adapter"])
    with torch.no_grad():
        expected, found = packed_states(run, host), model(ids, mask)
    torch.testing.assert_close(found[mask.bool()], expected, atol=2e-5, rtol=1e-4)


def test_a_model_with_a_head_above_it_is_as_good(exported):
    run, folder = exported
    ids, mask = padded(run, host_of(run, "dependency", range(4)))
    own = [folder / "ptm_plus" / "k-adapter"]
    plain = AdaptedEncoder(AutoModel.from_pretrained(folder), own)
    headed = AdaptedEncoder(AutoModelForMaskedLM.from_pretrained(folder), own)
    with torch.no_grad():
        assert torch.equal(plain(ids, mask), headed(ids, mask))


def test_tasks_are_learned_on_the_adapter_that_a_run_keeps(exported, tmp_path):
    run, folder = exported
    with loaded(str(run.output), "cpu", False, Silent(), with_plugins=True) as model:
        body = Body(model).eval()
        ids, mask = padded(run, host_of(run, "dependency", range(4)))
        given = {"input_ids": ids, "attention_mask": mask}
        beside = AdaptedEncoder(AutoModel.from_pretrained(folder), [folder / OWN / "k-adapter"])
        with torch.no_grad():
            torch.testing.assert_close(body(given), beside(**given), atol=2e-5, rtol=1e-4)
        body(given).sum().backward()
    learned = {name for name, one in body.named_parameters() if one.grad is not None}
    assert learned
    assert not any("adapters" in name for name in learned)


def test_an_adapter_is_refused_beside_another_encoder(exported):
    _, folder = exported
    own = folder / "ptm_plus" / "k-adapter"
    model = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-3
    with pytest.raises(DataError, match="'k-adapter' belongs to another encoder: its") as caught:
        AdaptedEncoder(model, [own])
    bound = json.loads((own / "adapter.json").read_text("utf-8"))["encoder"]
    for digest in (bound["sha256"], weights_hash(model, bound["weights"])):
        assert digest[:16] in str(caught.value)


@pytest.mark.parametrize("combine", ["concat", "sum"])
def test_several_adapters_are_combined_by_name(exported, combine):
    _, folder = exported
    own = folder / "ptm_plus" / "k-adapter"
    model = AdaptedEncoder(AutoModel.from_pretrained(folder), {"a": own, "b": own}, combine)
    one = AdaptedEncoder(AutoModel.from_pretrained(folder), [own])
    assert (list(model.adapters), list(one.adapters)) == (["a", "b"], ["k-adapter"])
    ids = torch.tensor([[5, 6, 7, 8]])
    mask = torch.ones_like(ids)
    with torch.no_grad():
        model.adapters["b"].join.bias += 1
        alone, both = one(ids, mask), model(ids, mask)
        several = (alone, alone + 1)
        expected = sum(several) if combine == "sum" else model.combined(torch.cat(several, -1))
    torch.testing.assert_close(both, expected)
    trained = {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == ({"combined"} if combine == "concat" else set())


@pytest.mark.parametrize(
    ("freeze", "still"),
    [("all", {"encoder", "adapters"}), ("adapters", {"adapters"}), ("nothing", set())],
)
def test_what_is_frozen_stays_in_evaluation_mode(exported, freeze, still):
    _, folder = exported
    own = folder / "ptm_plus" / "k-adapter"
    model = AdaptedEncoder(AutoModel.from_pretrained(folder), [own], freeze=freeze).train()
    for name in ("encoder", "adapters"):
        parts = getattr(model, name)
        assert all(p.requires_grad for p in parts.parameters()) == (name not in still)
        assert any(module.training for module in parts.modules()) == (name not in still)


def test_adapters_need_names_of_their_own(exported):
    _, folder = exported
    own = folder / "ptm_plus" / "k-adapter"
    model = AutoModel.from_pretrained(folder)
    for folders in ([own, own], [], {"a.b": own}):
        with pytest.raises(SettingsError, match="adapter"):
            AdaptedEncoder(model, folders)


def test_the_adapted_encoder_compiles_without_a_graph_break(exported):
    run, folder = exported
    ids, mask = padded(run, host_of(run, "dependency", range(4)))
    model = AdaptedEncoder(AutoModel.from_pretrained(folder), [folder / "ptm_plus" / "k-adapter"])
    with torch.no_grad():
        expected = model(ids, mask)
        torch._dynamo.reset()
        try:
            found = torch.compile(model, backend="eager", fullgraph=True)(ids, mask)
        finally:
            torch._dynamo.reset()
    torch.testing.assert_close(found, expected)


def test_what_the_card_shows_runs(exported, tmp_path, monkeypatch):
    _, folder = exported
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "shown.py").write_text(snippet, encoding="utf-8")
    (tmp_path / "exported").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    ids = torch.tensor([[5, 6, 7, 8]])
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    assert runpy.run_path("shown.py", given)["states"].shape == (1, 4, 32)


@pytest.mark.parametrize("harm", ["cut", "card", "missing", "format"])
def test_a_damaged_file_is_refused(exported, tmp_path, harm):
    import shutil

    _, folder = exported
    own = shutil.copytree(folder / "ptm_plus" / "k-adapter", tmp_path / "own")
    card = own / "adapter.json"
    if harm == "cut":
        content = (own / "adapter.safetensors").read_bytes()
        (own / "adapter.safetensors").write_bytes(content[:-9])
    elif harm == "card":
        card.write_text('{"encoder": 7}', encoding="utf-8")
    elif harm == "missing":
        card.unlink()
    else:
        card.write_text(card.read_text("utf-8").replace('"format": 1', '"format": 2'), "utf-8")
    with pytest.raises(DataError, match="is no adapter"):
        AdaptedEncoder(AutoModel.from_pretrained(folder), [own])


def test_settings_and_stages_launch_together(files, tmp_path):
    table = {"relations": [str(files / "relations.jsonl")], "size": 16}
    values = {"train.stages": STAGES, "plugin": {"k-adapter": table}, "output": tmp_path}
    run = launch(tiny_settings("bert", ("k-adapter",), **values), Silent())
    trainer = trainer_of(run)
    trainer.fit()
    assert trainer.stepper.stage.name == "second"

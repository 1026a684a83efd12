"""The plugin in runs: what it masks, when, with whom, and that a resume draws the same."""

from __future__ import annotations

import json
from collections import Counter
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny import Recorder, folder, tiny_run

from ptm_plus import Example, Span
from ptm_plus.microbatch import to_device
from ptm_plus.processes import make_accelerator
from ptm_plus.progress import Silent
from ptm_plus.selfcheck import self_check
from ptm_plus.step import Passes
from ptm_plus.train import Trainer
from ptm_plus_ernie_masking.phrases import Phrases
from ptm_plus_ernie_masking.settings import ErnieMaskingSettings

pytestmark = pytest.mark.ernie_masking

NAME = "ernie-masking"


def settings(**values):
    return ErnieMaskingSettings.model_validate(values)


def sets(**values):
    return [f"plugin.{NAME}.{key}={value}" for key, value in values.items()]


def batches(run, rate=0.3, weights=None, steps=6):
    reader = run.reader()
    for step in range(steps):
        for rows in reader.step_rows(run.planner.plan(step)).values():
            yield run.collator.batch(rows, rows, rate, weights or {})


# ---------------------------------------------------------------------------------------------
# Settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kinds": []}, "at least 1"),
        ({"kinds": ["phrase", "phrase"]}, "named twice"),
        ({"kinds": ["phrase"], "weights": {"entity": 1}}, "kinds does not name 'entity'"),
        ({"weights": {"entity": -1}}, "out of range"),
        ({"rates": {"entity": 1.5}}, "out of range"),
        ({"rates": {"entity": 0.5}, "weights": {"entity": 2}}, "'entity' has a weight and a rate"),
        ({"shares": [1, 1]}, "3 numbers from 0"),
        ({"kinds": ["phrases"]}, "phrase"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        settings(**values)


def test_stages_begin_where_their_shares_say():
    assert settings().bounds() == [0, 0]
    assert settings(schedule="stages").bounds() == pytest.approx([1 / 3, 2 / 3])
    given = settings(schedule="stages", shares=(1, 1, 2))
    assert given.bounds() == pytest.approx([0.25, 0.5])


# ---------------------------------------------------------------------------------------------
# Phrases


def test_chinese_words_are_phrases_with_offsets_in_characters():
    finder = Phrases({}, True, "")
    text = "我们😀住在北京大学附近，e\u0301ast。"
    found = [text[start:end] for start, end in finder.find(text, "zh-Hant")]
    assert found == ["我们", "北京大学", "附近"]
    assert finder.account() == {"segmented words": 3}
    assert Phrases({}, False, "").find(text, "zh") == []


def test_collocations_keep_to_their_language_and_to_white_space():
    finder = Phrases({"en": frozenset({("new", "york"), ("new", "york", "city")})}, True, "")
    text = "In New York City, and New, York; 'new  york'"
    found = [text[start:end] for start, end in finder.find(text, "en-GB")]
    assert found == ["New York City", "new  york"]
    assert finder.find(text, "fr") == []
    again = ForkingPickler.loads(ForkingPickler.dumps(finder))  # as to a worker
    assert again.find(text, "en") == finder.find(text, "en")
    example = Example("1", {"text": text}, {"text": "en"})
    assert finder([example])[0][0] == Span("text", 3, 16, "phrase")


def test_phrases_of_the_corpus_are_counted_once_and_found_in_it():
    run = tiny_run("bert", (NAME,), sets=sets(**{"phrases.threshold": 0.2}))
    kept = list((folder() / "cache" / "phrases").glob("*.json"))
    phrases = [json.loads(path.read_text(encoding="utf-8")) for path in kept]
    assert any(
        "old river town" in p or "river town" in " ".join(of)
        for of in phrases
        for p in of.get("en", {})
    )
    text = run.prepared.streams["text"]
    spans = text.maker.view(np.arange(50), np.zeros(50, dtype=np.int64)).spans_of("phrase")
    assert len(spans) > 50
    assert (spans.length > 1).any()


def test_given_phrases_are_left_as_they_are(tmp_path):
    rows = [
        {
            "text": "the old river town lies near",
            "lang": "en",
            "spans": [{"start": 4, "end": 13, "kind": "phrase"}],
        }
    ] * 60
    path = tmp_path / "given.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = tiny_run(
        "bert",
        (NAME,),
        sets=sets(**{"phrases.threshold": -0.9}),
        **{"data.text": [str(path)], "data.pairs": []},
    )
    view = run.prepared.streams["text"].maker.view(np.arange(10), np.zeros(10, dtype=np.int64))
    assert len(view.spans_of("phrase")) == 10


# ---------------------------------------------------------------------------------------------
# Masks


@pytest.mark.parametrize(
    "kinds", [("phrase",), ("phrase", "entity"), ("ngram",), ("span", "entity")]
)
def test_units_are_masked_whole_and_the_budget_holds(kinds):
    named = json.dumps(list(kinds))
    run = tiny_run("bert", (NAME,), sets=sets(kinds=named))
    spent = maskable = 0
    for host in batches(run, 0.15, steps=40):
        view, plan = host.view, host.plan
        spent += int(plan.predicted.sum())
        maskable += int((view.words >= 0).sum())
        assert not plan.predicted[view.words < 0].any()
        for kind in set(kinds) & {"phrase", "entity"}:
            number = plan.kinds.index(kind)
            spans = view.spans_of(kind)
            taken = np.flatnonzero(plan.predicted & (plan.kind == number))
            inside = np.zeros(len(view), dtype=bool)
            for start, length in zip(spans.start, spans.length, strict=True):
                own = plan.predicted[start : start + length] & (
                    plan.kind[start : start + length] == number
                )
                assert own.all() or not own.any()
                inside[start : start + length] = True
            assert inside[taken].all()
    assert 0.93 < spent / (0.15 * maskable) < 1.07  # 40 steps of a tiny world


def test_accuracy_is_told_by_kind():
    run = tiny_run("bert", (NAME,), sets=sets(kinds='["phrase","entity"]'))
    objective = run.objectives["text"][0].component
    assert objective.name == "mlm"
    guesses = Counter()
    with torch.no_grad():
        for host in (host for host in batches(run) if host.view.stream == "text"):
            batch, passes = to_device(host, run.device, torch.float64), Passes(run.encoder)
            figures = objective.compute(batch, passes, {}).metrics
            states = passes(batch)
            guess = states.logits(states.top[batch.predicted]).argmax(-1).tolist()
            right, asked = Counter(), Counter()
            for token, said in zip(np.flatnonzero(host.plan.predicted), guess, strict=True):
                kind = host.plan.kinds[host.plan.kind[token]]
                asked[kind] += 1
                right[kind] += int(said == host.view.ids[token])
            guesses += asked
            expected = {f"accuracy_{kind}": (right[kind], asked[kind]) for kind in host.plan.kinds}
            expected["accuracy"] = (right.total(), asked.total())
            assert {name: (int(a), int(b)) for name, (a, b) in figures.items()} == expected
    assert set(guesses) == {"word", "phrase", "entity"}


def test_stages_hold_kinds_back_until_their_turn(tmp_path):
    values = {"train.steps": 9, "output": tmp_path}
    run = tiny_run("bert", (NAME,), sets=sets(schedule='"stages"'), **values)
    seen = []
    for step in range(9):
        plan = run.planner.plan(step)
        rows = run.reader().step_rows(plan)
        kinds: set[str] = set()
        for of_stream in rows.values():
            host = run.collator.batch(of_stream, of_stream, 0.5, plan.kind_weights)
            kinds |= {host.plan.kinds[k] for k in set(host.plan.kind[host.plan.predicted].tolist())}
        seen.append(kinds)
    assert all(one == {"word"} for one in seen[:3])
    assert all("phrase" in one and "entity" not in one for one in seen[3:6])
    assert all({"phrase", "entity", "word"} >= one for one in seen[6:])
    assert "entity" in set.union(*seen[6:])


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_a_resume_over_a_change_of_weights_is_bit_identical(tmp_path, stop):
    given = sets(schedule='"stages"', kinds='["phrase","span"]')
    values = {"train.steps": 9, "train.checkpoint_every": 1, "train.keep": 20, "model.dropout": 0.1}

    def trainer(output):
        run = tiny_run("bert", (NAME,), sets=given, output=output, **values)
        return Trainer(run, Silent(), make_accelerator("fp32", "cpu"))

    whole = trainer(tmp_path / "whole")
    whole.fit()
    broken = trainer(tmp_path / "broken")
    for step in range(stop):
        broken.step(broken.run.planner.plan(step))
    broken.save()
    broken.writer.finish()
    resumed = trainer(tmp_path / "broken")
    resumed.resume(verify=min(4, 9 - stop))
    resumed.fit()
    expected = dict(whole.run.encoder.named_parameters())
    for name, parameter in resumed.run.encoder.named_parameters():
        assert parameter.equal(expected[name]), name


@pytest.mark.kg_fusion
@pytest.mark.tlm
@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "modernbert"])
def test_it_goes_together_with_the_others(family):
    """kg-fusion says what happens to an entity, ernie-masking how often it is masked."""
    given = sets(kinds='["phrase","entity","span"]', **{"weights.entity": 3})
    run = tiny_run(family, ("tlm", NAME, "kg-fusion"), sets=given)
    kinds = {one.component.name: one.component for one in run.collator._kinds}
    assert kinds["entity"].weight == 3
    assert kinds["entity"].treatment is not None
    assert kinds["entity"].exclusive
    self_check(run)
    trainer = Trainer(run, Silent(), make_accelerator("fp32", "cpu"))
    for step in range(2):
        trainer.step(run.planner.plan(step))


def test_text_without_entities_is_told_of():
    watch = Recorder()
    from tiny import tiny_settings

    from ptm_plus.launch import launch

    launch(tiny_settings("bert", (NAME,), sets=sets(kinds='["ngram","entity"]')), watch)
    told = any("no entity is linked" in note for note in watch.notes)
    run = tiny_run("bert", (NAME,))
    assert told is not bool(run.prepared.labels.get("entity"))

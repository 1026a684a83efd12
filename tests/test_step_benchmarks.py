"""The benchmarks of a step: ways that compute the same, a loop by hand, how costs grow."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import Recorder, tiny_run
from transformers import AutoTokenizer, BertConfig

from ptm_plus.processes import make_accelerator
from ptm_plus.train import Trainer

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # behind what is installed: only the benchmarks come from there

from benchmarks import ladder, plugins, scale  # noqa: E402
from benchmarks.speed.by_hand import Loop  # noqa: E402
from benchmarks.speed.corpus import made_texts, made_words, write_corpus  # noqa: E402
from benchmarks.speed.growth import growth  # noqa: E402
from benchmarks.speed.rungs import IGNORED, Rung, Ways  # noqa: E402
from benchmarks.speed.sizes import AXES, cost  # noqa: E402
from benchmarks.speed.timing import Spent, spend  # noqa: E402

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


# ---------------------------------------------------------------------------------------------
# The ladder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[list[int]]]:
    """A tokenizer and the ids of some sequences."""
    words = made_words(300)
    corpus = write_corpus(tmp_path_factory.mktemp("ladder"), made_texts(words), 12, 1, words)
    tokenizer = AutoTokenizer.from_pretrained(corpus.tokenizer)
    return tokenizer, tokenizer(corpus.lines.read_text().splitlines())["input_ids"]


def rung(ways: Ways, text: tuple[Any, list[list[int]]]) -> Rung:
    tokenizer, sequences = text
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(**TINY, **dropout, intermediate_size=32, vocab_size=len(tokenizer))
    return Rung(ways, config, tokenizer, sequences, 6, 1e-3)


def test_all_ways_compute_the_same_loss_and_the_same_step(text: Any) -> None:
    losses, weights = [], []
    for layout, head, attention, optimizer in itertools.product((False, True), repeat=4):
        one = rung(Ways(layout, head, True, attention, False, optimizer), text)
        losses.append(one.loss(one.masked(text[1][:6])).item())
        one.step()
        weights.append(one.model.bert.embeddings.word_embeddings.weight.detach())
    assert losses == pytest.approx([losses[0]] * 16, abs=1e-5)
    assert len(losses) == 16
    for other in weights[1:]:  # rngs stand at the same place: the same masks again
        torch.testing.assert_close(other, weights[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layout", [False, True])
@pytest.mark.parametrize("masking", [False, True])
def test_both_ways_of_masking_lay_out_what_they_are_given(
    text: Any, layout: bool, masking: bool
) -> None:
    one = rung(Ways(layout=layout, masking=masking), text)
    tokenizer, sequences = text
    asked = kept = total = 0
    for _ in range(60):
        batch = one.masked(sequences)
        real = batch.positions > 0
        real |= (batch.ids == tokenizer.cls_token_id) & (batch.labels == IGNORED)
        before = torch.where(batch.labels == IGNORED, batch.ids, batch.labels)
        flat = before[0].tolist() if layout else before[real].tolist()
        assert flat == [token for row in sorted(sequences, key=len) for token in row]
        predicted = batch.labels != IGNORED
        asked += int(predicted.sum())
        kept += int((predicted & (batch.ids == batch.labels)).sum())
        total += sum(len(row) - 2 for row in sequences)
    assert asked / total == pytest.approx(0.15, abs=0.01)
    assert kept / asked == pytest.approx(0.1, abs=0.02)


def test_the_ladder_has_each_part_alone_and_with_all_before_it() -> None:
    found = ladder.ladder(["layout", "head", "optimizer"])
    assert [
        (one.layout, one.head, one.masking, one.attention, one.optimizer) for one in found.values()
    ] == [
        (False, False, False, False, False),
        (True, False, False, False, False),
        (False, True, False, False, False),
        (False, False, False, False, True),
        (True, True, False, False, False),
        (True, True, False, False, True),
    ]


def test_times_are_of_the_same_round() -> None:
    rates = {ladder.GROUND: [100.0, 50.0, 80.0], "other": [300.0, 200.0, 160.0]}
    found = ladder.figures(rates)["other"]
    assert found["times"] == {"median": 3.0, "lowest": 2.0, "highest": 4.0}
    assert found["tokens_per_cpu_second"] == 200.0


# ---------------------------------------------------------------------------------------------
# Plugins, and the loop by hand


def trainer_of(**options: Any) -> Trainer:
    run = tiny_run("bert", (), **options)
    trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
    trainer.start()
    return trainer


def test_the_loop_by_hand_takes_the_product_s_own_step() -> None:
    sets = ["train.precision=fp32", "train.clip=1.0", "batch.micro_rows=8"]
    trainer = trainer_of(sets=sets)
    loop = Loop(trainer_of(sets=sets), steps=1)
    loop.model.load_state_dict(trainer.run.encoder.backbone.state_dict())
    plan = trainer.run.planner.plan(0)
    for group in loop.optimizer.param_groups:
        group["lr"] = trainer.run.settings.train.lr * plan.lr
    assert trainer.step(plan)
    trainer.settle()
    assert loop.step() == trainer.progress.tokens
    own = trainer.run.encoder.backbone.state_dict()
    for name, weight in loop.model.state_dict().items():
        torch.testing.assert_close(weight, own[name], atol=1e-6, rtol=1e-5)


def test_what_is_spent_adds_up() -> None:
    trainer = trainer_of()
    spent = spend(trainer, 0, 2)
    assert (spent.steps, trainer.progress.step) == (2, 1)  # the plan of the first step, twice
    assert spent.tokens == trainer.progress.tokens
    parts = (spent.forward, spent.backward, spent.update, spent.own)
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(spent.whole)


def test_costs_are_per_token_and_against_no_plugin_in_the_same_round() -> None:
    def arm(name: str, operations: float, rounds: list[Spent]) -> Any:
        return SimpleNamespace(name=name, operations=operations, rounds=rounds)

    none = arm(plugins.NONE, 10.0, [Spent(2, 100, 10.0, 5.0, 3.0, 1.0)] * 2)
    other = arm("other", 11.0, [Spent(2, 50, 10.0, 4.0, 3.0, 1.0), Spent(2, 50, 20.0, 8, 6, 2)])
    found = plugins.figures([none, other], [0.08, 0.1])
    assert found["other"]["time"] == {"median": 3.0, "lowest": 2.0, "highest": 4.0}
    assert found["other"]["operations"] == 1.1
    assert found["other"]["own_share"] == pytest.approx(0.2)
    assert found["other"]["own_milliseconds"] == pytest.approx(1500.0)
    # own: 0.01 a token without, 0.04 and 0.08 with; a step without takes 0.1 a token
    assert found["other"]["own_of_the_plugin"] == pytest.approx(0.5)
    assert found[plugins.BY_HAND]["time"]["median"] == pytest.approx(0.9)


# ---------------------------------------------------------------------------------------------
# Growth


def test_a_line_is_found_again() -> None:
    found = growth([1, 2, 4, 8], [3 + 2 * size for size in (1, 2, 4, 8)])
    assert (found.fixed, found.per_unit, found.explained) == pytest.approx((3, 2, 1))
    power = growth([1, 2, 4, 8], [5 * size**1.5 for size in (1, 2, 4, 8)])
    assert power.exponent == pytest.approx(1.5)
    flat = growth([1, 10, 100], [7.0, 7.0, 7.0])
    assert flat.exponent == pytest.approx(0, abs=1e-9)
    assert (flat.per_unit, flat.explained) == pytest.approx((0, 1), abs=1e-9)
    assert growth([0, 1], [1.0, 2.0]).exponent is None
    by_hand = growth([0, 1, 2], [0.0, 2.0, 1.0])  # the line 0.5 + 0.5 x, by the normal equations
    assert (by_hand.fixed, by_hand.per_unit) == pytest.approx((0.5, 0.5))
    assert by_hand.explained == pytest.approx(0.25)


@pytest.mark.parametrize("axis", ["languages", "plugins", "streams"])
def test_a_run_has_as_many_as_asked(axis: str, tmp_path: Path) -> None:
    asked = AXES[axis][0](3, tmp_path)
    if axis == "languages":
        assert [one.split("=")[0] for one in asked.text] == ["qaa", "qab", "qac"]
        rows = [Path(one.split("=")[1]).read_text().splitlines() for one in asked.text]
        together = sorted(row for part in rows for row in part)
        assert together == sorted(asked.corpus.rows.read_text().splitlines())
    if axis == "plugins":
        assert len(set(asked.plugins)) == 3
    if axis == "streams":
        assert asked.sets == ["plugin.many.streams=3"]


def test_more_streams_are_more_tokens_and_all_costs_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.speed.sizes.STEPS", 1)
    monkeypatch.setattr("benchmarks.speed.sizes.WARM_UP", 1)
    monkeypatch.setattr("benchmarks.speed.sizes.MEAN_LENGTH", 2000)  # a hundred texts
    before = torch.get_num_threads()
    try:
        found = cost("streams", 1, tmp_path)
    finally:
        torch.set_num_threads(before)
    corpus = tmp_path / "corpus" / "lines.txt"
    lengths = [len(line.split()) + 2 for line in corpus.read_text().splitlines()]
    assert found["tokens"] == pytest.approx(2 * np.sum(lengths), rel=0.1)  # less what is held out
    assert all(value > 0 for value in found.values())
    told = scale.table("streams", [1, 2], scale.fitted([1, 2], [found, found]))
    assert "of these ptm-plus's own" in told
    assert "| tokens |" not in told

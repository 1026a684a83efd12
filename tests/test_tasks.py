"""Tasks: what files hold, which states are read, scores by hand, and learning that is real."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_files import document, run
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import small_tokenizer
from torch import nn
from transformers import AutoModel, BertConfig, BertForMaskedLM

from ptm_plus.errors import DataError, SettingsError
from ptm_plus.measures.fine_tuning import (
    Body,
    Budget,
    Classifier,
    Pointer,
    _answers,
    _batch,
    _pooled,
    ask,
    fine_tuned,
    training_batches,
)
from ptm_plus.measures.plain_model import PlainModel, load_plain
from ptm_plus.measures.task_files import Question, parse_task, read_questions
from ptm_plus.measures.tasks import measure_task, over_seeds, right_items, score
from ptm_plus.progress import Silent


def lines(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    tokenizer = small_tokenizer("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=40,
        pad_token_id=tokenizer.pad_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertForMaskedLM(config).save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


@pytest.fixture
def model(folder: Path) -> PlainModel:
    return load_plain(str(folder))


# ---------------------------------------------------------------------------------------------
# Files


def test_rows_of_every_kind_are_read(tmp_path: Path) -> None:
    text = lines(tmp_path / "a.jsonl", {"text": "Paris", "label": "city"})
    assert read_questions("text", text) == [Question("Paris", (((0, 5),),), (("city",),))]
    tokens = lines(
        tmp_path / "b.jsonl", {"tokens": ["In", "Paris", "."], "tags": ["O", "B-L", "O"]}
    )
    (found,) = read_questions("tokens", tokens)
    assert found.text == "In Paris ."
    assert found.items == (((0, 2),), ((3, 8),), ((9, 10),))
    assert found.answers == (("O",), ("B-L",), ("O",))
    given_text = {"text": "In Paris.", "tokens": ["In", "Paris", "."], "tags": ["O", "B-L", "O"]}
    (found,) = read_questions("tokens", lines(tmp_path / "c.jsonl", given_text))
    assert (found.text, found.items[2]) == ("In Paris.", ((8, 9),))
    other = {"text": "Elsewhere", "tokens": ["In", "Paris"], "tags": ["O", "O"]}
    assert read_questions("tokens", lines(tmp_path / "d.jsonl", other))[0].text == "In Paris"
    head, tail = {"start": 0, "end": 5}, {"start": 12, "end": 18}
    row = {"text": "Paris lies in France", "relation": "P17"}
    for more in ({"head": head, "tail": tail}, {"mentions": [head, tail]}):
        (found,) = read_questions("relation", lines(tmp_path / "e.jsonl", {**row, **more}))
        assert found.items == (((0, 5), (12, 18)),)
        assert found.answers == (("P17",),)
    row = {"text": "Paris lies", "start": 0, "end": 5, "types": ["city", "capital"]}
    (found,) = read_questions("typing", lines(tmp_path / "f.jsonl", row))
    assert (found.items, found.answers) == ((((0, 5),),), (("city", "capital"),))


@pytest.mark.parametrize(
    ("kind", "row", "words"),
    [
        ("text", {"text": "a"}, "label is None"),
        ("text", {"text": "", "label": "x"}, "text is ''"),
        ("tokens", {"tokens": ["a"], "tags": ["O", "O"]}, "1 tokens and 2 tags"),
        ("tokens", {"tokens": "a", "tags": ["O"]}, "tokens is 'a'"),
        ("relation", {"text": "a b", "relation": "r"}, "a mention is None"),
        ("relation", {"text": "a b", "relation": "r", "mentions": [{}]}, "not two of them"),
        ("typing", {"text": "ab", "start": 1, "end": 3, "types": ["t"]}, "no range of 2"),
        ("typing", {"text": "ab", "start": 1, "end": 1, "types": ["t"]}, "no range of 2"),
        ("typing", {"text": "ab", "start": True, "end": 2, "types": ["t"]}, "no range of 2"),
        ("heads", {"tokens": ["a", "b"], "heads": [0]}, "not a number for each of 2 tokens"),
        ("heads", {"tokens": ["a", "b"], "heads": [0, 3]}, "the head 3 is neither 0 nor"),
        ("heads", {"tokens": ["a"], "heads": [True]}, "the head True is neither"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(
    tmp_path: Path, kind: Any, row: dict[str, Any], words: str
) -> None:
    path = tmp_path / "wrong.jsonl"
    path.write_text("\n" + json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=words) as caught:
        read_questions(kind, str(path))
    assert caught.value.line == 2


def test_an_empty_file_and_a_wrong_argument_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no questions"):
        read_questions("text", lines(tmp_path / "a.jsonl"))
    assert parse_task("tokens=a.jsonl,b.jsonl") == ("tokens", "a.jsonl", "b.jsonl")
    for argument, words in (
        ("text=a.jsonl", "not KIND=TRAIN,TEST"),
        ("a.jsonl,b.jsonl", "not KIND=TRAIN,TEST"),
        ("txt=a,b", "unknown kind.*text"),
    ):
        with pytest.raises(SettingsError, match=words):
            parse_task(argument)


# ---------------------------------------------------------------------------------------------
# What is read


def test_an_item_reads_the_mean_state_of_its_tokens(folder: Path, model: PlainModel) -> None:
    questions = [
        Question("Paris is the capital of France.", (((0, 5), (24, 30)),), (("a",),)),
        Question("Berlin is old", (((0, 6), (7, 9)), ((10, 13), (0, 6))), (("b",), ("a",))),
    ]
    asked = ask(model, questions, ["a", "b"])
    assert asked.unread == 0
    inputs, pool, answers = _batch(model, asked, [1, 0])
    assert answers.tolist() == [[0, 1], [1, 0], [1, 0]]
    plain = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = plain(**inputs).last_hidden_state
    expected = []
    for row, question in enumerate([questions[1], questions[0]]):
        spans = model.tokenizer(question.text, return_offsets_mapping=True)["offset_mapping"]
        for item in question.items:
            for start, end in item:
                inside = [n for n, (a, b) in enumerate(spans) if a < end and b > start and a < b]
                assert inside
                expected.append(states[row, inside].mean(0))
    flat = states.reshape(-1, 32)
    for number, wanted in enumerate(expected):
        mine = pool.range == number
        found = (flat[pool.token[mine]] * pool.share[mine, None]).sum(0)
        torch.testing.assert_close(found, wanted)
    assert pool.ranges == len(expected) == 6


class Doubled(nn.Module):
    """A reader: states of the encoder times a factor that does not learn."""

    def __init__(self, encoder: nn.Module, factor: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.factor = nn.Parameter(torch.tensor(factor), requires_grad=False)

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.encoder(**inputs).last_hidden_state
        return self.factor * states


def test_readers_are_read_side_by_side_and_the_encoder_learns_through_them(
    model: PlainModel,
) -> None:
    read = replace(model, readers=[partial(Doubled, factor=factor) for factor in (2.0, -1.0)])
    rows = made_rows(40, 3)
    questions = [
        Question(row["text"], (((0, len(row["text"])),),), ((row["label"],),)) for row in rows
    ]
    asked = ask(read, questions, ["Berlin", "Paris"])
    body, plain = Body(read).eval(), Body(model).eval()
    assert (body.width, plain.width) == (64, 32)
    inputs, pool, _ = _batch(read, asked, [0, 1])
    with torch.no_grad():
        states = plain(inputs)
        torch.testing.assert_close(body(inputs), torch.cat([2 * states, -states], -1))
    loss = Classifier(body, 1, 2)(inputs, pool).square().sum()
    loss.backward()
    learned = {name for name, one in body.named_parameters() if one.grad is not None}
    assert learned
    assert all(name.startswith("encoder.") for name in learned)
    assert body.encoder is not model.base


def test_what_lies_beyond_the_last_position_is_counted(model: PlainModel) -> None:
    text = "Paris " * 60 + "Berlin"
    asked = ask(model, [Question(text, (((360, 366),), ((0, 5),)), (("a",), ("b",)))], ["a", "b"])
    assert asked.unread == 1
    _, pool, _ = _batch(model, asked, [0])
    assert pool.ranges == 2
    assert 0 not in pool.range.tolist()


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=300),
    st.integers(1, 3),
    st.integers(1, 8),
    st.integers(0, 9),
)
def test_every_epoch_has_each_sentence_once(
    lengths: list[int], epochs: int, size: int, seed: int
) -> None:
    batches = list(training_batches(lengths, epochs, size, seed))
    assert all(1 <= len(batch) <= size for batch in batches)
    each = len(batches) // epochs
    for epoch in range(epochs):
        seen = chain.from_iterable(batches[epoch * each : (epoch + 1) * each])
        assert sorted(seen) == list(range(len(lengths)))
    assert batches == list(training_batches(lengths, epochs, size, seed))


# ---------------------------------------------------------------------------------------------
# Scores


def logits_of(told: list[list[int]], classes: int) -> list[torch.Tensor]:
    return [torch.nn.functional.one_hot(torch.tensor(one), classes).float() for one in told]


@pytest.mark.tasks
def test_scores_are_those_of_the_definitions() -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("seqeval")
    classes = ["a", "b", "c"]
    true = ["a", "a", "b", "b", "d"]
    test = [Question("x", (((0, 1),),), ((label,),)) for label in true]
    found = score("text", logits_of([[0], [1], [1], [2], [0]], 3), test, classes)
    # F1 of a: 1 of 2 told, 1 of 2 there; of b: likewise; of d: none.
    assert found == {"accuracy": pytest.approx(2 / 5), "macro_f1": pytest.approx(1 / 3)}
    tags = ["B-L", "B-P", "I-L", "I-P", "O"]
    chunks = [Question("x", (((0, 1),),) * 4, (("B-L",), ("I-L",), ("O",), ("B-P",)))]
    found = score("tokens", logits_of([[0, 2, 4, 4]], 5), chunks, tags)
    assert found["accuracy"] == 3 / 4
    assert (found["precision"], found["recall"]) == (1.0, 0.5)
    assert found["f1"] == pytest.approx(2 / 3)
    found = score("tokens", logits_of([[0, 4, 4, 1]], 5), chunks, tags)  # half a name is no name
    assert (found["precision"], found["recall"]) == (0.5, 0.5)
    parts = [Question("x", (((0, 1),),) * 2, (("NOUN",), ("VERB",)))]
    found = score("tokens", logits_of([[0, 0]], 2), parts, ["NOUN", "VERB"])
    assert found == {"accuracy": 0.5, "macro_f1": pytest.approx((2 / 3 + 0) / 2)}
    kinds = [Question("x", (((0, 1),),), (("a", "b"),)), Question("x", (((0, 1),),), (("e",),))]
    logits = [torch.tensor([[1.0, -1.0, 2.0]]), torch.tensor([[-1.0, -1.0, -1.0]])]
    found = score("typing", logits, kinds, classes)
    assert found["strict"] == 0
    assert (found["precision"], found["recall"]) == (1 / 2, pytest.approx(1 / 3))
    assert found["macro_f1"] == pytest.approx(1 / 4)


def test_figures_over_seeds_have_the_t_interval() -> None:
    pytest.importorskip("scipy")
    found = over_seeds([{"accuracy": value} for value in (0.5, 0.6, 0.7)])["accuracy"]
    assert (found["mean"], found["least"], found["most"]) == (pytest.approx(0.6), 0.5, 0.7)
    half = 4.30265 * 0.1 / 3**0.5  # t of two degrees of freedom
    assert found["interval"] == (pytest.approx(0.6 - half, 1e-4), pytest.approx(0.6 + half, 1e-4))
    assert over_seeds([{"accuracy": 0.5}])["accuracy"]["interval"] is None


# ---------------------------------------------------------------------------------------------
# Learning


def made_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Sentences in which one word tells the label, tags and a type, and all others hang on it."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        words = rng.choice(["is", "the", "of", "through", "in"], 6).tolist()
        label = ("Paris", "Berlin")[int(rng.integers(2))]
        place = int(rng.integers(1, 6))
        words[place] = label
        text = " ".join(words)
        start = text.index(label)
        mention = {"start": start, "end": start + len(label)}
        tags = ["B-" + label if word == label else "O" for word in words]
        rows.append(
            {"text": text, "label": label, "tokens": words, "tags": tags, **mention}
            | {"types": [label, "city"], "relation": label}
            | {"heads": [0 if n == place else place + 1 for n in range(6)]}
            | {"head": mention, "tail": {"start": 0, "end": len(words[0])}}
        )
    return rows


@pytest.mark.tasks
@pytest.mark.parametrize("kind", ["text", "tokens", "relation", "typing", "heads"])
def test_each_kind_is_learned_through_the_command(folder: Path, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("seqeval")
    train, test = (
        lines(tmp_path / f"{name}.jsonl", *made_rows(count, seed))
        for name, count, seed in (("train", 300, 0), ("test", 80, 1))
    )
    flags = ("--seeds", "2", "--epochs", "4", "--rate", "0.005", "--device", "cpu")
    found = document("evaluate", folder, "--task", f"{kind}={train},{test}", *flags)
    (task,) = found["tasks"]
    assert task["kind"] == kind
    assert task["sentences"] == {"train": 300, "test": 80}
    assert len(task["seeds"]) == 2
    measure = {"tokens": "f1", "typing": "strict", "heads": "uas"}.get(kind, "accuracy")
    assert task["scores"][measure]["mean"] > 0.95
    assert task["most_frequent"] < 0.9
    assert task["budget"] == {"epochs": 4, "batch": 32, "rate": 0.005}


def test_fine_tuning_leaves_the_model_as_it_is_and_repeats_itself(model: PlainModel) -> None:
    rows = made_rows(40, 3)
    questions = [
        Question(row["text"], (((0, len(row["text"])),),), ((row["label"],),)) for row in rows
    ]
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    asked = ask(model, questions, ["Berlin", "Paris"])
    runs = [
        fine_tuned(
            model, asked, asked, seed, Budget(1), several=False, progress=lambda done, of: None
        )
        for seed in (0, 0, 1)
    ]
    for name, value in model.model.state_dict().items():
        assert value.equal(before[name])
    assert all(one.equal(other) for one, other in zip(runs[0], runs[1], strict=True))
    assert not all(one.equal(other) for one, other in zip(runs[0], runs[2], strict=True))


def test_words_point_at_those_of_their_own_sentence(model: PlainModel) -> None:
    """The biaffine map, sentence by sentence and pair by pair."""
    rows = [*made_rows(3, 0), {"text": "is the", "tokens": ["is", "the"], "heads": [2, 0]}]
    questions = [
        Question(row["text"], places, tuple((str(head),) for head in row["heads"]))
        for row in rows
        for places in [tuple((one,) for one in word_ranges(row["text"]))]
    ]
    asked = ask(model, questions, None)
    torch.manual_seed(0)
    head = Pointer(Body(model)).eval()
    torch.nn.init.normal_(head.none)
    inputs, pool, answers = _batch(model, asked, [0, 1, 2, 3])
    with torch.no_grad():
        found = head(inputs, pool)
        told = _answers(model, head, asked)
        first = 0
        for number, row in enumerate(rows):
            one = head(*_batch(model, asked, [number])[:2])
            size = len(row["heads"])
            own = found[first : first + size]
            torch.testing.assert_close(own[:, :1], one[:, :1], atol=1e-4, rtol=1e-4)
            inside = own[:, 1 + first : 1 + first + size]
            torch.testing.assert_close(inside, one[:, 1:], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(told[number], one, atol=1e-4, rtol=1e-4)
            elsewhere = torch.cat([own[:, 1 : 1 + first], own[:, 1 + first + size :]], dim=1)
            assert (elsewhere < -1e30).all()
            for n, wanted in enumerate(row["heads"]):
                place = answers[first + n].argmax().item()
                assert place == (1 + first + wanted - 1 if wanted else 0)
            first += size
        states = _pooled(Body(model).eval(), inputs, pool)
        own_, other = (torch.nn.functional.gelu(of(states[:2])) for of in (head.own, head.other))
        by_hand = own_[0] @ head.pair.weight.T @ other[1] + other[1] @ head.prior.weight[0]
        torch.testing.assert_close(found[0, 2], by_hand + head.prior.bias[0])


def word_ranges(text: str) -> list[tuple[int, int]]:
    ends = [n for n, sign in enumerate(text) if sign == " "] + [len(text)]
    return list(zip([0, *(end + 1 for end in ends[:-1])], ends, strict=True))


@pytest.mark.tasks
def test_right_items_are_those_that_the_score_counts(model: PlainModel, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    train, test = (lines(tmp_path / f"{n}.jsonl", *made_rows(60, n)) for n in range(2))
    budget = Budget(epochs=2, rate=0.005)
    for kind, measure in (("text", "accuracy"), ("typing", "strict"), ("heads", "uas")):
        argument = f"{kind}={train},{test}"
        right = right_items(model, argument, 0, budget, Silent())
        told = measure_task(model, argument, 1, budget, Silent())
        assert len(right) == 60
        assert np.mean(right) == pytest.approx(told["scores"][measure]["mean"])


def test_the_rate_follows_the_width_of_the_model() -> None:
    assert Budget().rate_for(768) == 5e-5
    assert Budget().rate_for(128) == pytest.approx(3e-4)
    assert Budget(rate=1e-3).rate_for(128) == 1e-3


@pytest.mark.tasks
def test_one_label_is_nothing_to_learn(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("seqeval")
    path = lines(tmp_path / "a.jsonl", {"text": "Paris", "label": "city"})
    refused = run("evaluate", folder, "--task", f"text={path},{path}", "--device", "cpu")
    assert refused.exit_code == 4
    assert "has 1 labels; two at least are needed" in refused.output


def test_a_missing_extra_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "seqeval" else find(name)
    )
    path = lines(tmp_path / "a.jsonl", {"text": "Paris", "label": "city"})
    refused = run("evaluate", folder, "--task", f"text={path},{path}", "--device", "cpu")
    assert refused.exit_code == 5
    assert "tasks need seqeval" in refused.output
    assert "ptm-plus[tasks]" in refused.output

"""Cloze facts: against plain transformers, one sentence and one candidate at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from small_tokenizers import SENTENCES, small_tokenizer
from tiny import SMALL
from transformers import AutoConfig, AutoModelForMaskedLM

from ptm_plus.errors import DataError, SettingsError
from ptm_plus.measures.cloze import ask_facts, parse_facts, read_facts
from ptm_plus.measures.measuring import Request, measure
from ptm_plus.measures.plain_model import PlainModel, load_plain
from ptm_plus.progress import Silent

FACTS = [
    *(("capital", "France", "Paris"), ("capital", "Deutschland", "Berlin")),
    *(("capital", "Lyon", "Paris"), ("capital", "日本", "東京")),
    *(("river", "Paris", "Seine"), ("river", "Berlin", "Spree"), ("river", "Paris", "Волга")),
]
PATTERNS = [
    *(("capital", "[Y] is the capital of [X]."), ("capital", "The capital of [X] is [Y] .")),
    ("river", "The river through [X], the [Y], is old."),
]


@pytest.fixture(scope="module", params=["bert", "xlm-roberta", "modernbert"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    tokenizer = small_tokenizer(request.param)
    made = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id")}
    known = {name: value for name, value in ids.items() if value is not None}
    config = AutoConfig.for_model(
        request.param, **SMALL, vocab_size=len(tokenizer), max_position_embeddings=80, **known
    )
    plain = AutoModelForMaskedLM.from_config(config)
    for parameter in plain.parameters():
        parameter.data.mul_(3)  # answers that differ
    plain.save_pretrained(made)
    tokenizer.save_pretrained(made)
    return load_plain(str(made))


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> str:
    facts = [{"relation": r, "subject": s, "object": o} for r, s, o in FACTS]
    patterns = [{"relation": r, "pattern": p} for r, p in PATTERNS]
    return f"{write(tmp_path / 'f.jsonl', facts)},{write(tmp_path / 'p.jsonl', patterns)}"


@torch.no_grad()
def brute_force(model: PlainModel, pattern: str, subject: str, candidate: str) -> float:
    """The mean log probability of a candidate's tokens, all masked, in one sentence alone."""
    before, _, after = pattern.replace("[X]", subject).partition("[Y]")
    tokens = model.tokenizer(
        before + candidate + after, return_tensors="pt", return_offsets_mapping=True
    )
    start, end = len(before), len(before) + len(candidate)
    offsets = tokens.pop("offset_mapping")[0].tolist()
    places = [n for n, (a, b) in enumerate(offsets) if a < end and b > start and b > a]
    wanted = tokens["input_ids"][0, places].clone()
    tokens["input_ids"][0, places] = model.tokenizer.mask_token_id
    logits = model.model(**tokens).logits[0, places].double()
    return float(logits.log_softmax(-1)[range(len(places)), wanted].mean())


def by_hand(model: PlainModel) -> Mapping[str, list[list[str]]]:
    """The likeliest candidate of each fact, by relation and pattern."""
    found: dict[str, list[list[str]]] = {}
    for relation, pattern in PATTERNS:
        facts = [one for one in FACTS if one[0] == relation]
        answers = []
        for _, subject, wanted in facts:
            others = {o for _, s, o in facts if s == subject} - {wanted}
            candidates = sorted({o for *_, o in facts} - others)
            scores = [brute_force(model, pattern, subject, one) for one in candidates]
            answers.append(candidates[scores.index(max(scores))])
        found.setdefault(relation, []).append(answers)
    return found


def test_answers_are_those_of_one_sentence_and_candidate_at_a_time(
    model: PlainModel, files: str
) -> None:
    relations, without = read_facts(files)
    assert without == 0
    found = ask_facts(model, relations, Silent())
    shares = []
    for name, answers in by_hand(model).items():
        facts = [one for one in FACTS if one[0] == name]
        right = [told == fact[2] for of in answers for told, fact in zip(of, facts, strict=True)]
        shares.append(sum(right) / len(right))
        assert found["relations"][name]["accuracy"] == pytest.approx(shares[-1])
        if len(answers) == 2:
            same = [one == two for one, two in zip(*answers, strict=True)]
            assert found["relations"][name]["consistency"] == pytest.approx(sum(same) / len(same))
        else:
            assert found["relations"][name]["consistency"] is None
    assert found["accuracy"] == pytest.approx(sum(shares) / 2)
    assert found["relations"]["capital"]["commonest"] == 0.5
    assert found["relations"]["river"]["candidates"] == 3
    assert found["relations"]["river"]["unread"] == 0


def test_scores_do_not_depend_on_the_batch(
    model: PlainModel, files: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    relations, _ = read_facts(files)
    together = ask_facts(model, relations, Silent())
    monkeypatch.setattr("ptm_plus.measures.plain_model.BATCH_TOKENS", 1)
    assert ask_facts(model, relations, Silent()) == together


def test_what_was_trained_in_is_told(tmp_path: Path, model: PlainModel) -> None:
    """A model whose output always says one word answers with it, and no other."""
    (wanted,) = model.tokenizer("Paris", add_special_tokens=False)["input_ids"][:1]
    rows = [
        {"text": f"{n} [Y] {after}", "object": one}
        for n in range(3)
        for one, after in (("Paris", "!"), ("Berlin", "?"))
    ]
    relations, _ = read_facts(write(tmp_path / "f.jsonl", rows))
    output = model.model.get_output_embeddings()
    handle = output.register_forward_hook(
        lambda module, given, logits: (
            torch.nn.functional.one_hot(
                torch.full(logits.shape[:-1], wanted), logits.shape[-1]
            ).float()
            * 50
        )
    )
    try:
        found = ask_facts(model, relations, Silent())
    finally:
        handle.remove()
    # The first piece of Paris is likelier than any other; the rest of both words alike.
    assert found["relations"]["all"]["accuracy"] == 0.5
    assert found["relations"]["all"]["facts"] == 6


def test_a_gap_that_is_not_read_is_counted(tmp_path: Path, model: PlainModel) -> None:
    rows = [
        {"text": f"{SENTENCES[0] * 8} [Y]", "object": "Paris"},
        {"text": "[Y] is here", "object": "Berlin"},
    ]
    relations, _ = read_facts(write(tmp_path / "f.jsonl", rows))
    found = ask_facts(model, relations, Silent())["relations"]["all"]
    assert found["unread"] >= 1
    assert found["facts"] == 2


def test_the_command_measures_facts(model: PlainModel, files: str) -> None:
    found = measure(Request(("facts",), facts=(files,), limit=2), model, Silent())
    (one,) = found["facts"]
    assert one["files"] == files
    assert [of["facts"] for of in one["relations"].values()] == [2, 2]
    assert not math.isnan(one["accuracy"])


@pytest.mark.parametrize(
    ("facts", "patterns", "words"),
    [
        ([{"relation": "a", "subject": "b"}], [], "object is None, not a text"),
        ([{"text": "no gap", "object": "b"}], [], "no \\[Y\\]"),
        ([{"relation": "a", "subject": "b", "object": "c"}], [], "1 facts without a pattern"),
        (
            [{"relation": "a", "subject": "b", "object": "c"}],
            [{"relation": "a", "pattern": "[X] alone"}],
            "has not both",
        ),
    ],
)
def test_bad_rows_are_refused(
    tmp_path: Path, facts: list[Any], patterns: list[Any], words: str
) -> None:
    argument = write(tmp_path / "f.jsonl", facts)
    if patterns:
        argument += "," + write(tmp_path / "p.jsonl", patterns)
    with pytest.raises(DataError, match=words):
        read_facts(argument)


def test_three_files_are_no_facts() -> None:
    with pytest.raises(SettingsError, match="not FACTS,PATTERNS"):
        parse_facts("a,b,c")


def test_facts_without_a_pattern_are_counted(tmp_path: Path) -> None:
    facts = [{"relation": r, "subject": "s", "object": "o"} for r in ("a", "b", "b")]
    patterns = [{"relation": "a", "pattern": "[X] [Y]"}]
    files = f"{write(tmp_path / 'f.jsonl', facts)},{write(tmp_path / 'p.jsonl', patterns)}"
    relations, without = read_facts(files)
    assert list(relations) == ["a"]
    assert without == 2

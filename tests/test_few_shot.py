"""Relations by a few examples, against episodes written out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_tokenizers import small_tokenizer
from tiny import SMALL
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from ptm_plus.errors import DataError
from ptm_plus.measures import few_shot as module
from ptm_plus.measures.few_shot import few_shot
from ptm_plus.measures.measuring import Request, measure
from ptm_plus.measures.plain_model import PlainModel, load_plain
from ptm_plus.progress import Silent

CITIES = ("Paris", "Berlin", "Lyon", "Москва")
VERBS = ("is the capital of", "liegt bei", "flows through", "est chaud", "hat", "—")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    tokenizer = small_tokenizer("bert")
    made = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "bert", **SMALL, vocab_size=len(tokenizer), max_position_embeddings=40
    )
    AutoModelForMaskedLM.from_config(config).save_pretrained(made)
    tokenizer.save_pretrained(made)
    return load_plain(str(made))


def rows(relations: int, each: int) -> list[dict[str, Any]]:
    found = []
    for relation in range(relations):
        for number in range(each):
            head, tail = CITIES[number % 4], CITIES[(number // 4 + 1) % 4]
            text = f"{head} {VERBS[relation]} {tail}"
            ends = (
                {"start": 0, "end": len(head)},
                {"start": len(text) - len(tail), "end": len(text)},
            )
            found.append(
                {"text": text, "relation": f"R{relation}", "head": ends[0], "tail": ends[1]}
            )
    return found


def write(path: Path, given: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in given), encoding="utf-8")
    return str(path)


def test_an_episode_by_hand() -> None:
    """Two relations on two axes; one sentence of the second lies nearer to the first."""
    drawn = np.array(
        [
            [[1.0, 0.0], [0.8, 0.6], [1.0, 0.0], [0.9, 0.1]],
            [[0.0, 1.0], [0.6, 0.8], [0.1, 0.9], [0.95, 0.05]],
        ]
    )
    assert module._episode(drawn, 2) == 0.75
    assert module._episode(drawn, 1) == pytest.approx(5 / 6)  # 0.8, 0.6 and 0.6, 0.8 are told


def test_states_are_means_over_head_and_tail(tmp_path: Path, model: PlainModel) -> None:
    given = rows(2, 3)
    path = write(tmp_path / "r.jsonl", given)
    questions = module.read_questions("relation", path)
    states, read = module._states(model, questions, [0, 2], Silent())
    assert read.all()
    plain = AutoModel.from_pretrained(model.model.name_or_path).eval()
    for number, row in enumerate(given):
        tokens = model.tokenizer(row["text"], return_tensors="pt", return_offsets_mapping=True)
        offsets = tokens.pop("offset_mapping")[0].tolist()
        with torch.no_grad():
            found = plain(**tokens, output_hidden_states=True).hidden_states
        for place, layer in enumerate((0, 2)):
            means = []
            for name in ("head", "tail"):
                start, end = row[name]["start"], row[name]["end"]
                inside = [n for n, (a, b) in enumerate(offsets) if a < end and b > start and b > a]
                means.append(found[layer][0, inside].mean(0))
            both = torch.cat(means)
            assert np.allclose(states[place, number], (both / both.norm()).numpy(), atol=1e-5)


def test_relations_that_states_tell_apart_are_told(
    tmp_path: Path, model: PlainModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "r.jsonl", rows(6, 12))
    axes, ones = np.repeat(np.eye(6), 12, axis=0)[None], np.ones(72, dtype=bool)
    monkeypatch.setattr(module, "EPISODES", 60)
    monkeypatch.setattr(module, "_states", lambda *given: (axes, ones))
    (of_layer,) = few_shot(model, path, [2], 0, Silent())["layers"]
    assert sorted(of_layer) == ["5-way 1-shot", "5-way 5-shot", "layer"]  # six are not ten
    assert of_layer["5-way 1-shot"]["accuracy"] == 1.0
    noise = np.random.default_rng(0).normal(size=(1, 72, 40))
    noise /= np.linalg.norm(noise, axis=2, keepdims=True)
    monkeypatch.setattr(module, "_states", lambda *given: (noise, ones))
    (of_layer,) = few_shot(model, path, [2], 0, Silent())["layers"]
    assert abs(of_layer["5-way 1-shot"]["accuracy"] - 0.2) < 0.05
    low, high = of_layer["5-way 1-shot"]["interval"]
    assert low < of_layer["5-way 1-shot"]["accuracy"] < high


def test_the_command_measures_it_and_counts_what_is_cut(
    tmp_path: Path, model: PlainModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EPISODES", 20)
    text = f"Paris {'weit ' * 60}Lyon"
    head, tail = {"start": 0, "end": 5}, {"start": len(text) - 4, "end": len(text)}
    cut = {"text": text, "relation": "R0", "head": head, "tail": tail}
    path = write(tmp_path / "r.jsonl", [*rows(5, 8), cut])
    request = Request(("few-shot",), few_shot=(path,), layer="all")
    (found,) = measure(request, model, Silent())["few_shot"]
    assert found["unread"] == 1
    assert [one["layer"] for one in found["layers"]] == [0, 1, 2, 3]
    assert measure(request, model, Silent())["few_shot"] == [found]


def test_too_few_relations_are_refused(tmp_path: Path, model: PlainModel) -> None:
    path = write(tmp_path / "r.jsonl", rows(4, 8))
    with pytest.raises(DataError, match="has 4 relations with 6 sentences or more"):
        few_shot(model, path, [1], 0, Silent())

"""The core's probes against one sentence at a time through the stock model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import folder, tiny_run

from ptm_plus import PluginError
from ptm_plus.evaluation import evaluate
from ptm_plus.probes import ProbeContext, paired


def rows_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder() / name).read_text("utf-8").splitlines()]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Ask for the last mention of every second sentence, in two groups."""
    path = tmp_path / "questions.jsonl"
    rows = [
        {**row, "target": len(row["mentions"]) - 1, "group": ("few", "many")[number % 5 > 0]}
        for number, row in enumerate(rows_of("text.jsonl")[::2])
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def translations(tmp_path: Path) -> Path:
    path = tmp_path / "translations.jsonl"
    rows = rows_of("pairs.jsonl")[:30]
    rows.insert(7, {**rows[0], "src": " ".join([rows[0]["src"]] * 30)})  # longer than a sequence
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def stock_states(run: Any, ids: list[int], **options: Any) -> Any:
    run.encoder.backbone.set_attn_implementation("sdpa")
    found = run.encoder.backbone(input_ids=torch.tensor([ids]), **options)
    run.encoder.backbone.set_attn_implementation("ptm_plus")
    return found


def prefer(run: Any, word: str) -> None:
    """Make the model guess one word everywhere."""
    (token,) = run.prepared.tokenizer(word, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        run.encoder.backbone.get_output_embeddings().bias[token] += 1000


def unsettle(run: Any) -> None:
    """Move the weights away from their start."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in run.encoder.backbone.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator).to(parameter))


def test_masked_mentions_are_right_when_every_token_is(questions: Path) -> None:
    run = tiny_run("bert", **{"evaluate.mentions": [str(questions)]})
    unsettle(run)
    prefer(run, "Altona")
    tokenizer = run.prepared.tokenizer
    right: dict[str, list[bool]] = {}
    by_entity: dict[str, dict[str, list[bool]]] = {}
    for row in map(json.loads, questions.read_text("utf-8").splitlines()):
        asked = row["mentions"][row["target"]]
        encoded = tokenizer(row["text"], return_offsets_mapping=True)
        inside = [a < asked["end"] and b > asked["start"] for a, b in encoded["offset_mapping"]]
        ids = encoded["input_ids"]
        masked = [tokenizer.mask_token_id if m else i for i, m in zip(ids, inside, strict=True)]
        with torch.no_grad():
            best = stock_states(run, masked).logits[0].argmax(-1).tolist()
        hit = all(b == i for b, i, m in zip(best, ids, inside, strict=True) if m)
        right.setdefault(row["group"], []).append(hit)
        by_entity.setdefault(row["group"], {}).setdefault(asked["id"], []).append(hit)
    assert 0 < np.mean(right["many"]) < 1
    figures = evaluate(run)["masked_mentions"]
    assert set(figures) == set(right) == {"few", "many"}
    for group, hits in right.items():
        shares = [np.mean(one) for one in by_entity[group].values()]
        assert figures[group]["questions"] == len(hits)
        assert figures[group]["accuracy"] == pytest.approx(np.mean(hits))
        assert figures[group]["over_objects"] == pytest.approx(np.mean(shares))


def test_retrieval_is_nearest_by_cosine_of_mean_states(translations: Path) -> None:
    run = tiny_run("bert", **{"evaluate.pairs": [str(translations)]})
    unsettle(run)
    run.encoder.eval()
    middle = (run.encoder.blocks + 1) // 2
    halves: dict[str, list[Any]] = {"src": [], "tgt": []}
    seen: list[Any] = []
    for row in map(json.loads, translations.read_text("utf-8").splitlines()):
        if len(row["src"]) > 500 or row["src"] in seen:  # each sentence asks once
            continue
        seen.append(row["src"])
        for field, vectors in halves.items():
            ids = run.prepared.tokenizer(row[field])["input_ids"]
            with torch.no_grad():
                states = stock_states(run, ids, output_hidden_states=True).hidden_states[middle][0]
            mean = states[1:-1].mean(0)
            vectors.append((mean / mean.norm()).numpy())
    similarity = np.stack(halves["src"]) @ np.stack(halves["tgt"]).T
    truth = np.arange(len(similarity))
    hits = [similarity.argmax(1) == truth, similarity.argmax(0) == truth]
    found = evaluate(run)["translation_retrieval"]
    assert 0 < np.mean(hits) < 1
    assert len(seen) == 28
    assert found == {"accuracy": pytest.approx(np.mean(hits)), "questions": 2 * len(seen)}


def test_held_out_losses_are_means_over_predicted_tokens() -> None:
    run = tiny_run("bert")
    total, count = 0.0, 0
    run.encoder.eval()
    context = ProbeContext(run)
    for host in context.held_out("text"):
        for number in range(len(host.view.numbers)):
            own = slice(*host.view.offsets[number : number + 2])
            ids, labels = host.plan.ids[own], host.view.ids[own]
            asked = host.plan.predicted[own]
            with torch.no_grad():
                logits = stock_states(run, ids.tolist()).logits[0]
            losses = torch.nn.functional.cross_entropy(
                logits, torch.from_numpy(labels), reduction="none"
            )
            total += float(losses[torch.from_numpy(asked)].sum())
            count += int(asked.sum())
    assert count > 20
    assert evaluate(run)["held_out"]["text/mlm"] == pytest.approx(total / count, rel=1e-9)


def test_held_out_masks_are_frozen() -> None:
    run = tiny_run("bert")
    context = ProbeContext(run)
    first, again = ([b.plan.ids for b in context.held_out("text")] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_difference_is_paired_by_sequence() -> None:
    owners = [np.array([0, 0, 1]), np.array([0])]
    whole = [torch.tensor([1.0, 2.0, 5.0]), torch.tensor([1.0])]
    changed = [torch.tensor([2.0, 4.0, 5.0]), torch.tensor([4.0])]
    found = paired(owners, whole, changed)  # means per sequence: 1.5, 0, 3
    assert (found.mean, found.count) == (1.5, 3)
    assert found.error == pytest.approx(1.5 / np.sqrt(3))


def test_a_probe_that_asks_for_a_missing_stream_is_told() -> None:
    with pytest.raises(PluginError, match="stream 'texts', which this run does not have; did you"):
        list(ProbeContext(tiny_run("bert")).held_out("texts"))


def test_views_are_all_sequences_once_and_nothing_is_masked() -> None:
    run = tiny_run("bert")
    context = ProbeContext(run)
    for stream, data in run.prepared.streams.items():
        parts = [list(context.views(stream, held_out=held)) for held in (False, True)]
        numbers = [n for part in parts for view in part for n in view.numbers.tolist()]
        assert sorted(numbers) == list(range(len(data.store)))
        assert {n for view in parts[1] for n in view.numbers} == set(data.held_out.tolist())
        (trained,) = parts[0]
        assert run.prepared.tokenizer.mask_token_id not in trained.ids


def test_held_out_masks_are_the_same_whatever_becomes_of_the_rate() -> None:
    found = []
    for sets in ([], ["masking.final_rate=0.05"]):
        run = tiny_run("bert", sets=sets)
        plans = [host.plan for host in ProbeContext(run).held_out("text")]
        found.append(np.concatenate([plan.ids for plan in plans]))
    assert np.array_equal(*found)

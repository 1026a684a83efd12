"""``evaluate.text``: the loss on files that are kept for measuring, whatever a run trains on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tiny import folder, perturb, tiny_run, tiny_settings

from ptm_plus.ablation.curves import curves_of, unit_of
from ptm_plus.ablation.outcomes import outcomes
from ptm_plus.cli.console import LoggedWatch
from ptm_plus.cli.report_tables import report_tables
from ptm_plus.errors import SettingsError
from ptm_plus.evaluation import evaluate
from ptm_plus.microbatch import MicroBatch
from ptm_plus.probes import ProbeContext, asked_texts, masked_words
from ptm_plus.progress import Silent
from ptm_plus.run_log import read_log
from ptm_plus.training_run import train


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Write every third text of the tiny corpus, and one that is not in it."""
    lines = (folder() / "text.jsonl").read_text("utf-8").splitlines()[::3]
    rows = [*map(json.loads, lines), {"text": "Nobody in Altona reads this.", "lang": "en"}]
    path = tmp_path / "kept.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Watching(ProbeContext):
    """Keeps what the model was asked."""

    asked: list[MicroBatch] = field(default_factory=list)

    def scores(self, batch: MicroBatch, **options: Any) -> Any:
        self.asked.append(batch)
        return super().scores(batch, **options)


def test_the_loss_is_that_of_the_stock_model_on_the_lines_of_the_file(kept: Path) -> None:
    run = tiny_run("bert", **{"evaluate.text": [f"en={kept}"]})
    perturb(run)
    run.encoder.eval()
    context = Watching(run)
    with torch.no_grad():
        list(masked_words(context, "kept.jsonl"))
    run.encoder.backbone.set_attn_implementation("sdpa")
    losses, texts = [], []
    for batch in context.asked:
        whole = batch.ids.clone()
        whole[batch.predicted] = batch.labels
        for number in batch.sequence.unique():
            own = batch.sequence == number
            texts.append(run.prepared.tokenizer.decode(whole[own], skip_special_tokens=True))
            chosen = torch.zeros_like(own)
            chosen[batch.predicted] = True
            with torch.no_grad():
                logits = run.encoder.backbone(input_ids=batch.ids[own][None]).logits[0]
            each = torch.nn.functional.cross_entropy(logits, whole[own], reduction="none")
            losses += each[chosen[own]].tolist()
    run.encoder.backbone.set_attn_implementation("ptm_plus")
    encode = run.prepared.tokenizer
    rows = [json.loads(line)["text"] for line in kept.read_text("utf-8").splitlines()]
    read = [encode.decode(encode(text)["input_ids"], skip_special_tokens=True) for text in rows]
    assert sorted(texts) == sorted(read)
    found = evaluate(run)["held_out_text"]["kept.jsonl"]
    assert found["tokens"] == len(losses) > 50
    assert found["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)


@pytest.mark.ernie_masking
def test_every_run_is_asked_for_the_same_words(kept: Path) -> None:
    found = []
    for plugins in ((), ("ernie-masking",)):
        run = tiny_run("bert", plugins, **{"evaluate.text": [str(kept)]})
        context = Watching(run)
        with torch.no_grad():
            list(masked_words(context, "kept.jsonl"))
        found.append(torch.cat([batch.ids for batch in context.asked]))
    assert torch.equal(*found)


def test_a_run_measures_it_before_the_first_step_and_trains_as_without(
    kept: Path, tmp_path: Path
) -> None:
    settings = {"train.steps": 4, "train.evaluate_every": 2}
    given = tiny_settings(output=tmp_path / "a", **settings, **{"evaluate.text": [str(kept)]})
    report = train(given, LoggedWatch(Silent(), tmp_path / "a"), device="cpu")
    other = train(tiny_settings(output=tmp_path / "b", **settings), Silent(), device="cpu")
    assert report["objectives"] == other["objectives"]
    assert report["tokens"] == other["tokens"]
    log = read_log(tmp_path / "a")
    told = [one for one in log if one.get("kind") == "evaluation"]
    assert [one["step"] for one in told if "held_out_text" in one] == [0, 2, 4]
    assert "held_out" not in told[0]
    last = report["evaluation"]["held_out_text"]["kept.jsonl"]
    assert told[-1]["held_out_text"]["kept.jsonl"] == last
    assert last["loss"] < told[0]["held_out_text"]["kept.jsonl"]["loss"]
    curve = curves_of(log)["words/kept.jsonl"]
    assert [value for _, value in curve] == [
        one["held_out_text"]["kept.jsonl"]["loss"] for one in told
    ]
    assert (unit_of("words/kept.jsonl"), unit_of("retrieval")) == ("nats", "points")
    console = Console(width=100, file=StringIO())
    console.print(report_tables(report, tmp_path / "a"))
    figures = [f"{last['loss']:.3f}", f"{last['accuracy']:.3f}", f"{last['tokens']}"]
    assert ["kept.jsonl", *figures] in [
        line.split() for line in console.file.getvalue().splitlines()
    ]


def test_an_ablation_measures_it_text_by_text(kept: Path) -> None:
    run = tiny_run("bert", **{"evaluate.text": [str(kept)]})
    run.encoder.eval()
    found = outcomes(run)["measures"]["words/kept.jsonl"]
    assert (found["unit"], found["higher"]) == ("nats", False)
    assert len(found["items"]) == len(kept.read_text("utf-8").splitlines())


def test_files_are_told_apart_by_their_names() -> None:
    assert asked_texts(["en=a/x.jsonl", "b/y.txt"]) == {
        "x.jsonl": "en=a/x.jsonl",
        "y.txt": "b/y.txt",
    }
    with pytest.raises(SettingsError, match=r"'a/x.txt' and 'de=b/x.txt' are both called 'x.txt'"):
        asked_texts(["a/x.txt", "de=b/x.txt"])

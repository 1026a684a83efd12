"""The benchmark on real knowledge: what is left out, what is told of differences, and resume."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import perturb, tiny_run
from torch.nn.utils.rnn import pad_sequence

from ptm_plus.data import Row
from ptm_plus.exporting.export import export
from ptm_plus.knowledge import VectorTable
from ptm_plus.microbatch import to_device
from ptm_plus.processes import make_accelerator
from ptm_plus.progress import Silent
from ptm_plus.run_folder import write_settings
from ptm_plus.settings_paths import anchored
from ptm_plus.train import Trainer

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # behind what is installed: only the benchmarks come from there

from benchmarks import figures, knowledge, steps  # noqa: E402
from benchmarks.real_knowledge.data import (  # noqa: E402
    Overlap,
    Question,
    kept_triples,
    question_of,
    relation_rows,
)

statistics = pytest.mark.kg_fusion
"""What needs scipy, which comes with that plugin's extra."""

ASKED = Question(
    "Ada of Berga is the mother of the painter Bruno Berga.",
    {"head": (42, 53), "tail": (0, 12)},
    {"head": "Q1", "tail": "Q2"},
    "P25",
)


def sentence(text: str, *entities: str) -> dict[str, Any]:
    return {"text": text, "mentions": [{"qid": one, "start": 0, "end": 1} for one in entities]}


# ---------------------------------------------------------------------------------------------
# What is left out


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (sentence(ASKED.text.upper()), "same sentence"),
        (sentence("She, Ada of Berga is the mother of the twins."), "8 words in a row"),
        (sentence("He was her son.", "Q2", "Q3", "Q1"), "both entities"),
        (sentence("Bruno Berga met Ada of Berga."), "both names"),
        (sentence("Bruno Berga met Ada.", "Q1", "Q3"), ""),
        (sentence("Ada of Berga is the mother of him.", "Q2", "Q2", ""), ""),
    ],
)
def test_a_sentence_that_answers_a_question_is_left_out(row: dict[str, Any], reason: str) -> None:
    assert Overlap([ASKED]).reason(row) == reason


def test_triples_of_a_pair_go_in_both_directions() -> None:
    triples = [("Q1", "P25", "Q2"), ("Q2", "P40", "Q1"), ("Q1", "P27", "Q3")]
    assert kept_triples(triples, {ASKED.pair}) == [("Q1", "P27", "Q3")]


def test_a_sentence_is_labelled_by_its_first_triple_that_can_be_asked() -> None:
    mentions = [
        {"qid": "Q1", "start": 0, "end": 4},
        {"qid": "Q2", "start": 2, "end": 8},
        {"qid": "Q3", "start": 9, "end": 12},
        {"qid": "Q1", "start": 20, "end": 24},
    ]
    triples = [["Q1", "P1", "Q2"], ["Q2", "P2", "Q3"], ["Q3", "P3", "Q1"]]
    row = {"text": "…", "lang": "en", "mentions": mentions, "triples": triples}
    pairs = {frozenset(("Q2", "Q3"))}
    (found,) = relation_rows([row], pairs)  # the first overlaps, the second is asked about
    assert (found["relation"], found["head"], found["tail"]) == (
        "P3",
        {"start": 9, "end": 12},
        {"start": 0, "end": 4},
    )
    assert not list(relation_rows([{**row, "triples": triples[:2]}], pairs))


def test_a_row_of_fewrel_is_read_by_role() -> None:
    mentions = [
        {"start": 0, "end": 12, "qid": "Q2", "role": "tail"},
        {"start": 42, "end": 53, "qid": "Q1", "role": "head"},
    ]
    row = {"text": ASKED.text, "relation": "P25", "mentions": mentions}
    assert question_of(row) == ASKED
    assert ASKED.names == ("Bruno Berga", "Ada of Berga")


# ---------------------------------------------------------------------------------------------
# What is said


def test_macro_f1_by_hand() -> None:
    # a: 1 right of 2 told and 2 asked; b: 1 of 1 and 2; c is told, never asked
    assert figures.macro_f1(["a", "a", "b", "c"], ["a", "b", "b", "a"]) == pytest.approx(
        (2 * 1 / 4 + 2 * 1 / 3) / 2
    )


@statistics
def test_the_interval_is_student_s() -> None:
    # mean 2, deviation 1, t(0.975, 2) = 4.30265 from the tables
    low, high = figures.interval([1.0, 2.0, 3.0]) or (0.0, 0.0)
    assert (low, high) == pytest.approx((2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), abs=1e-5)
    assert figures.interval([1.0]) is None


@statistics
@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ([1.0, 2.0, 3.0], "none"),
        ([2.0, 2.1, 2.2], "higher"),
        ([-2.0, -2.1, -2.2], "lower"),
        ([0.0, 0.0, 0.0], "none"),
        ([5.0], "one seed: not said"),
    ],
)
def test_a_difference_inside_the_spread_is_none(differences: list[float], said: str) -> None:
    assert figures.verdict(differences) == said


@statistics
def test_differences_are_paired_by_seed() -> None:
    def seeds(*values: float) -> list[dict[str, float]]:
        return [{"accuracy": value, "macro_f1": value / 2} for value in values]

    found = figures.summary(
        {"no plugin": seeds(0.1, 0.5, 0.9), "kg": seeds(0.2, 0.61, 1.0)}, knowledge.TITLES
    )
    one = found["kg"]["accuracy"]  # far apart over seeds, and yet 0.1 higher on each
    assert one["verdict"] == "higher"
    assert one["difference"] == pytest.approx(0.31 / 3)
    told = figures.table(found, {"no plugin": 3_000_000, "kg": 3_000_000}, knowledge.TITLES)
    told = told.splitlines()
    assert told[2] == "| no plugin | 3,000,000 | accuracy | 0.500 (0.100 to 0.900) | – | – |"
    assert told[4].startswith("| kg | 3,000,000 | accuracy | 0.603 (0.200 to 1.000) | +0.103 (+0.0")
    assert told[4].endswith("| higher |")
    between = figures.compared(seeds(0.1, 0.2), seeds(0.2, 0.1), knowledge.TITLES)
    assert figures.told(between, knowledge.TITLES).startswith(
        "accuracy +0.000 (-1.271 to +1.271), difference: none"
    )


# ---------------------------------------------------------------------------------------------
# What is done once


@pytest.fixture
def bench(tmp_path: Path) -> knowledge.Bench:
    return knowledge.Bench(Path("data"), tmp_path, 3_000_000, 1_000_000, 0)


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, int]:
        made.append(1)
        return {"a": len(made)}

    def fail() -> None:
        raise SystemExit("killed")

    path = tmp_path / "one" / "a.json"
    with pytest.raises(SystemExit):
        steps.once(path, fail)
    assert not path.exists()
    assert [steps.once(path, make), steps.once(path, fail)] == [{"a": 1}, {"a": 1}]


def test_a_run_that_began_is_resumed(
    bench: knowledge.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    folder = bench.folder(0) / "no-plugin"

    def command(*arguments: str) -> None:
        asked.append(arguments[0])
        target = folder / ("model" if arguments[0] == "export" else "run")
        target.mkdir(parents=True, exist_ok=True)
        if arguments[0] == "train":
            (target / "settings.toml").touch()
            raise SystemExit("killed")
        report = dict.fromkeys(("tokens", "seconds", "evaluation", "accounts"), 1)
        for name in ("report.json", "model.safetensors", "tokenizer.json"):
            (target / name).write_text(json.dumps(report))

    monkeypatch.setattr(steps, "ptm_plus", command)
    with pytest.raises(SystemExit):
        knowledge.pretrain(bench, "no-plugin", 0)
    assert knowledge.pretrain(bench, "no-plugin", 0)["tokens"] == 1
    assert asked == ["train", "resume", "export"]


def test_arms_differ_in_nothing_but_their_plugin(bench: knowledge.Bench) -> None:
    base = bench.settings("no-plugin", 1)
    for run in ("ernie-masking", "kg-fusion", "kg-fusion-shuffled"):
        own = bench.settings(run, 1)
        own["data"].pop("vectors", None)
        assert {**own, "plugins": [], "output": ""} == {**base, "plugins": [], "output": ""}
    assert base["train"]["steps"] * 512 * 4 * 0.97 >= 3_000_000
    fewer = replace(bench, tokens=1_000_000)
    assert bench.settings("k-adapter", 1)["train"] == fewer.settings("no-plugin", 1)["train"]


def runs(**changed: Any) -> dict[str, dict[str, Any]]:
    one = {"encoder": "e", "tokenizer": "t", "tokens": 3_000_000}
    return {run: {**one, **changed.get(run.replace("-", "_"), {})} for run in knowledge.PLUGINS}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"k_adapter": {"encoder": "f"}}, "has changed"),
        ({"kg_fusion": {"tokenizer": "u"}}, "different tokenizers"),
        ({"ernie_masking": {"tokens": 3_100_000}}, "equal tokens"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        knowledge.check(runs(**changed))


def test_tokens_of_adapters_come_on_top() -> None:
    good = runs(k_adapter={"tokens": 1_000_000})
    knowledge.check(good)
    found = knowledge.tokens_of(good)
    assert (found["no plugin"], found["kg-fusion"], found["k-adapter"]) == (
        3_000_000,
        3_000_000,
        4_000_000,
    )


@pytest.mark.kg_fusion
@pytest.mark.k_adapter
def test_what_is_kept_is_json_and_compares_the_graph_with_the_shuffled_one(
    bench: knowledge.Bench,
) -> None:
    seeds: list[dict[str, Any]] = [
        {
            "runs": runs(),
            "scores": {
                name: {"accuracy": seed + number, "macro_f1": 0.0, "predicted": ["P1"]}
                for number, name in enumerate(knowledge.ARMS)
            },
        }
        for seed in (0, 1)
    ]
    kept = json.loads(json.dumps(knowledge.document(bench, {}, seeds)))
    places = list(knowledge.ARMS)
    apart = places.index("kg-fusion") - places.index("shuffled graph")
    assert kept["graph_against_shuffled"]["accuracy"]["difference"] == apart
    assert kept["arms"]["kg-fusion"]["how"] == "fused"
    assert "predicted" not in kept["seeds"][0]["scores"]["k-adapter"]


# ---------------------------------------------------------------------------------------------
# How arms are read


@pytest.mark.kg_fusion
@pytest.mark.k_adapter
def test_fusion_after_export_is_the_fusion_of_training(tmp_path: Path) -> None:
    from benchmarks.real_knowledge.classify import FusedEncoder, unit_vectors

    settings = {"train.steps": 2, "train.precision": "fp32"}
    run = tiny_run("bert", ("kg-fusion",), output=tmp_path / "run", **settings)
    perturb(run)
    write_settings(anchored(run.settings))
    Trainer(run, Silent(), make_accelerator("fp32", "cpu")).fit()
    export(tmp_path / "run", tmp_path / "model", verify=False)
    run.encoder.eval()
    row = Row("text", "", 0, np.arange(12))
    view = run.collator.batch([row], [row], 0.3)
    batch = to_device(view, run.device, torch.float32)
    positions = batch.column("kg-fusion", "positions")
    carried = batch.column("kg-fusion", "vectors")[batch.column("kg-fusion", "owner")]
    table = VectorTable.open(run.tables[0].component.path)
    every = torch.from_numpy(unit_vectors(table, np.arange(len(table))))
    rows = torch.cdist(carried, every).argmin(dim=1)
    assert len(positions) > 12  # more mentions than sentences

    lengths = torch.from_numpy(np.asarray(view.view.lengths, dtype=np.int64))
    offsets = torch.from_numpy(np.asarray(view.view.offsets[: len(lengths)], dtype=np.int64))
    ids = batch.ids.split(lengths.tolist())
    own = [
        (positions >= first) & (positions < first + length)
        for first, length in zip(offsets, lengths, strict=True)
    ]
    padded = partial(pad_sequence, batch_first=True)
    model = FusedEncoder(tmp_path / "model", table).eval()
    with torch.no_grad():
        expected = run.encoder.encode(batch).top
        plain = run.encoder.encode(batch, taps=False).top
        found = model(
            padded([positions[one] - first for one, first in zip(own, offsets, strict=True)]),
            padded([rows[one] for one in own], padding_value=-1),
            input_ids=padded(list(ids)),
            attention_mask=padded([torch.ones(len(one), dtype=torch.long) for one in ids]),
        )
    joined = torch.cat([one[:length] for one, length in zip(found, lengths, strict=True)])
    torch.testing.assert_close(joined, expected, atol=1e-5, rtol=1e-5)
    assert float((plain - expected).abs().max()) > 0.01

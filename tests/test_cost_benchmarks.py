"""The benchmarks of quality, preparing, masking and starting up: what is computed, what is done."""

from __future__ import annotations

import io
import json
import runpy
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import SMALL, tiny_run, tiny_settings
from transformers import AutoTokenizer, DataCollatorForLanguageModeling

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # behind what is installed: only the benchmarks come from there

from benchmarks import masking, prepare, quality, start_up  # noqa: E402
from benchmarks.quality import Point  # noqa: E402
from benchmarks.speed import reporting, sides, spent  # noqa: E402
from benchmarks.speed.corpus import given_texts, made_texts, made_words  # noqa: E402


def in_this_process(*arguments: str, **_: Any) -> spent.Spent:
    """Run a module here, where everything that it imports is imported already."""
    flag, module, *rest = arguments
    assert flag == "-m"
    began, before, output = time.time(), time.process_time(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output):
        patch.setattr(sys, "argv", [module, *rest])
        patch.delitem(sys.modules, module, raising=False)  # runpy warns of one that is there
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            if end.code:
                raise
    cpu = time.process_time() - before
    return spent.Spent(began, time.time() - began, cpu, 1 << 20, output.getvalue())


# ---------------------------------------------------------------------------------------------
# What all of them share


def test_what_a_program_takes_is_that_of_it_and_its_children() -> None:
    child = "import time; held = bytearray(200 << 20); end = time.process_time() + 0.5\n"
    child += "while time.process_time() < end: pass"
    code = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print('a\\nb')"
    )
    took = spent.spent("-c", code)
    assert took.output == "a\nb\n"
    assert took.cpu >= 0.5
    assert 200 << 20 <= took.peak < 300 << 20  # this process, which holds torch, is not counted
    assert abs(took.began - time.time()) < took.wall + 60


def test_a_program_that_fails_ends_the_benchmark_with_what_it_said() -> None:
    with pytest.raises(SystemExit, match="no text at all"):
        spent.spent("-c", "raise SystemExit('no text at all')")


def test_a_report_names_the_machine_and_is_kept(tmp_path: Path, capsys: Any) -> None:
    document = {"machine": reporting.machine(), "found": 1}
    reporting.report(document, [reporting.markdown(["", "b"], [["c", "d"]])], tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == document
    first, *rest = capsys.readouterr().out.splitlines()
    assert document["machine"]["processor"] in first
    assert rest == ["", "|  | b |", "| --- | --: |", "| c | d |"]


def test_measurements_are_told_by_median_and_range() -> None:
    found = reporting.ranged([4.0, 1.0, 2.0])
    assert found == {"median": 2.0, "lowest": 1.0, "highest": 4.0}
    assert reporting.spread(found, 1) == "2.0 (1.0 to 4.0)"
    assert reporting.spread(reporting.ranged([5.0]), 1) == "5.0"


def test_texts_of_a_file_are_those_of_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "one"}\n{"text": "two\\nlines"}\n')
    assert list(given_texts(file)) == ["one", "two\nlines"]


# ---------------------------------------------------------------------------------------------
# Quality


COURSES = {
    sides.OURS: [Point(1, 100, 10.0, 8.0), Point(2, 1000, 100.0, 6.0)],
    "lines": [Point(1, 100, 40.0, 8.0), Point(2, 10_000, 4000.0, 7.0)],
}


def test_loss_is_compared_at_the_most_tokens_that_all_reached() -> None:
    found = quality.compared(COURSES)
    assert found["tokens"] == 1000
    assert found["sides"][sides.OURS]["loss_at_equal_tokens"] == pytest.approx(6.0)
    # half of the way from 100 to 10,000, as a logarithm sees it
    assert found["sides"]["lines"]["loss_at_equal_tokens"] == pytest.approx(7.5)


def test_time_is_that_to_the_last_loss_of_the_side_that_ended_worst() -> None:
    found = quality.compared(COURSES)
    assert found["loss"] == 7.0
    ours, theirs = (found["sides"][side] for side in (sides.OURS, "lines"))
    assert ours["cpu_seconds_to_loss"] == pytest.approx(10 * 10**0.5)  # half of the way likewise
    assert theirs["cpu_seconds_to_loss"] == pytest.approx(4000.0)
    assert theirs["times"] == pytest.approx(400 / 10**0.5)
    told = quality.summary(found).splitlines()
    assert told[0].startswith("|  | loss at 1,000 tokens | CPU-seconds to a loss of 7.000 |")
    assert told[3] == "| stock, line by line | 7.500 | 4,000.0 | 126.49 × |"


def test_a_loss_that_lies_outside_of_a_course_has_no_time() -> None:
    assert quality.cpu_to(COURSES["lines"], 8.5) is None
    assert quality.cpu_to(COURSES["lines"], 6.5) is None
    risen = [*COURSES["lines"], Point(3, 20_000, 5000.0, 7.5)]
    assert quality.cpu_to(risen, 7.0) == pytest.approx(4000.0)  # the first time counts


def test_both_sides_train_and_keep_models_that_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sides, "spent", in_this_process)
    monkeypatch.setattr(sides, "LR", 3e-3)
    model = {**SMALL, "max_position_embeddings": 256}
    given = Namespace(text=None, vocabulary=64, threads=1, model=model)
    given.__dict__ |= {"steps": 9, "points": 2, "dropout": 0.0}
    monkeypatch.setattr("benchmarks.speed.task.made_words", lambda: made_words(300))
    document = quality.run(given, tmp_path, (sides.OURS, "blocks"))
    assert document["steps"] == 8
    json.dumps(document)
    for side, points in document["sides"].items():
        assert [one["step"] for one in points] == [4, 8], side
        assert points[0]["loss"] > points[1]["loss"], side
        assert points[1]["tokens"] == pytest.approx(8 * 1024, rel=0.2)
        assert points[1]["cpu"] > points[0]["cpu"] > 0
    # The blocks are full, so the peer has seen exactly these.
    assert document["sides"]["blocks"][1]["tokens"] == 8 * 1024


# ---------------------------------------------------------------------------------------------
# Preparing


def took(tokens: int, cpu: float, mebibytes: int) -> prepare.Preparing:
    return prepare.Preparing(tokens, 7, spent.Spent(0.0, cpu, cpu, mebibytes << 20, ""))


def test_rates_are_of_the_whole_and_of_what_is_further_than_the_part() -> None:
    pairs = [(took(100, 2.0, 50), took(1000, 5.0, 60)), (took(100, 1.0, 55), took(1000, 4.0, 58))]
    found = prepare.figures(pairs)
    assert found["tokens_per_cpu_second"] == {"median": 225.0, "lowest": 200.0, "highest": 250.0}
    assert found["further_tokens_per_cpu_second"]["median"] == 300.0  # 900 tokens in 3 seconds
    assert found["peak_mib"] == [55, 60]
    both = {"ptm-plus": found, "datasets": prepare.figures([(took(100, 2, 1), took(1000, 12, 1))])}
    assert prepare.ratios(both)["ptm-plus"]["tokens_per_cpu_second"] == pytest.approx(2.7)
    assert prepare.ratios(both)["ptm-plus"]["further_tokens_per_cpu_second"] == pytest.approx(
        10 / 3
    )
    told = prepare.table(both).splitlines()[2]
    assert told.startswith(
        "| ptm-plus prepare | 1,000 | 7 | 225 (200 to 250), 2.70 × | 300, 3.33 × |"
    )
    assert told.endswith("| 55 | 60 |")


def test_text_is_written_up_to_a_size_and_its_first_tenth(tmp_path: Path) -> None:
    part, whole = tmp_path / "part", tmp_path / "whole"
    counts = prepare.write_texts(part, whole, iter(["many words words"] * 999), 0.001)
    assert whole.read_text() == '{"text": "many words words"}\n' * 35  # of 29 bytes each
    assert part.read_text() == '{"text": "many words words"}\n' * 4
    assert counts == {"words": 8, "many": 4}
    with pytest.raises(SystemExit, match=r"has 0\.0 megabytes"):
        prepare.write_texts(part, whole, iter(["few"]), 0.001)


@pytest.mark.ernie_masking
def test_all_sides_prepare_the_same_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "spent", in_this_process)
    monkeypatch.setattr(prepare, "VOCABULARY", 200)
    monkeypatch.setattr(prepare, "NAMES", slice(10, 40))
    made = prepare.make_task(tmp_path / "text", made_texts(made_words(2000)), 0.05, 1)
    texts = [json.loads(line)["text"] for line in made.whole.read_text().splitlines()]
    assert texts == list(islice(made_texts(made_words(2000)), len(texts)))
    assert 50_000 <= made.whole.stat().st_size < 52_000
    found = prepare.measure(made, tmp_path / "runs", 1)
    json.dumps(found)
    names = {line.split("\t")[2] for line in made.labels.read_text().splitlines()[1:]}
    assert len(names) == 30
    linked = sum(word in names for text in texts for word in text.split())
    assert found["linked"]["mentions"] == linked > 0
    assert found["ptm-plus"]["mentions"] == found["datasets"]["mentions"] == 0
    tokenizer = AutoTokenizer.from_pretrained(made.tokenizer)
    inner = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    for one in found.values():  # two special tokens more for each piece
        assert inner + 2 * len(texts) <= one["tokens"] <= inner + 4 * len(texts)
    assert not any((tmp_path / "runs").iterdir())


# ---------------------------------------------------------------------------------------------
# Masking


def test_the_collator_gets_the_sequences_of_the_view_and_where_words_end() -> None:
    run = tiny_run()
    rows = masking.rows_of(run, 5)
    assert len(rows) == 5
    view = run.collator.view(rows)
    given = masking.examples(view, words=True)
    assert [token for one in given for token in one["input_ids"]] == view.ids.tolist()
    for number, one in enumerate(given):
        words = view.words[view.sequence == number]
        together = [first[1] == second[0] for first, second in pairwise(one["offset_mapping"])]
        assert one["special_tokens_mask"] == (words < 0).astype(int).tolist()
        inner = slice(1, len(words) - 2)
        assert together[inner] == (words[1:] == words[:-1]).tolist()[inner]


def test_the_stock_collator_masks_and_pads(monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run()
    parts = masking.batches(masking.rows_of(run, 9), 3)
    assert [len(part) for part in parts] == [3, 3, 3]
    made: list[Any] = []
    real = DataCollatorForLanguageModeling.__call__

    def watched(self: Any, *arguments: Any, **named: Any) -> Any:
        made.append((self.whole_word_mask, real(self, *arguments, **named)))
        return made[-1][1]

    monkeypatch.setattr(DataCollatorForLanguageModeling, "__call__", watched)
    found = masking.measured(masking.stock_sides(run, parts), 1)
    assert all(found[side]["all"]["median"] > 0 for side in (masking.STOCK, masking.PADDED))
    # The day it pads offsets, this line is the one to change.
    assert found[masking.WORDS]["failed"].startswith("ValueError")
    tokens = sum(len(run.collator.view(part)) for part in parts)
    for whole in (False, True):
        batches = [batch for is_whole, batch in made if is_whole == whole][-3:]
        predicted = sum(int((batch["labels"] >= 0).sum()) for batch in batches)
        assert sum(int(batch["attention_mask"].sum()) for batch in batches) == tokens
        assert predicted / tokens == pytest.approx(0.3, abs=0.12)


def test_the_products_side_is_what_a_step_does(monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run()
    rows = masking.rows_of(run, 4)
    plans: list[Any] = []
    real = run.collator.masks

    def watched(*arguments: Any) -> Any:
        plans.append(real(*arguments))
        return plans[-1]

    monkeypatch.setattr(run.collator, "masks", watched)
    found = masking.ours(run, masking.batches(rows, 2))
    assert 0 < found["masks"] < found["all"]
    plan = run.planner.plan(0)
    expected = run.collator.batch(rows[:2], rows[:2], plan.mask_rate, plan.kind_weights)
    assert np.array_equal(plans[0].ids, expected.plan.ids)


def test_the_table_of_masks_tells_what_fails_and_how_much_quicker_we_are() -> None:
    def side(value: float) -> dict[str, float]:
        return {"median": value, "lowest": value, "highest": value}

    found = {
        masking.STOCK: {"all": side(6.0)},
        masking.WORDS: {"failed": "ValueError: no"},
        "ptm-plus, words": {"masks": side(0.25), "all": side(0.5)},
    }
    told = masking.table(found).splitlines()[2:]
    assert told == [
        "| stock collator, tokens | – | 6.000 | – |",
        "| stock collator, whole words | – | fails | – |",
        "| ptm-plus, words | 0.250 | 0.500 | 12.0 × |",
    ]


@pytest.mark.ernie_masking
@pytest.mark.kg_fusion
def test_the_benchmark_of_masking_ends_with_its_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masking, "sample_run", lambda _, plugins: tiny_run(plugins=plugins))
    document = masking.run(Namespace(rows=[2], total=4, repeats=1), tmp_path)
    json.dumps(document)
    found = document["rows"]["2"]
    assert {*found["sides"]} == {*masking.ARMS, masking.STOCK, masking.WORDS, masking.PADDED}
    assert 2 * 80 < found["tokens"] <= 2 * 96


# ---------------------------------------------------------------------------------------------
# Starting up


def test_training_from_prepared_data_imports_none_of_what_prepares(tmp_path: Path) -> None:
    watching = start_up.watching(tmp_path, ())
    settings = tiny_settings(plugins=watching.pop("plugins"), output=tmp_path / "run", **watching)
    found = start_up.to_first_step(start_up.prepared(settings, tmp_path))
    assert found["imported"] == []
    assert found["cpu"] > 0
    assert 0 < found["wall"] < 600


def test_what_was_imported_is_seen(tmp_path: Path) -> None:
    from benchmarks.speed.arrival import plugin

    settings = plugin.settings(file=str(tmp_path / "a"), watched=("torch", "no_such_package"))
    hooks = plugin.hooks(settings, "arrival")
    hooks.ptm_event(Namespace(kind="train_start"))
    hooks.ptm_event(Namespace(kind="after_step"))
    assert json.loads((tmp_path / "a").read_text())["imported"] == ["torch"]


def test_the_first_round_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds: Iterator[float] = iter((50.0, 60.0, 2.0, 4.0, 3.0, 6.0))
    monkeypatch.setattr(start_up, "spent", lambda *_: spent.Spent(0.0, next(seconds), 1.0, 0, ""))
    trained = {"wall": 9.0, "cpu": 8.0, "imported": ["pykeen"]}
    monkeypatch.setattr(start_up, "to_first_step", lambda _: trained)
    programs = {"a": ("-c", "1"), "b": ("-c", "2")}
    found = start_up.measure(programs, {"training": Path()}, 2)
    assert found["a"]["wall"] == {"median": 2.5, "lowest": 2.0, "highest": 3.0}
    told = start_up.table(found).splitlines()
    assert told[3] == "| b | 5.00 (4.00 to 6.00) | 1.00 | – |"
    assert told[4] == "| training | 9.00 | 8.00 | pykeen |"

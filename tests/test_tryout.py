"""What a run would take, tried: steps that are kept nowhere, and micro-batches of every size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cli_files import Files, document, run, write_files
from tiny import Recorder, tiny_run, tiny_settings

from ptm_plus import tryout
from ptm_plus.processes import make_accelerator
from ptm_plus.progress import Silent
from ptm_plus.run_folder import checkpoints
from ptm_plus.settings import BatchSettings
from ptm_plus.step import Root
from ptm_plus.train import Trainer
from ptm_plus.tryout import try_out, try_sizes


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(tmp_path_factory.mktemp("tryout"))


def test_a_plan_that_tries_says_how_fast_and_writes_no_run(files: Files, tmp_path: Path) -> None:
    found = document("plan", files.settings, "--try", "--device", "cpu", "--output", tmp_path)
    tried = found["tried"]
    assert tried["tokens_per_second"] > 0
    assert tried["seconds"] > 0
    assert tried["memory"]["device"] == "cpu"
    assert [one["rows"] for one in tried["micro_rows"]][:1] == [1]
    assert not list(tmp_path.iterdir())
    assert "tried" not in document("plan", files.settings)
    shown = run("plan", files.settings, "--try", "--device", "cpu", "--output", tmp_path).stdout
    assert "tried here" in shown
    assert "micro_rows = 1" in shown


def test_steps_of_all_stages_are_tried_each_by_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = "[{name='a',share=3,plugins=['core']},{name='b',share=1,plugins=['core']}]"
    settings = tiny_settings(
        "bert", (), output=tmp_path, sets=["train.steps=8", f"train.stages={stages}"]
    )
    seconds = {3: 1.0, 7: 5.0}
    monkeypatch.setattr(tryout, "_seconds_per_step", lambda trainer, first: seconds[first])
    found = try_out(settings, "cpu", Silent())
    assert found.seconds_per_step == pytest.approx((6 * 1 + 2 * 5) / 8)
    assert found.seconds_per_evaluation > 0
    assert not checkpoints(tmp_path)


def sizes(tmp_path: Path, seconds: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    settings = tiny_settings("bert", (), output=tmp_path, sets=["batch.rows=8"])
    monkeypatch.setattr(
        tryout, "_seconds_per_step", lambda trainer, _: seconds[trainer.progress.micro_rows]
    )
    return [one.rows for one in try_sizes(settings, "cpu", Silent())]


def test_sizes_double_until_all_rows_are_one_micro_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sizes(tmp_path, {1: 4.0, 2: 3.0, 4: 3.2, 8: 2.0}, monkeypatch) == [1, 2, 4, 8]


def test_sizes_end_where_more_rows_are_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sizes(tmp_path, {1: 4.0, 2: 3.0, 4: 3.4, 8: 0.1}, monkeypatch) == [1, 2]


def test_sizes_end_with_what_memory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Root.losses

    def losses(self, batch, *others, **options):
        if batch is not None and len(batch) > 2 * 512:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, batch, *others, **options)

    monkeypatch.setattr(Root, "losses", losses)
    settings = tiny_settings(
        "bert", (), output=tmp_path, sets=["batch.rows=8", "batch.row_tokens=512"]
    )
    found = [one.rows for one in try_sizes(settings, "cpu", Silent())]
    assert found in ([1], [1, 2])  # two, unless one was that much quicker


@pytest.mark.parametrize(("rows", "most"), [(4, 4), (20, 8)])
def test_on_a_cpu_the_most_rows_are_eight_unless_said(rows: int, most: int) -> None:
    sets = [f"batch.rows={rows}", "batch.micro_rows=0"]
    trainer = Trainer(tiny_run("bert", (), sets=sets), Recorder(), make_accelerator("fp32", "cpu"))
    assert trainer.stepper.most_rows == most
    trainer.run.device = torch.device("cuda")
    assert trainer.stepper.most_rows == rows


def test_all_rows_are_tried_first_and_halved_until_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = ["batch.rows=8", "batch.micro_rows=0", "batch.row_tokens=64"]
    run_ = tiny_run("bert", (), output=tmp_path, sets=sets)
    trainer = Trainer(run_, Recorder(), make_accelerator("fp32", "cpu"))
    real, seen = run_.root.losses, []

    def losses(batch, *others, **options):
        seen.append(len(batch))
        if len(batch) > 2 * 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(batch, *others, **options)

    run_.root.losses = losses
    trainer.step(run_.planner.plan(0))
    assert trainer.progress.micro_rows in (1, 2)
    assert max(seen) > 2 * 64


def test_a_pass_without_training_has_eight_rows_where_nothing_is_said() -> None:
    assert BatchSettings(row_tokens=100, micro_rows=0).evaluated_tokens == 800
    assert BatchSettings(row_tokens=100, micro_rows=3).evaluated_tokens == 300

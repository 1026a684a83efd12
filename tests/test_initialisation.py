"""Starting from another run's weights: what fits is loaded, all else is told or refused."""

from __future__ import annotations

import pytest
import torch
from tiny import BOTH, Recorder, tiny_run

from ptm_plus import DataError
from ptm_plus.checkpoint import MODEL, PARTS
from ptm_plus.initialisation import start_from
from ptm_plus.processes import make_accelerator
from ptm_plus.run_folder import TOKENIZER, checkpoints, source_tokenizer
from ptm_plus.train import Trainer

pytestmark = [pytest.mark.kg_fusion, pytest.mark.tlm]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run with both plugins, trained a little, and its folder."""
    output = tmp_path_factory.mktemp("source")
    run = tiny_run("bert", BOTH, output=output, sets=["train.steps=30", "train.lr=0.01"])
    trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
    trainer.fit()
    return run


def test_weights_are_taken_over_and_everything_else_is_told(source, tmp_path):
    run = tiny_run("bert", ("tlm",), output=tmp_path, sets=["plugin.tlm.language_embeddings=true"])
    watch = Recorder()
    matched = start_from(run, source.output, watch)
    theirs = source.encoder.backbone.state_dict()
    for name, value in run.encoder.backbone.state_dict().items():
        assert torch.equal(value, theirs[name])
    assert set(matched[MODEL].loaded) == {n for n, _ in source.encoder.backbone.named_parameters()}
    assert not matched[MODEL].missing
    assert not matched[MODEL].new
    assert all(name.startswith("kg-fusion/") for name in matched[PARTS].missing)
    assert len(matched[PARTS].missing) > 5
    assert [name for name in matched[PARTS].new if "tlm" in name]
    told = "\n".join(watch.notes)
    assert (
        f"backbone: {len(matched[MODEL].loaded)} tensors loaded, 0 missing here, 0 new here" in told
    )
    assert "missing here (kg-fusion/" in told
    (figures,) = [values for kind, values in watch.seen if kind == "initialised"]
    assert figures["held_out_after"] < figures["held_out_before"] - 0.3
    assert figures["from"].endswith("step-000000030")


def test_a_checkpoint_may_be_named_itself(source, tmp_path):
    run = tiny_run("bert", BOTH, output=tmp_path)
    folder = checkpoints(source.output)[0]
    matched = start_from(run, folder, Recorder())
    assert not matched[PARTS].new
    assert not matched[PARTS].missing


def test_weights_that_are_no_better_than_new_ones_are_told_of(tmp_path):
    bad = tiny_run("bert", output=tmp_path / "bad")
    with torch.no_grad():
        for parameter in bad.encoder.parameters():
            parameter.mul_(30)
    trainer = Trainer(bad, Recorder(), make_accelerator("fp32", "cpu"))
    trainer.save()
    trainer.writer.finish()
    watch = Recorder()
    start_from(tiny_run("bert", output=tmp_path / "run"), bad.output, watch)
    assert any("no better than new ones" in note for note in watch.notes)


def test_another_tokenizer_is_refused(source, tmp_path):
    run = tiny_run("bert", BOTH, output=tmp_path, sets=["tokenizer.vocabulary=100"])
    with pytest.raises(DataError, match="belong to another tokenizer"):
        start_from(run, source.output, Recorder())


def test_other_shapes_are_refused_with_the_first(source, tmp_path):
    run = tiny_run("bert", BOTH, output=tmp_path, sets=["model.config.intermediate_size=64"])
    with pytest.raises(DataError, match=r"other shapes: \S*intermediate\S* is .* there, .* here"):
        start_from(run, source.output, Recorder())


def test_another_family_is_refused(source, tmp_path):
    run = tiny_run("modernbert", BOTH, output=tmp_path)
    with pytest.raises(DataError, match=r"another (family|tokenizer)|other shapes"):
        start_from(run, source.output, Recorder())


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(DataError, match="no whole checkpoint"):
        start_from(tiny_run("bert", output=tmp_path), tmp_path / "nothing", Recorder())


def test_the_source_brings_its_tokenizer(tmp_path):
    (tmp_path / TOKENIZER).mkdir()
    own = str(tmp_path / TOKENIZER)
    assert source_tokenizer(str(tmp_path)) == own
    assert source_tokenizer(str(tmp_path / "checkpoints" / "step-000000001")) == own
    assert source_tokenizer(str(tmp_path / "a" / "b" / "run")) == ""

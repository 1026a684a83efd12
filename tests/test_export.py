"""What is exported loads in plain transformers, and says what it lacks."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import BOTH, FAMILIES, Recorder, home_made, perturb, tiny_run, tiny_settings
from torch import nn

from ptm_plus import (
    DataError,
    EnvironmentProblem,
    Exporter,
    GuardStop,
    Part,
    PluginError,
    SettingsError,
    Tap,
    hookimpl,
)
from ptm_plus.exporting import export as module
from ptm_plus.exporting import plain_load
from ptm_plus.exporting.export import export
from ptm_plus.exporting.left_out import measured_parts
from ptm_plus.processes import make_accelerator
from ptm_plus.sealed import damage
from ptm_plus.settings_files import dump_toml
from ptm_plus.train import Trainer

LANGUAGES = {"tlm": {"language_embeddings": True}}


def trained(folder, family="bert", plugins=(), **values):
    """Write a run folder with a checkpoint of a model away from its start."""
    settings = tiny_settings(family, plugins, output=folder, **values)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.toml").write_text(dump_toml(settings), encoding="utf-8")
    run = tiny_run(family, plugins, output=folder, **values)
    perturb(run)
    trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
    trainer.progress.step = 7
    trainer.save()
    trainer.writer.finish()
    return run


def plain_process(folder, program):
    """Run a program about ``folder`` in a fresh process that cannot import ptm-plus."""
    block = (
        "import sys, importlib.abc\n"
        "class Block(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.split('.')[0].startswith('ptm_plus'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        f"folder = {str(folder)!r}\n"
    )
    command = [sys.executable, "-I", "-c", block + program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------------------------------------
# The folder


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request, tmp_path_factory):
    home = tmp_path_factory.mktemp(request.param)
    run = trained(home / "run", request.param, BOTH, plugin=LANGUAGES)
    verify = request.param in ("bert", "modernbert")
    return run, home / "out", export(home / "run", home / "out", verify)


def test_the_logits_are_the_stock_model_s(exported):
    """Load in this process and compare the stored samples, sequence by sequence, and padded."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    _, folder, _ = exported
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    assert model.config._attn_implementation != "ptm_plus"
    pad = AutoTokenizer.from_pretrained(folder).pad_token_id
    samples = load_file(folder / "ptm_plus" / "samples.safetensors")
    lengths = samples["lengths"].tolist()
    padded = torch.full((len(lengths), max(lengths)), pad)
    for number, length in enumerate(lengths):
        padded[number, :length] = samples[f"ids.{number}"]
    with torch.no_grad():
        logits = model(input_ids=padded, attention_mask=(padded != pad).long()).logits
    for number in range(len(lengths)):
        found = logits[number, samples[f"positions.{number}"]]
        torch.testing.assert_close(found, samples[f"logits.{number}"], atol=1e-5, rtol=1e-5)
    assert len(set(lengths)) > 1
    assert samples["logits.0"].std() > 0.1


@pytest.mark.parametrize("exported", ["bert", "modernbert"], indirect=True)
def test_the_verified_figures_come_from_a_process_without_ptm_plus(exported):
    run, _, result = exported
    assert result["verified"]["max_difference"] < 1e-4
    assert result["verified"]["logits"] >= 20
    assert result["verified"]["model"] == type(run.encoder.backbone).__name__
    assert result["verified"]["pieces"] == len(run.prepared.tokenizer)
    assert len(result["verified"]["fill_mask"]) == 5
    assert result["verified"]["ptm_plus_imported"] is False


def test_nothing_of_ptm_plus_is_in_what_transformers_reads(exported):
    _, folder, _ = exported
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json"):
        assert "ptm" not in (folder / name).read_text(encoding="utf-8")


def test_plugin_weights_lie_beside_it(exported):
    run, folder, result = exported
    parts = load_file(folder / "ptm_plus" / "parts.safetensors")
    expected = dict(run.encoder.parts.state_dict())
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(parts[name], value.float()), name
    manifest = json.loads((folder / "ptm_plus" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["step"] == 7
    assert [one["instance"] for one in manifest["plugins"]] == ["kg-fusion", "tlm"]
    assert manifest["plugins"][1]["settings"]["language_embeddings"] is True
    (table,) = manifest["tables"]
    assert (table["rows"], table["sha256"]) == (6, run.tables[0].component.sha256)
    assert {part["name"]: part["export"] for part in manifest["parts"]} == {
        "fusion": "needed",
        "head": "train-only",
        "languages": "needed",
    }
    assert set(result["files"]) == {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    }


def test_needed_parts_are_measured_and_the_card_says_so(exported):
    _, folder, result = exported
    by_part = {one["part"]: one for one in result["left_out"]}
    fusion, languages = by_part["fusion"], by_part["languages"]
    assert fusion["with_part"] == languages["with_part"]
    assert fusion["with_part"].keys() == {"text/mlm", "text/dea", "pairs/tlm", "pairs/dea"}
    for one in (fusion, languages):
        changes = [one["without_part"][key] - value for key, value in one["with_part"].items()]
        assert max(map(abs, changes)) > 1e-4
    assert "with_part" not in by_part["head"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    loss = fusion["without_part"]["text/mlm"]
    assert f"| kg-fusion | text/mlm | {fusion['with_part']['text/mlm']:.4f} | {loss:.4f} |" in card
    assert "| kg-fusion | head | 281 | dropped" in card
    assert "AutoModelForMaskedLM.from_pretrained" in card


@pytest.mark.parametrize("exported", ["xlm-roberta"], indirect=True)
def test_another_process_loads_and_fills_masks(exported):
    _, folder, _ = exported
    found = plain_process(
        folder,
        "import json\n"
        "from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline\n"
        "AutoModelForMaskedLM.from_pretrained(folder)\n"
        "mask = AutoTokenizer.from_pretrained(folder).mask_token\n"
        "fill = pipeline('fill-mask', model=folder)\n"
        "print(json.dumps([len(fill(f'the old {mask} town')), sorted(sys.modules)]))\n",
    )
    assert found[0] == 5
    assert not [name for name in found[1] if name.startswith("ptm_plus")]


def test_the_exported_folder_can_be_trained_on(exported, tmp_path):
    run, folder, _ = exported
    again = tiny_run(run.settings.model.family, sets=[f"model.path={str(folder)!r}"])
    ours, theirs = again.encoder.backbone.state_dict(), run.encoder.backbone.state_dict()
    assert all(torch.allclose(ours[name].float(), theirs[name].float()) for name in theirs)


# ---------------------------------------------------------------------------------------------
# Export classes


@dataclass
class OwnPart:
    """Scales the embeddings' norm weights, or adds to the last states."""

    export: str
    taps: bool = True
    fold: Any = None
    name: str = "own"
    written: list[str] = field(default_factory=list)

    @hookimpl
    def ptm_parts(self, context):
        return [
            Part(
                name="scale",
                build=Scale,
                export=self.export,
                taps=self._taps if self.taps else None,
                identity=True,
            )
        ]

    @hookimpl
    def ptm_export(self, context):
        return [Exporter(name="own", write=self._write, fold=self.fold)]

    def _taps(self, scale):
        return [Tap(site="embeddings", run=partial(apply, scale), writes=True)]

    def _write(self, folder, parts):
        (folder / "names.txt").write_text(" ".join(parts), encoding="utf-8")
        return ["names.txt: names of the parts"]


class Scale(nn.Module):
    """Multiplies every state by one plus a weight: what a layer norm before it can take over."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(32))


def apply(scale, context, block, hidden):
    return hidden * (1 + scale.weight)


def fold_scale(backbone, parts):
    norm = backbone.bert.embeddings.LayerNorm
    norm.weight.mul_(1 + parts["scale"].weight)
    norm.bias.mul_(1 + parts["scale"].weight)


def export_own(monkeypatch, tmp_path, own):
    with home_made(monkeypatch, own) as names:
        run = trained(tmp_path / "run", plugins=names)
        return run, export(tmp_path / "run", tmp_path / "out", verify=False)


def test_foldable_parts_are_folded(monkeypatch, tmp_path):
    run, result = export_own(monkeypatch, tmp_path, OwnPart("foldable", fold=fold_scale))
    saved = load_file(tmp_path / "out" / "model.safetensors")
    norm = run.encoder.backbone.bert.embeddings.LayerNorm
    expected = norm.weight * (1 + run.encoder.parts_of("own")["scale"].weight)
    torch.testing.assert_close(saved["bert.embeddings.LayerNorm.weight"], expected.float())
    assert not (tmp_path / "out" / "ptm_plus" / "parts.safetensors").exists()
    assert (tmp_path / "out" / "ptm_plus" / "own" / "names.txt").read_text() == "scale"
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "folded into the model" in card
    assert "own: names.txt: names of the parts" in card
    assert result["left_out"][0]["export"] == "foldable"


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (OwnPart("foldable", fold=lambda *_: None), "'own' is not foldable as it declares"),
        (OwnPart("train-only"), "'own' is not train-only as it declares"),
        (OwnPart("foldable"), "no exporter that folds it"),
    ],
    ids=["folds nothing", "not train-only", "nobody folds"],
)
def test_parts_that_are_not_what_they_declare_are_refused(monkeypatch, tmp_path, own, message):
    with pytest.raises(PluginError, match=message):
        export_own(monkeypatch, tmp_path, own)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_train_only_parts_are_dropped(monkeypatch, tmp_path):
    _, result = export_own(monkeypatch, tmp_path, OwnPart("train-only", taps=False))
    assert result["left_out"] == [
        {"plugin": "own", "part": "scale", "export": "train-only", "parameters": 32}
    ]
    assert load_file(tmp_path / "out" / "ptm_plus" / "parts.safetensors").keys() == {
        "own/scale.weight"
    }


def test_losses_without_a_part_are_those_of_a_run_without_it(tmp_path):
    """Silencing kg-fusion gives the loss of the same backbone in a run without the plugin."""
    run = tiny_run("bert", ("kg-fusion",), **{"data.pairs": [], "masking.unit": "token"})
    perturb(run)
    fusion = next(one for one in measured_parts(run, Recorder()) if one.part == "fusion")
    with torch.no_grad():
        for parameter in run.encoder.parts_of("kg-fusion")["fusion"].parameters():
            parameter.zero_()
    zeroed = next(one for one in measured_parts(run, Recorder()) if one.part == "fusion")
    assert fusion.without_part == zeroed.with_part
    assert fusion.with_part["text/mlm"] != fusion.without_part["text/mlm"]


# ---------------------------------------------------------------------------------------------
# Refusals and accidents


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(SettingsError, match="is not empty") as error:
        export(tmp_path / "run", tmp_path / "out")
    assert error.value.exit_code == 2
    with pytest.raises(SettingsError, match="is a file"):
        export(tmp_path / "run", tmp_path / "out" / "mine.txt")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="not a run folder"):
        export(tmp_path, tmp_path / "out")


def test_a_run_without_a_checkpoint_is_refused(tmp_path):
    trained(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(DataError, match="no whole checkpoint"):
        export(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_filled_and_sealed(tmp_path):
    trained(tmp_path / "run")
    (tmp_path / "out").mkdir()
    result = export(tmp_path / "run", tmp_path / "out", verify=False)
    assert result["left_out"] == []
    assert "no plugin added a part" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    listed = json.loads((tmp_path / "out" / "ptm_plus" / "files.json").read_text())["files"]
    assert set(listed) == set(result["files"]) - {"ptm_plus/files.json"}
    shutil.copy(tmp_path / "out" / "ptm_plus" / "files.json", tmp_path / "out" / "manifest.json")
    assert damage(tmp_path / "out") == ""


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    trained(tmp_path / "run")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(EnvironmentProblem, match="No space left") as error:
        export(tmp_path / "run", tmp_path / "out", verify=False)
    assert error.value.exit_code == 5
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_other_logits_stop_the_export(tmp_path, monkeypatch):
    """What is stored is not what the saved model computes: the fresh process finds it."""
    trained(tmp_path / "run")
    real = module.sample_tensors

    def shifted(samples, logits):
        return real(samples, [logits[0] + 1e-3, *logits[1:]])

    monkeypatch.setattr(module, "sample_tensors", shifted)
    with pytest.raises(GuardStop, match=r"differ by 0\.001 on \d+ positions"):
        export(tmp_path / "run", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_model_that_cannot_be_loaded_stops_the_export(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_load, "__file__", str(tmp_path / "missing.py"))
    trained(tmp_path / "run")
    with pytest.raises(GuardStop, match="plain transformers cannot load the export"):
        export(tmp_path / "run", tmp_path / "out")


def test_the_check_refuses_ptm_plus(tmp_path):
    program = (
        "import sys, runpy\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        f"names = runpy.run_path({str(plain_load.__file__)!r})\n"
        "sys.meta_path.insert(0, names['Blocked']())\n"
        "import ptm_plus_own\n"
    )
    (tmp_path / "ptm_plus_own.py").write_text("")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert b"ptm_plus_own may not be imported here" in done.stderr

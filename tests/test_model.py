"""The backbone: from a configuration or a folder, its vocabulary, its lengths."""

from __future__ import annotations

import pytest
import torch
from tiny import FAMILIES, tiny_run, tiny_settings
from transformers import AutoModelForMaskedLM, RobertaConfig, RobertaForMaskedLM

from ptm_plus.arrangement import arrange
from ptm_plus.components import ControlToken
from ptm_plus.errors import EnvironmentProblem, SettingsError
from ptm_plus.model import build_backbone, build_config
from ptm_plus.prepare.tokenization import load_tokenizer
from ptm_plus.progress import Silent
from ptm_plus.settings import ModelSettings


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request, tmp_path_factory):
    """A folder as transformers writes it, with its own attention."""
    home = tmp_path_factory.mktemp(request.param)
    run = tiny_run(request.param)
    run.encoder.backbone.set_attn_implementation("sdpa")
    run.encoder.backbone.float().save_pretrained(home)
    run.prepared.tokenizer.save_pretrained(home)
    return home, run


def from_folder(home, tokens=(), tokenizer=None, precision="fp32", **values):
    settings = ModelSettings(path=str(home), **values)
    tokenizer = tokenizer or load_tokenizer(str(home))
    config = build_config(settings, tokenizer, 64)
    return build_backbone(settings, config, list(tokens), tokenizer, precision)


# ---------------------------------------------------------------------------------------------
# From scratch


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_model_fits_the_tokenizer_and_the_length(family):
    run = tiny_run(family)
    config, tokenizer = run.encoder.backbone.config, run.prepared.tokenizer
    offset = 2 if "roberta" in family else 0
    assert config.max_position_embeddings == 64 + offset
    assert config.vocab_size == len(tokenizer)
    assert config.pad_token_id == tokenizer.pad_token_id
    special = {config.bos_token_id, config.eos_token_id}
    assert special == {tokenizer.cls_token_id, tokenizer.sep_token_id}
    assert config.hidden_size == 32
    assert run.float_dtype() == torch.float64


def test_the_seed_decides_the_weights_and_plugins_do_not():
    one, same, other = (
        tiny_run("bert", plugins, sets=[f"train.seed={seed}"]).encoder.backbone.state_dict()
        for plugins, seed in (((), 0), (("kg-fusion", "tlm"), 0), ((), 1))
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_dropout_is_the_settings_not_the_family_s():
    quiet = tiny_run("bert").encoder.backbone
    assert {m.p for m in quiet.modules() if isinstance(m, torch.nn.Dropout)} == {0.0}
    loud = tiny_run("bert", **{"model.dropout": 0.3}).encoder.backbone
    assert {m.p for m in loud.modules() if isinstance(m, torch.nn.Dropout)} == {0.3}
    assert loud.config.attention_probs_dropout_prob == 0.3


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["model.family=gpt2"], "model type 'gpt2' has no family card"),
        (["model.family=berd"], "did you mean 'bert'"),
        (["model.config.max_position_embeddings=32"], "serves 32 positions"),
        (["model.config.hidden_size='wide'"], "model.config"),
        (["model.config.hiden_size=8"], "hiden_size: family 'bert' .*did you mean 'hidden_size'"),
    ],
)
def test_configurations_that_cannot_be_are_refused(sets, message):
    with pytest.raises(SettingsError, match=message):
        tiny_run("bert", sets=sets)


def test_they_are_refused_before_anything_is_prepared(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    for sets, message in (
        (["model.family=xlm-robert"], "did you mean 'xlm-roberta'"),
        (["model.config.hiden_size=8"], "hiden_size"),
        ([f"model.path={tmp_path}"], "model type 'gpt2' has no family card"),
    ):
        with pytest.raises(SettingsError, match=message):
            arrange(tiny_settings("bert", sets=sets), Silent())


# ---------------------------------------------------------------------------------------------
# From a folder


def test_a_folder_gives_its_weights_and_the_packed_attention(checkpoint):
    home, run = checkpoint
    model = from_folder(home)
    expected = run.encoder.backbone.state_dict()
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert model.config._attn_implementation == "ptm_plus"


def test_double_precision_is_for_tests_and_else_weights_are_single(checkpoint):
    home, _ = checkpoint
    assert {p.dtype for p in from_folder(home).parameters()} == {torch.float32}
    assert {p.dtype for p in from_folder(home, precision="fp64").parameters()} == {torch.float64}


def test_control_tokens_get_new_rows_that_start_as_they_say(checkpoint):
    home, run = checkpoint
    tokenizer = load_tokenizer(str(home))
    size = len(tokenizer)
    texts = ["[MEAN]", "[COPY]", "[NOISE]"]
    tokenizer.add_tokens(texts, special_tokens=True)
    tokens = [
        ControlToken(text="[MEAN]"),
        ControlToken(text="[COPY]", start=tokenizer.mask_token),
        ControlToken(text="[NOISE]", start="random"),
    ]
    before = run.encoder.backbone.get_input_embeddings().weight.detach()
    model = from_folder(home, tokens, tokenizer)
    weight = model.get_input_embeddings().weight.detach()
    assert weight.shape[0] == size + 3
    assert torch.equal(weight[:size], before[:size])
    torch.testing.assert_close(weight[size], before.mean(0))
    assert torch.equal(weight[size + 1], before[tokenizer.mask_token_id])
    noise = (weight[size + 2] - before.mean(0)) / before.std(0)
    assert 0.5 < float(noise.std()) < 1.6
    again = from_folder(home, tokens, tokenizer).get_input_embeddings().weight
    assert torch.equal(again, weight)
    head = model.get_output_embeddings()
    assert head.weight.shape[0] == head.bias.shape[0] == size + 3
    assert head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


def test_known_control_tokens_are_never_restarted(checkpoint):
    home, run = checkpoint
    tokenizer = load_tokenizer(str(home))
    token = ControlToken(text=tokenizer.mask_token, start="random")
    weight = from_folder(home, [token], tokenizer).get_input_embeddings().weight
    assert torch.equal(weight, run.encoder.backbone.get_input_embeddings().weight)


def test_embeddings_never_shrink(checkpoint):
    """Published models have more rows than their tokenizer has entries."""
    home, run = checkpoint
    model = run.encoder.backbone
    tokenizer = load_tokenizer(str(home))
    rows = model.get_input_embeddings().weight.shape[0]
    tokenizer.add_tokens(["[A]"], special_tokens=True)
    bigger = from_folder(home, [ControlToken(text="[A]")], tokenizer)
    fewer = load_tokenizer(str(home))
    settings = ModelSettings(path=str(home))
    same = build_backbone(settings, build_config(settings, fewer, 64), [], fewer, "fp32")
    assert bigger.get_input_embeddings().weight.shape[0] == rows + 1
    assert same.get_input_embeddings().weight.shape[0] == rows


def test_an_untied_head_with_a_bias_of_its_own_grows_whole(checkpoint, tmp_path):
    """What is saved is loaded again by plain transformers, with the same logits."""
    home, _ = checkpoint
    tokenizer = load_tokenizer(str(home))
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = RobertaConfig(
        **size, vocab_size=len(tokenizer), intermediate_size=8, tie_word_embeddings=False
    )
    untied = RobertaForMaskedLM(config)
    torch.nn.init.normal_(untied.lm_head.bias)
    before = untied.lm_head.bias.detach().clone()
    untied.save_pretrained(tmp_path / "untied")
    tokenizer.add_tokens(["[A]"], special_tokens=True)
    grown = from_folder(tmp_path / "untied", [ControlToken(text="[A]")], tokenizer)
    grown.save_pretrained(tmp_path / "grown")
    again = AutoModelForMaskedLM.from_pretrained(tmp_path / "grown").eval()
    assert torch.equal(again.lm_head.bias[:-1], before)
    ids = torch.tensor([[2, 5, len(tokenizer) - 1]])
    with torch.no_grad():
        grown.eval().set_attn_implementation("sdpa")
        torch.testing.assert_close(again(ids).logits, grown(ids).logits)


@pytest.mark.parametrize("harm", ["missing", "empty", "damaged", "cut"])
def test_a_folder_that_cannot_be_loaded_is_a_settings_error(tmp_path, harm):
    home = tmp_path / "model"
    if harm != "missing":
        home.mkdir()
    if harm in ("damaged", "cut"):
        run = tiny_run("bert")
        run.encoder.backbone.set_attn_implementation("sdpa")
        run.encoder.backbone.save_pretrained(home)
        run.prepared.tokenizer.save_pretrained(home)
    if harm == "damaged":
        (home / "config.json").write_text("{")
    if harm == "cut":
        weights = home / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises((SettingsError, EnvironmentProblem)) as error:
        tiny_run("bert", sets=[f"model.path={str(home)!r}"])
    assert str(home) in error.value.message


def test_a_folder_is_used_with_its_own_tokenizer(checkpoint):
    home, run = checkpoint
    again = tiny_run("bert", sets=[f"model.path={str(home)!r}"])
    assert again.prepared.tokenizer.get_vocab() == run.prepared.tokenizer.get_vocab()
    assert again.encoder.card.name == run.encoder.card.name
    for name, value in run.encoder.backbone.state_dict().items():
        assert torch.equal(again.encoder.backbone.state_dict()[name], value.double())

"""Every published pair layout, token by token, against what is written here by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pytest
import torch
from small_tokenizers import small_tokenizer
from tiny import Recorder, folder, tiny_run, tiny_settings
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerFast

from ptm_plus.data import Row
from ptm_plus.errors import SettingsError
from ptm_plus.examples import Example
from ptm_plus.exporting.export import export
from ptm_plus.microbatch import to_device
from ptm_plus.prepare.layouts import LayoutInput
from ptm_plus.prepare.tokenization import pieces, template
from ptm_plus.processes import make_accelerator
from ptm_plus.settings_files import dump_toml
from ptm_plus.train import Trainer
from ptm_plus_tlm.frames import frame_of, separator_id
from ptm_plus_tlm.layout import pair_layout

pytestmark = pytest.mark.tlm

WORDS = ("the", "old", "town", "die", "Stadt")
FRAMES = {"bert": "[CLS] [SEP]", "modernbert": "[CLS] [SEP]"}  # others: <s> </s>


@lru_cache
def tokenizer_of(manner: str) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words in the shape of a family; ``xlm`` begins and ends with </s>."""
    if manner != "xlm":
        return small_tokenizer(manner)
    special = ["<s>", "</s>", "<pad>", "<unk>", "<special0>"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="</s> $A </s>",
        pair="</s> $A </s> </s> $B </s>",
        special_tokens=[("</s>", 1)],
    )
    names = ("bos", "sep", "pad", "unk", "mask")
    tokens = {f"{name}_token": token for name, token in zip(names, special, strict=True)}
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_input_names=["input_ids", "attention_mask"],
        cls_token="</s>",
        **tokens,
    )


@dataclass(frozen=True)
class Laid:
    """A sequence as a reader sees it: special tokens, ``x`` and ``y`` for words of the halves."""

    tokens: str
    positions: list[int]
    types: list[int]


def laid_out(manner, layout, positions="auto", separator=None):
    """Lay out a first half of two tokens and a second of one."""
    tokenizer = tokenizer_of(manner)
    texts = dict(zip(("src", "tgt"), ("the old", "die"), strict=True))
    found = pieces(tokenizer, list(texts.values()))
    cut = {}
    for (name, piece), size in zip(zip(texts, found, strict=True), (2, 1), strict=True):
        columns = (piece.ids, piece.char_start, piece.char_end, piece.words)
        cut[name] = type(piece)(*(column[:size] for column in columns))
    example = Example("e", texts, {"src": "en", "tgt": "de"})
    marks = template(tokenizer)
    between = None if separator is None else separator_id(tokenizer, separator)
    frame = frame_of(layout, positions, marks, between)
    (sequence,) = pair_layout(LayoutInput(example, cut, marks, 64), frame=frame, swap=True)
    words, places, types, at = [], [], [], 0
    for segment in sequence.segments:
        at = 0 if segment.restart else at
        names = {"src": "x", "tgt": "y"}
        for number in segment.ids.tolist():
            special = tokenizer.convert_ids_to_tokens(number)
            words.append(names.get(segment.field, special))
            places.append(at)
            types.append(segment.type)
            at += 1
    return Laid(" ".join(words), places, types)


ON = [0, 1, 2, 3, 4, 5]
XLM = ("</s> x x </s> </s> y </s>", [0, 1, 2, 3, 0, 1, 2], [0] * 7)
ROBERTA = ("<s> x x </s> </s> y </s>", [*ON, 6], [0] * 7)
INFOXLM = ("<s> x x </s> y </s>", ON, [0] * 6)
PLAIN = ("[CLS] x x [SEP] y [SEP]", ON, [0] * 6)
BERT = ("[CLS] x x [SEP] y [SEP]", ON, [0, 0, 0, 0, 1, 1])


@pytest.mark.parametrize(
    ("manner", "layout", "expected"),
    [
        ("bert", "auto", BERT),
        ("bert", "bert", BERT),
        ("bert", "infoxlm", PLAIN),
        ("bert", "roberta", ("[CLS] x x [SEP] [SEP] y [SEP]", [*ON, 6], [0] * 7)),
        ("bert", "xlm", ("[SEP] x x [SEP] [SEP] y [SEP]", [0, 1, 2, 3, 0, 1, 2], [0] * 7)),
        ("modernbert", "auto", PLAIN),
        ("modernbert", "infoxlm", PLAIN),
        ("roberta", "auto", ROBERTA),
        ("roberta", "roberta", ROBERTA),
        ("roberta", "xlm", XLM),
        ("roberta", "infoxlm", INFOXLM),
        ("xlm-roberta", "auto", ROBERTA),
        ("xlm-roberta", "roberta", ROBERTA),
        ("xlm-roberta", "xlm", XLM),
        ("xlm-roberta", "infoxlm", INFOXLM),
        ("xlm", "auto", XLM),
        ("xlm", "xlm", XLM),
    ],
)
def test_layouts_by_hand(manner, layout, expected):
    assert laid_out(manner, layout) == Laid(*expected)


@pytest.mark.parametrize(
    ("manner", "layout", "positions", "expected"),
    [
        ("xlm-roberta", "xlm", "continue", [*ON, 6]),
        ("xlm", "auto", "continue", [*ON, 6]),
        ("xlm-roberta", "roberta", "restart", [0, 1, 2, 3, 0, 1, 2]),
        ("xlm-roberta", "infoxlm", "restart", [0, 1, 2, 3, 0, 1]),
        ("bert", "bert", "restart", [0, 1, 2, 3, 0, 1]),
    ],
)
def test_positions_may_be_asked_for(manner, layout, positions, expected):
    assert laid_out(manner, layout, positions).positions == expected


@pytest.mark.parametrize(
    ("manner", "separator", "expected"),
    [
        ("xlm-roberta", "</s>", "<s> x x </s> y </s>"),
        ("xlm-roberta", "<mask>", "<s> x x <mask> y </s>"),
        ("modernbert", "[SEP]", "[CLS] x x [SEP] y [SEP]"),
        ("xlm", "<s>", "</s> x x <s> y </s>"),
    ],
)
def test_documents_have_the_separator_that_is_named(manner, separator, expected):
    assert laid_out(manner, "document", separator=separator) == Laid(expected, ON, [0] * 6)


# ---------------------------------------------------------------------------------------------
# What a tokenizer lacks


@pytest.mark.parametrize("manner", ["roberta", "xlm-roberta", "modernbert", "xlm"])
def test_the_layout_of_bert_needs_token_types(manner):
    with pytest.raises(SettingsError, match="needs two token types") as caught:
        frame_of("bert", "auto", template(tokenizer_of(manner)))
    assert "plugin.tlm.layout=" in caught.value.hint


def test_a_missing_separator_is_named_before_anything_is_prepared():
    with pytest.raises(SettingsError, match=r"'<\|parallel_sep\|>'.*no such token") as caught:
        tiny_run("xlm-roberta", ("tlm",), plugin={"tlm": {"layout": "document"}})
    assert "plugin.tlm.separator='</s>'" in caught.value.hint
    with pytest.raises(SettingsError, match="needs two token types"):
        tiny_run("xlm-roberta", ("tlm",), plugin={"tlm": {"layout": "bert"}})


# ---------------------------------------------------------------------------------------------
# In a model


@pytest.mark.parametrize(
    ("layout", "family"),
    [
        ("auto", "xlm-roberta"),
        ("xlm", "xlm-roberta"),
        ("xlm", "bert"),
        ("infoxlm", "modernbert"),
        ("roberta", "roberta"),
        ("bert", "bert"),
    ],
)
def test_a_view_has_the_positions_and_types_of_its_layout(layout, family):
    run = tiny_run(family, ("tlm",), plugin={"tlm": {"layout": layout}})
    view = run.collator.view([Row("pairs", "", 0, np.arange(12))])
    for sequence in range(12):
        own = view.sequence == sequence
        special = np.flatnonzero(view.languages[own] < 0)
        marks = np.diff(special)
        first = int(special[1]) - 1  # tokens of the half that came first
        positions, size = view.positions[own].tolist(), int(own.sum())
        if layout == "xlm":
            assert special.tolist() == [0, first + 1, first + 2, size - 1]
            assert positions == [*range(first + 2), *range(size - first - 2)]
        else:
            assert positions == list(range(size))
            assert (1 in marks) == (layout == "roberta" or family == "xlm-roberta")
        types = [0] * (first + 2) + [int(layout == "bert")] * (size - first - 2)
        assert view.types[own].tolist() == types


@pytest.mark.parametrize("positions", ["auto", "restart"])
def test_an_xlm_r_base_trained_with_tlm_loads_in_plain_transformers(tmp_path, positions):
    """Equal logits, from what the tokenizer makes of the two halves and the model of that."""
    values = {"output": tmp_path / "run", "plugin": {"tlm": {"positions": positions}}}
    run = tiny_run("xlm-roberta", ("tlm",), **values)
    settings = tiny_settings("xlm-roberta", ("tlm",), **values)
    settings.output.mkdir(parents=True, exist_ok=True)
    (settings.output / "settings.toml").write_text(dump_toml(settings), encoding="utf-8")
    trainer = Trainer(run, Recorder(), make_accelerator("fp32", "cpu"))
    for step in range(3):
        trainer.step(run.planner.plan(step))
    trainer.save()
    trainer.writer.finish()
    export(settings.output, tmp_path / "plain")
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "plain", dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")

    row = Row("pairs", "", 0, np.arange(12))
    host = run.collator.batch([row], [row], 0.0)
    batch = to_device(host, run.device, torch.float64)
    run.encoder.eval()
    with torch.no_grad():
        ours = run.encoder.logits(run.encoder.encode(batch).top)
    offset = model.config.pad_token_id + 1
    assert offset == 2
    lines = (folder() / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    for sequence, number in enumerate(host.view.numbers.tolist()):
        own = slice(*host.view.offsets[sequence : sequence + 2])
        pair = json.loads(lines[int(run.prepared.streams["pairs"].store.example[number])])
        halves = [pair["src"], pair["tgt"]]
        given = tokenizer(*halves, return_tensors="pt")
        if given["input_ids"][0].tolist() != host.view.ids[own].tolist():  # they changed places
            given = tokenizer(*reversed(halves), return_tensors="pt")
        assert given["input_ids"][0].tolist() == host.view.ids[own].tolist()
        assert "token_type_ids" not in given
        if positions == "restart":
            given["position_ids"] = (batch.positions[own] + offset)[None]
            assert int(given["position_ids"].min()) == 2
        with torch.no_grad():
            plain = model(**given).logits[0]
        torch.testing.assert_close(ours[own], plain, rtol=0, atol=1e-6)
        if positions == "restart":  # so the positions that were given do matter
            del given["position_ids"]
            with torch.no_grad():
                assert (model(**given).logits[0] - plain).abs().max() > 1e-4

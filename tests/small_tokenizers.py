"""Tokenizers trained on a few sentences, one per manner; nothing is downloaded."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ptm_plus.prepare.tokenization import train_tokenizer

SENTENCES = (
    "Paris is the capital of France. The river Seine flows through Paris, doesn't it?",
    "Berlin ist die Hauptstadt von Deutschland; die Straße führt zur Spree.",
    "Москва — столица России, а Волга течёт в Каспийское море.",
    "東京は日本の首都です。北京是中国的首都。",
    "L'été à Lyon est chaud (35 °C), n'est-ce pas ?",
)
FAMILIES = ("bert", "roberta", "xlm-roberta", "modernbert")


@lru_cache
def small_tokenizer(family: str, vocabulary: int = 400) -> PreTrainedTokenizerFast:
    return train_tokenizer(SENTENCES * 3, vocabulary, family)


@lru_cache
def unigram(split: bool) -> PreTrainedTokenizerFast:
    """XLM-R's manner: Unigram over Metaspace, special tokens inside its vocabulary."""
    marks = ["<s>", "<pad>", "</s>", "<unk>"]
    words = ["▁Paris", "▁is", "▁the", "▁capital", "▁in", "ter", "nation", "al", "日本", "の", "▁"]
    letters = [chr(code) for code in range(33, 127)]
    vocabulary: list[Any] = [(mark, 0.0) for mark in marks]
    vocabulary += [(word, -2.0) for word in words] + [(letter, -9.0) for letter in letters]
    core = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    core.pre_tokenizer = pre_tokenizers.Metaspace(split=split)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_input_names=["input_ids", "attention_mask"],
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


ALL = {
    **{family: (lambda family=family: small_tokenizer(family)) for family in FAMILIES},
    "unigram": lambda: unigram(True),
    "unigram-unsplit": lambda: unigram(False),
}

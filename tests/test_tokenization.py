"""Tokenising with word units, against hand-made answers and brute force."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import ALL, FAMILIES, SENTENCES, small_tokenizer, unigram
from tokenizers import normalizers
from transformers import BertConfig, PreTrainedTokenizerFast

from ptm_plus.errors import DataError, EnvironmentProblem, SettingsError
from ptm_plus.prepare.tokenization import (
    backend,
    fingerprint,
    load_tokenizer,
    ordinary_ids,
    pieces,
    special_ids,
    template,
    train_tokenizer,
    unknown_id,
)
from ptm_plus.prepare.word_units import MAX_WORD_TOKENS

TEXTS = st.text(st.sampled_from("aPris .,!'é日本のß\n\t\u2028  <s>/[SEP]"), max_size=40)


def words_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    """The maskable units of a text, as their characters."""
    (piece,) = pieces(tokenizer, [text])
    units: dict[int, tuple[int, int]] = {}
    for word, start, end in zip(piece.words, piece.char_start, piece.char_end, strict=True):
        first, last = units.get(int(word), (int(start), int(end)))
        units[int(word)] = (min(first, int(start)), max(last, int(end)))
    return [text[first:last].strip() for word, (first, last) in sorted(units.items()) if word >= 0]


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert", "xlm-roberta"])
def test_words_end_at_spaces_and_punctuation(name: str) -> None:
    text = "Paris is the capital (of France) ."
    assert words_of(small_tokenizer(name), text) == [
        "Paris", "is", "the", "capital", "(", "of", "France", ")", "."
    ]  # fmt: skip


@pytest.mark.parametrize("split", [True, False])
def test_metaspace_words_do_not_depend_on_its_splitting(split: bool) -> None:
    text = "international Paris, is 日本の capital"
    assert words_of(unigram(split), text) == [
        "international", "Paris", ",", "is", "日本", "の", "capital"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_every_character_of_an_unspaced_script_is_a_word(name: str) -> None:
    words = words_of(small_tokenizer(name), "首都")
    assert "".join(words) in ("首都", "")
    assert all(len(word) == 1 for word in words) or name == "roberta"


def test_the_bytes_of_one_character_stay_together() -> None:
    (piece,) = pieces(small_tokenizer("roberta"), ["a 龘 b"])
    assert words_of(small_tokenizer("roberta"), "a 龘 b") == ["a", "龘", "b"]
    assert np.count_nonzero(piece.words == 1) >= 3


def test_a_long_word_falls_apart() -> None:
    text = "nsiantensiantensiante"
    (piece,) = pieces(small_tokenizer("bert"), [f"{text} {text[:5]}"])
    long = piece.char_end <= len(text)
    assert np.count_nonzero(long) > MAX_WORD_TOKENS
    assert len(set(piece.words[long])) == np.count_nonzero(long)
    assert len(set(piece.words[~long])) == 1


@pytest.mark.parametrize("name", ALL)
def test_special_tokens_in_text_are_plain_text(name: str) -> None:
    tokenizer = ALL[name]()
    text = "a [SEP] b </s> <mask> [MASK] <s>"
    (piece,) = pieces(tokenizer, [text])
    found = set(piece.ids.tolist()) & set(tokenizer.all_special_ids)
    assert found <= {unknown_id(tokenizer)}
    assert np.all(piece.words[piece.ids == unknown_id(tokenizer)] == -1)
    # The tokenizer itself still knows them.
    assert tokenizer.mask_token_id in tokenizer(tokenizer.mask_token).input_ids


def test_settings_of_the_tokenizer_survive() -> None:
    tokenizer = copy.deepcopy(small_tokenizer("bert"))
    core = backend(tokenizer)
    core.enable_truncation(4)
    core.enable_padding(length=9)
    before = core.to_str()
    (piece,) = pieces(tokenizer, [SENTENCES[0]])
    assert len(piece) > 9
    assert core.to_str() == before


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=40, deadline=None)
@given(texts=st.lists(TEXTS, max_size=4))
def test_offsets_and_units_hold_for_any_text(name: str, texts: list[str]) -> None:
    tokenizer = ALL[name]()
    together = pieces(tokenizer, texts)
    assert len(together) == len(texts)
    for text, piece in zip(texts, together, strict=True):
        (alone,) = pieces(tokenizer, [text])
        for array, same in zip(_arrays(piece), _arrays(alone), strict=True):
            assert array.tolist() == same.tolist()
        starts, ends = piece.char_start.tolist(), piece.char_end.tolist()
        assert starts == sorted(starts)
        assert ends == sorted(ends)
        for start, end in zip(starts, ends, strict=True):
            assert 0 <= start <= end <= len(text)
            assert text[start:end] == text[start:end].strip()
        _check_units(text, piece)


def _arrays(piece):  # type: ignore[no-untyped-def]
    return piece.ids, piece.char_start, piece.char_end, piece.words


def _check_units(text, piece) -> None:  # type: ignore[no-untyped-def]
    """No unit goes on over white space or comes back later."""
    words = piece.words[piece.words >= 0].tolist()
    assert words == sorted(words)
    for token in range(len(piece) - 1):
        if piece.words[token] == piece.words[token + 1] >= 0:
            between = text[piece.char_end[token] : piece.char_start[token + 1]]
            assert not any(one.isspace() for one in between)


@pytest.mark.parametrize(
    ("family", "around", "between", "pad"),
    [
        ("bert", ("[CLS]", "[SEP]"), ["[SEP]"], 0),
        ("roberta", ("<s>", "</s>"), ["</s>", "</s>"], 1),
        ("xlm-roberta", ("<s>", "</s>"), ["</s>", "</s>"], 1),
        ("modernbert", ("[CLS]", "[SEP]"), ["[SEP]"], 0),
    ],
)
def test_templates(family: str, around: tuple[str, str], between: list[str], pad: int) -> None:
    tokenizer = small_tokenizer(family)
    made = template(tokenizer)
    first, last = tokenizer.convert_tokens_to_ids(list(around))
    assert (made.prefix, made.suffix) == ((first,), (last,))
    assert (made.pair_prefix, made.pair_suffix) == ((first,), (last,))
    assert list(made.middle) == tokenizer.convert_tokens_to_ids(between)
    assert made.pad == tokenizer.pad_token_id == pad
    assert made.two_types == (family == "bert")
    assert made.types == ((0, 0, 0, 1, 1) if family == "bert" else (0,) * 5)
    # What is around the pieces is what the tokenizer itself puts there.
    one, two = pieces(tokenizer, ["Paris is", "the capital"])
    whole = [*made.pair_prefix, *one.ids, *made.middle, *two.ids, *made.pair_suffix]
    assert tokenizer("Paris is", "the capital").input_ids == whole


def test_a_tokenizer_without_a_mask_is_refused() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=copy.deepcopy(backend(small_tokenizer("bert"))), pad_token="[PAD]"
    )
    with pytest.raises(SettingsError, match="no mask and no cls and no sep token"):
        template(tokenizer)


def test_control_tokens_do_not_change_the_fingerprint_but_words_do() -> None:
    tokenizer = copy.deepcopy(small_tokenizer("bert"))
    before = fingerprint(tokenizer)
    (plain,) = pieces(tokenizer, ["a [REL] Parisian"])
    tokenizer.add_tokens(["[REL]"], special_tokens=True)
    assert fingerprint(tokenizer) == before
    (still,) = pieces(tokenizer, ["a [REL] Parisian"])
    assert still.ids.tolist() == plain.ids.tolist()
    tokenizer.add_tokens(["Parisian"])
    assert fingerprint(tokenizer) != before


def test_the_normaliser_is_in_the_fingerprint() -> None:
    tokenizer = copy.deepcopy(small_tokenizer("bert"))
    backend(tokenizer).normalizer = normalizers.BertNormalizer(lowercase=True)
    assert fingerprint(tokenizer) != fingerprint(small_tokenizer("bert"))


def test_random_replacements_never_draw_special_or_reserved_tokens() -> None:
    tokenizer = copy.deepcopy(small_tokenizer("bert"))
    tokenizer.add_tokens(["[REL]"], special_tokens=True)
    tokenizer.add_tokens(["[unused1]", "<extra_id_0>", "<0x0A>", "Parisian"])
    ids = set(ordinary_ids(tokenizer).tolist())
    names = {tokenizer.convert_ids_to_tokens(one) for one in ids}
    assert not names & {"[PAD]", "[MASK]", "[UNK]", "[REL]", "[unused1]", "<extra_id_0>", "<0x0A>"}
    assert {"Paris", "Parisian", "[", "<"} & names >= {"Paris", "Parisian"}
    assert len(ids) == len(tokenizer) - 5 - 4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trained_tokenizer_reloads_as_it_was(family: str, tmp_path: Path) -> None:
    tokenizer = small_tokenizer(family)
    tokenizer.save_pretrained(tmp_path)
    # A model's configuration beside it must not make another class of it.
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    again = load_tokenizer(str(tmp_path))
    assert fingerprint(again) == fingerprint(tokenizer)
    assert template(again) == template(tokenizer)
    assert again.model_input_names == tokenizer.model_input_names
    assert special_ids(again) == special_ids(tokenizer) == [0, 1, 2, 3, 4]
    assert again(SENTENCES[1]).input_ids == tokenizer(SENTENCES[1]).input_ids


def test_case_and_accents_are_kept() -> None:
    tokenizer = small_tokenizer("bert", 600)
    (piece,) = pieces(tokenizer, ["Lyon été lyon"])
    tokens = tokenizer.convert_ids_to_tokens(piece.ids.tolist())
    assert "".join(token.removeprefix("##") for token in tokens) == "Lyonétélyon"


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta"])
def test_training_is_the_same_in_another_process(family: str) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from small_tokenizers import small_tokenizer\n"
        "from ptm_plus.prepare.tokenization import fingerprint\n"
        f"print(fingerprint(small_tokenizer({family!r})))"
    )
    root = Path(__file__).parents[1]
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split()[-1] == fingerprint(small_tokenizer(family))


def test_training_on_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="no text"):
        train_tokenizer(["", "  "], 100, "bert")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(EnvironmentProblem, match="no tokenizer"):
        load_tokenizer(str(tmp_path))
    with pytest.raises(SettingsError, match="no such folder"):
        load_tokenizer(str(tmp_path / "nowhere"))

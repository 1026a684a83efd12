"""Tokenizers trained on several languages, against sentencepiece and the formula of the draw."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from many_languages import KINDS, old_text, sentences, tokenizer_of, write_text
from transformers import AutoTokenizer

from ptm_plus.errors import DataError, PtmPlusError, SettingsError
from ptm_plus.progress import Silent
from ptm_plus.vocabulary.corpus import Corpus, Draw, LanguageText, plan_draws
from ptm_plus.vocabulary.sentencepieces import rebuilt
from ptm_plus.vocabulary.training import Training, train

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
TEXTS = st.text(
    st.one_of(
        st.sampled_from("river walks река вода 北京城市 .,!42 "),
        st.characters(exclude_categories=["Cs", "Cc", "Co", "Cn"]),
    ),
    max_size=40,
)


# ---------------------------------------------------------------------------------------------
# The draw


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("unit", ["characters", "words"])
def test_shares_follow_the_formula(alpha: float, unit: Any) -> None:
    found = {"de": LanguageText(10, 6000, 1000), "zh": LanguageText(5, 900, 900)}
    draws = plan_draws(found, alpha, unit, 2000)
    sizes = {"de": 6000.0, "zh": 900.0} if unit == "characters" else {"de": 1000.0, "zh": 900.0}
    for name, size in sizes.items():
        share = size**alpha / sum(one**alpha for one in sizes.values())
        assert draws[name].share == pytest.approx(share, rel=1e-12)
    drawn = {name: draws[name].copies * sizes[name] for name in sizes}
    assert drawn["de"] / drawn["zh"] == pytest.approx(draws["de"].share / draws["zh"].share)
    characters = sum(draws[name].copies * found[name].characters for name in found)
    assert characters == pytest.approx(2000)


def test_all_of_a_text_that_is_smaller_than_the_draw_is_drawn_once() -> None:
    found = {"de": LanguageText(10, 6000, 1000), "zh": LanguageText(5, 900, 900)}
    assert {one.copies for one in plan_draws(found, 1.0, "characters", 10**9).values()} == {1.0}


def test_a_language_without_words_is_not_drawn() -> None:
    found = {"de": LanguageText(10, 6000, 1000), "und": LanguageText(1, 5, 0)}
    assert plan_draws(found, 0.5, "words", 100)["und"] == Draw(0.0, 0.0)


def test_a_text_is_drawn_whole_copies_and_a_fraction(tmp_path: Path) -> None:
    corpus = Corpus(write_text(tmp_path, "en"))
    drawn = [text for _, text in corpus.draw({"en": Draw(1.0, 2.25)}, seed=1)]
    counts = [drawn.count(text) for text in sentences("en")]
    assert set(counts) == {2, 3}
    assert 0.25 * 150 - 20 < counts.count(3) < 0.25 * 150 + 20
    assert drawn == [text for _, text in corpus.draw({"en": Draw(1.0, 2.25)}, seed=1)]
    assert drawn != [text for _, text in corpus.draw({"en": Draw(1.0, 2.25)}, seed=2)]


# ---------------------------------------------------------------------------------------------
# What is trained


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("fallback", [True, False])
def test_the_fast_tokenizer_splits_as_sentencepiece_does(kind: str, fallback: bool) -> None:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(old_text()),
        model_writer=written,
        model_type=kind,
        vocab_size=380 if fallback else 130,
        byte_fallback=fallback,
        normalization_rule_name="identity",
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        minloglevel=2,
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    fast = rebuilt(trained, SPECIAL, kind)
    others = ["Fluß 水山 ŝipo", "under  the riverbank", "a\u0301 𝕏"]
    for text in [*old_text(), *sentences("eo"), *others]:
        plain = " ".join(unicodedata.normalize("NFC", text).split())
        expected = [3 if one == 0 else one + 4 for one in trained.encode(plain)]
        assert fast.encode(text).ids == expected, text


@pytest.mark.parametrize("kind", KINDS)
def test_plain_transformers_loads_it(kind: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(kind)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.is_fast
    assert loaded("river река", "北京")["input_ids"] == tokenizer("river река", "北京")["input_ids"]
    ids = loaded.convert_tokens_to_ids([loaded.cls_token, loaded.pad_token, loaded.mask_token])
    assert max(ids) < 5
    assert loaded(loaded.mask_token)["input_ids"][1] == loaded.mask_token_id


@pytest.mark.parametrize("kind", ["unigram-bytes", "bpe-bytes", "byte-bpe"])
@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_text_comes_back(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    expected = text
    if kind != "byte-bpe":
        expected = tokenizer.backend_tokenizer.normalizer.normalize_str(text)
    assert tokenizer.decode(ids) == expected


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
def test_offsets_cover_the_text_in_order(kind: str, text: str) -> None:
    encoding = tokenizer_of(kind).backend_tokenizer.encode(text, add_special_tokens=False)
    covered, last = set(), 0
    for start, end in encoding.offsets:
        assert last <= start or (text[start:end] and start >= last - 1)
        covered |= set(range(start, end))
        last = max(last, start)
    if kind != "wordpiece":  # BERT drops control characters
        assert {i for i, one in enumerate(text) if not one.isspace() and one != "▁"} <= covered


def test_equal_text_gives_equal_files_in_every_process(tmp_path: Path) -> None:
    texts = write_text(tmp_path, "en", "ru")
    written = []
    for kind, size in (("unigram", 110), ("bpe", 130), ("wordpiece", 140), ("byte-bpe", 290)):
        for seed in ("1", "2"):
            target = tmp_path / f"{kind}{seed}"
            words = [
                *(f"--text={text}" for text in texts),
                f"--kind={kind}",
                f"--vocabulary={size}",
            ]
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "ptm_plus",
                    "tokenizer",
                    "train",
                    "-q",
                    *words,
                    "-o",
                    target,
                ],
                check=True,
                capture_output=True,
                env={**os.environ, "PYTHONHASHSEED": seed},
            )
            written.append((target / "tokenizer.json").read_bytes())
        assert written[-1] == written[-2], kind
    assert len(set(written)) == 4


def test_counts_are_reported(tmp_path: Path) -> None:
    texts = write_text(tmp_path, "en", "zh")
    request = Training(text=tuple(texts), kind="bpe", vocabulary=100, alpha=0.0, unit="words")
    tokenizer, figures = train(request, Silent())
    assert len(tokenizer) == figures["vocabulary"] == 100
    one = figures["languages"]
    assert [entry["share"] for entry in one.values()] == [0.5, 0.5]
    for language in ("en", "zh"):
        assert one[language]["texts"] == 150
        assert one[language]["characters"] == sum(map(len, sentences(language)))
    assert one["en"]["words"] == sum(text.count(" ") + 1 for text in sentences("en"))


# ---------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vocabulary": 50_000}, "the text supports"),
        ({"vocabulary": 50_000, "kind": "bpe"}, "the text supports"),
        ({"vocabulary": 50_000, "kind": "wordpiece"}, "the text supports"),
        ({"vocabulary": 50_000, "kind": "byte-bpe"}, "the text supports"),
        ({"vocabulary": 20}, "too small"),
        ({"vocabulary": 20, "kind": "wordpiece"}, "the characters alone need"),
        ({"kind": "word-piece"}, "did you mean 'wordpiece'"),
        ({"kind": "wordpiece", "byte_fallback": True}, "cannot spell by bytes"),
        ({"kind": "byte-bpe", "coverage": 0.99}, "knows every character"),
        ({"family": "berd"}, "did you mean 'bert'"),
    ],
)
def test_what_does_not_fit_is_told(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    request = Training(text=tuple(write_text(tmp_path, "en", "ru")), **change)
    with pytest.raises(SettingsError, match=words):
        train(request, Silent())


def test_the_size_that_is_told_can_be_trained(tmp_path: Path) -> None:
    text = tuple(write_text(tmp_path, "en", "ru"))
    for kind in ("unigram", "bpe", "wordpiece", "byte-bpe"):
        with pytest.raises(SettingsError) as caught:
            train(Training(text=text, kind=kind, vocabulary=9000), Silent())  # type: ignore[arg-type]
        most = int(caught.value.message.split("supports ")[1].split()[0])
        tokenizer, _ = train(Training(text=text, kind=kind, vocabulary=most), Silent())  # type: ignore[arg-type]
        assert len(tokenizer) == most


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", "en", "no rows"),
        (b"\n\n ... \n", "en", "holds no words"),
        (b"river\n\ncaf\xe9\n", "en", "en.txt:3: not UTF-8"),
        (b"r\xc3\xado\n", "cz", "did you mean 'cs'"),
        (b"river\n", "jp", "did you mean 'ja'"),
        (b"river\n", "cn-Hant", "did you mean 'zh-Hant'"),
    ],
)
def test_bad_text_is_told(content: bytes, code: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "en.txt"
    path.write_bytes(content)
    with pytest.raises(PtmPlusError) as caught:
        train(Training(text=(f"{code}={path}",)), Silent())
    assert words in str(caught.value)


def test_a_wrong_code_in_a_row_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a b", "lang": "en"}\n{"text": "c", "lang": "dk"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2") as caught:
        Corpus([str(path)]).count()
    assert "did you mean 'da'" in caught.value.hint


def test_text_that_spells_a_byte_or_a_special_token_is_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(["< 0x41 > is a byte and < /s > a token"] * 9), encoding="utf-8")
    for kind in ("unigram", "bpe"):
        request = Training(text=(f"en={path}",), kind=kind, vocabulary=282, byte_fallback=True)  # type: ignore[arg-type]
        tokenizer, _ = train(request, Silent())
        ids = tokenizer.encode("</s> <0x41>", add_special_tokens=False, split_special_tokens=True)
        assert not {ids[0], *ids} & {2, tokenizer.convert_tokens_to_ids("<0x41>")}
        assert tokenizer.decode(ids) == "</s> <0x41>"

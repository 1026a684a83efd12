"""Extended vocabularies: old ids, old text, gains by brute force, rows of the model."""

from __future__ import annotations

import json
from collections import Counter
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from many_languages import FAMILY, KINDS, sentences, tokenizer_of, write_text
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertModel,
    BertTokenizer,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

from ptm_plus.errors import DataError, PtmPlusError, SettingsError
from ptm_plus.prepare.tokenization import backend
from ptm_plus.progress import Silent
from ptm_plus.vocabulary.extension import Extension, extend, spelled
from ptm_plus.vocabulary.gain import new_characters, new_pieces, new_words
from ptm_plus.vocabulary.models import NewPiece, VocabularyModel

EXACT = [kind for kind in KINDS if kind != "wordpiece"]
"""Kinds whose new pieces are rows of old ones."""

TEXTS = st.text(
    st.sampled_from("river walks река вода 北京城市 .,!42 ĝardeno ŝipojn ĉevalo"), max_size=60
)


@lru_cache
def eo_words(kind: str) -> dict[str, int]:
    model = VocabularyModel(backend(tokenizer_of(kind)))
    return dict(Counter(word for text in sentences("eo") for word in model.words(text)))


@lru_cache
def extended(
    kind: str,
) -> tuple[VocabularyModel, VocabularyModel, VocabularyModel, list[NewPiece]]:
    """Return the old model, the one with eo's letters, the one with 40 pieces too, the pieces."""
    old = VocabularyModel(backend(tokenizer_of(kind)))
    letters = old.with_pieces(new_characters(old, eo_words(kind), 100, 1))
    pieces = new_pieces(letters, eo_words(kind), 40, 3)
    return old, letters, letters.with_pieces(pieces), pieces


# ---------------------------------------------------------------------------------------------
# Old ids and old text


@pytest.mark.parametrize("kind", KINDS)
def test_old_ids_stay_and_new_ones_follow(kind: str) -> None:
    old, _, new, pieces = extended(kind)
    assert new.entries.items() >= old.entries.items()
    added = sorted(new.entries.values())[len(old.entries) :]
    assert added == list(range(old.next_id, old.next_id + len(added)))
    assert [new.entries[one.text] for one in pieces] == added[-len(pieces) :]
    assert len(pieces) == 40


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_a_word_without_a_new_piece_is_split_as_before(kind: str, text: str) -> None:
    old, _, new, _ = extended(kind)
    added = [new.surface(entry) for entry in new.entries.keys() - old.entries.keys()]
    for word in old.words(text):
        if not any(entry in word for entry in added):
            assert new.split(word) == old.split(word)


@pytest.mark.parametrize("kind", EXACT)
@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_new_pieces_are_rows_of_old_ones(kind: str, text: str) -> None:
    _, letters, new, pieces = extended(kind)
    spelt = {one.text: one.old for one in pieces}
    for word in letters.words(text):
        assert spelled(new.split(word), spelt) == letters.split(word)


def test_a_bert_word_with_a_new_piece_may_be_split_anew() -> None:
    """Why WordPiece promises less: the longest entry from the left wins."""
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##b", "##c", "##bc", "##d"]
    core = backend(BertTokenizer(vocab={one: number for number, one in enumerate(entries)}))
    old = VocabularyModel(core)
    new = old.with_pieces([NewPiece("ab", ("a", "##b"))])
    assert old.split("abc") == ["a", "##bc"]
    assert new.split("abc") == ["ab", "##c"]
    assert new.split("abd") == ["ab", "##d"]


@pytest.mark.parametrize("kind", KINDS)
def test_added_tokens_keep_their_ids(kind: str) -> None:
    """Plain loading would give a token that the model does not know the next free id, silently."""
    copy = Tokenizer.from_str(backend(tokenizer_of(kind)).to_str())
    copy.add_special_tokens(["[ENT]", "[/ENT]"])
    old = VocabularyModel(copy)
    new = old.with_pieces(new_characters(old, eo_words(kind), 9, 1) or [_any_piece(old)])
    assert new.entries["[ENT]"] == old.entries["[ENT]"] == old.next_id - 2
    assert new.core.encode("[ENT]").ids.count(old.next_id - 2) == 1
    assert new.next_id > old.next_id


def _any_piece(model: VocabularyModel) -> NewPiece:
    first, second = model.split("Ġwate")[:2]
    return NewPiece(first + second, (first, second), (first, second))


@pytest.mark.parametrize("kind", KINDS)
def test_the_unknown_get_letters(kind: str) -> None:
    old, letters, _, _ = extended(kind)
    before = [entry for word in eo_words(kind) for entry in old.split(word)]
    after = [entry for word in eo_words(kind) for entry in letters.split(word)]
    if kind in ("unigram", "bpe", "wordpiece"):
        assert old.unknown in before
    assert letters.unknown not in after
    assert not any(entry.startswith("<0x") for entry in after)


# ---------------------------------------------------------------------------------------------
# Gains


def greedy(model: VocabularyModel, words: dict[str, int], most: int) -> list[tuple[str, int]]:
    """Join the commonest pair, counted anew each time: new entries and the tokens they saved."""
    rows = [(model.split(word), count) for word, count in words.items()]
    made: dict[str, int] = {}
    while len(made) < most:
        counts: Counter[tuple[str, str]] = Counter()
        for row, count in rows:
            skip = False
            for pair, before in zip(pairwise(row), [None, *pairwise(row)], strict=False):
                skip = pair == before and pair[0] == pair[1] and not skip
                counts[pair] += 0 if skip else count
        allowed = {
            pair: count
            for pair, count in counts.items()
            if (entry := model.joined(*pair)) and entry not in model.entries and entry not in made
        }
        pair = min(allowed, key=lambda one: (-allowed[one], one))
        if allowed[pair] < 3:
            break
        entry, total = model.joined(*pair), 0
        for row, count in rows:
            place = 0
            while place < len(row) - 1:
                if (row[place], row[place + 1]) == pair:
                    row[place : place + 2] = [entry]
                    total += count
                place += 1
        made[entry] = total
    return list(made.items())


@pytest.mark.parametrize("kind", ["bpe", "bpe-bytes", "byte-bpe"])
def test_pieces_are_those_that_joining_by_hand_finds(kind: str) -> None:
    _, letters, new, pieces = extended(kind)
    expected = greedy(letters, eo_words(kind), 40)
    assert [one.text for one in pieces] == [entry for entry, _ in expected]
    before = sum(count * len(letters.split(word)) for word, count in eo_words(kind).items())
    after = sum(count * len(new.split(word)) for word, count in eo_words(kind).items())
    assert before - after == sum(gain for _, gain in expected) == sum(one.saved for one in pieces)


@pytest.mark.parametrize("kind", ["unigram", "unigram-bytes"])
def test_a_unigram_joins_as_many_pieces_as_can_be(kind: str) -> None:
    _, letters, new, pieces = extended(kind)
    known = {one.old for one in pieces}
    for word in eo_words(kind):
        row = letters.split(word)
        fewest = [0, *[len(row)] * len(row)]
        for end in range(1, len(row) + 1):  # by dynamic programming over rows of old pieces
            fewest[end] = min(
                fewest[start] + 1
                for start in range(end)
                if end - start == 1 or tuple(row[start:end]) in known
            )
        assert len(new.split(word)) == fewest[-1], word


@pytest.mark.parametrize("kind", KINDS)
def test_every_piece_is_used(kind: str) -> None:
    _, _, new, pieces = extended(kind)
    used = Counter(entry for word in eo_words(kind) for entry in new.split(word))
    if kind.startswith("unigram"):
        assert all(used[one.text] for one in pieces)
    assert sum(bool(used[one.text]) for one in pieces) > 15


@pytest.mark.parametrize("kind", KINDS)
def test_words_become_one_piece(kind: str) -> None:
    old = VocabularyModel(backend(tokenizer_of(kind)))
    pieces, refused = new_words(old, ["underwater", "greathouse", "riverlight", "river"])
    assert refused == []
    new = old.with_pieces(pieces)
    for word in ("underwater", "greathouse", "riverlight"):
        assert len(new.split(new.words(f"a {word}")[-1])) == 1
    if kind != "wordpiece":
        assert new_words(old, ["two words"])[1] == ["two words"]
    else:
        assert new_words(old, ["two-words"])[1] == ["two-words"]
    assert new_words(old, ["under🐍"])[1] == ["under🐍"]


# ---------------------------------------------------------------------------------------------
# Folders


def saved(folder: Path, kind: str, rows: int = 0, tied: bool = True, family: str = "") -> Path:
    """Write a tiny model with its tokenizer."""
    tokenizer = tokenizer_of(kind)
    torch.manual_seed(0)
    family = family or FAMILY.get(kind, "xlm-roberta")
    config = AutoConfig.for_model(
        family,
        vocab_size=max(rows, len(tokenizer)),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=66,
        tie_word_embeddings=tied,
        pad_token_id=tokenizer.pad_token_id,
    )
    for name in ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"):
        if hasattr(config, name):
            setattr(config, name, tokenizer.cls_token_id)
    model = AutoModelForMaskedLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def eo_request(source: Path, folder: Path, **change: Any) -> Extension:
    values = {"text": tuple(write_text(folder, "eo", "en")), "pieces": 30, "at_least": 3, **change}
    return Extension(source=str(source), **values)


FAMILIES = [
    ("unigram", "xlm-roberta"),
    ("bpe-bytes", "xlm-roberta"),
    ("byte-bpe", "roberta"),
    ("byte-bpe", "modernbert"),
    ("wordpiece", "bert"),
    ("wordpiece", "electra"),
]
# Untied weights of BERT do not survive plain saving and loading: the output bias is lost.
MODELS = [(*one, tied) for one in FAMILIES for tied in (True, False) if tied or one[1] != "bert"]


@pytest.mark.parametrize(("kind", "family", "tied"), MODELS)
@pytest.mark.parametrize("padding", [0, 7, 100])
def test_a_model_keeps_its_old_logits(
    kind: str, family: str, tied: bool, padding: int, tmp_path: Path
) -> None:
    rows = len(tokenizer_of(kind)) + padding
    source = saved(tmp_path / "old", kind, rows, tied, family)
    target = tmp_path / "new"
    figures = extend(eo_request(source, tmp_path), target, Silent())
    before = AutoModelForMaskedLM.from_pretrained(source).eval()
    after, info = AutoModelForMaskedLM.from_pretrained(target, output_loading_info=True)
    assert not any(info.values())
    tokenizer = AutoTokenizer.from_pretrained(target)
    wanted = max(rows, len(tokenizer))
    unchanged: dict[str, list[str]] = {"left_out": [], "drawn_anew": []}
    assert figures["model"] == {"rows_before": rows, "rows": wanted, **unchanged}
    assert after.config.vocab_size == after.get_input_embeddings().weight.shape[0] == wanted
    assert after.get_output_embeddings().weight.shape[0] == wanted
    same = after.get_output_embeddings().weight is after.get_input_embeddings().weight
    assert same == (before.get_output_embeddings().weight is before.get_input_embeddings().weight)
    first = figures["vocabulary_before"]
    ids = torch.tensor([[0, 7, 9, first - 1, 2]])
    with torch.no_grad():
        old, new = before(ids).logits, after.eval()(ids).logits
    assert torch.equal(old[..., :first], new[..., :first])


@pytest.mark.parametrize(("kind", "family", "tied"), MODELS)
def test_rows_start_as_the_mean_of_the_old_pieces(
    kind: str, family: str, tied: bool, tmp_path: Path
) -> None:
    source = saved(tmp_path / "old", kind, len(tokenizer_of(kind)) + 5, tied, family)
    target = tmp_path / "new"
    figures = extend(eo_request(source, tmp_path), target, Silent())
    before = AutoModelForMaskedLM.from_pretrained(source)
    after = AutoModelForMaskedLM.from_pretrained(target)
    old = VocabularyModel(backend(AutoTokenizer.from_pretrained(source)))
    checked = 0
    for one in figures["pieces"]:
        inside = one["text"].startswith("##")
        names = old.split("x" + one["text"][2:] if inside else one["text"])
        if (inside and names[0] != "x") or old.closed & set(names):
            continue  # nothing to compare with: another split, or letters that were unknown
        names = names[1:] if inside else names
        rows = [old.entries[name] for name in names]
        for of in ("get_input_embeddings", "get_output_embeddings"):
            wide = getattr(before, of)().weight[rows].double().mean(0)
            found = getattr(after, of)().weight[one["id"]].double()
            torch.testing.assert_close(found, wide, rtol=0, atol=1e-7)
        bias = before.get_output_embeddings().bias
        if bias is not None:
            found = after.get_output_embeddings().bias[one["id"]]
            torch.testing.assert_close(found, bias[rows].mean(), rtol=0, atol=1e-7)
        checked += 1
    assert checked > 4 or kind == "wordpiece"


def test_rows_that_start_from_nothing_differ_and_are_of_the_usual_size(tmp_path: Path) -> None:
    source = saved(tmp_path / "old", "unigram")
    figures = extend(eo_request(source, tmp_path), tmp_path / "new", Silent())
    letters = [one["id"] for one in figures["pieces"] if one["text"] in "ĝŝĉjo"]
    weight = AutoModelForMaskedLM.from_pretrained(tmp_path / "new").get_input_embeddings().weight
    old = weight[: figures["vocabulary_before"]]
    assert len(letters) > 2
    assert torch.unique(weight[letters], dim=0).shape[0] == len(letters)
    assert 0.5 < weight[letters].std() / old.std() < 2


def test_an_overlap_is_copied(tmp_path: Path) -> None:
    source = saved(tmp_path / "old", "bpe")
    words = tmp_path / "words.txt"
    words.write_text("greathouses\n", encoding="utf-8")
    request = Extension(source=str(source), words=words, start="overlap")
    figures = extend(request, tmp_path / "new", Silent())
    old = VocabularyModel(backend(AutoTokenizer.from_pretrained(source)))
    word = next(one for one in figures["pieces"] if one["text"] == "▁greathouses")
    inside = [
        entry for entry in old.entries if (bare := entry.lstrip("▁")) and bare in word["text"]
    ]
    near = min(inside, key=lambda one: (-len(one.lstrip("▁")), word["text"].find(one.lstrip("▁"))))
    weight = AutoModelForMaskedLM.from_pretrained(tmp_path / "new").get_input_embeddings().weight
    same = [e for e in inside if e.lstrip("▁") == near.lstrip("▁")]
    assert any(torch.equal(weight[word["id"]], weight[old.entries[e]]) for e in same)
    assert len(near.lstrip("▁")) >= 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_is_extended_again(kind: str, tmp_path: Path) -> None:
    tokenizer_of(kind).save_pretrained(tmp_path / "one")
    first = extend(eo_request(tmp_path / "one", tmp_path), tmp_path / "two", Silent())
    assert first["model"] is None
    eo = first["languages"]["eo"]
    assert eo["tokens"] < eo["tokens_before"] or eo["unknown"] < eo["unknown_before"]
    if kind != "wordpiece":
        assert not any(one["split_anew"] for one in first["languages"].values())
    second = extend(eo_request(tmp_path / "two", tmp_path), tmp_path / "three", Silent())
    assert second["languages"]["eo"]["tokens_before"] == first["languages"]["eo"]["tokens"]
    one, three = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("one", "three"))
    assert three.get_vocab().items() > one.get_vocab().items()
    assert type(three) is type(one)
    text = "birdoj kaj ŝipo"
    if kind in ("unigram-bytes", "bpe-bytes", "byte-bpe"):
        assert three.decode(three(text, add_special_tokens=False)["input_ids"]) == text
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def of_class(name: str) -> Any:
    """Return a tokenizer of one of transformers' classes, which build a backend of their own."""
    if name == "bert":
        return BertTokenizer(vocab=tokenizer_of("wordpiece").get_vocab(), do_lower_case=False)
    if name == "roberta":
        model = json.loads(backend(tokenizer_of("byte-bpe")).to_str())["model"]
        return RobertaTokenizer(vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]])
    model = json.loads(backend(tokenizer_of("unigram")).to_str())["model"]
    return XLMRobertaTokenizer(vocab=[tuple(entry) for entry in model["vocab"]])


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta"])
def test_tokenizers_of_transformers_own_classes_are_extended(name: str, tmp_path: Path) -> None:
    given = of_class(name)
    given.add_tokens(["[ENT]"], special_tokens=True)
    given.save_pretrained(tmp_path / "old")
    figures = extend(eo_request(tmp_path / "old", tmp_path), tmp_path / "new", Silent())
    old, new = (AutoTokenizer.from_pretrained(tmp_path / one) for one in ("old", "new"))
    assert new.get_vocab().items() > old.get_vocab().items()
    assert len(new) == figures["vocabulary"] == len(old) + figures["added"]
    assert new.convert_tokens_to_ids("[ENT]") == old.convert_tokens_to_ids("[ENT]")
    text = "river birdo kaj domo"
    assert old(text)["input_ids"] != new(text)["input_ids"]
    assert new.unk_token_id not in new("birdo domo")["input_ids"]
    assert new("[ENT] 水", "山")["input_ids"] == old("[ENT] 水", "山")["input_ids"]


# ---------------------------------------------------------------------------------------------
# What is refused


def test_what_adds_nothing_is_told(tmp_path: Path) -> None:
    source = tmp_path / "old"
    tokenizer_of("bpe").save_pretrained(source)
    with pytest.raises(SettingsError, match="nothing to add"):
        extend(Extension(source=str(source)), tmp_path / "new", Silent())
    with pytest.raises(DataError, match="nothing to add"):
        extend(eo_request(source, tmp_path, at_least=10**6), tmp_path / "new", Silent())
    empty = tmp_path / "words.txt"
    empty.write_text("\n\n", encoding="utf-8")
    with pytest.raises(DataError, match="holds no words"):
        extend(Extension(source=str(source), words=empty), tmp_path / "new", Silent())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(SettingsError, match="is not empty"):
        extend(eo_request(source, tmp_path), tmp_path / "full", Silent())
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".*"))


def test_words_that_are_no_piece_are_named(tmp_path: Path) -> None:
    source, words = tmp_path / "old", tmp_path / "words.txt"
    tokenizer_of("bpe").save_pretrained(source)
    words.write_text("underwater\ntwo words\nriver\n", encoding="utf-8")
    figures = extend(Extension(source=str(source), words=words), tmp_path / "new", Silent())
    assert figures["words_refused"] == ["two words"]
    assert figures["words_asked"] == 3


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    source = saved(tmp_path / "old", "bpe")
    (source / "model.safetensors").unlink()
    (source / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(PtmPlusError, match="safetensors"):
        extend(eo_request(source, tmp_path), tmp_path / "new", Silent())
    assert not (tmp_path / "new").exists()


def test_weights_that_a_masked_language_model_has_not_are_named(tmp_path: Path) -> None:
    source = saved(tmp_path / "old", "wordpiece")
    plain = BertModel.from_pretrained(source, add_pooling_layer=True)
    plain.save_pretrained(source)
    figures = extend(eo_request(source, tmp_path), tmp_path / "new", Silent())
    assert figures["model"]["left_out"] == ["pooler.dense.bias", "pooler.dense.weight"]
    assert all(name.startswith("cls.predictions.") for name in figures["model"]["drawn_anew"])
    assert figures["model"]["drawn_anew"]

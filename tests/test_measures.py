"""Retrieval, geometry, words and perplexity, against brute force and plain transformers."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small_tokenizers import SENTENCES, small_tokenizer
from tiny import SMALL
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from ptm_plus.errors import DataError, SettingsError
from ptm_plus.keyed import derive_key
from ptm_plus.measures import neighbours, plain_model, whole_words
from ptm_plus.measures.geometry import alignment, uniformity
from ptm_plus.measures.measuring import Request, chosen_layers, measure
from ptm_plus.measures.neighbours import crowding, nearer_wrong
from ptm_plus.measures.perplexity import masked, of_languages, of_pairs
from ptm_plus.measures.plain_model import PlainModel, load_plain
from ptm_plus.measures.sentences import of_pair, read_language_pairs, retrieval
from ptm_plus.measures.translations import translations
from ptm_plus.measures.whole_words import chosen_words
from ptm_plus.measures.words import word_retrieval
from ptm_plus.prepare.word_units import character_words
from ptm_plus.progress import Silent

WATCH = Silent()


def unit(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    vectors = torch.from_numpy(rng.standard_normal(shape))
    return torch.nn.functional.normalize(vectors, dim=-1)


# ---------------------------------------------------------------------------------------------
# Formulas


def test_alignment_and_uniformity_are_those_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    first, second = unit(rng, 30, 5), unit(rng, 30, 5)
    x, y = first.numpy(), second.numpy()
    expected = np.mean([np.sum((a - b) ** 2) for a, b in zip(x, y, strict=True)])
    assert alignment(first, second) == pytest.approx(expected, abs=1e-12)
    values = [
        math.exp(-2 * np.sum((x[i] - x[j]) ** 2)) for i in range(30) for j in range(30) if i != j
    ]
    assert uniformity(first) == pytest.approx(math.log(np.mean(values)), abs=1e-12)
    assert uniformity(first[:1].expand(5, -1)) == pytest.approx(0, abs=1e-12)


def by_hand(queries: Any, candidates: Any, right: list[set[int]], k: int) -> list[int]:
    """CSLS as its paper writes it (k > 0), or the cosine, one query after another."""
    cosine = queries @ candidates.T
    score = cosine
    if k:
        of_query = np.sort(cosine, axis=1)[:, ::-1][:, :k].mean(1)
        of_candidate = np.sort(cosine.T, axis=1)[:, ::-1][:, :k].mean(1)
        score = cosine - of_query[:, None] / 2 - of_candidate[None] / 2
    counts = []
    for row, wanted in zip(score, right, strict=True):
        best = max(row[place] for place in wanted)
        counts.append(
            sum(value >= best - 2e-6 for place, value in enumerate(row) if place not in wanted)
        )
    return counts


@given(st.integers(0, 2**32 - 1), st.integers(2, 20), st.integers(2, 20), st.integers(1, 300))
def test_nearest_ones_are_those_of_brute_force(seed: int, n: int, m: int, cells: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [(n, m), *((int(rng.integers(n)), int(rng.integers(m))) for _ in range(30))]
    texts = translations(rows)
    x, y = unit(rng, len(texts.first), 4), unit(rng, len(texts.second), 4)
    ways = (
        (x, y, texts.pairs, [{b for a, b in rows if a == one} for one in texts.first]),
        (y, x, texts.turned, [{a for a, b in rows if b == one} for one in texts.second]),
    )
    for way, (queries, candidates, right, named) in enumerate(ways):
        places = {text: place for place, text in enumerate((texts.second, texts.first)[way])}
        wanted = [{places[name] for name in names} for names in named]
        for k in (0, 3):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(neighbours, "_CELLS", cells)
                penalty = crowding(candidates, queries, k) if k else None
                found = nearer_wrong(queries, candidates, right, penalty)
            nearer = by_hand(queries.numpy(), candidates.numpy(), wanted, k)
            assert found.tolist() == [min(count, 5) for count in nearer]


def each_its_own(count: int) -> torch.Tensor:
    return torch.arange(count).expand(2, -1)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    first = unit(rng, 50, 6)
    second = torch.nn.functional.normalize(first + 0.5 * unit(rng, 50, 6), dim=1)
    whole = of_pair(first, second, each_its_own(50), 5)
    monkeypatch.setattr(neighbours, "_CELLS", 64)
    assert of_pair(first, second, each_its_own(50), 5) == whole
    assert 0.1 < whole["accuracy_forward"] < 1


def test_a_model_that_gives_one_vector_to_all_finds_nothing() -> None:
    same = unit(np.random.default_rng(2), 1, 4).expand(7, -1)
    found = of_pair(same, same, each_its_own(7), 3)
    assert (found["accuracy"], found["csls"]) == (0.0, 0.0)


def test_float_noise_around_one_vector_finds_nothing() -> None:
    rng = np.random.default_rng(3)
    near = unit(rng, 1, 64).float() + 1e-7 * torch.from_numpy(rng.standard_normal((500, 64)))
    near = torch.nn.functional.normalize(near.float(), dim=1)
    assert of_pair(near, near, each_its_own(500), 0)["accuracy"] == 0.0


def test_a_sentence_of_several_pairs_asks_once_and_has_several_right_answers() -> None:
    texts = translations([("a", "x"), ("a", "y"), ("b", "z"), ("a", "x")])
    assert (texts.first, texts.second) == (["a", "b"], ["x", "y", "z"])
    assert texts.pairs.tolist() == [[0, 0, 1], [0, 1, 2]]
    assert texts.turned.tolist() == [[0, 1, 2], [0, 0, 1]]
    assert texts.chance == 3 / 6  # mean of 2/3 and 1/3; back 1/2 each
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    second = torch.tensor([[0.6, 0.8], [0.8, 0.6], [0.0, 1.0]])
    found = of_pair(first, second, texts.pairs, 0)
    assert found["accuracy_forward"] == 1.0
    assert (found["candidates_forward"], found["candidates_backward"]) == (3, 2)


def test_a_sentence_of_very_many_pairs_takes_no_square_of_them() -> None:
    texts = translations([("Yes.", f"translation {number}") for number in range(50_000)])
    rng = np.random.default_rng(4)
    found = of_pair(unit(rng, 1, 2), unit(rng, 50_000, 2), texts.pairs, 0)
    assert found["accuracy"] == 1.0


# ---------------------------------------------------------------------------------------------
# Models


@pytest.fixture(scope="module", params=["bert", "xlm-roberta", "modernbert"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family = request.param
    tokenizer = small_tokenizer(family)
    made = tmp_path_factory.mktemp(family)
    torch.manual_seed(0)
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id")}
    known = {name: value for name, value in ids.items() if value is not None}
    config = AutoConfig.for_model(
        family, **SMALL, vocab_size=len(tokenizer), max_position_embeddings=80, **known
    )
    model = AutoModelForMaskedLM.from_config(config)
    for parameter in model.parameters():
        parameter.data.mul_(3)  # states far enough apart
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


@pytest.fixture
def model(folder: Path) -> PlainModel:
    return load_plain(str(folder))


def test_vectors_are_mean_states_without_special_tokens_whatever_the_batch(
    folder: Path, model: PlainModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*SENTENCES, "Paris", SENTENCES[0] * 2]
    found = model.pooled(texts, [0, 2, 3], WATCH)
    plain = AutoModel.from_pretrained(folder).eval()
    for number, text in enumerate(texts):
        tokens = model.tokenizer(text, return_tensors="pt", return_special_tokens_mask=True)
        inner = tokens.pop("special_tokens_mask")[0] == 0
        with torch.no_grad():
            states = plain(**tokens, output_hidden_states=True).hidden_states
        for place, layer in enumerate((0, 2, 3)):
            mean = states[layer][0][inner].mean(0)
            torch.testing.assert_close(
                found[place, number], mean / mean.norm(), atol=1e-5, rtol=1e-4
            )
    monkeypatch.setattr(plain_model, "BATCH_TOKENS", 1)
    torch.testing.assert_close(model.pooled(texts, [0, 2, 3], WATCH), found, atol=1e-5, rtol=1e-4)


def test_losses_are_those_of_one_text_after_another(folder: Path, model: PlainModel) -> None:
    found = of_languages(model, {"en": list(SENTENCES)}, 3, WATCH)["en"]
    plain = AutoModelForMaskedLM.from_pretrained(folder).eval()
    encoded = model.encode(SENTENCES)
    losses, right, tokens = [], 0, 0
    for ids, places in zip(encoded.ids, masked(encoded, 3, "en"), strict=True):
        given_ = torch.tensor([ids])
        given_[0, places] = model.tokenizer.mask_token_id
        with torch.no_grad():
            scores = plain(input_ids=given_).logits[0, places].log_softmax(-1)
        wanted = torch.tensor(ids)[places]
        losses += (-scores[range(len(places)), wanted]).tolist()
        right += int((scores.argmax(-1) == wanted).sum())
        tokens += len(ids) - 2
    assert (found["predicted"], found["tokens"]) == (len(losses), tokens)
    assert found["loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
    assert found["accuracy"] == pytest.approx(right / len(losses))


def test_words_are_predicted_piece_by_piece_from_the_pieces_before(
    folder: Path, model: PlainModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_words, "RATE", 0.5)
    texts = ["The capitals of Parisian rivers is Berlinstadt, is it?", *SENTENCES]
    found = of_languages(model, {"en": texts}, 3, WATCH)["en"]
    plain = AutoModelForMaskedLM.from_pretrained(folder).eval()
    encoded = model.encode(texts)
    loss, characters, count, unlike = 0.0, 0, 0, 0
    for number, text in enumerate(texts):
        key = derive_key(3, "words", "en")
        words = list(chosen_words(text, encoded.spans[number], key, number))
        unlike += len({len(places) for places, _ in words}) > 1
        for places, size in words:
            for piece, place in enumerate(places):
                given_ = torch.tensor([encoded.ids[number]])
                for other, _ in words:  # theirs stay masked, but for the pieces before this one
                    hidden = other[piece:] if len(other) > piece else other
                    given_[0, hidden] = model.tokenizer.mask_token_id
                with torch.no_grad():
                    scores = plain(input_ids=given_).logits[0, place].log_softmax(-1)
                loss -= float(scores[encoded.ids[number][place]])
            characters, count = characters + size, count + 1
    assert unlike  # a word that is done stays masked while another goes on
    assert found["words"] == count
    assert found["bits_per_character"] == pytest.approx(loss / math.log(2) / characters, rel=1e-5)


def test_the_same_words_are_asked_of_every_tokenizer() -> None:
    asked = []
    known = SENTENCES[:3]  # all three spell them without an unknown token
    for family in ("bert", "roberta", "xlm-roberta"):
        tokenizer = small_tokenizer(family)
        words = []
        for number, text in enumerate(known):
            spans = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
            for places, size in chosen_words(text, spans, 7, number):
                first, last = spans[places[0]][0], spans[places[-1]][1]
                word = text[first:last].strip()
                assert len(word) == size
                words.append(word)
        asked.append(words)
    assert asked[0] == asked[1] == asked[2]
    assert len(asked[0]) >= len(known)


@given(
    st.text("ab, 東.", min_size=1, max_size=40), st.integers(0, 2**32), st.lists(st.integers(1, 4))
)
def test_chosen_words_are_whole_and_their_tokens_are_theirs(
    text: str, key: int, cuts: list[int]
) -> None:
    spans, at = [(0, 0)], 0
    for cut in cuts:
        if at < len(text):
            spans.append((at, min(at + cut, len(text))))
            at += cut
    read, words = max(end for _, end in spans), character_words(text)
    seen: set[int] = set()
    for places, size in chosen_words(text, spans, key, 0):
        assert places == sorted(set(places))
        assert not seen.intersection(places)
        seen.update(places)
        touched = [set(words[slice(*spans[place])].tolist()) - {-1} for place in places]
        of_all = set.intersection(*touched)
        assert any(
            (words == word).sum() == size and np.flatnonzero(words == word)[-1] < read
            for word in of_all
        )


def test_masks_depend_on_seed_and_number_alone(model: PlainModel) -> None:
    whole = list(masked(model.encode(SENTENCES), 1, "en"))
    assert list(masked(model.encode(SENTENCES[:2]), 1, "en")) == whole[:2]
    assert list(masked(model.encode(SENTENCES), 2, "en")) != whole
    for places, special in zip(whole, model.encode(SENTENCES).special, strict=True):
        inner = sum(not one for one in special)
        assert len(places) == max(1, round(0.15 * inner))
        assert not any(special[place] for place in places)


def test_the_same_tokens_are_asked_for_in_the_pair_and_alone(
    model: PlainModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(SENTENCES[0], SENTENCES[1]), (SENTENCES[4], SENTENCES[2]), ("Paris", "Berlin")]
    asked = []
    losses = PlainModel.masked_losses

    def spy(self: PlainModel, encoded: Any, places: Any, watch: Any) -> Any:
        asked.append([[ids[p] for p in row] for ids, row in zip(encoded.ids, places, strict=True)])
        return losses(self, encoded, places, watch)

    monkeypatch.setattr(PlainModel, "masked_losses", spy)
    found = of_pairs(model, {"en-de": rows}, 0, WATCH)["en-de"]
    first, second, together = asked
    assert together == [one + two for one, two in zip(first, second, strict=True)]
    assert found["pairs"] == 3
    assert found["predicted"] == sum(map(len, together))
    assert found["rise"]["count"] == 3
    # a pair that does not fit is left out, and asked nothing
    long = (SENTENCES[0] * 3, SENTENCES[1] * 3)
    found = of_pairs(model, {"en-de": [*rows, long]}, 0, WATCH)["en-de"]
    assert (found["pairs"], found["left_out"]) == (3, 1)


def test_a_model_that_repeats_its_input_finds_every_twin(model: PlainModel) -> None:
    rows = [(text, text) for text in SENTENCES]
    (found,) = retrieval(model, {"en-en": rows}, [2], 2, WATCH)
    assert found["accuracy"] == found["csls"] == 1.0
    assert found["pairs"]["en-en"]["alignment"] == pytest.approx(0, abs=1e-6)


def test_any_translation_of_a_word_is_right(model: PlainModel) -> None:
    rows = [("Paris", "Paris"), ("Paris", "Lyon"), ("Berlin", "Berlin"), ("Москва", "Москва")]
    (found,) = word_retrieval(model, {"fr-de": rows}, [0], 0, WATCH)
    forward, backward = found["pairs"]["fr-de"]["forward"], found["pairs"]["fr-de"]["backward"]
    assert (forward["words"], forward["candidates"], forward["within_1"]) == (3, 4, 1.0)
    assert (backward["words"], backward["candidates"]) == (4, 3)
    assert backward["within_1"] >= 0.75  # Lyon may be nearer to another word
    assert backward["within_5"] == 1.0


def test_only_the_places_asked_for_reach_the_output_layer(
    model: PlainModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"en": [*SENTENCES, SENTENCES[0] * 9]}
    seen = []
    output = model.model.get_output_embeddings()
    handle = output.register_forward_hook(lambda *given: seen.append(len(given[-1])))
    found = of_languages(model, texts, 0, WATCH)["en"]
    handle.remove()
    assert found["predicted"] + found["words"] <= sum(seen) < 2 * found["tokens"]
    monkeypatch.setattr(type(model.model), "get_output_embeddings", lambda self: None)
    again = of_languages(model, texts, 0, WATCH)["en"]  # of a model that does not name it
    assert again == pytest.approx(found, rel=1e-5)


def test_weights_kept_in_half_precision_are_computed_with_in_full(
    folder: Path, tmp_path: Path
) -> None:
    half = AutoModelForMaskedLM.from_pretrained(folder).to(torch.bfloat16)
    half.save_pretrained(tmp_path)
    load_plain(str(folder)).tokenizer.save_pretrained(tmp_path)
    assert {one.dtype for one in load_plain(str(tmp_path)).model.parameters()} == {torch.float32}


def test_long_texts_are_read_in_part_and_counted(model: PlainModel) -> None:
    long = SENTENCES[0] * 20
    encoded = model.encode([long, SENTENCES[1], long])
    assert encoded.cut == [True, False, True]
    assert len(encoded) == 3
    assert len(encoded.ids[0]) == model.longest
    ends = [max(end for _, end in spans) for spans in encoded.spans]
    assert 0 < ends[0] < len(long)
    assert ends[1] == len(SENTENCES[1])


@pytest.mark.parametrize(("family", "pad", "longest"), [("mpnet", 1, 18), ("distilbert", 0, 20)])
def test_models_without_a_card_take_texts_up_to_their_last_position(
    family: str, pad: int, longest: int, tmp_path: Path
) -> None:
    tokenizer = small_tokenizer("bert")
    config = AutoConfig.for_model(
        family, vocab_size=len(tokenizer), max_position_embeddings=20, pad_token_id=pad
    )
    for name, value in SMALL.items():
        setattr(config, name, value)
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_plain(str(tmp_path))
    assert model.longest == longest
    assert of_languages(model, {"en": [SENTENCES[0] * 9]}, 0, WATCH)["en"]["cut"] == 1


def test_words_that_were_not_read_are_not_asked_for(model: PlainModel) -> None:
    lines = [SENTENCES[0] * 20, SENTENCES[1]]
    spans = model.encode(lines).spans[0]
    read = max(end for _, end in spans)
    asked = [place for places, _ in chosen_words(lines[0], spans, 1, 0) for place in places]
    assert asked
    assert max(spans[place][1] for place in asked) <= read
    found = of_languages(model, {"en": lines}, 0, WATCH)["en"]
    assert found["cut"] == 1
    assert found["words"] < len(lines[0].split()) * 0.15


def test_pairs_that_are_all_too_long_have_no_figures(model: PlainModel) -> None:
    long = (SENTENCES[0] * 9, SENTENCES[1] * 9)
    found = of_pairs(model, {"en-de": [long, long]}, 0, WATCH)["en-de"]
    assert (found["pairs"], found["left_out"], found["predicted"]) == (0, 2, 0)
    assert math.isnan(found["loss"])


def test_rows_of_text_that_are_refused_are_counted(tmp_path: Path, model: PlainModel) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "Paris"}\n{"text": " "}\n\n{"text": "Two\\nlines"}\n')
    found = measure(Request(("perplexity",), text=(f"en={text}",)), model, WATCH)
    assert found["perplexity"]["languages"]["en"]["texts"] == 3
    assert found["refused"] == {"empty text": 1, "blank line": 1}


# ---------------------------------------------------------------------------------------------
# What cannot be measured


def test_weights_of_the_encoder_that_are_missing_are_not_made_up(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if ".att" in name and name.endswith("weight"))
    del weights[lost]
    save_file(weights, tmp_path / "broken" / "model.safetensors", {"format": "pt"})
    with pytest.raises(SettingsError, match=re.escape(lost)):
        load_plain(str(tmp_path / "broken"))


def test_layers_are_counted_from_the_embeddings() -> None:
    assert [chosen_layers(one, 12) for one in ("", "0", "12")] == [[6], [0], [12]]
    assert chosen_layers("all", 3) == [0, 1, 2, 3]
    for wrong in ("13", "-1", "middle"):
        with pytest.raises(SettingsError, match="12 blocks"):
            chosen_layers(wrong, 12)


def test_a_model_without_a_head_has_no_perplexity_but_finds_sentences(
    folder: Path, tmp_path: Path
) -> None:
    AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "bare")
    load_plain(str(folder)).tokenizer.save_pretrained(tmp_path / "bare")
    bare = load_plain(str(tmp_path / "bare"))
    assert not bare.has_head
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"{one}\t{one}!\n" for one in SENTENCES))
    source = (f"en-de={pairs}",)
    with pytest.raises(SettingsError, match="no perplexity"):
        measure(Request(("perplexity",), pairs=source), bare, WATCH)
    found = measure(Request(("retrieval", "perplexity"), pairs=source, chosen=False), bare, WATCH)
    whole = measure(Request(("retrieval",), pairs=source), load_plain(str(folder)), WATCH)
    assert found == whole


def test_one_pair_alone_is_no_question(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("Guten Tag\tHello\n\tHello\nGuten Tag\tHello\n")
    with pytest.raises(DataError, match="only one pair of de-en"):
        read_language_pairs([f"de-en={pairs}"])

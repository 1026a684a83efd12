"""The benchmark of throughput: what both sides get, and what is counted."""

from __future__ import annotations

import json
import math
import statistics
import sys
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from tiny import SMALL
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # behind what is installed: only the benchmarks come from there

from benchmarks import throughput  # noqa: E402
from benchmarks.speed import sides  # noqa: E402
from benchmarks.speed.corpus import made_texts, made_words, write_corpus  # noqa: E402
from benchmarks.speed.peer import tokenised  # noqa: E402
from benchmarks.speed.quality import held_out_loss  # noqa: E402


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Any:
    words = made_words(400)
    return write_corpus(tmp_path_factory.mktemp("speed"), made_texts(words), 60, 5, words)


def test_words_are_different_and_fill_the_vocabulary() -> None:
    words = made_words(1000)
    assert len(set(words)) == 995
    assert words[:3] + words[26:28] == ["a", "b", "c", "aa", "ab"]


def test_lengths_are_lognormal_and_words_follow_one_another() -> None:
    texts = [text.split() for text in islice(made_texts(made_words(2000)), 4000)]
    lengths = [len(text) + 2 for text in texts]
    assert (min(lengths), max(lengths)) == (8, 256)
    assert statistics.median(lengths) == pytest.approx(44, abs=2)
    assert statistics.mean(lengths) == pytest.approx(58.8, abs=2)  # clipped at both ends
    after = [two for text in texts for one, two in pairwise(text) if one == "a"]
    assert after.count(statistics.mode(after)) / len(after) == pytest.approx(0.5, abs=0.1)


def test_both_sides_read_the_same_texts_of_one_token_a_word(corpus: Any) -> None:
    lines = corpus.lines.read_text().splitlines()
    assert lines == [json.loads(row)["text"] for row in corpus.rows.read_text().splitlines()]
    assert not set(lines) & set(corpus.held_out.read_text().splitlines())
    tokenizer = AutoTokenizer.from_pretrained(corpus.tokenizer)
    assert len(tokenizer) == 400
    for line in lines:
        ids = tokenizer(line)["input_ids"]
        assert len(ids) == len(line.split()) + 2
        assert tokenizer.unk_token_id not in ids


def test_the_peer_cuts_lines_and_joins_blocks_as_the_example_does(corpus: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(corpus.tokenizer)
    lines = corpus.lines.read_text().splitlines()
    by_line = tokenised("lines", str(corpus.lines), tokenizer, 32)
    assert [len(row) for row in by_line["input_ids"]] == [
        min(32, len(line.split()) + 2) for line in lines
    ]
    blocks = tokenised("blocks", str(corpus.lines), tokenizer, 32)
    whole = [token for line in lines for token in tokenizer(line)["input_ids"]]
    assert [token for row in blocks["input_ids"] for token in row] == whole[: len(whole) // 32 * 32]
    assert {len(row) for row in blocks["special_tokens_mask"]} == {32}


def test_time_and_tokens_are_those_between_two_ticks() -> None:
    ticks = [
        {"step": step, "cpu": 10.0 + 2 * step, "wall": 3.0 * step, "tokens": tokens}
        for step, tokens in ((9, 900), (10, 1000), (15, None), (20, 2500), (21, None))
    ]
    found = sides._between(ticks, 10, Path("model"))
    assert (found.tokens, found.cpu, found.wall) == (1500, 20.0, 30.0)
    assert found.rate == 75.0


def test_ratios_are_of_medians_and_the_table_tells_them() -> None:
    def side(rate: float) -> dict[str, Any]:
        rates = {"median": rate, "lowest": rate - 1, "highest": rate + 1}
        return {"tokens_per_cpu_second": rates, "held_out_loss": 5.0}

    found = {"ptm-plus": side(900.0), "lines": side(100.0), "grouped": side(300.0)}
    found["blocks"] = side(450.0)
    assert throughput.ratios(found) == {"lines": 9.0, "grouped": 3.0, "blocks": 2.0}
    told = throughput.table(found).splitlines()
    assert told[3] == "| stock, line by line | 100 (99 to 101) | 9.00 × | 5.000 |"


def test_the_loss_of_a_model_that_knows_nothing_is_that_of_chance(
    corpus: Any, tmp_path: Path
) -> None:
    model = BertForMaskedLM(BertConfig(vocab_size=400, **SMALL))
    for parameter in model.parameters():
        parameter.data.zero_()
    model.save_pretrained(tmp_path)
    loss = held_out_loss(tmp_path, corpus.tokenizer, corpus.held_out, 64)
    assert loss == pytest.approx(math.log(400), abs=1e-4)

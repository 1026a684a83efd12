"""Mentions that ends of sequences cut, against prepare itself and by brute force."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from cli_files import document, run, write_files
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from preparing import NameFinder, name_annotator, prepare
from small_tokenizers import ALL, small_tokenizer

from ptm_plus.errors import SettingsError
from ptm_plus.examples import Example, Span
from ptm_plus.knowledge.ledger import MentionCuts
from ptm_plus.prepare.mention_cuts import CutCounter
from ptm_plus.prepare.tokenization import pieces

WORDS = ["Paris", "in", "France", "Seine.", "Spree", "the", "東京", "Paris,", "\n", "\u200d"]


def counted(tokenizer, length: int, examples, found) -> MentionCuts:
    counter = CutCounter(tokenizer, length)
    for example, mentions in zip(examples, found, strict=True):
        counter.add(example, mentions)
    return counter.total()


@hypothesis_settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12), min_size=1),
    length=st.integers(8, 20),
    name=st.sampled_from(sorted(ALL)),
    keep=st.booleans(),
)
def test_counts_are_those_of_prepare(texts, length: int, name: str, keep: bool) -> None:
    tokenizer = ALL[name]()
    examples = []
    for number, words in enumerate([*texts, ["Paris"]]):
        text = " ".join(words)
        spans = [Span("text", 0, len(text), "phrase")] if keep and len(words) > 1 else []
        examples.append(Example(str(number), {"text": text}, {"text": "en"}, spans))
    found = NameFinder()(examples)
    cuts = counted(tokenizer, length, examples, found)
    with tempfile.TemporaryDirectory() as folder:
        store = prepare(
            Path(folder),
            examples,
            tokenizer=tokenizer,
            annotators=[name_annotator()],
            settings={"max_length": length},
        )
    account = store.account.spans["names"]
    assert (cuts.mentions, cuts.split + cuts.without_tokens) == (account.found, account.cut)
    truncated = 0
    for example, mentions in zip(examples, found, strict=True):
        (piece,) = pieces(tokenizer, [example.fields["text"]])
        kept = set()  # characters of the tokens that are left
        for start, end in zip(piece.char_start[: length - 2], piece.char_end, strict=False):
            kept.update(range(start, end))
        truncated += sum(not {*range(one.start, one.end)} <= kept for one in mentions)
    assert cuts.truncated + cuts.without_tokens == truncated


def test_a_mention_over_a_border_and_one_beyond() -> None:
    tokenizer = small_tokenizer("bert")
    text = "Paris is the capital of France. The river Seine flows through Paris."
    (piece,) = pieces(tokenizer, [text])
    start = text.index("France.")
    border = int((piece.char_end <= start + 6).sum())  # behind "France"
    example = Example("1", {"text": text}, {"text": "en"})
    mentions = [
        Span("text", 0, 5, "entity", "Q90"),
        Span("text", start, text.index(" river"), "entity", "Q0"),  # over the sentence's end
        Span("text", text.index("Seine"), text.index(" flows"), "entity", "Q1471"),
    ]
    cuts = counted(tokenizer, border + 2 + 2, [example], [mentions])
    assert cuts == MentionCuts(border + 4, mentions=3, split=1, truncated=1)
    kept = Example("1", {"text": text}, {"text": "en"}, mentions)  # came with the text: not split
    assert counted(tokenizer, border + 4, [kept], [mentions]).split == 0


def test_no_room_is_refused() -> None:
    with pytest.raises(SettingsError, match="used up by special tokens"):
        CutCounter(small_tokenizer("bert"), 2)


def test_the_command_tells_what_is_cut(tmp_path: Path) -> None:
    files = write_files(tmp_path)
    small_tokenizer("bert").save_pretrained(tmp_path / "tokenizer")
    flags = ("kg", "check", "--kg", files.kg, "--labels", files.labels, "--text", files.text)
    assert document(*flags)["cuts"] is None
    flags = (*flags, "--tokenizer", tmp_path / "tokenizer")
    ledger = document(*flags)
    assert ledger["cuts"]["max_length"] == 128
    assert ledger["cuts"]["mentions"] == ledger["mentions"]["linked"]
    assert document(*flags, "--max-length", 8)["cuts"]["truncated"] > 0
    assert "cut at 128 tokens" in run(*flags).stdout
    missing = run(*flags[:-1], tmp_path / "nowhere")
    assert missing.exit_code in (2, 5)
    assert "nowhere" in missing.stderr

"""A tokenizer trained on text of several languages, for a model family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from ptm_plus.errors import DataError, SettingsError, nearest
from ptm_plus.families import card_of
from ptm_plus.prepare.tokenizer_training import (
    byte_level,
    finished,
    inside_words,
    special_tokens,
    word_piece,
)
from ptm_plus.progress import Watch
from ptm_plus.vocabulary.corpus import Corpus, LanguageText, Unit, drawn_figures, plan_draws
from ptm_plus.vocabulary.sentencepieces import train_pieces

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

Kind = Literal["unigram", "bpe", "wordpiece", "byte-bpe"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_OF_FAMILY: dict[str, Kind] = {"roberta": "byte-bpe", "modernbert": "byte-bpe"}
_OF_FAMILY |= {"xlm-roberta": "unigram", "camembert": "unigram"}
_SENTENCE_PIECE = ("unigram", "bpe")


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is trained on what.

    Attributes:
        text: as after ``--text``.
        family: transformers model type; gives the special tokens.
        kind: one of ``KINDS``; empty for the family's own.
        vocabulary: number of entries, special tokens included.
        alpha: exponent of the languages' sizes.
        unit: what sizes are counted in.
        characters: length of the text that is trained on.
        coverage: share of its characters that get a piece; 0 for the kind's own.
        byte_fallback: spell other characters by their bytes.
        seed: of the draw.
    """

    text: tuple[str, ...]
    family: str = "xlm-roberta"
    kind: Kind | Literal[""] = ""
    vocabulary: int = 16_000
    alpha: float = 0.5
    unit: Unit = "characters"
    characters: int = 10_000_000
    coverage: float = 0.0
    byte_fallback: bool = False
    seed: int = 0

    def checked_kind(self) -> Kind:
        """Return the kind.

        Raises:
            SettingsError: there is no such family or kind, or the kind has no such option.
        """
        card_of(self.family)
        kind = self.kind or _OF_FAMILY.get(self.family, "wordpiece")
        if kind not in KINDS:
            raise SettingsError(f"--kind {kind}: unknown{nearest(kind, KINDS)}", ", ".join(KINDS))
        if self.byte_fallback and kind not in _SENTENCE_PIECE:
            spells = "spells everything by bytes" if kind == "byte-bpe" else "cannot spell by bytes"
            raise SettingsError(
                f"--byte-fallback: {kind} {spells}", "leave it out, or give --kind unigram or bpe"
            )
        if self.coverage and kind == "byte-bpe":
            raise SettingsError("--coverage: byte-bpe knows every character", "leave it out")
        return kind


def train(given: Training, watch: Watch) -> tuple[PreTrainedTokenizerFast, dict[str, Any]]:
    """Train a tokenizer.

    Returns:
        The tokenizer, and what was counted: kind, entries, refused rows, and per language what
        there is, its share and what was drawn.

    Raises:
        SettingsError: the settings do not fit each other, or the text.
        DataError: the text cannot be read, or holds nothing.
    """
    kind = given.checked_kind()
    corpus = Corpus(given.text)
    with watch.task("count the text"):
        found = corpus.count()
    draws = plan_draws(found, given.alpha, given.unit, given.characters)
    drawn: dict[str, LanguageText] = {}

    def texts() -> Iterator[str]:
        for language, text in corpus.draw(draws, given.seed):
            drawn.setdefault(language, LanguageText()).add(text)
            yield text

    with watch.task("train the tokenizer"):
        core = _core(given, kind, texts())
    tokenizer = finished(core, given.family)
    figures = {
        "kind": kind,
        "vocabulary": len(tokenizer),
        "refused": corpus.refused,
        "languages": drawn_figures(found, draws, drawn),
    }
    return tokenizer, figures


def _core(given: Training, kind: Kind, texts: Iterator[str]) -> Tokenizer:
    special = special_tokens(given.family)
    if kind == "unigram" or kind == "bpe":
        coverage = given.coverage or 0.9995
        return train_pieces(texts, given.vocabulary, special, kind, coverage, given.byte_fallback)
    sample = list(texts)
    if not sample:
        raise DataError("there is no text to train on", "check the files, or raise --characters")
    if kind == "byte-bpe":
        core = byte_level(sample, given.vocabulary, special)
    else:
        alphabet = _alphabet(sample, given.coverage or 0.9995)
        _check_room(alphabet, given.vocabulary - len(special))
        core = word_piece(sample, given.vocabulary, special, alphabet)
    if core.get_vocab_size() < given.vocabulary:
        raise SettingsError(
            f"--vocabulary {given.vocabulary}: the text supports "
            f"{core.get_vocab_size()} at most (what occurs once makes none)",
            "give more text, or a smaller --vocabulary",
        )
    return core


def _alphabet(texts: Sequence[str], coverage: float) -> list[str]:
    """Return the fewest characters that make up a share of the text, sorted."""
    from tokenizers import normalizers

    compose = normalizers.NFC()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(compose.normalize_str(text))
    visible = {one: n for one, n in counts.items() if one.isprintable() and not one.isspace()}
    return sorted(_most_frequent(visible, coverage * sum(visible.values())))


def _most_frequent(counts: Mapping[str, int], enough: float) -> Iterator[str]:
    covered = 0
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if covered >= enough:
            return
        covered += count
        yield character


def _check_room(alphabet: Sequence[str], room: int) -> None:
    needed = len(alphabet) + sum(map(inside_words, alphabet))
    if needed > room:
        raise SettingsError(
            f"--vocabulary: room for {room} pieces, and the characters alone need {needed}",
            "give a larger --vocabulary, or a smaller --coverage such as 0.995",
        )

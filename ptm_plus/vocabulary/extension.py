"""A vocabulary with more entries, and a model with rows for them; no old id moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ptm_plus.errors import DataError, SettingsError, listed
from ptm_plus.files import open_lines
from ptm_plus.hub import as_path
from ptm_plus.prepare.tokenization import backend, load_tokenizer
from ptm_plus.progress import Watch
from ptm_plus.settings import ModelSettings
from ptm_plus.vocabulary.corpus import Corpus, plan_draws
from ptm_plus.vocabulary.folders import check_new, new_folder, write_tokenizer
from ptm_plus.vocabulary.gain import new_characters, new_pieces, new_words
from ptm_plus.vocabulary.models import NewPiece, VocabularyModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Start = Literal["mean", "overlap"]
WordCounts = Mapping[str, Mapping[str, int]]

_LONGEST = 40
"""Characters of a new entry beyond which no overlap with an old one is looked for."""


@dataclass(frozen=True, kw_only=True)
class Extension:
    """What is added to what.

    Attributes:
        source: folder or hub name of a model, or folder of a tokenizer alone.
        text: as after ``--text``; pieces are chosen by what they save on it.
        words: file of words, one a line, each of which becomes one piece.
        pieces: largest number of entries chosen by the text, characters among them.
        at_least: how often a piece must occur in the text.
        characters: how much of the text is looked at.
        start: whether new rows start as the mean of the old pieces or as the longest old entry
            inside the new one.
        tokenizer_only: leave a model beside the tokenizer alone.
        seed: of the draw of text.
    """

    source: str
    text: tuple[str, ...] = ()
    words: Path | None = None
    pieces: int = 1_000
    at_least: int = 5
    characters: int = 10_000_000
    start: Start = "mean"
    tokenizer_only: bool = False
    seed: int = 0


def extend(given: Extension, target: Path, watch: Watch) -> dict[str, Any]:
    """Write an extended tokenizer, and the model with it if there is one.

    Args:
        given: what is added to what.
        target: folder to write; must not exist, or be empty.
        watch: where progress goes.

    Returns:
        What was added, tokens before and after by language, and the model's rows.

    Raises:
        SettingsError: nothing is to be added, or the tokenizer cannot be extended.
        DataError: the text or the words cannot be read, or nothing in them is worth an entry.
        EnvironmentProblem: the tokenizer cannot be loaded, or the folder not be written.
    """
    if not given.text and given.words is None:
        raise SettingsError("nothing to add", "give --text FILE, --words FILE, or both")
    check_new(target)
    tokenizer = load_tokenizer(given.source)
    old = VocabularyModel(backend(tokenizer))
    words = [] if given.words is None else _read_words(given.words)
    counts = _count_words(old, given, watch) if given.text else {}
    with watch.task("choose pieces"):
        new, pieces, refused = _chosen(old, words, counts, given)
    if not pieces:
        raise DataError(
            f"nothing to add: every word is one piece already, or too rare ({given.at_least} times "
            "are needed)",
            "give more text or other words, or a lower --at-least",
        )
    figures = _figures(old, new, pieces, counts, words, refused)
    starts = _starts(old, new, pieces, given.start)
    with new_folder(target) as draft, watch.task("write"):
        rows = None if given.tokenizer_only else _write_model(given.source, starts, draft)
        write_tokenizer(tokenizer, new.core, draft)
        _check_old(tokenizer, str(draft))
    return {"output": str(target), **figures, "model": rows}


def _read_words(path: Path) -> list[str]:
    words = {line.strip(): None for _, line in open_lines(path) if line.strip()}
    if not words:
        raise DataError("holds no words", "write one word a line", path=path)
    return list(words)


def _count_words(old: VocabularyModel, given: Extension, watch: Watch) -> WordCounts:
    corpus = Corpus(given.text)
    with watch.task("count the text"):
        found = corpus.count()
    counts: dict[str, Counter[str]] = {}
    with watch.task("split the text"):
        for language, text in corpus.draw(
            plan_draws(found, 1.0, "characters", given.characters), given.seed
        ):
            counts.setdefault(language, Counter()).update(old.words(text))
    return dict(sorted(counts.items()))


def _chosen(
    old: VocabularyModel, words: Sequence[str], counts: WordCounts, given: Extension
) -> tuple[VocabularyModel, list[NewPiece], list[str]]:
    """Return the extended model, what was added in the order of ids, and the words refused."""
    total: Counter[str] = Counter()
    for one in counts.values():
        total.update(one)
    asked = Counter(part for word in words for part in old.words(f"a {word}")[1:])
    letters = new_characters(old, asked, sum(map(len, asked)), 1)
    model = old.with_pieces(letters)
    whole, refused = new_words(model, words)
    model = model.with_pieces(whole)
    characters = new_characters(model, total, given.pieces, given.at_least)
    model = model.with_pieces(characters)
    joined = new_pieces(model, total, given.pieces - len(characters), given.at_least)
    return model.with_pieces(joined), [*letters, *whole, *characters, *joined], refused


def _figures(
    old: VocabularyModel,
    new: VocabularyModel,
    pieces: Sequence[NewPiece],
    counts: WordCounts,
    words: Sequence[str],
    refused: Sequence[str],
) -> dict[str, Any]:
    single = sum(1 for one in pieces if not one.old)
    return {
        "vocabulary_before": len(old.entries),
        "vocabulary": len(new.entries),
        "added": len(pieces),
        "characters": single,
        "words_asked": len(words),
        "words_refused": list(refused),
        "languages": {
            language: _compared(old, new, pieces, found) for language, found in counts.items()
        },
        "pieces": [
            {"id": new.entries[one.text], "text": one.text, "saved": one.saved} for one in pieces
        ],
    }


def _compared(
    old: VocabularyModel,
    new: VocabularyModel,
    pieces: Sequence[NewPiece],
    words: Mapping[str, int],
) -> dict[str, int]:
    """Count tokens before and after, and the words that are split in another way than by joining.

    Words with an unknown or a byte before are not among the latter: a new character mends them.
    """
    spelt = {one.text: one.old for one in pieces if one.old}
    found = Counter(dict.fromkeys(("words", "tokens_before", "tokens", "split_anew"), 0))
    found.update(dict.fromkeys(("unknown_before", "unknown"), 0))
    unknown = old.unknown
    for word, count in words.items():
        before, after = old.split(word), new.split(word)
        found["words"] += count
        found["tokens_before"] += count * len(before)
        found["tokens"] += count * len(after)
        found["unknown_before"] += count * before.count(unknown)
        found["unknown"] += count * after.count(unknown)
        if not old.closed & set(before) and spelled(after, spelt) != before:
            found["split_anew"] += count
    return dict(found)


def spelled(split: Sequence[str], spelt: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return a split in old entries: each new entry replaced by those that spell it."""
    made: list[str] = []
    for entry in split:
        made += spelled(spelt[entry], spelt) if entry in spelt else [entry]
    return made


# ---------------------------------------------------------------------------------------------
# Rows


def _starts(
    old: VocabularyModel, new: VocabularyModel, pieces: Sequence[NewPiece], start: Start
) -> dict[int, list[int]]:
    """Return for every new id the ids that its row starts from; for some, none."""
    spelt = {one.text: one.old for one in pieces if one.old}
    surfaces = _surfaces(old) if start == "overlap" else {}
    starts = {}
    for one in pieces:
        near = _longest_inside(old.surface(one.text), surfaces)
        names = [near] if near else spelled(one.old, spelt) or old.byte_entries(one.text)
        starts[new.entries[one.text]] = [new.entries[name] for name in names]
    return starts


def _surfaces(old: VocabularyModel) -> dict[str, str]:
    """Return the old entries by what they stand for; of several, the one with the smallest id."""
    known: dict[str, str] = {}
    for entry, _ in sorted(old.entries.items(), key=lambda item: item[1]):
        if entry not in old.closed and old.surface(entry):
            known.setdefault(old.surface(entry), entry)
    return known


def _longest_inside(surface: str, known: Mapping[str, str]) -> str:
    """Return the longest known entry inside a text, of several the first; empty without any."""
    if not known:
        return ""
    for length in range(min(len(surface), _LONGEST), 1, -1):
        for first in range(len(surface) - length + 1):
            if entry := known.get(surface[first : first + length]):
                return entry
    return ""


def _write_model(
    source: str, starts: Mapping[int, Sequence[int]], draft: Path
) -> dict[str, Any] | None:
    """Write the model of a folder or hub name with rows for new ids; ``None`` without a model."""
    path = as_path(source)
    if path is not None and not (path / "config.json").is_file():
        return None
    from ptm_plus.pretrained import load_config, load_model, without_bars
    from ptm_plus.vocabulary.embeddings import grow

    settings = ModelSettings(path=source)
    with without_bars():
        model = load_model(settings, load_config(settings))
        rows = grow(model, starts)
        model.set_attn_implementation("sdpa")
        model.save_pretrained(draft)
    if path is None:
        return rows
    before, after = (_weights(folder, f"{model.base_model_prefix}.") for folder in (path, draft))
    return {**rows, "left_out": sorted(before - after), "drawn_anew": sorted(after - before)}


def _weights(folder: Path, prefix: str) -> set[str]:
    """Return the names of a folder's weights, with or without a head on top named alike.

    Copies of others, which some files hold, are left out.
    """
    from safetensors import safe_open

    names: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            names |= {name.removeprefix(prefix) for name in weights.keys()}  # noqa: SIM118
    return {name for name in names if not name.endswith(_COPIES)}


_COPIES = ("decoder.weight", "decoder.bias", "embeddings.position_ids")


def _check_old(tokenizer: PreTrainedTokenizerFast, folder: str) -> None:
    """Check that every old entry still has its id, as plain transformers reads the folder."""
    read = load_tokenizer(folder).get_vocab()
    moved = [token for token, number in tokenizer.get_vocab().items() if read[token] != number]
    if moved:
        raise SettingsError(f"the tokenizer cannot be extended: the ids of {listed(moved)} moved")

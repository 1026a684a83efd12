"""The model of a fast tokenizer as data: what its entries are, and how more are appended.

An appended entry gets the next free id; no old id moves. What else holds depends on the model:

- BPE: a new entry comes with its merge, ranked after all old ones. A text is first split as before,
  then pieces are joined: every new piece is a row of old ones.
- Unigram: the score of a new entry is the sum of those of the old pieces that spell it, and a hair
  more for each piece that it saves. The best split is the best old one with the most pieces joined.
- WordPiece takes the longest entry from the left, so a word that holds a new entry may be split
  anew behind it. A word that holds none is split as before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ptm_plus.errors import SettingsError, shown
from ptm_plus.prepare.tokenization import special_ids, unknown_id
from ptm_plus.vocabulary.sentencepieces import NEVER, SPACE

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_HAIR = 1e-6


@dataclass(frozen=True)
class NewPiece:
    """An entry to be appended.

    Attributes:
        text: as the vocabulary writes it (``▁haus``, ``##haus``).
        old: the old entries, or new characters, that spell it; empty for a new character.
        merge: the two entries that BPE joins; empty for other models and for characters.
        saved: tokens that it saves on the text; 0 for a character, which is there to be known.
    """

    text: str
    old: tuple[str, ...] = ()
    merge: tuple[str, ...] = ()
    saved: int = 0


class VocabularyModel:
    """A fast tokenizer's model.

    Args:
        core: the tokenizer.

    Raises:
        SettingsError: the model is none of BPE, WordPiece and Unigram, or marks the ends of words.
    """

    def __init__(self, core: Tokenizer) -> None:
        self.core = core
        self.content: dict[str, Any] = json.loads(core.to_str())
        self.kind = str(self.content["model"]["type"])
        self.prefix = ""
        if self.kind == "WordPiece":
            self.prefix = self.content["model"]["continuing_subword_prefix"]
        marks = ("continuing_subword_prefix", "end_of_word_suffix")
        marked = self.kind == "BPE" and any(self.content["model"].get(mark) for mark in marks)
        if marked or self.kind not in ("BPE", "WordPiece", "Unigram"):
            kind = "BPE with marks inside words" if marked else self.kind
            raise SettingsError(
                f"a tokenizer with the model {kind} cannot be extended",
                "BPE, WordPiece and Unigram can",
            )

    @cached_property
    def entries(self) -> dict[str, int]:
        """Every entry with its id, added tokens among them."""
        return dict(self.core.get_vocab(with_added_tokens=True))

    @cached_property
    def _names(self) -> dict[int, str]:
        return {number: entry for entry, number in self.entries.items()}

    @cached_property
    def next_id(self) -> int:
        """The first id behind all others."""
        return 1 + max(self.entries.values())

    @cached_property
    def bytewise(self) -> bool:
        """Whether entries are written in byte-level BPE's alphabet."""
        parts = [self.content["pre_tokenizer"] or {}, self.content["decoder"] or {}]
        parts += [one for part in parts for one in part.get("pretokenizers", ())]
        return any(part.get("type") == "ByteLevel" for part in parts)

    @cached_property
    def closed(self) -> frozenset[str]:
        """Entries that nothing may be joined with: special tokens, the unknown, single bytes."""
        numbers = {unknown_id(self.core), *special_ids(self.core)}
        named = {token for number, token in self._names.items() if number in numbers}
        if self.content["model"].get("byte_fallback"):
            named |= {token for token in self.entries if _BYTE.fullmatch(token)}
        return frozenset(named)

    @cached_property
    def unknown(self) -> str:
        """The entry of what has none; empty in a byte-level model."""
        return self._names.get(unknown_id(self.core), "")

    def byte_entries(self, text: str) -> list[str]:
        """Return the single bytes by which the model spells an unknown text, if it does."""
        named = [f"<0x{byte:02X}>" for byte in text.encode()]
        return named if set(named) <= self.closed else []

    def words(self, text: str) -> list[str]:
        """Return the parts of a text that are split independently of each other."""
        core = self.core
        normal = text if core.normalizer is None else core.normalizer.normalize_str(text)
        if core.pre_tokenizer is None:
            return [normal] if normal else []
        return [word for word, _ in core.pre_tokenizer.pre_tokenize_str(normal)]

    def split(self, word: str) -> list[str]:
        """Return the entries that one of :meth:`words` is split into."""
        # Not the token's value: that of a Unigram's unknown is the text itself.
        return [self._names[token.id] for token in self.core.model.tokenize(word)] if word else []

    def joined(self, left: str, right: str) -> str:
        """Return the entry that two neighbours would make, empty where they must stay apart."""
        if left in self.closed or right in self.closed:
            return ""
        bare = right.removeprefix(self.prefix)
        if not bare or not (self.bytewise or (_wordlike(left[-1], True) and _wordlike(bare[0]))):
            return ""
        return left + bare

    def characters(self, word: str) -> list[str]:
        """Return the entries that a word's single characters need."""
        return [character if not i else self.prefix + character for i, character in enumerate(word)]

    def surface(self, entry: str) -> str:
        """Return what an entry stands for, without marks."""
        return entry.removeprefix(self.prefix).lstrip(SPACE + "Ġ")

    def with_pieces(self, pieces: Sequence[NewPiece]) -> VocabularyModel:
        """Return the model with more entries.

        Raises:
            SettingsError: an old entry would get another id.
        """
        from tokenizers import Tokenizer

        if not pieces:
            return self
        content = json.loads(json.dumps(self.content))
        model = content["model"]
        if self.kind == "Unigram":
            self._fill(model["vocab"])
            model["vocab"] += [[one.text, self._score(one)] for one in pieces]
        else:
            # An added token keeps its id on loading only if the model knows the token as well.
            added = {token["content"]: token["id"] for token in content["added_tokens"]}
            new = {one.text: self.next_id + i for i, one in enumerate(pieces)}
            model["vocab"] |= added | new
        if self.kind == "BPE":
            model["merges"] += [
                _as_written(model["merges"], one.merge) for one in pieces if one.merge
            ]
        made = VocabularyModel(Tokenizer.from_str(json.dumps(content, ensure_ascii=False)))
        moved = [token for token, number in self.entries.items() if made.entries[token] != number]
        if moved:
            raise SettingsError(
                f"the tokenizer cannot be extended: the entry {shown(moved[0])} would get the id "
                f"{made.entries[moved[0]]} instead of {self.entries[moved[0]]}",
                "save it again with a newer version of transformers, and try that",
            )
        return made

    @cached_property
    def _scores(self) -> dict[str, float]:
        return {token: float(score) for token, score in self.content["model"]["vocab"]}

    def _score(self, piece: NewPiece) -> float:
        if not piece.old:  # A character competes with nothing.
            return min(score for score in self._scores.values() if score > NEVER)
        return sum(self._scores[one] for one in piece.old) + _HAIR * (len(piece.old) - 1)

    def _fill(self, vocabulary: list[list[Any]]) -> None:
        """Give added tokens behind a Unigram's entries a place among them; texts never use it."""
        for number in range(len(vocabulary), self.next_id):
            vocabulary.append([self._names.get(number, f"<unused{number}>"), NEVER])


def _as_written(merges: Sequence[Any], merge: tuple[str, ...]) -> Any:
    """Write a merge as the file writes them: as two words, or in one text."""
    return " ".join(merge) if merges and isinstance(merges[0], str) else list(merge)


def _wordlike(character: str, first: bool = False) -> bool:
    """Tell whether a character may stand inside a piece: letters, marks, digits; ▁ at its start."""
    import unicodedata

    return unicodedata.category(character)[0] in "LMN" or (first and character == SPACE)

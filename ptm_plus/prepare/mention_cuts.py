"""How many mentions the ends of sequences cut, before anything is prepared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ptm_plus.errors import SettingsError
from ptm_plus.examples import Example, Span
from ptm_plus.knowledge.ledger import MentionCuts
from ptm_plus.prepare.layouts import Piece, split_points, tokens_of_span
from ptm_plus.prepare.tokenization import pieces, template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_AT_ONCE = 256
"""Texts that are tokenised together."""

_FIELD = "text"


class CutCounter:
    """Counts the mentions that do not lie whole in a sequence.

    A text is split as the layout ``text`` splits it for training: at the ends of sentences where it
    can, and not inside spans that came with it. Beside that stands what would be lost if only the
    beginning of the text were kept.

    Args:
        tokenizer: a fast tokenizer.
        max_length: longest sequence in tokens, specials included.

    Raises:
        SettingsError: the special tokens leave no room.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_length: int) -> None:
        marks = template(tokenizer)
        self._tokenizer = tokenizer
        self._room = max_length - len(marks.prefix) - len(marks.suffix)
        if self._room < 1:
            raise SettingsError(
                f"--max-length {max_length} is used up by special tokens", "give a larger one"
            )
        self._waiting: list[tuple[Example, Sequence[Span]]] = []
        self._cuts = MentionCuts(max_length)

    def add(self, example: Example, mentions: Sequence[Span]) -> None:
        """Count the mentions of an example with the field ``text``, free of lone surrogates."""
        if mentions:
            self._waiting.append((example, mentions))
        if len(self._waiting) == _AT_ONCE:
            self._count()

    def total(self) -> MentionCuts:
        """Return what was counted."""
        self._count()
        return self._cuts

    def _count(self) -> None:
        texts = [example.fields[_FIELD] for example, _ in self._waiting]
        found = pieces(self._tokenizer, texts)
        for (example, mentions), piece in zip(self._waiting, found, strict=True):
            self._count_one(example, mentions, piece)
        self._waiting.clear()

    def _count_one(self, example: Example, mentions: Sequence[Span], piece: Piece) -> None:
        cuts = self._cuts
        given = [span for span in example.spans if span.field == _FIELD]
        borders = split_points(piece, example.fields[_FIELD], given, self._room)
        spans = np.array([tokens_of_span(piece, one.start, one.end) for one in mentions])
        first, last = spans.T
        cuts.mentions += len(mentions)
        cuts.without_tokens += int((last <= first).sum())
        inside = np.searchsorted(borders, last) - np.searchsorted(borders, first, side="right")
        cuts.split += int(((inside > 0) & (last > first)).sum())
        cuts.truncated += int(((last > self._room) & (last > first)).sum())

"""Which of a language's texts stand beside which of another's, each text once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

Text = TypeVar("Text", bound=Hashable)


@dataclass(frozen=True)
class Translations(Generic[Text]):
    """Two languages' texts and their pairs.

    Attributes:
        first: texts of the first language, each once.
        second: those of the second.
        pairs: ``[2, e]`` places in ``first``, in order, and in ``second``; each pair once.
    """

    first: list[Text]
    second: list[Text]
    pairs: Tensor

    @property
    def turned(self) -> Tensor:
        """The pairs from the second language's side, in its order."""
        return turned(self.pairs)

    @property
    def chance(self) -> float:
        """Share of texts that find a translation by drawing from the other language."""
        return self.pairs.shape[1] / (len(self.first) * len(self.second))


def turned(pairs: Tensor) -> Tensor:
    """Return ``[2, e]`` pairs with their sides exchanged, in order of the new first."""
    return pairs.flip(0)[:, pairs[1].argsort(stable=True)]


def translations(rows: Iterable[tuple[Text, Text]]) -> Translations[Text]:
    """Return the texts and pairs of rows; what occurs more than once stands there once."""
    first: dict[Text, int] = {}
    second: dict[Text, int] = {}
    pairs = {
        (first.setdefault(one, len(first)), second.setdefault(two, len(second)))
        for one, two in rows
    }
    return Translations(list(first), list(second), torch.tensor(sorted(pairs)).reshape(-1, 2).T)

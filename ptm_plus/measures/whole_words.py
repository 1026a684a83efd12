"""How well whole words are predicted: what compares models of different tokenizers.

A word that a tokenizer splits is easy to complete from the pieces that are left, so a loss per
token favours fine tokenizers. Here whole words are masked, the same ones whatever the tokenizer,
and each piece of a word is predicted from the pieces before it, those behind it masked as well
(``PLL-word-l2r``, Kauf and Ivanova 2023, section 3). The losses of its pieces are the word's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ptm_plus.keyed import derive_key, uniform
from ptm_plus.measures.plain_model import Encoded, PlainModel
from ptm_plus.prepare.word_units import character_words
from ptm_plus.progress import Watch

RATE = 0.15
"""Share of the words that are asked for; at least one of a text."""

Places = list[int]
"""Places of the tokens of a word."""


def whole_words(
    model: PlainModel,
    texts: Sequence[str],
    encoded: Encoded,
    seed: int,
    language: str,
    watch: Watch,
) -> dict[str, Any]:
    """Return how many words were asked for, and their loss in bits per character.

    Args:
        model: the model.
        texts: the texts.
        encoded: the same as tokens.
        seed: of the choice of words.
        language: whose texts these are.
        watch: where progress goes.
    """
    chosen = [
        list(chosen_words(text, spans, derive_key(seed, "words", language), number))
        for number, (text, spans) in enumerate(zip(texts, encoded.spans, strict=True))
    ]
    words = [[places for places, _ in of_text] for of_text in chosen]
    characters = sum(size for of_text in chosen for _, size in of_text)
    longest = max((len(places) for of_text in words for places in of_text), default=0)
    total = 0.0
    for piece in range(longest):
        asked = [[one[piece] for one in of_text if len(one) > piece] for of_text in words]
        hidden = [
            [place for one in of_text for place in (one[piece:] if len(one) > piece else one)]
            for of_text in words
        ]
        losses, _ = model.masked_losses(encoded, asked, watch, hidden)
        total += sum(float(one.double().sum()) for one in losses)
    return {
        "words": sum(map(len, words)),
        "bits_per_character": total / math.log(2) / characters if characters else math.nan,
    }


def chosen_words(
    text: str, spans: Sequence[tuple[int, int]], key: int, number: int
) -> Iterator[tuple[Places, int]]:
    """Yield the words of a text that are asked for: their tokens' places, and their length.

    Which they are depends on the text and its number, and not on its tokens. A token that two of
    them share is the first one's; a word beyond what the model reads is left out.

    Args:
        text: the text.
        spans: per token, the characters that it stands for; none for special tokens.
        key: of the draw.
        number: of the text.
    """
    words = character_words(text)
    count = int(words.max(initial=-1)) + 1
    if not count:
        return
    wanted = max(1, round(RATE * count))
    order = np.argsort(uniform(key, number, np.arange(count)), kind="stable")
    chosen = set(order[:wanted].tolist())
    places: dict[int, Places] = {}
    for place, (start, end) in enumerate(spans):
        inside = next((int(w) for w in words[start:end] if int(w) in chosen), None)
        if inside is not None:
            places.setdefault(inside, []).append(place)
    read = max((end for _, end in spans), default=0)
    whole = np.bincount(words[words >= 0])
    seen = np.bincount(words[:read][words[:read] >= 0], minlength=count)
    for word in sorted(places):
        if seen[word] == whole[word]:
            yield places[word], int(whole[word])

"""How well masked tokens are predicted, by language, and by language pair with and without help.

Masks are frozen: which tokens of a text are asked for depends on the seed, the text's number and
nothing else, so that two models with one tokenizer are asked the same. Each is replaced by the mask
token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ptm_plus.components import Refused
from ptm_plus.keyed import derive_key, uniform
from ptm_plus.measures.plain_model import Encoded, PlainModel
from ptm_plus.measures.sentences import Pairs
from ptm_plus.measures.whole_words import whole_words
from ptm_plus.probes import paired
from ptm_plus.progress import Watch
from ptm_plus.sources import parse_source, read_text

RATE = 0.15
"""Share of the tokens that are asked for; at least one of a text."""


def read_languages(
    sources: Sequence[str], limit: int
) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Return the first lines of text by language, and how many rows were refused, by reason.

    Args:
        sources: what ``--text`` takes.
        limit: most lines of a language; 0 for all.
    """
    found: dict[str, list[str]] = {}
    refused: dict[str, int] = {}
    for source in sources:
        for one in read_text(parse_source(source)):
            if isinstance(one, Refused):
                refused[one.reason] = refused.get(one.reason, 0) + 1
                continue
            texts = found.setdefault(one.languages["text"], [])
            lines = (line.strip() for line in one.fields["text"].splitlines())
            for line in lines:
                if line and (not limit or len(texts) < limit):
                    texts.append(line)
    return found, refused


def of_languages(
    model: PlainModel, texts: Mapping[str, Sequence[str]], seed: int, watch: Watch
) -> dict[str, dict[str, Any]]:
    """Return the figures of each language's lines.

    ``bits_per_character`` is the loss of whole words, see :mod:`~ptm_plus.measures.whole_words`.
    """
    found = {}
    for language, lines in texts.items():
        encoded = model.encode(lines)
        losses, right = model.masked_losses(encoded, list(masked(encoded, seed, language)), watch)
        inner = [token for number in range(len(lines)) for token in _inner(encoded, number)]
        figures = _figures(losses, right)
        found[language] = {
            "texts": len(lines),
            "cut": sum(encoded.cut),
            "tokens": len(inner),
            "unknown": inner.count(model.tokenizer.unk_token_id),
            **figures,
            **whole_words(model, lines, encoded, seed, language, watch),
        }
    return found


def of_pairs(model: PlainModel, pairs: Pairs, seed: int, watch: Watch) -> dict[str, dict[str, Any]]:
    """Return, by language pair, the loss with the translation in sight, alone, and the rise.

    The same tokens are asked for twice: in the pair, as the tokenizer's own template joins its
    halves, and in each half alone. Pairs that are too long to be read whole are left out.
    """
    found = {}
    for languages, rows in pairs.items():
        halves = [model.encode(list(half)) for half in zip(*rows, strict=True)]
        together = model.encode([one for one, _ in rows], [two for _, two in rows])
        whole = [n for n in range(len(rows)) if _fits(n, together, *halves)]
        asked = [list(masked(half, seed, languages, f"half {n}")) for n, half in enumerate(halves)]
        alone = [
            model.masked_losses(half, places, watch)[0]
            for half, places in zip(halves, asked, strict=True)
        ]
        places: list[list[int]] = [[] for _ in rows]
        for n in whole:
            places[n] = _in_pair(n, together, halves, asked)
        losses, right = model.masked_losses(together, places, watch)
        unaided = [torch.cat([half[n] for half in alone]) for n in whole]
        aided = [losses[n] for n in whole]
        found[languages] = {
            "pairs": len(whole),
            "left_out": len(rows) - len(whole),
            **_figures(aided, [right[n] for n in whole]),
            "loss_alone": _figures(unaided, [])["loss"],
            "rise": asdict(
                paired([np.full(len(one), n) for n, one in enumerate(aided)], aided, unaided)
            ),
        }
    return found


def masked(encoded: Encoded, seed: int, *names: str) -> Iterator[list[int]]:
    """Yield, per text, the places of the tokens that are asked for.

    Args:
        encoded: the texts.
        seed: of the draw.
        names: whose texts these are.
    """
    key = derive_key(seed, "perplexity", *names)
    for number, special in enumerate(encoded.special):
        places = np.flatnonzero(~np.array(special, dtype=bool))
        draws = uniform(key, number, places)
        count = min(len(places), max(1, round(RATE * len(places))))
        yield sorted(places[np.argsort(draws, kind="stable")[:count]].tolist())


def _figures(losses: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> dict[str, Any]:
    """Return the figures of predicted tokens, text by text; NaN where there are none."""
    none = torch.zeros(0, dtype=torch.float64)
    each = torch.cat([none, *losses])
    loss = float(each.mean())
    return {
        "predicted": len(each),
        "loss": loss,
        "perplexity": math.exp(min(loss, 700)),
        "accuracy": float(torch.cat([none, *right]).mean()),
    }


def _fits(number: int, together: Encoded, *halves: Encoded) -> bool:
    """Whether a pair holds all tokens of both halves as they are alone."""
    inner = _inner(together, number)
    return inner == [token for half in halves for token in _inner(half, number)]


def _inner(encoded: Encoded, number: int) -> list[int]:
    rows = zip(encoded.ids[number], encoded.special[number], strict=True)
    return [token for token, special in rows if not special]


def _in_pair(
    number: int,
    together: Encoded,
    halves: Sequence[Encoded],
    asked: Sequence[Sequence[Sequence[int]]],
) -> list[int]:
    """Return the places in a pair of the tokens that are asked for in its halves alone."""
    inner = [np.flatnonzero(~np.array(one.special[number], dtype=bool)) for one in halves]
    first, second = (
        np.searchsorted(own, places[number]) for own, places in zip(inner, asked, strict=True)
    )
    ranks = np.concatenate([first, len(inner[0]) + second])
    there = np.flatnonzero(~np.array(together.special[number], dtype=bool))
    return [int(place) for place in there[ranks]]

"""From text to token ids with character offsets and word units, with any fast tokenizer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptm_plus.errors import EnvironmentProblem, SettingsError
from ptm_plus.hub import NEEDS_CODE, needs_code, pretrained
from ptm_plus.prepare.layouts import Piece, Template
from ptm_plus.prepare.tokenizer_training import train_tokenizer
from ptm_plus.prepare.word_units import Characters

__all__ = [
    "backend",
    "fingerprint",
    "literal",
    "load_tokenizer",
    "ordinary_ids",
    "pieces",
    "special_ids",
    "template",
    "train_tokenizer",
    "unknown_id",
]

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

# [unused7], [CLS], madeupword0001, and whatever stands in angle brackets: <extra_id_0>, <0x0A>.
_RESERVED = re.compile(r"\[unused\d+\]|\[[A-Z]{2,}\d*\]|madeupword\d+|<[^<>\s]+>")
# What decides on the ids of a text; the rest of a tokenizer file does not.
_TEXT_TO_IDS = ("normalizer", "pre_tokenizer", "model", "post_processor")


def load_tokenizer(path: str, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """Load a tokenizer from a folder or by its hub name.

    Raises:
        SettingsError: it is a path where nothing lies.
        EnvironmentProblem: it cannot be loaded, or it is not a fast tokenizer (offsets are needed
            to find mentions among the tokens).
    """
    from transformers import AutoTokenizer

    name, where = pretrained(path, "tokenizer", trust_remote_code)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **where)
    except MemoryError:
        raise
    except Exception as error:  # a broken tokenizer.json raises nothing more special
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        hint = "give a folder with tokenizer.json, or a hub name that this machine can reach"
        if needs_code(error):
            reason, hint = NEEDS_CODE
        raise EnvironmentProblem(
            f"the tokenizer {path!r} cannot be loaded: {reason}", hint
        ) from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        # A folder with a model but no tokenizer gives an empty one, without a word.
        raise EnvironmentProblem(
            f"there is no tokenizer in {path!r}", "copy tokenizer.json and its companions there"
        )
    if not tokenizer.is_fast:
        raise EnvironmentProblem(
            f"the tokenizer {path!r} is a slow one ({type(tokenizer).__name__}), without offsets",
            "convert it once to a folder with tokenizer.json",
        )
    return tokenizer


def backend(tokenizer: PreTrainedTokenizerFast | Tokenizer) -> Tokenizer:
    """Return the ``tokenizers.Tokenizer`` inside a fast tokenizer (or the object itself)."""
    return getattr(tokenizer, "backend_tokenizer", tokenizer)


def pieces(tokenizer: PreTrainedTokenizerFast | Tokenizer, texts: Sequence[str]) -> list[Piece]:
    """Tokenise texts, without special tokens, truncation or padding.

    Text is taken literally: ``[MASK]`` or ``</s>`` in a corpus never becomes the special token, so
    the result does not depend on control tokens that were added later. Unknown tokens are part of
    the piece, with word number -1.

    Args:
        tokenizer: a fast tokenizer, or its backend.
        texts: the texts, free of lone surrogates.
    """
    core = backend(tokenizer)
    with literal(core):
        encodings = core.encode_batch(list(texts), add_special_tokens=False)
    counts = [len(encoding) for encoding in encodings]
    total = sum(counts)
    ids = _gather((encoding.ids for encoding in encodings), total)
    pairs = chain.from_iterable(encoding.offsets for encoding in encodings)
    offsets = _gather(pairs, 2 * total).reshape(-1, 2)
    words = _gather((_word_ids(encoding.word_ids) for encoding in encodings), total)

    characters = Characters(texts)
    text = np.repeat(np.arange(len(texts)), counts)
    base = characters.starts[text]
    start, end = offsets[:, 0] + base, offsets[:, 1] + base
    characters.trim(start, end)
    units = characters.units(text, start, end, words)
    first = np.cumsum([0, *counts])[:-1]
    units -= np.append(units, 0)[first][text]
    _hide_specials(core, ids, units)
    cuts = first[1:]
    columns = (np.split(column, cuts) for column in (ids, start - base, end - base, units))
    return [Piece(*parts) for parts in zip(*columns, strict=True)] if counts else []


def template(tokenizer: PreTrainedTokenizerFast) -> Template:
    """Return the special tokens that the tokenizer's own post-processor puts around text.

    Raises:
        SettingsError: the tokenizer lacks a mask, padding, start or separator token.
    """
    named = {
        "mask": tokenizer.mask_token_id,
        "pad": tokenizer.pad_token_id,
        "cls": _first(tokenizer.cls_token_id, tokenizer.bos_token_id),
        "sep": _first(tokenizer.sep_token_id, tokenizer.eos_token_id),
    }
    missing = [name for name, value in named.items() if value is None]
    if missing:
        raise SettingsError(
            f"the tokenizer has no {' and no '.join(missing)} token",
            "take the tokenizer of a masked language model",
        )
    core = backend(tokenizer)
    with literal(core):
        one, two = core.encode("a"), core.encode("a", "a")
    prefix, _, suffix = _runs(one, (0,))
    pair_prefix, _, middle, _, pair_suffix = _runs(two, (0, 1))
    two_types = "token_type_ids" in tokenizer.model_input_names and max(two.type_ids) > 0
    return Template(
        prefix=_ids(prefix),
        suffix=_ids(suffix),
        pair_prefix=_ids(pair_prefix),
        middle=_ids(middle),
        pair_suffix=_ids(pair_suffix),
        types=_pair_types(two) if two_types else (0, 0, 0, 0, 0),
        two_types=two_types,
        **{name: int(value) for name, value in named.items() if value is not None},
    )


def fingerprint(tokenizer: PreTrainedTokenizerFast | Tokenizer) -> str:
    """Return a hash of everything that decides which ids a text becomes.

    Special tokens that were added (control tokens) do not change it, ordinary added words do.
    """
    content = json.loads(backend(tokenizer).to_str())
    kept = {name: content.get(name) for name in _TEXT_TO_IDS}
    kept["words"] = [token for token in content["added_tokens"] if not token["special"]]
    text = json.dumps(kept, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def ordinary_ids(tokenizer: PreTrainedTokenizerFast) -> NDArray[np.int64]:
    """Return the ids that a random replacement may draw, in order.

    Left out are special and control tokens, reserved ones such as ``[unused7]``, sentinels and
    single bytes written ``<…>``, and added tokens.
    """
    forbidden = set(tokenizer.all_special_ids) | set(special_ids(tokenizer))
    return np.array(
        sorted(
            number
            for token, number in tokenizer.get_vocab().items()
            if number not in forbidden and not _RESERVED.fullmatch(token)
        ),
        np.int64,
    )


def special_ids(tokenizer: PreTrainedTokenizerFast | Tokenizer) -> list[int]:
    """Return the ids of special tokens, control tokens among them, in order."""
    added = backend(tokenizer).get_added_tokens_decoder()
    return sorted(number for number, token in added.items() if token.special)


def unknown_id(tokenizer: PreTrainedTokenizerFast | Tokenizer) -> int:
    """Return the id of the model's unknown token, or -1 (a byte-level model has none)."""
    core = backend(tokenizer)
    token = getattr(core.model, "unk_token", None)
    if token is not None:
        return _first(core.token_to_id(token), -1)
    if type(core.model).__name__ != "Unigram":
        return -1
    # A Unigram model does not tell; a character that nobody uses shows it.
    shown = core.model.tokenize("\U0010fffd")
    return int(shown[0].id) if len(shown) == 1 else -1


@contextmanager
def literal(core: Tokenizer) -> Iterator[None]:
    """Take special tokens in text as plain text, and neither truncate nor pad, for a while."""
    special, truncation, padding = core.encode_special_tokens, core.truncation, core.padding
    core.encode_special_tokens = True
    core.no_truncation()
    core.no_padding()
    try:
        yield
    finally:
        core.encode_special_tokens = special
        if truncation is not None:
            core.enable_truncation(**truncation)
        if padding is not None:
            core.enable_padding(**padding)


def _hide_specials(core: Tokenizer, ids: NDArray[np.int64], units: NDArray[np.int64]) -> None:
    """Make special tokens that a model found in the text unknown, and never masked, in place.

    A Unigram vocabulary holds ``</s>`` as a word like any other and finds it in literal text.
    """
    unknown = unknown_id(core)
    special = np.flatnonzero(np.isin(ids, [*special_ids(core), unknown]))
    if unknown >= 0:
        ids[special] = unknown
    units[special] = -1


def _word_ids(words: list[int | None]) -> list[int]:
    return [-1 if word is None else word for word in words]


def _gather(parts: Iterable[Iterable[int]], size: int) -> NDArray[np.int64]:
    return np.fromiter(chain.from_iterable(parts), np.int64, count=size)


def _first(*values: int | None) -> Any:
    return next((value for value in values if value is not None), None)


def _ids(run: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    return tuple(number for number, _ in run)


def _runs(encoding: Any, fields: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Split (id, type) of an encoding into what lies before, in, between and after the fields."""
    tokens = list(zip(encoding.ids, encoding.type_ids, strict=True))
    borders = [0]
    for number in fields:
        inside = [i for i, field in enumerate(encoding.sequence_ids) if field == number]
        borders += [inside[0], inside[-1] + 1]
    return [tokens[first:last] for first, last in pairwise([*borders, len(tokens)])]


def _pair_types(encoding: Any) -> tuple[int, int, int, int, int]:
    """Return the types of the five runs; an empty run takes that of its neighbour."""
    types, last = [], 0
    for run in _runs(encoding, (0, 1)):
        last = run[0][1] if run else last
        types.append(last)
    return types[0], types[1], types[2], types[3], types[4]

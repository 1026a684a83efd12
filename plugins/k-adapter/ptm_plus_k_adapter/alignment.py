"""Where the words of a sentence stand in its text, also where one token holds several of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

Place = tuple[int, int, int, int]
"""First word and last word (from 0), first character and one past the last one."""

MOST_WORDS, MOST_CHARACTERS = 4, 40
"""Of one token that holds several words."""

STEPS = 200
"""Ways to read that are tried, for each word."""


def align(forms: Sequence[str], text: str) -> list[Place] | None:
    """Return where the words stand, in order, or ``None`` when they do not make up the text.

    A word stands where it is written. Words that are not written (``de`` ``le``) share what the
    text has between their neighbours (``du``): one run of characters, up to white space or to a
    word that is written, which begins as the first of them or ends as the last. Reading a word as
    it is written is tried first; a sentence that takes long to read is given up.

    Args:
        forms: the words.
        text: the sentence, white space between words or not.
    """
    hopeless: set[tuple[int, int]] = set()
    patience = STEPS * (len(forms) + 1)
    path: list[Place] = []
    open_: list[Iterator[Place]] = [_next(forms, text, 0, _solid(text, 0))]
    while open_:
        place = next(open_[-1], None)
        if place is None:
            open_.pop()
            if path:
                _, last, _, end = path.pop()
                hopeless.add((last + 1, end))
            continue
        patience -= 1
        if not patience:
            return None
        _, last, _, end = place
        if (last + 1, end) in hopeless:
            continue
        path.append(place)
        at = _solid(text, end)
        if last + 1 == len(forms) and at == len(text):
            return path
        open_.append(_next(forms, text, last + 1, at))
    return None


def _next(forms: Sequence[str], text: str, word: int, at: int) -> Iterator[Place]:
    """Yield the ways to read on from a word and a character: as written first."""
    if word >= len(forms) or at >= len(text):
        return
    if text.startswith(forms[word], at):
        yield word, word, at, at + len(forms[word])
    if at and text[at - 1].isalpha() and text[at].isalpha():
        return  # no token begins within another
    run = at
    while run < len(text) and not text[run].isspace() and run - at < MOST_CHARACTERS:
        run += 1
    for last in range(word + 1, min(word + MOST_WORDS, len(forms))):
        after = forms[last + 1] if last + 1 < len(forms) else ""
        for end in range(run, at, -1):
            border = end == run or (after and text.startswith(after, end))
            if border and _like(text[at:end], forms[word], forms[last]):
                yield word, last, at, end


def _like(token: str, first: str, last: str) -> bool:
    """Tell whether a token begins as its first word or ends as its last one, accents aside."""
    return _bare(token)[:1] == _bare(first)[:1] or _bare(token)[-1:] == _bare(last)[-1:]


def _bare(text: str) -> str:
    letters = unicodedata.normalize("NFD", text.casefold())
    return "".join(one for one in letters if not unicodedata.combining(one))


def _solid(text: str, at: int) -> int:
    """Return the first character from here on that is no white space."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at

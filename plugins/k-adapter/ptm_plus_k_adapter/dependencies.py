"""Sentences with the head of every word, and what the model is asked about them.

A word is its place in the sentence, from 1, as in CoNLL-U; what the text has as one token (``du``
for ``de le``) is one word. A word's span carries ``number:head`` as its id, with head 0 for the
root, so that labels belong to words, whatever the tokenizer makes of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptm_plus import DataError, Example, Span, View, json_row, open_lines, shown
from ptm_plus_k_adapter.alignment import Place, align

_Line = tuple[int, list[str]]
"""A line of a file, and its columns."""

WORD = "dependency"
"""Span kind of a word."""

MERGED, JOINED = "merged", "joined"
"""Labels of a sentence: words that are part of another, and whether its text was made of them."""

_NO_WORD = re.compile(r"[0-9]{1,9}-[0-9]{1,9}|[0-9]{1,9}\.[0-9]{1,9}")
"""A token of several words; an empty node."""

_COLUMNS, _DIGITS = 10, 10
_FILES = "CoNLL-U (.conllu) has ten columns separated by tabs, and a blank line behind a sentence"


@dataclass(frozen=True)
class Word:
    """A word of a sentence.

    Attributes:
        number: its place, from 1.
        form: how it is written.
        head: number of its head; 0 for the root.
        glued: whether no space follows it.
    """

    number: int
    form: str
    head: int
    glued: bool = False


@dataclass(frozen=True)
class Token:
    """Several words that the text has as one.

    Attributes:
        first: number of the first word.
        last: number of the last one.
        form: how it is written.
        glued: whether no space follows it.
    """

    first: int
    last: int
    form: str
    glued: bool = False


def read_dependencies(path: str) -> Iterator[Example]:
    """Yield the sentences of a file in CoNLL-U, or of JSON lines with ``tokens`` and ``heads``.

    Raises:
        DataError: a line is something else, or the heads of a sentence are no tree.
    """
    plain = path.removesuffix(".gz").removesuffix(".xz").removesuffix(".bz2")
    yield from _json_sentences(path) if plain.endswith(".jsonl") else _conllu_sentences(path)


def check_tree(words: Sequence[Word], path: str, line: int) -> None:
    """Check that every word leads to the one root.

    Raises:
        DataError: a head is missing or outside, there are several roots or none, or a circle.
    """
    heads = {word.number: word.head for word in words}

    def fault(words: str) -> DataError:
        hint = "every word has one head, one word has head 0, and there is no circle"
        return DataError(words, hint, path=path, line=line)

    for number, head in heads.items():
        if head and head not in heads:
            raise fault(f"the head of word {number} is {head}, which is no word")
    roots = [number for number, head in heads.items() if head == 0]
    if len(roots) != 1:
        raise fault(f"{len(roots)} words are the root: {roots[:5]}")
    sound = {0}
    for number in heads:
        seen: list[int] = []
        while number not in sound:
            if number in seen:
                circle = " → ".join(map(str, [*seen[seen.index(number) :], number]))
                raise fault(f"its heads run in a circle: {circle}")
            seen.append(number)
            number = heads[number]
        sound.update(seen)


def merge(words: Sequence[Word], tokens: Sequence[Token]) -> list[Word]:
    """Return what stands in the text as words: a token of several takes the head that leads out.

    Of several heads that lead out of it, that of the word nearest to the root: it alone leads to
    the root past the others, so that a tree stays one.

    Args:
        words: the words of a sentence, a tree.
        tokens: the tokens that hold several of them, in order, apart from each other.

    Raises:
        ValueError: the words are no tree.
    """
    token_of = {number: token for token in tokens for number in range(token.first, token.last + 1)}
    depth = _depths(words)
    stands_for = {n: token.first for n, token in token_of.items()}
    merged = []
    for word in words:
        token = token_of.get(word.number)
        if token is None:
            merged.append(replace(word, head=stands_for.get(word.head, word.head)))
        elif word.number == token.first:
            inside = [one for one in words if token.first <= one.number <= token.last]
            top = min(inside, key=lambda one: depth[one.number])
            head = stands_for.get(top.head, top.head)
            merged.append(Word(token.first, token.form, head, token.glued))
    return merged


def _depths(words: Sequence[Word]) -> dict[int, int]:
    heads, depth = {word.number: word.head for word in words}, {0: 0}
    for number in heads:
        path = []
        while number not in depth:
            if number in path:
                raise ValueError(f"no tree: word {number} hangs on itself")
            path.append(number)
            number = heads[number]
        for one in reversed(path):
            depth[one] = depth[heads[one]] + 1
    return depth


def to_example(
    words: Sequence[Word], text: str, language: str, name: str, merged: int = 0
) -> Example:
    """Return a sentence with a span on each word.

    Args:
        words: its words, a tree.
        text: its text. Where one token holds several words, they become one; where the words are
            not found at all, they are joined by spaces instead. Both are counted in the labels
            ``merged`` (words that are part of another) and ``joined``.
        language: code of its language.
        name: its name.
        merged: words that were merged before.
    """
    places = align([word.form for word in words], text)
    joined = places is None
    if places is None:
        text, places = _joined(words)
    tokens = [
        Token(words[first].number, words[last].number, text[start:end])
        for first, last, start, end in places
        if last > first
    ]
    found = [
        Span("text", start, end, WORD, f"{word.number}:{word.head}")
        for word, (_, _, start, end) in zip(merge(words, tokens), places, strict=True)
    ]
    labels = {MERGED: merged + len(words) - len(found), JOINED: int(joined)}
    return Example(name, {"text": text}, {"text": language or "und"}, found, labels)


def _joined(words: Sequence[Word]) -> tuple[str, list[Place]]:
    text, places = "", []
    for place, word in enumerate(words):
        places.append((place, place, len(text), len(text) + len(word.form)))
        text += word.form + ("" if word.glued else " ")
    return text.rstrip(" "), places


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < _DIGITS


# ---------------------------------------------------------------------------------------------
# CoNLL-U


def _conllu_sentences(path: str) -> Iterator[Example]:
    rows: list[tuple[int, list[str]]] = []
    comments: dict[str, str] = {}
    number = 0
    for number, line in open_lines(path):
        if line.startswith("#") and not rows:
            key, _, value = line[1:].partition("=")
            comments[key.strip()] = value.strip()
        elif line.strip():
            cells = line.split("\t")
            if len(cells) != _COLUMNS:
                raise DataError(
                    f"{len(cells)} columns instead of ten", _FILES, path=path, line=number
                )
            if not cells[1].strip():
                raise DataError("a word without letters", _FILES, path=path, line=number)
            rows.append((number, cells))
        elif rows:
            yield _sentence(rows, comments, path)
            rows, comments = [], {}
    if rows:
        yield _sentence(rows, comments, path)
    if not number:
        raise DataError("holds no sentence", "an empty file is usually a mistake", path=path)


def _sentence(rows: Sequence[_Line], comments: Mapping[str, str], path: str) -> Example:
    line = rows[0][0]
    words = _words(rows, path)
    check_tree(words, path, line)
    whole = merge(words, _tokens(rows, len(words), path))
    text = comments.get("text") or _joined(whole)[0]
    name = comments.get("sent_id") or f"{path}:{line}"
    language = comments.get("lang", "")
    return to_example(whole, text, language, name, len(words) - len(whole))


def _words(rows: Sequence[_Line], path: str) -> list[Word]:
    words: list[Word] = []
    for line, cells in rows:
        number, head = cells[0], cells[6]
        if _NO_WORD.fullmatch(number):
            continue
        if number != str(len(words) + 1):
            raise DataError(
                f"word {shown(number)} where {len(words) + 1} follows", _FILES, path=path, line=line
            )
        if not _is_number(head):
            raise DataError(
                f"the head of word {number} is {shown(head)}, not a number",
                _FILES,
                path=path,
                line=line,
            )
        words.append(Word(int(number), cells[1], int(head), _is_glued(cells)))
    return words


def _tokens(rows: Sequence[_Line], size: int, path: str) -> list[Token]:
    """Return the tokens of several words of a sentence.

    Raises:
        DataError: one is of no words of the sentence, or of another's.
    """
    tokens: list[Token] = []
    for line, cells in rows:
        first, dash, last = cells[0].partition("-")
        if not dash:
            continue
        after = tokens[-1].last if tokens else 0
        if not after < int(first) < int(last) <= size:
            raise DataError(
                f"{cells[0]} is no range of words {after + 1} to {size}",
                _FILES,
                path=path,
                line=line,
            )
        tokens.append(Token(int(first), int(last), cells[1], _is_glued(cells)))
    return tokens


def _is_glued(cells: Sequence[str]) -> bool:
    return "SpaceAfter=No" in cells[9].split("|")


# ---------------------------------------------------------------------------------------------
# JSON lines


def _json_sentences(path: str) -> Iterator[Example]:
    for number, line in open_lines(path):
        if line.strip():
            yield _json_sentence(json_row(line, path, number), path, number)


def _json_sentence(row: Mapping[str, Any], path: str, number: int) -> Example:
    tokens, heads = row.get("tokens"), row.get("heads")
    hint = 'write {"text": "…", "tokens": ["…"], "heads": [2, 0, …], "lang": "en"}'
    if not isinstance(tokens, list) or not tokens or not all(map(_is_word, tokens)):
        raise DataError("'tokens' is not a list of words", hint, path=path, line=number)
    if not isinstance(heads, list) or len(heads) != len(tokens) or {*map(type, heads)} != {int}:
        words = "'heads' is not one number for each of 'tokens'"
        raise DataError(words, hint, path=path, line=number)
    pairs = enumerate(zip(tokens, heads, strict=True), start=1)
    words_ = [Word(place, form, head) for place, (form, head) in pairs]
    check_tree(words_, path, number)
    text, language = (row.get(name) for name in ("text", "lang"))
    return to_example(
        words_,
        text if isinstance(text, str) else "",
        language if isinstance(language, str) else "",
        str(row.get("id") or f"{path}:{number}"),
    )


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


# ---------------------------------------------------------------------------------------------
# Columns


@dataclass(frozen=True, eq=False)
class DependencyColumns:
    """Computes who is asked for whose head.

    Attributes:
        number: ``[labels + 1]`` number of a word by the row of its label; the last serves none.
        head: ``[labels + 1]`` number of its head.
    """

    number: NDArray[np.int64]
    head: NDArray[np.int64]

    @classmethod
    def of(cls, labels: Sequence[str]) -> DependencyColumns:
        """Return the columns for a list of labels ``number:head``."""
        pairs = np.array([[*map(int, label.split(":"))] for label in labels], dtype=np.int64)
        pairs = np.concatenate((pairs.reshape(-1, 2), [[-1, -1]]))
        return cls(pairs[:, 0], pairs[:, 1])

    def __call__(self, view: View) -> Mapping[str, NDArray[Any]]:
        """Return the columns.

        ``table`` ``[S, L]`` the first token of a sentence, which stands for the root, and of each
        of its words, -1 behind the last; ``asked`` ``[A]`` places in the flattened table;
        ``target`` ``[A]`` the place of the head in its row. A word whose head was cut off is not
        asked about.
        """
        spans = view.spans_of(WORD)
        number, head = self.number[spans.id], self.head[spans.id]
        place = 1 + _rank(spans.sequence)
        width = 1 + int(place.max(initial=0))
        table = np.full((len(view.numbers), width), -1, dtype=np.int64)
        table[:, 0] = view.offsets[:-1]
        table[spans.sequence, place] = spans.start
        most = 1 + int(max(number.max(initial=0), head.max(initial=0)))
        place_of = np.full((len(view.numbers), most), -1, dtype=np.int64)
        place_of[:, 0] = 0
        place_of[spans.sequence, number] = place
        target = place_of[spans.sequence, head]
        kept = (target >= 0) & (number > 0)
        asked = spans.sequence * width + place
        return {"table": table, "asked": asked[kept], "target": target[kept]}

    def left_out(self, view: View) -> dict[str, int]:
        """Return words whose head was cut off, words that are part of another, sentences joined."""
        spans = view.spans_of(WORD)
        begun = spans.sequence[self.number[spans.id] == 1]  # a long sentence is in several
        labels = {name: view.labels.get(name) for name in (MERGED, JOINED)}
        return {
            "cut": len(spans) - len(self(view)["target"]),
            **{
                name: 0 if found is None else int(found[begun].sum())
                for name, found in labels.items()
            },
        }


def _rank(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each one's place among those of its group, in order; groups are sorted."""
    first = np.flatnonzero(np.diff(groups, prepend=-1))
    counts = np.diff(first, append=len(groups))
    return np.arange(len(groups), dtype=np.int64) - np.repeat(first, counts)

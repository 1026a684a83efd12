"""Sentences with the head of every word, and what the model is asked about them.

A word is its place in the sentence, from 1, as in CoNLL-U; what the text has as one token (``du``
for ``de le``) is one word. A word's span carries ``number:head`` as its id, with head 0 for the
root, so that labels belong to words, whatever the tokenizer makes of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptm_plus import DataError, Example, FeatureInput, Span, json_row, open_lines, shown

_Line = tuple[int, list[str]]
"""A line of a file, and its columns."""

WORD = "dependency"
"""Span kind of a word."""

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


def to_example(words: Sequence[Word], text: str, language: str, name: str) -> Example:
    """Return a sentence with a span on each word.

    Args:
        words: its words, a tree.
        text: its text; where the words are not found in it, they are joined by spaces instead.
        language: code of its language.
        name: its name.
    """
    spans = _aligned(words, text)
    if spans is None:
        text, spans = _joined(words)
    found = [
        Span("text", start, end, WORD, f"{word.number}:{word.head}")
        for word, (start, end) in zip(words, spans, strict=True)
    ]
    return Example(name, {"text": text}, {"text": language or "und"}, found)


def _joined(words: Sequence[Word]) -> tuple[str, list[tuple[int, int]]]:
    text, spans = "", []
    for word in words:
        spans.append((len(text), len(text) + len(word.form)))
        text += word.form + ("" if word.glued else " ")
    return text.rstrip(" "), spans


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < _DIGITS


def _aligned(words: Sequence[Word], text: str) -> list[tuple[int, int]] | None:
    spans, at = [], 0
    for word in words:
        start = text.find(word.form, at)
        if start < 0 or text[at:start].strip() or not word.form.strip():
            return None
        at = start + len(word.form)
        spans.append((start, at))
    return spans


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
    words = _merged(_words(rows, path), _ranges(rows, path))
    check_tree(words, path, line)
    name = comments.get("sent_id") or f"{path}:{line}"
    return to_example(words, comments.get("text", ""), comments.get("lang", ""), name)


def _words(rows: Sequence[_Line], path: str) -> list[Word]:
    words: list[Word] = []
    for line, cells in rows:
        number, head = cells[0], cells[6]
        if "-" in number or "." in number:  # a token of several words; an empty node
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
        glued = "SpaceAfter=No" in cells[9].split("|")
        words.append(Word(int(number), cells[1], int(head), glued))
    return words


def _ranges(rows: Sequence[_Line], path: str) -> dict[int, tuple[int, Word]]:
    """Return, by first word, the last word of each token of several words, and the token."""
    ranges = {}
    for line, cells in rows:
        first, dash, last = cells[0].partition("-")
        if dash:
            if not (_is_number(first) and _is_number(last)):
                raise DataError(
                    f"{shown(cells[0])} is no range of words", _FILES, path=path, line=line
                )
            glued = "SpaceAfter=No" in cells[9].split("|")
            ranges[int(first)] = int(last), Word(int(first), cells[1], 0, glued)
    return ranges


def _merged(words: Sequence[Word], ranges: Mapping[int, tuple[int, Word]]) -> list[Word]:
    """Return what stands in the text as words: a token takes the head that leads out of it."""
    stands_for: dict[int, int] = {0: 0}
    kept, inside = [], (0, 0)
    for word in words:
        if word.number in ranges:
            inside = word.number, ranges[word.number][0]
        within = inside[0] <= word.number <= inside[1]
        stands_for[word.number] = inside[0] if within else word.number
        if not within or word.number == inside[0]:
            kept.append(word)
    merged = []
    for word in kept:
        if word.number not in ranges:
            merged.append(
                Word(word.number, word.form, stands_for.get(word.head, word.head), word.glued)
            )
            continue
        last, token = ranges[word.number]
        heads = [stands_for.get(w.head, w.head) for w in words if word.number <= w.number <= last]
        outside = [head for head in heads if head != word.number]
        head = outside[0] if outside else word.number
        merged.append(Word(word.number, token.form, head, token.glued))
    return merged


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

    def __call__(self, given: FeatureInput) -> Mapping[str, NDArray[Any]]:
        """Return the columns.

        ``table`` ``[S, L]`` the first token of a sentence, which stands for the root, and of each
        of its words, -1 behind the last; ``asked`` ``[A]`` places in the flattened table;
        ``target`` ``[A]`` the place of the head in its row. A word whose head was cut off is not
        asked about.
        """
        view, spans = given.view, given.view.spans_of(WORD)
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


def _rank(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each one's place among those of its group, in order; groups are sorted."""
    first = np.flatnonzero(np.diff(groups, prepend=-1))
    counts = np.diff(first, append=len(groups))
    return np.arange(len(groups), dtype=np.int64) - np.repeat(first, counts)

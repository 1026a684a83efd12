"""Which new entries save the most tokens on a text: words joined pair by pair.

What stands beside each other most often is joined first (Sennrich et al. 2016, from the pieces of
an old tokenizer instead of from characters), so each join is worth as many tokens as it is made.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from ptm_plus.vocabulary.models import NewPiece, VocabularyModel

Pair = tuple[str, str]


def new_characters(
    model: VocabularyModel, words: Mapping[str, int], most: int, at_least: int
) -> list[NewPiece]:
    """Return the characters of some words that have no entry, most frequent first.

    Args:
        model: the old tokenizer.
        words: words with how often they occur.
        most: largest number of them.
        at_least: how often one must occur.
    """
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for entry in model.characters(word):
            if entry not in model.entries:
                counts[entry] += count
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [
        NewPiece(entry)
        for entry, count in ordered[:most]
        if count >= at_least and entry.isprintable()
    ]


def new_words(model: VocabularyModel, words: Sequence[str]) -> tuple[list[NewPiece], list[str]]:
    """Return what makes each word one piece, and the words of which none can be made.

    Args:
        model: the old tokenizer, which knows the words' characters.
        words: words as they stand in a text, after a space.
    """
    pieces: list[NewPiece] = []
    refused = []
    for word in words:
        parts = model.words(f"a {word}")[1:]
        if len(parts) != 1 or model.closed & set(split := model.split(parts[0])):
            refused.append(word)
        elif model.kind == "BPE":
            steps = _steps(model, split, pieces)
            pieces += steps or []
            refused += [word] if steps is None else []
        elif len(split) > 1 and parts[0] not in {one.text for one in pieces}:
            pieces.append(NewPiece(parts[0], tuple(split)))
    return pieces, refused


def new_pieces(
    model: VocabularyModel, words: Mapping[str, int], most: int, at_least: int
) -> list[NewPiece]:
    """Return the pieces that save the most tokens, in the order in which they are joined.

    Unigram and WordPiece need no entry that is only a step on the way to a longer one: what is left
    in fewer than ``at_least`` places is not among them.

    Args:
        model: the old tokenizer.
        words: words with how often they occur.
        most: largest number of new entries.
        at_least: in how many places a piece must stand.
    """
    return _Joining(model, words, at_least).run(most)


class _Joining:
    """Words as rows of entries, and the pairs in them."""

    def __init__(self, model: VocabularyModel, words: Mapping[str, int], at_least: int) -> None:
        self._model = model
        self._at_least = at_least
        split = [(model.split(word), count) for word, count in sorted(words.items())]
        self._rows = [row for row, _ in split if len(row) > 1]
        self._counts = [count for row, count in split if len(row) > 1]
        self._pairs: Counter[Pair] = Counter()
        self._places: defaultdict[Pair, set[int]] = defaultdict(set)
        self._uses: Counter[str] = Counter()
        self._made: dict[str, NewPiece] = {}
        self._steps: list[NewPiece] = []
        for number in range(len(self._rows)):
            self._enter(number, 1)
        self._heap = [(-count, pair) for pair, count in self._pairs.items()]
        heapq.heapify(self._heap)
        self._keeps_steps = model.kind == "BPE"

    def run(self, most: int) -> list[NewPiece]:
        while self._number() < most and (pair := self._best()):
            self._join(pair)
        if self._keeps_steps:
            return [self._finished(one) for one in self._steps]
        kept = [one for one in self._made.values() if self._lives(one.text)]
        return [self._finished(one) for one in kept]

    def _number(self) -> int:
        return len(self._made) if self._keeps_steps else self._living

    _living = 0

    def _lives(self, entry: str) -> bool:
        return entry in self._made and self._uses[entry] >= self._at_least

    def _finished(self, one: NewPiece) -> NewPiece:
        saved = self._uses[one.text] * (len(one.old) - 1)
        merge = one.merge if self._keeps_steps else ()
        return NewPiece(one.text, one.old, merge, saved)

    def _best(self) -> Pair | None:
        while self._heap:
            count, pair = heapq.heappop(self._heap)
            now = self._pairs[pair]
            if now < self._at_least:
                continue
            if now != -count:
                heapq.heappush(self._heap, (-now, pair))
            elif self._allowed(pair):
                return pair
        return None

    def _allowed(self, pair: Pair) -> bool:
        entry = self._model.joined(*pair)
        # A second merge that makes one entry would come after merges that already take it on.
        taken = self._keeps_steps and entry in self._made
        return bool(entry) and entry not in self._model.entries and not taken

    def _join(self, pair: Pair) -> None:
        entry = self._model.joined(*pair)
        step = NewPiece(entry, self._old(pair[0]) + self._old(pair[1]), pair)
        watched = {entry, *pair}
        before = sum(map(self._lives, watched))
        self._steps.append(step)
        self._made.setdefault(entry, step)
        touched: set[Pair] = set()
        for number in sorted(self._places.pop(pair)):
            self._enter(number, -1)
            self._rows[number] = _replaced(self._rows[number], pair, entry)
            touched |= self._enter(number, 1)
        self._living += sum(map(self._lives, watched)) - before
        for one in touched:
            heapq.heappush(self._heap, (-self._pairs[one], one))

    def _old(self, entry: str) -> tuple[str, ...]:
        return self._made[entry].old if entry in self._made else (entry,)

    def _enter(self, number: int, sign: int) -> set[Pair]:
        """Count the pairs of a row in or out, and return them."""
        row, count = self._rows[number], sign * self._counts[number]
        for entry in row:
            self._uses[entry] += count
        found = set()
        for pair in _pairs(row):
            found.add(pair)
            self._pairs[pair] += count
            if sign > 0:
                self._places[pair].add(number)
        return found


def _pairs(row: Sequence[str]) -> Iterator[Pair]:
    """Yield neighbours; of three equal entries only one pair can be joined."""
    last: Pair | None = None
    for pair in pairwise(row):
        if pair == last and pair[0] == pair[1]:
            last = None
            continue
        last = pair
        yield pair


def _replaced(row: Sequence[str], pair: Pair, entry: str) -> list[str]:
    made: list[str] = []
    position = 0
    while position < len(row):
        if tuple(row[position : position + 2]) == pair:
            made.append(entry)
            position += 2
        else:
            made.append(row[position])
            position += 1
    return made


def _steps(
    model: VocabularyModel, split: Sequence[str], so_far: Sequence[NewPiece]
) -> list[NewPiece] | None:
    """Return the merges that make one piece of a word, ``None`` if old entries are in the way."""
    made = {one.text: one.old for one in so_far}
    row = list(split)
    for one in so_far:  # In the order in which they will be applied.
        row = _replaced(row, (one.merge[0], one.merge[1]), one.text)
    steps = []
    while len(row) > 1:
        ways = [(left, right) for left, right in pairwise(row) if left + right not in model.entries]
        if not ways:
            return None
        pair = ways[0]
        old = sum((made.get(one, (one,)) for one in pair), ())
        made[pair[0] + pair[1]] = old
        steps.append(NewPiece(pair[0] + pair[1], old, pair))
        row = _replaced(row, pair, pair[0] + pair[1])
    return steps

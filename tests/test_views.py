"""Views against a gathering written as plain loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from building import Mention, Seg, Seq, build_store, random_pair, random_sequences, random_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptm_plus.keyed import derive_key, uniform
from ptm_plus.views import EMPTY_SPANS, LANGUAGE, View, ViewMaker

SEED = 11
# The run's lists differ from the stores' own: Q0 is row 39, and no store holds Esperanto.
LABELS = {
    "entity": tuple(f"Q{number}" for number in range(39, -1, -1)),
    LANGUAGE: ("eo", "fr", "en", "de"),
}
COLUMNS = ("ids", "source", "words", "positions", "types", "segments", "languages", "depth")


def slots_of(seq: Seq, number: int, epoch: int, first_segment: int) -> list[int]:
    """Return which stored segment stands at each slot: movable ones in order of their draws."""
    movable = [slot for slot, segment in enumerate(seq.segments) if segment.movable]
    key = derive_key(SEED, "core", "s", "segment order")
    index = number + ((epoch + 1) << 40)
    chance = {slot: float(uniform(key, index, first_segment + slot)) for slot in movable}
    order = list(range(len(seq.segments)))
    for slot, content in zip(movable, sorted(movable, key=chance.__getitem__), strict=True):
        order[slot] = content
    return order


def tokens_of(seq: Seq, order: Sequence[int]) -> list[dict[str, Any]]:
    """Return the tokens of one sequence, each as a dictionary of its columns."""
    tokens: list[dict[str, Any]] = []
    base = 0
    for slot, content in enumerate(order):
        moved, place = seq.segments[content], seq.segments[slot]
        base = 0 if place.restart else base
        relative = moved.all_positions()
        for n, word in enumerate(moved.all_words()):
            tokens.append(
                {
                    "ids": moved.ids[n],
                    "source": seq.first_token(content) + n,
                    "words": word,
                    "positions": base + relative[n],
                    "types": place.type,
                    "segments": content,
                    "languages": LABELS[LANGUAGE].index(moved.language) if moved.language else -1,
                    "depth": moved.columns["depth"][n] if moved.columns else 0,
                }
            )
        base += max(relative, default=-1) + 1
    return tokens


def reference(
    sequences: Sequence[Seq], numbers: Sequence[int], epochs: Sequence[int]
) -> tuple[list[list[dict[str, Any]]], list[tuple[Any, ...]]]:
    """Return the tokens per sequence of a view, and its entity spans as sorted rows."""
    firsts = [sum(len(s.segments) for s in sequences[:n]) for n in range(len(sequences))]
    chosen = sorted(zip(numbers, epochs, strict=True), key=lambda pair: len(sequences[pair[0]]))
    tokens, spans, begin = [], [], 0
    for place, (number, epoch) in enumerate(chosen):
        seq = sequences[number]
        order = slots_of(seq, number, epoch, firsts[number])
        tokens.append(tokens_of(seq, order))
        at = {token["source"]: begin + n for n, token in enumerate(tokens[-1])}
        for mention in seq.mentions:
            start = at[seq.first_token(mention.segment) + mention.start]
            row = -1 if mention.id is None else LABELS["entity"].index(mention.id)
            spans.append((start, mention.length, place, mention.segment, row))
        begin += len(seq)
    return tokens, sorted(spans)


def renumbered(words: Sequence[int], sequence: Sequence[int]) -> list[tuple[int, int]]:
    """Return the runs of one word as (first token, length)."""
    runs: list[tuple[int, int]] = []
    for n, word in enumerate(words):
        if word < 0:
            continue
        if n and words[n - 1] == word and sequence[n - 1] == sequence[n]:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((n, 1))
    return runs


def check(view: View, sequences: Sequence[Seq], numbers: Any, epochs: Any) -> None:
    tokens, spans = reference(sequences, numbers, epochs)
    flat = [token for of_sequence in tokens for token in of_sequence]
    sequence = [n for n, of_sequence in enumerate(tokens) for _ in of_sequence]
    assert view.offsets.tolist() == np.cumsum([0, *map(len, tokens)]).tolist()
    assert view.lengths.tolist() == [len(of_sequence) for of_sequence in tokens]
    assert view.sequence.tolist() == sequence
    for name in set(COLUMNS) - {"words", "depth"}:
        assert getattr(view, name).tolist() == [token[name] for token in flat], name
    if view.columns:
        assert view.columns["depth"].tolist() == [token["depth"] for token in flat]
    words = [token["words"] for token in flat]
    assert (view.words < 0).tolist() == [word < 0 for word in words]
    assert renumbered(view.words.tolist(), [0] * len(flat)) == renumbered(words, sequence)
    table = view.spans_of("entity")
    columns = (table.start, table.length, table.sequence, table.segment, table.id)
    assert sorted(zip(*(column.tolist() for column in columns), strict=True)) == spans


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Pairs and texts in one store, so that sequences differ in their number of segments."""
    pairs = random_sequences(150, 1, random_pair)
    texts = random_sequences(150, 2, random_text)
    sequences = [seq for both in zip(pairs, texts, strict=True) for seq in both]
    return sequences, ViewMaker(
        "s", build_store(tmp_path_factory.mktemp("m"), sequences), LABELS, SEED
    )


def test_gathering_equals_the_loops(mixed):
    sequences, maker = mixed
    rng = np.random.default_rng(0)
    for size in (1, 2, 17, 300):
        numbers = rng.permutation(len(sequences))[:size]
        epochs = rng.integers(-1, 4, size=size)
        check(maker.view(numbers, epochs), sequences, numbers.tolist(), epochs.tolist())


def segments_of(draw: st.DrawFn, parents: bool) -> list[Seg]:
    """Draw segments of all sorts: empty, special, movable, restarting, with resolved parents."""
    found, word = [], 0
    for _ in range(draw(st.integers(1, 5))):
        size = draw(st.integers(0, 4))
        words, special = None, draw(st.booleans())
        if not special:
            steps = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
            words = [
                -1 if draw(st.integers(0, 9)) == 0 else word + sum(steps[:n]) for n in range(size)
            ]
            word += sum(steps) + 1
        positions = None
        if parents:
            positions = draw(st.lists(st.integers(0, 6), min_size=size, max_size=size))
        found.append(
            Seg(
                draw(st.lists(st.integers(10, 99), min_size=size, max_size=size)),
                words,
                movable=draw(st.booleans()),
                restart=draw(st.booleans()),
                type=draw(st.integers(0, 1)),
                language="" if special else draw(st.sampled_from(["en", "fr", "de"])),
                positions=positions,
                columns={"depth": [10 * len(found) + n for n in range(size)]},
            )
        )
    return found


@st.composite
def layouts(draw: st.DrawFn) -> list[Seq]:
    parents = draw(st.booleans())
    sequences = []
    for _ in range(draw(st.integers(1, 5))):
        segments = [*segments_of(draw, parents), Seg([1], columns={"depth": [7]})]
        mentions = [
            Mention(n, start, draw(st.integers(1, len(segment.ids) - start)), "Q3")
            for n, segment in enumerate(segments)
            if segment.words and draw(st.booleans())
            for start in [draw(st.integers(0, len(segment.ids) - 1))]
        ]
        sequences.append(Seq(segments, mentions))
    return sequences


@given(layouts(), st.randoms(use_true_random=False))
@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_layout_is_gathered_as_by_the_loops(tmp_path_factory, sequences, random):
    store = build_store(tmp_path_factory.mktemp("h"), sequences)
    maker = ViewMaker("s", store, LABELS, SEED)
    # a small stratum may be read twice in one step, in two epochs
    numbers = [random.randrange(len(sequences)) for _ in range(4)]
    epochs = [random.randrange(-1, 3) for _ in numbers]
    check(maker.view(np.array(numbers), np.array(epochs)), sequences, numbers, epochs)


def test_a_pair_by_hand(tmp_path):
    pair = Seq(
        [
            Seg([2]),
            Seg([10, 11, 12], [0, 0, 1], movable=True, language="en"),
            Seg([3]),
            Seg([20, 21], [2, 3], movable=True, restart=True, type=1, language="fr"),
            Seg([3], type=1),
        ],
        [Mention(1, 1, 2, "Q5"), Mention(3, 0, 1, "Q5"), Mention(3, 1, 1, "unknown")],
        labels={"relation": 4},
    )
    labels = {"entity": ("Q9", "Q5"), LANGUAGE: ("en", "fr")}
    maker = ViewMaker("s", build_store(tmp_path, [pair]), labels, SEED)
    views = [maker.view(np.array([0]), np.array([epoch])) for epoch in range(20)]
    swapped = [view for view in views if view.ids[1] == 20]
    plain = [view for view in views if view.ids[1] == 10]
    assert swapped
    assert plain
    view = plain[0]
    assert view.ids.tolist() == [2, 10, 11, 12, 3, 20, 21, 3]
    assert view.positions.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert view.types.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    view = swapped[0]
    assert view.ids.tolist() == [2, 20, 21, 3, 10, 11, 12, 3]
    assert view.positions.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert view.types.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert view.source.tolist() == [0, 5, 6, 4, 1, 2, 3, 7]
    assert view.segments.tolist() == [0, 3, 3, 2, 1, 1, 1, 4]
    assert view.languages.tolist() == [-1, 1, 1, -1, 0, 0, 0, -1]
    assert view.labels["relation"].tolist() == [4]
    spans = view.spans_of("entity")
    rows = {(s, n, i) for s, n, i in zip(spans.start, spans.length, spans.id, strict=True)}
    assert rows == {(5, 2, 1), (1, 1, 1), (2, 1, -1)}
    assert view.spans_of("phrase") is EMPTY_SPANS


def test_words_of_neighbouring_sequences_are_two(tmp_path):
    store = build_store(tmp_path, [Seq([Seg([10, 11], [0, 0], language="en")])] * 2)
    view = ViewMaker("s", store, LABELS, SEED).view(np.array([0, 1]), np.array([0, 0]))
    assert renumbered(view.words.tolist(), [0] * 4) == [(0, 2), (2, 2)]


def test_halves_come_first_equally_often(mixed):
    sequences, maker = mixed
    pairs = np.array([n for n, seq in enumerate(sequences) if len(seq.segments) == 5])
    first = []
    for epoch in range(40):
        view = maker.view(pairs, np.full(len(pairs), epoch))
        first.append(view.segments[view.offsets[:-1] + 1] == 3)
    share = np.mean(first)
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(len(pairs) * 40)
    assert not np.array_equal(first[0], first[1])


def test_sequences_stand_in_order_of_length(mixed):
    sequences, maker = mixed
    view = maker.view(np.arange(len(sequences)), np.zeros(len(sequences), dtype=np.int64))
    assert np.all(np.diff(view.lengths) >= 0)
    assert sorted(view.numbers.tolist()) == list(range(len(sequences)))


def test_spans_of_two_annotators_join_in_order_of_place(tmp_path):
    body = Seg(list(range(10, 18)), list(range(8)), language="en")
    mentions = [
        Mention(0, 6, 1, "Q1", annotator="b"),
        Mention(0, 4, 2, "Q2", annotator="a"),
        Mention(0, 0, 1, "Q3", annotator="b"),
        Mention(0, 2, 1, None, kind="phrase", annotator="b"),
    ]
    store = build_store(tmp_path, [Seq([body], mentions)])
    view = ViewMaker("s", store, LABELS, SEED).view(np.array([0]), np.array([0]))
    table = view.spans_of("entity")
    assert table.start.tolist() == [0, 4, 6]
    assert [LABELS["entity"][row] for row in table.id] == ["Q3", "Q2", "Q1"]
    assert view.spans_of("phrase").start.tolist() == [2]
    assert table.tokens().tolist() == [0, 4, 5, 6]
    assert table.tokens(np.array([1])).tolist() == [4, 5]


def test_spans_stand_in_order_of_place_when_halves_have_moved(mixed):
    sequences, maker = mixed
    numbers = np.arange(len(sequences))
    spans = maker.view(numbers, np.zeros_like(numbers)).spans_of("entity")
    assert np.all(np.diff(spans.start) > 0)


def test_spans_without_a_view_name_the_same_mentions(mixed):
    _, maker = mixed
    numbers = np.array([7, 0, 4, 9, 12])
    placed = maker.view(numbers, np.zeros(5, dtype=np.int64))
    loose = maker.spans(placed.numbers)["entity"]
    assert set(loose.start.tolist()) <= {-1}
    rows = {name: getattr(loose, name) for name in ("sequence", "segment", "id", "length")}
    other = placed.spans_of("entity")
    assert sorted(zip(*rows.values(), strict=True)) == sorted(
        zip(*(getattr(other, name) for name in rows), strict=True)
    )


def test_token_draws_do_not_depend_on_the_view(mixed):
    from ptm_plus.keyed import Draws

    _, maker = mixed
    draws = Draws(0, "mine", "s")
    many = maker.view(np.arange(20), np.ones(20, dtype=np.int64))
    found = many.token_draws(draws, "x")
    for place, number in enumerate(many.numbers.tolist()):
        one = maker.view(np.array([number]), np.array([1]))
        own = found[many.offsets[place] : many.offsets[place + 1]]
        assert own.tolist() == one.token_draws(draws, "x").tolist()

"""Rows by step, cursors, held-out sequences, and what a micro-batch holds."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from building import (
    ENTITIES,
    MASK,
    Seg,
    Seq,
    build_store,
    random_pair,
    random_sequences,
    random_text,
)

from ptm_plus.components import Feature, FeatureInput, UnitKind
from ptm_plus.compose import Contribution
from ptm_plus.data import (
    HELD_OUT_EPOCH,
    Collator,
    HostBatch,
    Reader,
    Row,
    StreamData,
    held_out_rows,
)
from ptm_plus.errors import DataError, SettingsError
from ptm_plus.keyed import derive_key, uniform
from ptm_plus.masking import Vocabulary, span_units, word_kind
from ptm_plus.mixture import Planner
from ptm_plus.settings import RunSettings

LABELS = {"entity": ENTITIES, "language": ("en", "fr")}


def settings_of(**sections) -> RunSettings:
    base = {"batch": {"row_tokens": 128, "rows": 6}, "data": {"held_out": 0.1}}
    return RunSettings.model_validate({**base, **sections})


def stream(folder, name: str, sequences: Sequence[Seq], settings: RunSettings) -> StreamData:
    return StreamData(name, build_store(folder / name, sequences), LABELS, settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def streams(folder) -> dict[str, StreamData]:
    settings = settings_of()
    texts = random_sequences(300, 1)
    pairs = random_sequences(60, 2, random_pair)
    return {
        "text": stream(folder, "text", texts, settings),
        "pairs": stream(folder, "pairs", pairs, settings),
    }


def planner(settings: RunSettings) -> Planner:
    return Planner(settings, {"text": 2.0, "pairs": 1.0}, {"text": 0.5}, {"mlm": 1.0})


def read(reader: Reader, steps: range) -> list[dict[str, list[Row]]]:
    plans = planner(settings_of())
    return [reader.step_rows(plans.plan(step)) for step in steps]


def plain(steps: list[dict[str, list[Row]]]) -> list[list[tuple]]:
    return [
        [
            (name, row.stratum, row.epoch, row.numbers.tolist())
            for name in taken
            for row in taken[name]
        ]
        for taken in steps
    ]


# ---------------------------------------------------------------------------------------------
# Training and held-out sequences


def test_training_and_held_out_sequences_are_a_split(streams):
    for data in streams.values():
        training = [
            number for stratum in data.tokens for number in data.rows(stratum, 0).sequences.tolist()
        ]
        assert sorted([*training, *data.held_out.tolist()]) == list(range(len(data.store)))
        assert len(data.held_out)
        for stratum, tokens in data.tokens.items():
            assert tokens == data.maker.lengths[data.rows(stratum, 0).sequences].sum()
            numbers = data.rows(stratum, 0).sequences
            assert {data.store.strata[s] for s in data.store.stratum[numbers]} == {stratum}


def test_sequences_of_one_example_stay_together(tmp_path):
    body = Seg([10, 11], [0, 1], language="en")
    sequences = [Seq([body], example=number // 4) for number in range(4000)]
    data = stream(tmp_path, "text", sequences, settings_of())
    held = np.zeros(4000, dtype=bool)
    held[data.held_out] = True
    by_example = held.reshape(1000, 4)
    assert np.all(by_example.all(axis=1) == by_example.any(axis=1))
    assert by_example[:, 0].mean() == pytest.approx(0.1, abs=4 * (0.09 / 1000) ** 0.5)


def test_the_split_depends_on_the_seed_and_the_texts_only(tmp_path):
    sequences = random_sequences(200, 5)
    held = {
        (name, seed, rate): stream(
            tmp_path / f"{seed}{rate}",
            name,
            sequences,
            settings_of(train={"seed": seed}, masking={"rate": rate}),
        ).held_out.tolist()
        for name, seed, rate in itertools.product(("a", "b"), (0, 1), (0.15, 0.3))
    }
    for name, seed, rate in held:
        assert held[name, seed, rate] == held["a", seed, 0.15]
    assert held["a", 0, 0.15] != held["a", 1, 0.15]


def test_rows_too_short_for_a_sequence_are_refused(tmp_path):
    body = Seg([10] * 40, list(range(40)), language="en")
    settings = settings_of(batch={"row_tokens": 32})
    with pytest.raises(SettingsError, match=r"row_tokens is 32.*'text'.*40 tokens") as caught:
        stream(tmp_path, "text", [Seq([body])], settings)
    assert "at least 40" in caught.value.hint


def test_nothing_left_to_train_on_is_refused(tmp_path):
    store = build_store(tmp_path, [Seq([Seg([10, 11], [0, 1], language="en")])])
    draws = [uniform(derive_key(seed, "held out"), 0) for seed in range(20)]
    seed = int(np.argmin(draws))
    settings = settings_of(data={"held_out": 0.499}, train={"seed": seed})
    with pytest.raises(DataError, match=r"'text'.*1 are held out"):
        StreamData("text", store, LABELS, settings)


def test_a_stratum_that_would_be_held_out_whole_is_trained_on(tmp_path):
    body = Seg([10, 11], [0, 1], language="en")
    draws = uniform(derive_key(0, "held out"), np.arange(400))
    lone = int(np.flatnonzero(draws < 0.1)[0])  # would be held out
    sequences = [Seq([body], stratum="sw" if n == lone else "en") for n in range(400)]
    data = stream(tmp_path, "text", sequences, settings_of())
    assert data.unsplit == ("sw",)
    assert data.tokens["sw"] == 2
    assert sorted([*data.held_out, lone]) == np.flatnonzero(draws < 0.1).tolist()


def test_an_evaluation_set_is_held_out_whole(streams):
    data = StreamData("pairs", streams["pairs"].store, LABELS, settings_of(), train=False)
    assert data.held_out.tolist() == list(range(60))
    assert data.tokens == {}


def test_held_out_rows(streams):
    data = streams["text"]
    rows = held_out_rows(data, 128, 1000)
    numbers = [number for row in rows for number in row.numbers.tolist()]
    assert sorted(numbers) == data.held_out.tolist()
    for row in rows:
        assert row.epoch == HELD_OUT_EPOCH
        assert data.maker.lengths[row.numbers].sum() <= 128
        assert {data.store.strata[s] for s in data.store.stratum[row.numbers]} == {row.stratum}
    few = held_out_rows(data, 128, 7)
    chosen = {number for row in few for number in row.numbers.tolist()}
    assert len(chosen) == 7
    more = {n for row in held_out_rows(data, 128, 12) for n in row.numbers.tolist()}
    assert chosen < more  # a larger evaluation contains the smaller one
    assert chosen != set(data.held_out[:7].tolist())


# ---------------------------------------------------------------------------------------------
# Reader


def test_every_training_sequence_once_per_epoch_and_stratum(streams):
    reader = Reader(streams, settings_of())
    taken = read(reader, range(60))
    assert all(sum(len(rows) for rows in step.values()) == 6 for step in taken)
    seen: dict[tuple[str, str, int], list[int]] = {}
    for name, stratum, epoch, numbers in itertools.chain.from_iterable(plain(taken)):
        seen.setdefault((name, stratum, epoch), []).extend(numbers)
    whole = 0
    for (name, stratum, epoch), numbers in seen.items():
        training = set(streams[name].rows(stratum, 0).sequences.tolist())
        assert len(numbers) == len(set(numbers))
        assert set(numbers) <= training
        if epoch < reader.cursors[name][stratum][0]:  # the epoch is over
            assert set(numbers) == training
            whole += 1
    assert whole >= 8
    assert {stratum for _, stratum, _ in seen} == {"en", "fr", "en-fr"}


def test_rows_come_in_the_order_of_the_row_plan(streams):
    taken = itertools.chain.from_iterable(plain(read(Reader(streams, settings_of()), range(20))))
    own = [row[3] for row in taken if row[:3] == ("text", "en", 0)]
    plan = streams["text"].rows("en", 0)
    assert own == [plan.row(number).tolist() for number in range(len(own))]


@pytest.mark.parametrize("stop", [0, 1, 7, 23])
def test_cursors_go_on_exactly(streams, folder, stop):
    settings = settings_of()
    whole = plain(read(Reader(streams, settings), range(40)))
    first = Reader(streams, settings)
    before = plain(read(first, range(stop)))
    saved = json.loads(json.dumps(first.cursors))
    # other objects, as in another process
    fresh = {name: StreamData(name, data.store, LABELS, settings) for name, data in streams.items()}
    after = plain(read(Reader(fresh, settings, saved), range(stop, 40)))
    assert before + after == whole


def test_the_order_in_which_streams_are_given_does_not_matter(streams):
    settings = settings_of()
    backwards = dict(reversed(streams.items()))
    one, other = (plain(read(Reader(s, settings), range(10))) for s in (streams, backwards))
    assert one == other


def test_readers_share_nothing(streams):
    settings = settings_of()
    one, other = Reader(streams, settings), Reader(streams, settings)
    ahead = plain(read(one, range(9)))
    assert plain(read(other, range(9))) == ahead


def test_only_two_plans_of_a_stratum_are_kept(streams):
    data = StreamData("pairs", streams["pairs"].store, LABELS, settings_of())
    expected = data.rows("en-fr", 0).sequences.tolist()
    for epoch in range(6):
        data.rows("en-fr", epoch)
    assert len(data._plans) <= 2
    assert data.rows("en-fr", 0).sequences.tolist() == expected


# ---------------------------------------------------------------------------------------------
# Collator


def propose(view, draws):
    return span_units(view, "entity")


def columns_of(given: FeatureInput) -> dict[str, np.ndarray]:
    spans = given.view.spans_of("entity")
    step = given.step_spans.get("entity", ())
    return {
        "draw": given.view.token_draws(given.draws, "x"),
        "hit": given.plan.predicted[spans.start],
        "step": np.array([len(step)]),
    }


def collator_of(streams: dict[str, StreamData], *features: Contribution[Feature]) -> Collator:
    kinds = [
        Contribution("core", word_kind("word")),
        Contribution("kg", UnitKind(name="entity", propose=propose, streams=("pairs",))),
    ]
    return Collator(streams, kinds, features, Vocabulary(MASK, np.arange(1000, 1100)), 0)


def tokens_by_sequence(batch: HostBatch) -> dict[tuple[int, int], tuple]:
    view = batch.view
    found = {}
    for place, key in enumerate(view.keys.tolist()):
        tokens = slice(view.offsets[place], view.offsets[place + 1])
        own = (view.ids, batch.plan.ids, batch.plan.predicted, view.positions)
        found[key] = tuple(str(column[tokens].tolist()) for column in own)
    return found


def test_masks_do_not_depend_on_micro_batches_or_ranks(streams):
    collator = collator_of(streams)
    for taken in read(Reader(streams, settings_of()), range(5)):
        for rows in taken.values():
            whole = tokens_by_sequence(collator.batch(rows, rows, 0.15))
            for size in (1, 2):
                split: dict = {}
                for first in range(0, len(rows), size):
                    part = rows[first : first + size][::-1]
                    split.update(tokens_by_sequence(collator.batch(part, rows, 0.15)))
                assert split == whole


def test_kinds_apply_to_their_streams(streams):
    collator = collator_of(streams)
    kinds = {}
    for taken in read(Reader(streams, settings_of()), range(3)):
        for name, rows in taken.items():
            kinds[name] = collator.batch(rows, rows, 0.15).plan.kinds
    assert kinds == {"text": ("word",), "pairs": ("entity", "word")}


def test_features_by_scope_stream_and_instance(streams):
    collator = collator_of(
        streams,
        Contribution("kg:a", Feature(name="f", compute=columns_of, scope="step")),
        Contribution("kg:b", Feature(name="f", compute=columns_of)),
        Contribution("tlm", Feature(name="g", compute=columns_of, streams=("pairs",))),
    )
    rows = held_out_rows(streams["text"], 128, 100)
    batch = collator.batch(rows[:2], rows, 0.15)
    assert {name.partition(".")[0] for name in batch.columns} == {"kg:a", "kg:b"}
    offsets = streams["text"].store.spans["given"].offsets
    every = sum(int(offsets[n + 1] - offsets[n]) for row in rows for n in row.numbers)
    assert every > len(batch.view.spans_of("entity")) > 0
    assert batch.columns["kg:a.step"].tolist() == [every]
    assert batch.columns["kg:b.step"].tolist() == [0]
    assert not np.array_equal(batch.columns["kg:a.draw"], batch.columns["kg:b.draw"])
    starts = batch.view.spans_of("entity").start
    assert np.array_equal(batch.columns["kg:a.hit"], batch.plan.predicted[starts])


def test_step_spans_name_every_mention_of_the_step(streams):
    wanted = Contribution("kg", Feature(name="f", compute=columns_of, scope="step"))
    rows = held_out_rows(streams["pairs"], 128, 100)
    spans = collator_of(streams, wanted).step_spans("pairs", rows)["entity"]
    ids = Counter(ENTITIES[row] if row >= 0 else None for row in spans.id.tolist())
    sequences = random_sequences(60, 2, random_pair)
    expected = Counter(
        mention.id
        for row in rows
        for n in row.numbers.tolist()
        for mention in sequences[n].mentions
    )
    assert ids == expected
    assert collator_of(streams).step_spans("pairs", rows) == {}


def test_evaluation_is_frozen_and_training_is_not(streams):
    data, collator = streams["text"], collator_of(streams)
    rows = held_out_rows(data, 128, 20)
    once, again = (collator.batch(rows, rows, 0.15).plan.ids for _ in range(2))
    assert np.array_equal(once, again)
    later = [Row(row.stream, row.stratum, 0, row.numbers) for row in rows]
    assert not np.array_equal(collator.batch(later, later, 0.15).plan.ids, once)


def test_a_tiny_stratum_may_be_read_twice_in_one_step(tmp_path):
    sequences = [random_text(np.random.default_rng(n)) for n in range(4)]
    settings = settings_of(data={"held_out": 0.01})
    data = {"text": stream(tmp_path, "text", sequences, settings)}
    taken = Reader(data, settings).step_rows(Planner(settings, {"text": 1.0}, {}, {}).plan(0))
    rows = taken["text"]
    assert len(rows) == 6
    assert len({row.epoch for row in rows}) > 1
    view = collator_of(data).batch(rows, rows, 0.15).view
    assert len(set(view.numbers.tolist())) < len(set(view.keys.tolist())) == len(view.keys)

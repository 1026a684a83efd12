"""From examples to sequences and span tables, against tables made by hand and by brute force."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from preparing import (
    NAMES,
    PAIR_LAYOUT,
    example,
    name_annotator,
    pair_in_one,
    prepare,
    stream,
    swapper,
)
from small_tokenizers import ALL, small_tokenizer

from ptm_plus.components import Layout, Refused
from ptm_plus.errors import DataError, PluginError
from ptm_plus.examples import Example, Span
from ptm_plus.prepare.accounts import Account
from ptm_plus.prepare.layouts import LaidOut, LayoutInput, special_segment
from ptm_plus.prepare.store import NO_FIELD, NO_LANGUAGE, NO_WORD, SequenceStore
from ptm_plus.prepare.tokenization import pieces


def rows_of(store: SequenceStore, table: str, texts: list[str], field: str = "text") -> set:  # type: ignore[type-arg]
    """(sequence, kind, id, characters) of every row of a span table."""
    spans, rows = store.spans[table], set()
    for sequence in range(len(store)):
        for row in range(spans.offsets[sequence], spans.offsets[sequence + 1]):
            segment = store.segments[sequence] + spans.segment[row]
            assert store.fields[store.segment_field[segment]] == field
            first = store.offsets[sequence] + int(spans.start[row])
            last = first + int(spans.length[row]) - 1
            text = texts[store.example[sequence]][store.char_start[first] : store.char_end[last]]
            label = spans.ids[spans.id[row]] if spans.id[row] >= 0 else ""
            rows.add((sequence, spans.kinds[spans.kind[row]], label, text))
    return rows


def test_sequences_equal_the_pieces_with_special_tokens_around(tmp_path: Path) -> None:
    tokenizer = small_tokenizer("bert")
    examples = [example(0), example(2)]
    store = prepare(tmp_path, examples, settings={"max_length": 64})
    for number, one in enumerate(examples):
        (piece,) = pieces(tokenizer, [one.fields["text"]])
        here = slice(store.offsets[number], store.offsets[number + 1])
        assert store.ids[here].tolist() == tokenizer(one.fields["text"]).input_ids
        assert store.char_start[here].tolist() == [0, *piece.char_start, 0]
        assert store.char_end[here].tolist() == [0, *piece.char_end, 0]
        known = sorted(set(piece.words[piece.words >= 0].tolist()))
        numbers = [known.index(word) if word >= 0 else NO_WORD for word in piece.words]
        assert store.words[here].tolist() == [NO_WORD, *numbers, NO_WORD]
    assert store.ids.dtype == np.uint16
    assert store.segments.tolist() == [0, 3, 6]
    assert store.segment_field.tolist() == [NO_FIELD, 0, NO_FIELD] * 2
    assert store.segment_language.tolist() == [NO_LANGUAGE, 0, NO_LANGUAGE, NO_LANGUAGE, 1, 65535]
    assert (store.fields, store.languages, store.strata) == (("text",), ("en", "ja"), ("en", "ja"))
    assert store.stratum.tolist() == [0, 1]
    assert store.example.tolist() == [0, 1]
    assert store.position is None
    assert store.version is None


def test_pairs_have_positions_columns_types_flags_and_labels(tmp_path: Path) -> None:
    rows = [
        Example("a", {"src": "Paris is", "tgt": "the capital of"}, {"src": "en", "tgt": "fr"}),
        Example("b", {"src": "Paris", "tgt": "Paris is"}, {"src": "en", "tgt": "de"}),
    ]
    rows = [replace(row, labels={"star": n + 5, "kind": "xy"[n]}) for n, row in enumerate(rows)]
    store = prepare(tmp_path, rows, layout=PAIR_LAYOUT)
    size = [store.segment_length[5 * n : 5 * n + 5].tolist() for n in range(2)]
    positions = [[0], range(size[0][1]), [0], None, [0]]
    for segment, expected in enumerate(positions):
        first = int(store.segment_length[:segment].sum())
        length = int(store.segment_length[segment])
        found = store.position[first : first + length].tolist()
        if expected is None:  # Parents 0//2-1, 1//2-1, … = -1, -1, 0, 0, 1, 1, …
            assert found == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2][:length]
        else:
            assert found == list(expected)
    half = [int(store.columns["half"][a:b].sum()) for a, b in zip(*_borders(store), strict=True)]
    assert half == [size[0][3], size[1][3]]
    assert store.segment_flags.tolist() == [0, 1, 0, 3, 0] * 2
    assert store.segment_type.tolist() == [0, 0, 0, 1, 1] * 2
    assert store.strata == ("en-fr", "en-de")
    assert store.labels == {"kind": ("x", "y"), "star": None}
    assert store.label["star"].tolist() == [5, 6]
    assert store.label["kind"].tolist() == [0, 1]
    # Words of the two halves are different units.
    words = store.words[: store.offsets[1]]
    used = words[words != NO_WORD]
    assert used.tolist() == sorted(used)
    assert len(set(used[: size[0][1]]) & set(used[size[0][1] :])) == 0


def _borders(store: SequenceStore) -> tuple[list[int], list[int]]:
    return store.offsets[:-1].tolist(), store.offsets[1:].tolist()


@pytest.mark.parametrize("name", ALL)
def test_mentions_are_found_among_the_tokens(name: str, tmp_path: Path) -> None:
    text = "Paris,  the capital of France ; Seine"
    one = Example("1", {"text": text}, {"text": "en"})
    annotators = [name_annotator()]
    store = prepare(tmp_path, [one], tokenizer=ALL[name](), annotators=annotators)
    expected = {("Paris", "Q90"), ("France", "Q142"), ("Seine", "Q1471")}
    found = {(mention, label) for _, _, label, mention in rows_of(store, "names", [text])}
    cut = store.account.spans["names"].cut
    assert found <= expected
    assert len(found) + cut == 3
    spans = store.spans["names"]
    assert spans.ids == tuple(sorted(label for _, label in found))
    assert spans.start.tolist() == sorted(spans.start.tolist()) or len(store) > 1


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 2), min_size=1, max_size=6),
    length=st.integers(8, 30),
    family=st.sampled_from(["bert", "roberta"]),
)
def test_kept_and_cut_spans_against_brute_force(
    numbers: list[int], length: int, family: str
) -> None:
    examples = [example(number) for number in numbers]
    texts = [one.fields["text"] for one in examples]
    with tempfile.TemporaryDirectory() as folder:
        store = prepare(
            Path(folder),
            examples,
            tokenizer=small_tokenizer(family),
            annotators=[name_annotator()],
            settings={"max_length": length},
        )
        found = rows_of(store, "names", texts)
        expected, every = set(), 0
        for sequence in range(len(store)):
            here = range(store.offsets[sequence], store.offsets[sequence + 1])
            covered = {
                c for t in here for c in range(store.char_start[t], store.char_end[t])
            }  # fmt: skip
            text = texts[store.example[sequence]]
            for label, number in NAMES.items():
                for start in range(len(text)):
                    whole = set(range(start, start + len(label))) <= covered
                    if text.startswith(label, start) and whole:
                        expected.add((sequence, "entity", number, label))
        every = sum(text.count(label) for text in texts for label in NAMES)
    names = {(s, k, i, t.strip()) for s, k, i, t in found}
    assert names == expected
    account = store.account.spans["names"]
    assert account.found == every
    assert account.kept + account.cut == every
    assert account.kept == account.kinds.get("entity", 0) == len(store.spans["names"])
    assert account.counts == {"texts seen": len(examples)}


def test_a_mention_that_lost_its_end_is_cut(tmp_path: Path) -> None:
    text = "Paris is the capital of France"
    long = Span("src", 0, len(text), "phrase", "p")
    row = Example("1", {"src": text, "tgt": "Paris"}, {"src": "en", "tgt": "en"})
    row.spans.extend([long, Span("src", 0, 5, "entity", "Q90"), Span("tgt", 0, 5, "entity", "Q90")])
    store = prepare(tmp_path, [row], layout=PAIR_LAYOUT, settings={"max_length": 12})
    table = store.spans["given"]
    assert (table.kinds, table.ids) == (("entity",), ("Q90",))
    assert table.segment.tolist() == [1, 3]
    assert store.account.spans["given"].cut == 1
    assert store.account.truncated_tokens == len(pieces(small_tokenizer("bert"), [text])[0]) - int(
        store.segment_length[1]
    )
    assert store.account.truncated_sequences == 1
    whole = prepare(tmp_path, [row], layout=PAIR_LAYOUT, settings={"max_length": 64})
    assert whole.account.spans["given"].cut == 0


def test_given_spans_are_used_as_they_are(tmp_path: Path) -> None:
    given_spans = [Span("text", 9, 12, "entity", "Qx"), Span("text", 0, 5, "phrase")]
    rows = [example(0, given_spans), example(0)]
    annotators = [name_annotator(), name_annotator("more", kinds=("entity", "phrase"))]
    store = prepare(tmp_path, rows, annotators=annotators, settings={"max_length": 64})
    texts = [one.fields["text"] for one in rows]
    assert rows_of(store, "given", texts) == {
        (0, "entity", "Qx", "the"),
        (0, "phrase", "", "Paris"),
    }
    assert {row[0] for row in rows_of(store, "names", texts)} == {1}
    # Half-covered by what was given: asked, but its entities are left out.
    assert {row[0] for row in rows_of(store, "more", texts)} == {1}
    assert store.account.spans["names"].counts == {"texts seen": 1}
    assert store.account.spans["more"].counts == {"texts seen": 1}


def test_rewriters_move_spans_and_make_versions(tmp_path: Path) -> None:
    rows = [example(0), example(0), example(1)]
    values = {"annotators": [name_annotator()], "settings": {"max_length": 64}}
    store = prepare(tmp_path, rows, rewriters=[swapper(4)], **values)
    assert store.version.tolist() == [0, 1, 2, 3] * 3
    assert store.example.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    tokenizer = small_tokenizer("bert")
    cities = []
    for sequence in range(len(store)):
        ids = store.ids[store.offsets[sequence] : store.offsets[sequence + 1]]
        spans = store.spans["names"]
        row = int(spans.offsets[sequence])
        assert spans.ids[spans.id[row]] == "Q456"
        mention = ids[spans.start[row] : spans.start[row] + spans.length[row]]
        cities.append(tokenizer.decode(mention.tolist()).replace(" ", ""))
    assert set(cities) <= {"Lyon", "Nice", "[UNK]"}
    assert len(set(cities)) == 2
    assert cities[:4] != cities[4:8] or cities[4:8] != cities[8:]
    account = store.account
    assert (account.used, account.documents, account.rows) == (3, 12, 3)
    # Draws are keyed: another seed rewrites otherwise, the same one alike.
    again = prepare(tmp_path / "2", rows, rewriters=[swapper(4)], **values)
    assert again.ids.tolist() == store.ids.tolist()
    other = prepare(tmp_path, rows, rewriters=[swapper(4)], seed=1, **values)
    assert other.folder != store.folder
    assert prepare(tmp_path, rows, seed=1).folder == prepare(tmp_path, rows, seed=2).folder


ROWS = st.one_of(
    st.integers(0, 2).map(example),
    st.sampled_from(["too long", "no tab"]).map(Refused),
    st.sampled_from(["", "  ", "\n", "half \ud800"]).map(
        lambda text: Example("empty", {"text": text}, {"text": "und"})
    ),
)


@hypothesis_settings(max_examples=30, deadline=None)
@given(rows=st.lists(ROWS, min_size=1, max_size=12), limit=st.integers(0, 12))
def test_every_row_is_used_or_refused(rows: list[Example | Refused], limit: int) -> None:
    read = rows[:limit] if limit else rows
    usable = [row for row in read if isinstance(row, Example) and row.id != "empty"]
    with tempfile.TemporaryDirectory() as folder:
        if not usable:
            with pytest.raises(DataError, match="no usable row"):
                prepare(Path(folder), rows, settings={"max_examples": limit})
            return
        account = prepare(Path(folder), rows, settings={"max_examples": limit}).account
    assert account.rows == len(read)
    assert account.used == len(usable)
    assert account.rows == account.used + sum(account.refused.values())
    assert sum(account.stratum_examples.values()) == account.used
    assert sum(account.stratum_tokens.values()) == account.tokens
    for reason in ("too long", "no tab"):
        assert account.refused.get(reason, 0) == sum(
            isinstance(row, Refused) and row.reason == reason for row in read
        )


def test_the_account_can_be_printed_and_comes_back_from_the_cache(tmp_path: Path) -> None:
    rows = [example(0), Refused("too long"), example(2)]
    store = prepare(tmp_path, rows, annotators=[name_annotator()])
    again = prepare(tmp_path, rows, annotators=[name_annotator()])
    lines = store.account.lines()
    assert lines == again.account.lines()
    assert lines[:2] == ["rows: 3 read, 2 used, 1 refused", "  refused, too long: 1"]
    assert "spans (names): 4 found, 4 kept, 0 cut; entity 4" in lines
    assert "  texts seen: 2" in lines
    assert Account.from_json(store.account.to_json()) == store.account
    assert store.account.unknown == int(np.count_nonzero(store.ids == 1))


def test_a_stream_without_a_usable_row_says_why(tmp_path: Path) -> None:
    rows = [Refused("too long"), Refused("too long"), Example("1", {"text": " "}, {})]
    with pytest.raises(DataError, match="'text' has no usable row: 1 × no text, 2 × too long"):
        prepare(tmp_path, rows)
    assert not list(tmp_path.glob("*/*.partial"))
    with pytest.raises(DataError, match=r"'text' has no usable row\n"):
        prepare(tmp_path, [], stream=stream([], content="2"))


@pytest.mark.parametrize(
    ("span", "what"),
    [
        (Span("text", 60, 90, "entity", "Q1"), "example e0: the span 60 to 90.*of 68 characters"),
        (Span("text", 5, 5, "entity"), "the span 5 to 5"),
        (Span("title", 0, 1, "entity"), "the field 'title', which is not there"),
    ],
)
def test_given_spans_outside_the_text_are_refused(tmp_path: Path, span: Span, what: str) -> None:
    with pytest.raises(DataError, match=what):
        prepare(tmp_path, [example(0, [span])])


def broken(*_: object) -> list[list[Span]]:
    raise KeyError("oops")


@pytest.mark.parametrize(
    ("annotate", "what"),
    [
        (broken, "the annotator 'names' failed on 1 examples: KeyError: 'oops'"),
        (lambda examples: [], "returned 0 lists for 1 examples"),
        (lambda examples: [[Span("text", 0, 999, "entity")]], "outside the field 'text'"),
        (lambda examples: [[Span("text", 0, 2, "phrase")]], "the kind 'phrase' is undeclared"),
    ],
)
def test_a_wrong_annotator_is_named(tmp_path: Path, annotate, what: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PluginError, match=what):
        prepare(tmp_path, [example(0)], annotators=[name_annotator(annotate=annotate)])


def _backwards(given: LayoutInput) -> list[LaidOut]:
    (sequence,) = pair_in_one(given)
    first = sequence.segments[1]
    turned = replace(first, char_start=first.char_start[::-1], char_end=first.char_end[::-1])
    return [LaidOut((turned,))]


def _uneven(given: LayoutInput) -> list[LaidOut]:
    (sequence,) = pair_in_one(given)
    return [LaidOut((replace(sequence.segments[1], words=np.zeros(1, np.int64)),))]


def _circle(given: LayoutInput) -> list[LaidOut]:
    return [LaidOut((replace(special_segment((5, 6)), parents=np.array([1, 0])),))]


@pytest.mark.parametrize(
    ("lay_out", "what"),
    [
        (_backwards, "run backwards"),
        (_uneven, "unequal length"),
        (_circle, "run in a circle"),
        (lambda given: [LaidOut((special_segment((10**6,)),))], "outside the vocabulary"),
        (lambda given: [LaidOut((special_segment((5,) * 99),))], "99 tokens; expected 1 to 24"),
        (lambda given: [LaidOut(())], "0 tokens; expected"),
        (lambda given: 1 / 0, "failed on example a: ZeroDivisionError"),
    ],
)
def test_a_wrong_layout_is_named(tmp_path: Path, lay_out, what: str) -> None:  # type: ignore[no-untyped-def]
    row = Example("a", {"src": "Paris is", "tgt": "the capital"}, {"src": "en", "tgt": "fr"})
    layout = Layout(name="odd", lay_out=lay_out, fingerprint="1")
    with pytest.raises(PluginError, match=f"the layout 'odd' .*{what}"):
        prepare(tmp_path, [row], layout=replace(layout, columns={"half": "u1"}))


def test_labels_of_two_sorts_are_refused(tmp_path: Path) -> None:
    rows = [replace(example(n), labels={"star": value}) for n, value in enumerate((1, "two"))]
    with pytest.raises(DataError, match="'star' is a number on some rows and a text on others"):
        prepare(tmp_path, rows)
    rows = [replace(example(0), labels={"star": 0.5})]
    with pytest.raises(DataError, match="example e0: the label 'star' is a float"):
        prepare(tmp_path, rows, stream=stream(rows, content="2"))

"""Readers: what they make of files, and what they refuse."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptm_plus import DataError, Refused
from ptm_plus_k_adapter.alignment import align
from ptm_plus_k_adapter.dependencies import (
    WORD,
    Token,
    Word,
    check_tree,
    merge,
    read_dependencies,
)
from ptm_plus_k_adapter.relations import mark, read_relations

GOOD = {
    "text": "a b",
    "relation": "r",
    "head": {"start": 0, "end": 1},
    "tail": {"start": 2, "end": 3},
}
HEADER = "# sent_id = {}\n# text = {}\n"


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def rows(path, *values):
    return write(path, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))


# ---------------------------------------------------------------------------------------------
# Relations


def test_three_ways_to_write_a_relation_are_one(tmp_path):
    text = "Ada Lovelace knew Charles Babbage."
    head, tail = {"start": 0, "end": 12}, {"start": 18, "end": 33}
    path = rows(
        tmp_path / "a.jsonl",
        {"text": text, "relation": "knew", "head": head, "tail": tail, "lang": "en", "id": "1"},
        {
            "text": text,
            "relation": "knew",
            "mentions": [{"role": "tail", **tail}, {"role": "e1", **head}],
        },
        {
            "tokens": text.split(" "),
            "relation": "knew",
            "h": ["ada", "Q1", [[0, 1]]],
            "t": ["charles", "Q2", [[3, 4]]],
        },
    )
    found = list(read_relations(path))
    assert {one.fields["text"] for one in found[:2]} == {
        "@ Ada Lovelace @ knew # Charles Babbage #."
    }
    assert found[2].fields["text"] == "@ Ada Lovelace @ knew # Charles Babbage. #"
    for one in found:
        kinds = {
            span.kind: (one.fields["text"][span.start : span.end], span.id) for span in one.spans
        }
        assert kinds == {"relation": ("@", "knew"), "relation-tail": ("#", "")}
    assert (found[0].id, found[0].languages["text"]) == ("1", "en")


@given(st.text("ab @#é😀", min_size=4, max_size=20), st.data())
def test_markers_stand_around_the_mentions_and_nothing_else_changes(text, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=4, max_size=4)))
    if cuts[0] == cuts[1] or cuts[2] == cuts[3]:
        return
    names = data.draw(st.permutations(["head", "tail"]))
    spans = {names[0]: (cuts[0], cuts[1]), names[1]: (cuts[2], cuts[3])}
    marked, places = mark(text, spans)
    for role, sign in (("head", "@"), ("tail", "#")):
        start, end = spans[role]
        around = f"{sign} {text[start:end]} {sign}"
        assert marked[places[role] :].startswith(around)
    first, second = sorted(places.items(), key=lambda one: one[1])
    bare = marked
    for role, place in (second, first):
        size = spans[role][1] - spans[role][0]
        bare = bare[:place] + bare[place + 2 : place + 2 + size] + bare[place + size + 4 :]
    assert bare == text


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a b", "head": {"start": 0, "end": 1}}, "its relation is None"),
        ({"text": "a b", "relation": "r", "head": {"start": 0, "end": 1}}, "it has no tail"),
        (
            {
                "text": "a b",
                "relation": "r",
                "head": {"start": 0, "end": 9},
                "tail": {"start": 2, "end": 3},
            },
            "head from 0 to 9 lies outside",
        ),
        (
            {
                "text": "a b",
                "relation": "r",
                "head": {"start": True, "end": 1},
                "tail": {"start": 2, "end": 3},
            },
            "head from True to 1 lies outside",
        ),
        ({"text": 7, "relation": "r"}, "its text is 7"),
        ({"tokens": ["a", 1], "relation": "r"}, "its text is None"),
        ({"tokens": ["a", "b"], "relation": "r", "h": ["a", "", [[5]]]}, "it has no head"),
        (
            {"text": "a", "relation": "r", "mentions": [7, {"role": "head", "start": 0, "end": 1}]},
            "no tail",
        ),
    ],
)
def test_rows_that_are_no_relation_are_refused(tmp_path, row, message):
    path = rows(
        tmp_path / "a.jsonl",
        {
            "text": "x y",
            "relation": "r",
            "head": {"start": 0, "end": 1},
            "tail": {"start": 2, "end": 3},
        },
        row,
    )
    with pytest.raises(DataError, match=message) as caught:
        list(read_relations(path))
    assert caught.value.line == 2


def test_mentions_that_overlap_are_counted_as_refused(tmp_path):
    row = {
        "text": "a b c",
        "relation": "r",
        "head": {"start": 0, "end": 3},
        "tail": {"start": 2, "end": 3},
    }
    (found,) = read_relations(rows(tmp_path / "a.jsonl", row))
    assert isinstance(found, Refused)


# ---------------------------------------------------------------------------------------------
# Dependencies


def words_of(example):
    text = example.fields["text"]
    return [(text[s.start : s.end], s.id) for s in example.spans if s.kind == WORD]


def conllu(*lines):
    """Return lines of (number, form, head) and, if need be, what stands in the last column."""
    filled = ((*line, "_")[:4] for line in lines)
    rows = ((n, form, *"____", head, *"__", last) for n, form, head, last in filled)
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)


def test_a_sentence_in_conllu(tmp_path):
    body = conllu(
        ("1", "Dogs", 2), ("2", "bark", 0, "SpaceAfter=No"), ("2.1", "ghost", "_"), ("3", ".", 2)
    )
    path = write(tmp_path / "a.conllu", HEADER.format("s1", "Dogs bark.") + body + "\n" + body)
    first, second = read_dependencies(path)
    assert (first.id, first.fields["text"]) == ("s1", "Dogs bark.")
    assert words_of(first) == [("Dogs", "1:2"), ("bark", "2:0"), (".", "3:2")]
    assert second.fields["text"] == "Dogs bark."  # no text given: joined, spaces as the file says
    assert second.id.endswith("a.conllu:8")


def test_a_token_of_several_words_takes_the_head_that_leads_out_of_it(tmp_path):
    """``du`` is ``de le``: ``le`` hangs on ``chien`` outside, ``de`` on ``chien`` too."""
    body = conllu(
        ("1", "parle", 0),
        ("2-3", "du", "_"),
        ("2", "de", 3),
        ("3", "le", 4),
        ("4", "chien", 1),
        ("5", "noir", 3),
    )
    (found,) = read_dependencies(
        write(tmp_path / "a.conllu", "# text = parle du chien noir\n" + body)
    )
    assert words_of(found) == [("parle", "1:0"), ("du", "2:4"), ("chien", "4:1"), ("noir", "5:2")]


@pytest.mark.parametrize(
    ("body", "message", "line"),
    [
        (
            conllu(("1", "a", 2), ("2", "b", 3), ("3", "c", 1), ("4", "d", 0)),
            "circle: 1 → 2 → 3 → 1",
            1,
        ),
        (conllu(("1", "a", 1)), "0 words are the root", 1),
        (conllu(("1", " ", 0)), "a word without letters", 1),
        (conllu(("1", "a", 0), ("2", "b", 0)), r"2 words are the root: \[1, 2\]", 1),
        (conllu(("1", "a", 7), ("2", "b", 0)), "the head of word 1 is 7, which is no word", 1),
        (conllu(("1", "a", 0), ("3", "b", 1)), "word '3' where 2 follows", 2),
        (conllu(("1", "a", "_")), "the head of word 1 is '_', not a number", 1),
        (conllu(("1", "a", "²")), "not a number", 1),
        ("1\ta\t0\n", "3 columns instead of ten", 1),
        (conllu(("1-x", "a", 0)), "word '1-x' where 1 follows", 1),
        (conllu(("1.", "a", 0)), "word '1.' where 1 follows", 1),
        (conllu(("2-1", "a", "_"), ("1", "a", 0)), "2-1 is no range of words 1 to 1", 1),
        (
            conllu(
                ("1-2", "a", "_"), ("1", "b", 0), ("2", "c", 1), ("2-3", "d", "_"), ("3", "e", 1)
            ),
            "2-3 is no range of words 3 to 3",
            4,
        ),
        ("", "holds no sentence", None),
    ],
)
def test_what_is_no_tree_is_refused_with_its_line(tmp_path, body, message, line):
    with pytest.raises(DataError, match=message) as caught:
        list(read_dependencies(write(tmp_path / "a.conllu", body)))
    assert caught.value.line == line


def test_the_word_nearest_to_the_root_gives_a_token_its_head(tmp_path):
    """1 hangs on 4, and 4 on 2, the root, which stands in one token with 1."""
    body = conllu(("1-2", "ab", "_"), ("1", "a", 4), ("2", "b", 0), ("3", "c", 4), ("4", "d", 2))
    (found,) = read_dependencies(write(tmp_path / "a.conllu", body))
    assert words_of(found) == [("ab", "1:0"), ("c", "3:4"), ("d", "4:1")]
    assert found.labels == {"merged": 1, "joined": 0}


@st.composite
def trees(draw):
    """Heads of some words, a tree, and tokens that hold neighbours."""
    size = draw(st.integers(1, 9))
    order = draw(st.permutations(range(1, size + 1)))
    heads = {order[0]: 0}
    for place, word in enumerate(order[1:], start=1):
        heads[word] = order[draw(st.integers(0, place - 1))]
    cuts = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    tokens, first = [], 1
    for number, cut in enumerate(cuts, start=1):
        if cut or number == size:
            tokens.append((first, number))
            first = number + 1
    return heads, tokens


@given(trees())
def test_what_was_merged_is_a_tree_of_what_stands_in_the_text(given_tree):
    heads, tokens = given_tree
    words = [Word(number, f"w{number}", heads[number]) for number in sorted(heads)]
    found = merge(words, [Token(a, b, f"t{a}") for a, b in tokens if b > a])
    assert [word.number for word in found] == [first for first, _ in tokens]
    check_tree(found, "memory", 1)
    token_of = {n: a for a, b in tokens for n in range(a, b + 1)} | {0: 0}
    for word, (first, last) in zip(found, tokens, strict=True):
        outside = {token_of[heads[n]] for n in range(first, last + 1)} - {first}
        assert word.head in outside
        assert word.form == (f"t{first}" if last > first else f"w{first}")


def test_json_lines_are_aligned_with_their_text_or_joined(tmp_path):
    path = rows(
        tmp_path / "a.jsonl",
        {"text": "同样，施力", "tokens": ["同样", "，", "施力"], "heads": [3, 1, 0], "lang": "zh"},
        {
            "text": "habla del perro",
            "tokens": ["habla", "de", "el", "perro"],
            "heads": [0, 4, 4, 1],
        },
        {"text": "not this", "tokens": ["a", "b"], "heads": [0, 1]},
    )
    first, second, third = read_dependencies(path)
    assert first.fields["text"] == "同样，施力"
    assert words_of(first) == [("同样", "1:3"), ("，", "2:1"), ("施力", "3:0")]
    assert second.fields["text"] == "habla del perro"  # "de el" is not in the text
    assert words_of(second)[1:] == [("del", "2:4"), ("perro", "4:1")]
    assert third.fields["text"] == "a b"
    assert [one.labels["merged"] for one in (first, second, third)] == [0, 1, 0]
    assert [one.labels["joined"] for one in (first, second, third)] == [0, 0, 1]


@given(
    st.lists(
        st.tuples(st.text("abdel.", min_size=1, max_size=4), st.booleans(), st.booleans()),
        min_size=1,
        max_size=8,
    )
)
def test_words_are_found_where_they_were_put(parts):
    """Of words that are written, with white space or not, nothing is lost and nothing shared."""
    text = "".join(form + (" " if space else "") for form, space, _ in parts)
    forms = [form for form, _, _ in parts]
    found = align(forms, text)
    assert [text[start:end] for _, _, start, end in found] == forms
    assert all(first == last for first, last, _, _ in found)


def test_tokens_of_several_words_are_found_between_their_neighbours():
    text = "Quant au sous-préfet, il sort des bâtiments du club"
    forms = ["Quant", "à", "le", "sous-préfet", ",", "il", "sort", "de", "les", "bâtiments"]
    found = align([*forms, "de", "le", "club"], text)
    shared = [(text[s:e], first, last) for first, last, s, e in found if last > first]
    assert shared == [("au", 1, 2), ("des", 7, 8), ("du", 10, 11)]
    assert align(["a", "b"], "c d") is None
    assert align(["a", "b"], "xyz") is None  # nothing says that they are one
    assert align(["a"], "") is None


def test_a_sentence_that_cannot_be_read_is_soon_given_up():
    assert align(["a"] * 400, "a" * 3000) is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a"], "heads": [1]}, "0 words are the root"),
        ({"tokens": ["a", " "], "heads": [0, 1]}, "'tokens' is not a list of words"),
        ({"tokens": [], "heads": []}, "'tokens' is not"),
        ({"tokens": ["a"], "heads": [0, 1]}, "'heads' is not one number"),
        ({"tokens": ["a"], "heads": [True]}, "'heads' is not one number"),
    ],
)
def test_rows_that_are_no_tree_are_refused(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        list(read_dependencies(rows(tmp_path / "a.jsonl", row)))

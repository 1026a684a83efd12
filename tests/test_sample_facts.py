"""Which facts are withheld, which are asked, and the placebo graph."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptm_plus.knowledge.shuffling import shuffled_triples
from ptm_plus.sample.cldr import Names, Triple
from ptm_plus.sample.facts import (
    commonest_objects,
    names_give_away,
    split_facts,
)
from ptm_plus.word_draws import draw, pick

SUBJECTS = [f"T:{letter}{letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
OBJECTS = [f"C:{letter * 3}" for letter in "XYZW"]
NAMES: Names = {"en": {entity: f"name of {entity}" for entity in SUBJECTS + OBJECTS}}

graphs = st.lists(
    st.tuples(
        st.sampled_from(SUBJECTS), st.sampled_from(["currency", "other"]), st.sampled_from(OBJECTS)
    ),
    unique=True,
    max_size=80,
)
seeds = st.integers(0, 2**32)


def test_draws_are_pinned_and_depend_on_seed_and_word_borders() -> None:
    # blake2b(b"a\x1fb", digest_size=8, key=b"0"), so that another release keeps every choice
    assert draw(0, "a", "b") == 0x1683CD6421E2CC8C
    assert len({draw(0, "a", "b"), draw(1, "a", "b"), draw(0, "ab"), draw(0, "b", "a")}) == 4
    assert {pick(0, "xyz", str(word)) for word in range(50)} == set("xyz")


@settings(max_examples=60, deadline=None)
@given(graphs, seeds)
def test_two_fifths_of_a_shared_object_are_withheld(graph: list[Triple], seed: int) -> None:
    facts = split_facts(graph, NAMES, seed)
    assert sorted(fact.triple for fact in facts) == sorted(graph)
    total = Counter((relation, object_) for _, relation, object_ in graph)
    gone = Counter((fact.relation, fact.object) for fact in facts if not fact.in_text)
    expected = {4: 1, 5: 2, 6: 2, 7: 2, 8: 3, 9: 3, 10: 4, 11: 4, 12: 4, 13: 5}
    for key, count in total.items():
        if count < 4:
            assert gone[key] == 0
        elif count in expected:
            assert gone[key] == expected[count]
        else:
            assert abs(gone[key] / count - 0.4) < 0.05


@settings(max_examples=60, deadline=None)
@given(graphs, seeds)
def test_what_is_asked_in_and_out_of_the_text_has_the_same_objects(
    graph: list[Triple], seed: int
) -> None:
    facts = split_facts(graph, NAMES, seed)
    assert all(fact.half for fact in facts if not fact.in_text)
    for half in ("development", "reported"):
        told, hidden = (
            Counter((f.relation, f.object) for f in facts if f.half == half and f.in_text == told)
            for told in (True, False)
        )
        assert told == hidden
    sizes = Counter(fact.half for fact in facts if not fact.in_text)
    assert 0 <= sizes["development"] - sizes["reported"] <= 1


@settings(deadline=None)
@given(graphs, seeds)
def test_the_split_ignores_the_order_of_the_facts(graph: list[Triple], seed: int) -> None:
    other = sorted(graph, key=lambda triple: draw(seed, *triple))
    assert split_facts(graph, NAMES, seed) == split_facts(other, NAMES, seed)


def test_the_seed_changes_what_is_withheld() -> None:
    graph = [(subject, "currency", "C:XXX") for subject in SUBJECTS]
    chosen = [
        {fact.subject for fact in split_facts(graph, NAMES, seed) if not fact.in_text}
        for seed in range(4)
    ]
    assert all(len(one) == 10 for one in chosen)
    assert len({frozenset(one) for one in chosen}) == 4


def test_a_fact_that_the_names_tell_is_never_withheld() -> None:
    graph = [(subject, "currency", "C:XXX") for subject in SUBJECTS[:5]]
    names: Names = {
        "en": {**NAMES["en"], "T:AA": "New Zealand", "C:XXX": "New Zealand Dollar"},
        "fr": {"T:BB": "Zélande", "C:XXX": "dollar de zélande"},
    }
    assert names_give_away(graph[0], names)
    assert names_give_away(graph[1], names)
    assert not names_give_away(graph[2], names)
    for seed in range(20):
        hidden = {fact.subject for fact in split_facts(graph, names, seed) if not fact.in_text}
        assert len(hidden) == 2
        assert hidden <= {"T:CC", "T:DD", "T:EE"}


def test_the_commonest_object_is_counted_in_the_text_only() -> None:
    graph = [(subject, "currency", "C:XXX") for subject in SUBJECTS[:10]]
    graph += [(subject, "currency", "C:YYY") for subject in SUBJECTS[:3]]
    facts = split_facts(graph, NAMES, 0)
    assert commonest_objects(facts) == {"currency": "C:XXX"}
    three_of_x = [fact for fact in facts if fact.object == "C:YYY" or not fact.in_text]
    assert commonest_objects(three_of_x) == {"currency": "C:YYY"}


@settings(max_examples=60, deadline=None)
@given(graphs, seeds)
def test_the_placebo_keeps_every_degree(graph: list[Triple], seed: int) -> None:
    placebo = shuffled_triples(graph, seed)
    for place in (0, 2):
        before = Counter((triple[1], triple[place]) for triple in graph)
        assert Counter((triple[1], triple[place]) for triple in placebo) == before


@settings(max_examples=60, deadline=None)
@given(graphs, seeds)
def test_the_placebo_repeats_no_triple_where_none_needs_to(graph: list[Triple], seed: int) -> None:
    single = list(
        {(subject, relation): (subject, relation, o) for subject, relation, o in graph}.values()
    )
    placebo = shuffled_triples(single, seed)
    assert len(set(placebo)) == len(single)


def test_the_placebo_separates_objects_that_would_meet_twice() -> None:
    # subject A has both X and Y: a permutation may give it X twice, the repair may not
    graph = [("A", "r", "X"), ("A", "r", "Y"), ("B", "r", "X"), ("C", "r", "X"), ("D", "r", "Y")]
    for seed in range(50):
        assert len(set(shuffled_triples(graph, seed))) == 5


def test_the_placebo_is_another_graph_by_another_seed() -> None:
    graph = [(subject, "currency", OBJECTS[i % 4]) for i, subject in enumerate(SUBJECTS)]
    placebos = {tuple(shuffled_triples(graph, seed)) for seed in range(5)}
    assert len(placebos) == 5
    assert tuple(sorted(graph)) not in placebos


@pytest.mark.parametrize("seed", range(3))
def test_the_placebo_is_reproducible(seed: int) -> None:
    graph = [(subject, "currency", OBJECTS[i % 4]) for i, subject in enumerate(SUBJECTS)]
    assert shuffled_triples(graph, seed) == shuffled_triples(reversed(graph), seed)

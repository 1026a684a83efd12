from __future__ import annotations

import gzip
import lzma

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptm_plus.errors import DataError
from ptm_plus.knowledge.graph import Graph, read_graph
from ptm_plus.knowledge.links import id_order, read_links, unite

FACTS = [
    ("Q142", "capital", "Q90"),
    ("Q90", "country", "Q142"),
    ("Q90", "twin", "Q90"),
    ("Q142", "capital", "Q90"),
]
LABELS = st.text(alphabet="abQ19", min_size=1, max_size=3)


def write(path, rows, opener=open):
    with opener(path, "wt", encoding="utf-8") as stream:
        stream.writelines("\t".join(row) + "\n" for row in rows)
    return path


def test_entities_are_sorted_and_repeated_triples_collapse():
    graph = Graph.build(FACTS)
    assert graph.entities == ("Q142", "Q90")
    assert graph.relations == ("capital", "country", "twin")
    assert graph.triples.tolist() == [[0, 0, 1], [1, 1, 0], [1, 2, 1]]
    assert graph.triples.dtype == np.int64
    assert graph.degree().tolist() == [2, 4]
    assert graph.degree_by_label() == {"Q142": 2, "Q90": 4}


def test_files_are_united_and_integer_ids_stay_text(tmp_path):
    a = write(tmp_path / "a.tsv.gz", [("35154", "7", "10"), ("9", "7", "10")], gzip.open)
    b = write(tmp_path / "b.tsv.xz", [("10500", "7", "11")], lzma.open)
    links = write(tmp_path / "links.tsv", [("35154", "10500"), ("9", "35154")])
    graph = read_graph([a, b], [links])
    assert graph.entities == ("10", "11", "9")
    labelled = [(graph.entities[h], graph.entities[t]) for h, _, t in graph.triples]
    assert labelled == [("9", "10"), ("9", "11")]


def test_fingerprint_depends_on_the_facts_only(tmp_path):
    graph = Graph.build(FACTS)
    halves = [write(tmp_path / f"{n}.tsv", FACTS[n::2]) for n in (1, 0)]
    assert read_graph(halves).fingerprint == graph.fingerprint
    assert Graph.build(FACTS[:2]).fingerprint != graph.fingerprint
    assert Graph.build([("a", "b", "c")]).fingerprint != Graph.build([("c", "b", "a")]).fingerprint


def test_networkx_holds_every_triple():
    graph = Graph.build(FACTS).networkx()
    assert isinstance(graph, nx.MultiDiGraph)
    assert set(graph.edges(keys=True)) == {
        ("Q142", "Q90", "capital"),
        ("Q90", "Q142", "country"),
        ("Q90", "Q90", "twin"),
    }


@given(st.lists(st.tuples(LABELS, LABELS, LABELS), min_size=1))
def test_degree_agrees_with_networkx(facts):
    graph = Graph.build(facts)
    assert graph.degree_by_label() == dict(graph.networkx().degree())


@given(st.lists(st.tuples(LABELS, LABELS)), st.randoms())
def test_links_unite_components_whatever_their_order(pairs, random):
    expected = {}
    for component in nx.connected_components(nx.Graph(pairs)):
        expected.update(dict.fromkeys(component, min(component, key=id_order)))
    shuffled = [pair[:: random.choice([1, -1])] for pair in pairs]
    random.shuffle(shuffled)
    assert unite(shuffled) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tr\tb\n\na\tr\n", r"g\.tsv:3: found 2 columns, expected 3: head, relation, tail"),
        ("a\tr\tb\tc\n", r"g\.tsv:1: found 4 columns, expected 3"),
        ("a r b\n", r"g\.tsv:1: found 1 columns"),
        ("a\t\tb\n", r"g\.tsv:1: column 2 is empty"),
        ("", r"g\.tsv: holds no triples"),
        ("\n \n", r"g\.tsv: holds no triples"),
    ],
)
def test_bad_graph_files_are_named_by_line(tmp_path, text, message):
    path = tmp_path / "g.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_graph([path])


def test_bad_links_and_an_empty_graph_are_refused(tmp_path):
    path = tmp_path / "l.tsv"
    path.write_text("1\t2\t3\n")
    with pytest.raises(DataError, match=r"l\.tsv:1: found 3 columns, expected 2"):
        read_links([path])
    with pytest.raises(DataError, match="no triples"):
        Graph.build([])

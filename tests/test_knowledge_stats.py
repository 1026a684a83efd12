"""Figures of a graph, against figures made by hand."""

from __future__ import annotations

import json

from cli_files import document, run

from ptm_plus.knowledge import Graph
from ptm_plus.knowledge.labels import EntityLabels, Names
from ptm_plus.knowledge.stats import NameStats, graph_stats

TRIPLES = [
    ("a", "likes", "b"),
    ("b", "knows", "a"),
    ("a", "knows", "c"),
    ("c", "knows", "c"),
    ("d", "likes", "e"),
]


def test_a_small_graph_is_counted_by_hand() -> None:
    found = graph_stats(Graph.build(TRIPLES))
    assert (found.entities, found.relations, found.triples, found.loops) == (5, 2, 5, 1)
    assert found.inverse_pairs == 1
    assert (found.components, found.largest_component) == (2, 3)
    # a 3, b 2, c 3 (a loop is two ends), d 1, e 1
    assert found.degree == {"mean": 2.0, "least": 1, "median": 2, "p90": 3, "p99": 3, "most": 3}
    assert list(found.by_relation.items()) == [("knows", 3), ("likes", 2)]
    assert (found.names, found.without_name) == ({}, None)


def test_names_count_for_entities_of_the_graph_alone() -> None:
    labels = EntityLabels.build(
        [
            Names("a", "en", "Ann", ("Annie",)),
            Names("b", "en", "Bo", ("Annie",)),
            Names("z", "en", "Bo"),
            Names("c", "fr", "Céline"),
        ]
    )
    found = graph_stats(Graph.build(TRIPLES), labels)
    assert found.names == {"en": NameStats(2, 3, 1), "fr": NameStats(1, 1, 0)}
    assert found.without_name == 2


def test_the_command_tells_it(tmp_path) -> None:
    graph, labels = tmp_path / "graph.tsv", tmp_path / "labels.jsonl"
    graph.write_text("".join("\t".join(one) + "\n" for one in TRIPLES), encoding="utf-8")
    labels.write_text('{"id": "a", "lang": "en", "label": "Ann"}\n', encoding="utf-8")
    found = document("kg", "stats", "--kg", graph, "--labels", labels)
    assert found["by_relation"] == {"knows": 3, "likes": 2}
    assert found["names"] == {"en": {"entities": 1, "names": 1, "ambiguous": 0}}
    shown = run("kg", "stats", "--kg", graph, "--limit", 1).stdout
    assert "knows" in shown
    assert "likes" not in shown
    assert "1 not shown" in shown
    assert run("kg", "stats").exit_code == 2


def test_relations_are_shown_by_name_where_names_are_given(tmp_path) -> None:
    graph, names = tmp_path / "graph.tsv", tmp_path / "relations.jsonl"
    graph.write_text("".join("\t".join(one) + "\n" for one in TRIPLES), encoding="utf-8")
    rows = [("knows", "en", "is known to"), ("knows", "fr", "connaît"), ("owns", "en", "has")]
    lines = [json.dumps(dict(zip(("id", "lang", "label"), row, strict=True))) for row in rows]
    names.write_text("\n".join(lines), encoding="utf-8")
    flags = ("kg", "stats", "--kg", graph)
    assert document(*flags)["relation_names"] is None
    flags = (*flags, "--relation-labels", names)
    assert document(*flags)["relation_names"] == {"knows": "is known to"}
    assert document(*flags, "--language", "fr")["relation_names"] == {"knows": "connaît"}
    assert "is known to" in run(*flags).stdout

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from ptm_plus.errors import DataError
from ptm_plus.knowledge.graph import Graph
from ptm_plus.knowledge.labels import EntityLabels, Names
from ptm_plus.knowledge.ledger import check
from ptm_plus.knowledge.linker import LinkCounts
from ptm_plus.knowledge.table import write_table

GRAPH = Graph.build([("Q1", "r", "Q2"), ("Q2", "s", "Q3"), ("Q4", "s", "Q5")])


def test_every_figure_by_hand(tmp_path):
    names = EntityLabels.build(
        [
            Names("Q1", "en", "One"),
            Names("Q2", "en", "Two"),
            Names("Q2", "fr", "Deux"),
            Names("Q9", "fr", "Neuf"),
        ]
    )
    counts = LinkCounts(20, 17, 2, 1, Counter({"Q1": 1, "Q2": 7, "Q3": 8, "Q9": 1}))
    table = write_table(
        tmp_path / "v.safetensors", ["Q1", "Q3", "Q8"], np.ones((3, 2), dtype=np.float32)
    )
    ledger = check(GRAPH, names, counts, table)
    expected = {
        "entities": 5,
        "relations": 2,
        "triples": 3,
        "labelled": {"any": 2, "en": 2, "fr": 1},
        "mentions": {"found": 20, "linked": 17, "ambiguous": 2, "common": 1},
        "mentions_in_graph": 16,
        "ids_linked": 4,
        "ids_in_graph": 3,
        "ids_without_vector": 2,
        "vectors": 3,
        "vectors_without_label": 2,
        "frequency": {"0": 2, "1": 1, "2": 0, "4": 1, "8": 1},
        "cuts": None,
    }
    assert json.loads(json.dumps(ledger.to_json())) == expected
    ledger.require_overlap()


def test_a_graph_alone_has_a_ledger_too():
    ledger = check(GRAPH)
    assert ledger.vectors is ledger.ids_without_vector is ledger.vectors_without_label is None
    assert ledger.frequency == {"0": 5}
    assert ledger.labelled == {"any": 0}


def test_a_graph_without_overlap_stops():
    with pytest.raises(DataError, match="no overlap with the text: 4 linked mentions of 1 ids"):
        check(GRAPH, counts=LinkCounts(4, 4, 0, 0, Counter({"P1": 4}))).require_overlap()

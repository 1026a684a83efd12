"""The ablations on real data: facts are split, and settings differ by plugins alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # behind what is installed: only the benchmarks come from there

from benchmarks import ablation  # noqa: E402
from benchmarks.real_knowledge.facts import GRAPH_ONLY, IN_TEXT, split_by_fact  # noqa: E402

numbers = st.integers(0, 8)
sentences = st.lists(st.lists(numbers, min_size=1, max_size=4), min_size=1, max_size=30)


def linked(number: int, entities: list[int], triples: list[tuple[str, str, str]]) -> dict[str, Any]:
    names = [f"name-{one}" for one in entities]
    starts = [sum(len(name) + 1 for name in names[:at]) for at in range(len(names))]
    mentions = [
        {"start": start, "end": start + len(name), "qid": f"Q{one}"}
        for start, name, one in zip(starts, names, entities, strict=True)
    ]
    here = {one["qid"] for one in mentions}
    own = [list(one) for one in triples if {one[0], one[2]} <= here]
    text = " ".join(names)
    return {"id": f"s{number}", "text": text, "lang": "en", "mentions": mentions, "triples": own}


@given(sentences, st.sets(st.tuples(numbers, numbers), max_size=20))
def test_a_question_hides_the_object_of_a_triple_that_training_has_where_it_says(
    of: list[list[int]], facts: set[tuple[int, int]]
) -> None:
    graph = [(f"Q{a}", "r", f"Q{b}") for a, b in sorted(facts) if a != b]
    rows = [linked(number, entities, graph) for number, entities in enumerate(of)]
    training, questions = split_by_fact(rows, graph)
    assert all(row in rows for row in training)
    read = [{one["qid"] for one in row["mentions"]} for row in training]
    for question in questions:
        mentions, target = question["mentions"], question["target"]
        asked = mentions[target]
        name = question["text"][asked["start"] : asked["end"]]
        assert question["text"].count(name) == 1
        others = {one["qid"] for one in mentions} - {asked["qid"]}
        subjects = {head for head, _, tail in graph if tail == asked["qid"] and head in others}
        assert subjects
        together = {head for head in subjects if any({head, asked["qid"]} <= one for one in read)}
        assert together if question["group"] == IN_TEXT else subjects - together
    assert {one["group"] for one in questions} <= {GRAPH_ONLY, IN_TEXT}


def test_facts_of_a_group_that_only_the_graph_has_are_in_no_sentence() -> None:
    graph = [(f"Q{2 * n}", "r", f"Q{2 * n + 1}") for n in range(200)]
    rows = [linked(n, [2 * (n % 200), 2 * (n % 200) + 1], graph) for n in range(600)]
    training, questions = split_by_fact(rows, graph)
    read = {row["text"] for row in training}
    groups = {
        group: [one for one in questions if one["group"] == group]
        for group in (GRAPH_ONLY, IN_TEXT)
    }
    assert len(groups[GRAPH_ONLY]) > 60
    assert len(groups[IN_TEXT]) > 20
    assert not {one["text"] for one in groups[GRAPH_ONLY]} & read
    assert {one["text"] for one in groups[IN_TEXT]} <= read
    assert len(training) + len(questions) <= len(rows)


def test_both_ablations_name_files_that_are_written(tmp_path: Path) -> None:
    bench = ablation.Bench(tmp_path / "data", tmp_path / "out", 1000, 3, 2)
    knowledge, domain = ablation.knowledge_settings(bench), ablation.domain_settings(bench)
    assert knowledge["train"] == {"lr": 2e-3, "threads": 1, "log_every": 50}
    assert domain["train"] == {**knowledge["train"], "lr": 1e-3}
    assert knowledge["batch"] == domain["batch"]
    asked = {Path(one).name for one in domain["evaluate"]["text"]}
    assert asked == {"asked.domain.jsonl", "asked.general.jsonl"}
    told = ablation.task(bench.inputs("domain"), "text")
    assert told.startswith("text=")
    assert told.endswith("task.test.jsonl")

"""The benchmark on a real domain: how it splits, and what is equal between its arms."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # behind what is installed: only the benchmarks come from there

from benchmarks import domain  # noqa: E402
from benchmarks.figures import BASE  # noqa: E402
from benchmarks.real_domain.data import (  # noqa: E402
    ASKED,
    article,
    document,
    is_asked,
    sections,
    split,
)

numbers = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 2)), unique=True)


@given(numbers)
def test_an_article_is_on_one_side_with_its_text_and_its_abstract(
    parts: list[tuple[int, int]],
) -> None:
    rows = [{"id": f"PMC{number}:{part}", "text": "words"} for number, part in parts]
    abstracts = [
        {"id": f"PMC{number}", "sentences": [f"s{number}"], "labels": ["L"]}
        for number in {number for number, _ in parts}
    ]
    trained, asked = split(rows, article, ASKED)
    assert len(trained) + len(asked) == len(rows)
    assert not {article(row) for row in trained} & {article(row) for row in asked}
    task = sections(abstracts)
    learned = {f"PMC{row['text'][1:]}" for row in task["train"]}
    tested = {f"PMC{row['text'][1:]}" for row in task["test"]}
    assert not learned & {article(row) for row in asked}
    assert not tested & {article(row) for row in trained}


def test_general_text_is_split_by_document_and_taken_up_to_a_size() -> None:
    rows = [{"id": f"wiki:{number}", "text": "x" * 10} for number in range(100)]
    trained, asked = split(rows, document, 0.5, most=505)
    assert len(trained) + len(asked) == 50
    assert {row["id"] for row in asked} == {r["id"] for r in rows[:50] if is_asked(r["id"], 0.5)}
    assert 10 < len(asked) < 40


def test_arms_differ_in_nothing_but_what_their_names_say(tmp_path: Path) -> None:
    bench = domain.Bench(tmp_path / "data", tmp_path / "out", 1000)
    given_ = {arm: bench.settings(arm, 1, 100) for arm in domain.ARMS}

    def rest(arm: str, *parts: str) -> dict[str, Any]:
        return {name: value for name, value in given_[arm].items() if name not in parts}

    plugin = ("plugins", "plugin")
    assert rest("replay", *plugin) == given_[BASE]
    assert rest("extension", "model") == rest(BASE, "model")
    assert rest("extension, replay", "model") == rest("replay", "model")
    guarded = given_["extension, replay, guard"]
    assert guarded["plugin"]["domain"] | {"guard": {}} == {
        **given_["extension, replay"]["plugin"]["domain"],
        "guard": {},
    }
    evaluated = {**given_[BASE]["train"], "evaluate_every": 100 // domain.EVALUATIONS}
    assert guarded["train"] == evaluated
    assert {Path(one["model"]["path"]).name for one in given_.values()} == {"model", "extended"}

"""Questions: sentences with one mention to be masked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptm_plus.errors import DataError
from ptm_plus.questions import read_questions
from ptm_plus.sources import parse_source


def written(folder: Path, *rows: Any) -> Any:
    path = folder / "questions.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return parse_source(str(path))


def mention(start: int, end: int, label: str) -> dict[str, Any]:
    return {"start": start, "end": end, "id": label}


def test_the_target_follows_its_mention_when_they_are_sorted(tmp_path: Path) -> None:
    mentions = [mention(11, 17, "Q2"), mention(0, 5, "Q1")]
    row = {"text": "Paris lies France", "lang": "en", "mentions": mentions, "target": 0}
    (example,) = read_questions(written(tmp_path, row))
    assert [(span.start, span.id) for span in example.spans] == [(0, "Q1"), (11, "Q2")]
    assert example.labels == {"target": 1, "group": "all"}
    assert example.languages == {"text": "en"}


@pytest.mark.parametrize(
    "row",
    [
        '{"text": "a',
        {"text": "Paris", "mentions": [mention(0, 5, "Q1")]},
        {"text": "Paris", "mentions": [mention(0, 5, "Q1")], "target": 1},
        {"text": "Paris", "mentions": [{"start": 0}], "target": 0},
    ],
)
def test_a_row_that_is_no_question_is_named_by_its_line(tmp_path: Path, row: Any) -> None:
    good = {"text": "Paris", "mentions": [mention(0, 5, "Q1")], "target": 0}
    with pytest.raises(DataError, match=r"questions\.jsonl:2: not a question"):
        list(read_questions(written(tmp_path, good, row)))

"""Questions: sentences with one mention to be masked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptm_plus.components import Refused
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
    with pytest.raises(DataError, match=r"questions\.jsonl:2: "):
        list(read_questions(written(tmp_path, good, row)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "0"}, "'target' is '0', not the index of one of 1 mentions"),
        ({"target": True}, "'target' is True"),
        ({"target": -1}, "'target' is -1"),
        ({"mentions": "Q1"}, "'mentions' is 'Q1', not a list"),
        ({"mentions": [{"start": 3, "end": 9, "id": "Q1"}]}, "outside 'text'"),
        ({"mentions": [{"start": 0, "end": 5}]}, "a mention has no id"),
        ({"lang": 5}, "a language is 5"),
        ({"group": None}, "'group' is None"),
        ({"text": 7}, "'text' is 7"),
    ],
)
def test_what_is_wrong_with_a_question_is_said(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    row = {"text": "Paris", "lang": "en", "mentions": [mention(0, 5, "Q1")], "target": 0}
    with pytest.raises(DataError, match=message) as caught:
        list(read_questions(written(tmp_path, {**row, **change})))
    assert caught.value.line == 1


def test_json_that_is_no_row_is_refused(tmp_path: Path) -> None:
    for text in ("[1]", "7", "[" * 100_000, '{"text": "a", "text": "b"}'):
        with pytest.raises(DataError, match=r"questions\.jsonl:1: "):
            list(read_questions(written(tmp_path, text)))


def test_blank_lines_are_counted_and_languages_standardised(tmp_path: Path) -> None:
    row = {"text": "Paris", "lang": "eng", "mentions": [mention(0, 5, "Q1")], "target": 0}
    refused, example = read_questions(written(tmp_path, "", row))
    assert isinstance(refused, Refused)
    assert example.languages == {"text": "en"}


def test_questions_are_not_empty_nor_another_format_nor_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no questions"):
        list(read_questions(written(tmp_path)))
    (tmp_path / "a.tsv").write_text("x\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"questions are \.jsonl"):
        list(read_questions(parse_source(str(tmp_path / "a.tsv"))))
    with pytest.raises(DataError, match="questions are read from files"):
        list(read_questions(parse_source("hub:org/name")))

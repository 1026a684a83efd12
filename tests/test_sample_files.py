"""The sample world as files."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from ptm_plus.errors import EnvironmentProblem
from ptm_plus.sample import World, build_world, write_world
from ptm_plus.sample import files as sample_files
from ptm_plus.sample.trees import parsed


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(0)


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_what_is_written_can_be_read_back(world: World, tmp_path: Path) -> None:
    files = write_world(world, tmp_path / "new" / "sample")
    text, pairs = rows(files.text), rows(files.pairs)
    assert len(text) == len(world.text)
    assert len(pairs) == len(world.pairs)
    for row, example in zip(text, world.text, strict=True):
        assert (row["text"], row["lang"]) == (example.fields["text"], example.languages["text"])
        assert row["mentions"] == [
            {"start": s.start, "end": s.end, "id": s.id, "kind": "entity"} for s in example.spans
        ]
    for row, example in zip(pairs, world.pairs, strict=True):
        assert (row["src"], row["tgt"]) == (example.fields["src"], example.fields["tgt"])
        assert (row["src_lang"], row["tgt_lang"]) == (
            example.languages["src"],
            example.languages["tgt"],
        )
        assert len(row["src_mentions"]) + len(row["tgt_mentions"]) == len(example.spans)
    triples = [tuple(line.split("\t")) for line in files.triples.read_text("utf-8").splitlines()]
    assert triples == world.triples
    assert rows(files.labels) == world.labels
    facts = rows(files.facts)
    assert [fact["in_text"] for fact in facts] == [fact.in_text for fact in world.facts]
    assert set(facts[0]) == {"subject", "relation", "object", "in_text", "half"}


def test_mentions_cut_their_names_out_of_the_written_text(world: World, tmp_path: Path) -> None:
    files = write_world(world, tmp_path)
    names = {(row["lang"], row["id"]): row["label"] for row in rows(files.labels)}
    for row in rows(files.pairs)[:500]:
        for side in ("src", "tgt"):
            for mention in row[f"{side}_mentions"]:
                cut = row[side][mention["start"] : mention["end"]]
                assert cut == names[row[f"{side}_lang"], mention["id"]]


def test_relations_are_the_facts_of_their_sentences(world: World, tmp_path: Path) -> None:
    files = write_world(world, tmp_path)
    rows = [json.loads(line) for line in files.relations.read_text("utf-8").splitlines()]
    triples = set(world.triples)
    names = world.names
    for row in rows:
        head, tail = (row["text"][row[end]["start"] : row[end]["end"]] for end in ("head", "tail"))
        ids = [
            [one for one, name in names[row["lang"]].items() if name == written]
            for written in (head, tail)
        ]
        assert any((h, row["relation"], t) in triples for h in ids[0] for t in ids[1])
    assert len(rows) > 2000
    assert len({row["relation"] for row in rows}) > 3


def test_trees_are_trees_of_the_words_of_their_sentences(world: World, tmp_path: Path) -> None:
    text = {one.id: one for one in world.text}
    blocks = write_world(world, tmp_path).trees.read_text("utf-8").strip("\n").split("\n\n")
    patterns = set()
    for block in blocks:
        lines = block.split("\n")
        comments = dict(line[2:].split(" = ", 1) for line in lines if line.startswith("#"))
        cells = [line.split("\t") for line in lines if not line.startswith("#")]
        example = text[comments["sent_id"]]
        assert comments["text"] == example.fields["text"]
        spaced = "".join(c[1] + ("" if c[9] == "SpaceAfter=No" else " ") for c in cells)
        assert spaced == example.fields["text"]
        heads = {int(c[0]): int(c[6]) for c in cells}
        assert list(heads) == list(range(1, len(cells) + 1))
        for word in heads:
            for _ in cells:  # a root is reached in as many steps as there are words, at most
                word = heads.get(word, 0)
            assert word == 0
        assert list(heads.values()).count(0) == 1
        language, _, relation, _, pattern = example.id.split("/")
        patterns.add((language, relation, pattern))
    assert len(patterns) == 4 * 4 * 2
    assert len(blocks) > 2000


def test_a_sentence_with_its_heads_by_hand(world: World) -> None:
    """Isle of Man – currency in use: British Pound. Names hang on their first words."""
    fact, example = next(
        (fact, one)
        for fact, one in world.statements()
        if one.fields["text"].startswith("Isle of Man – currency in use")
    )
    words, heads = parsed(fact, example)
    assert words == [
        *("Isle", "of", "Man", "–"),
        *("currency", "in", "use", ":", "British", "Pound", "."),
    ]
    assert heads == [0, 1, 1, 5, 1, 7, 5, 9, 5, 9, 1]
    others = [one for one in world.statements() if parsed(*one) is None]
    assert {one.id[-1] for _, one in others if one.languages["text"] == "en"} == {"0"}


def test_same_world_same_bytes(world: World, tmp_path: Path) -> None:
    first, second = write_world(world, tmp_path / "a"), write_world(build_world(0), tmp_path / "b")
    for one, two in zip(vars_of(first), vars_of(second), strict=True):
        assert one.read_bytes() == two.read_bytes()
        assert b"\r" not in one.read_bytes()


def vars_of(files: sample_files.SampleFiles) -> list[Path]:
    return [getattr(files, one.name) for one in fields(files)]


def test_writing_again_replaces_and_leaves_no_drafts(world: World, tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text("old")
    write_world(world, tmp_path)
    write_world(world, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "facts.jsonl",
        "labels.jsonl",
        "pairs.jsonl",
        "relations.jsonl",
        "text.jsonl",
        "trees.conllu",
        "triples.tsv",
    ]
    assert (tmp_path / "text.jsonl").read_text("utf-8") != "old"


def test_a_full_disk_leaves_the_old_files(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.jsonl").write_text("old")
    real = sample_files._write_lines

    def full(path: Path, lines: object) -> None:
        if path.name == "labels.jsonl":
            raise OSError(28, "No space left on device")
        real(path, lines)  # type: ignore[arg-type]

    monkeypatch.setattr(sample_files, "_write_lines", full)
    with pytest.raises(EnvironmentProblem, match="No space left"):
        write_world(world, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["text.jsonl"]
    assert (tmp_path / "text.jsonl").read_text() == "old"


def test_a_file_in_the_folders_place(world: World, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(EnvironmentProblem, match="taken"):
        write_world(world, tmp_path / "taken")

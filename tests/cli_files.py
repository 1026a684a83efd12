"""Small input files and a settings file for tests of the command line."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from ptm_plus.cli import app

NAMES = {f"Q{number}": f"Town{chr(65 + number)}" for number in range(20)}
WORDS = ["the", "river", "lies", "near", "a", "road", "north", "of", "old", "hills", "and", "trees"]


@dataclass(frozen=True)
class Files:
    """Where the files lie, and what the text says."""

    folder: Path
    text: Path
    pairs: Path
    kg: Path
    labels: Path
    settings: Path
    sentences: list[str]


def write_files(folder: Path, seed: int = 0) -> Files:
    """Write 120 sentences with two towns each, 60 pairs, a graph, names and settings."""
    draw = random.Random(seed)
    entities = list(NAMES)
    sentences = [_sentence(draw) for _ in range(120)]
    pairs = ["src\ttgt\tsrc_lang\ttgt_lang"]
    pairs += [f"{_sentence(draw)}\t{_sentence(draw)[::-1]}\ten\tfr" for _ in range(60)]
    facts = {(draw.choice(entities), "P1", draw.choice(entities)) for _ in range(60)}
    names = [{"id": one, "lang": "en", "label": name} for one, name in NAMES.items()]
    files = Files(
        folder,
        folder / "text.jsonl",
        folder / "pairs.tsv",
        folder / "kg.tsv",
        folder / "labels.jsonl",
        folder / "settings.toml",
        sentences,
    )
    _lines(files.text, [json.dumps({"text": text, "lang": "en"}) for text in sentences])
    _lines(files.pairs, pairs)
    _lines(files.kg, ["\t".join(fact) for fact in sorted(facts)])
    _lines(files.labels, [json.dumps(row) for row in names])
    _lines(files.settings, _settings(files))
    return files


def _sentence(draw: random.Random) -> str:
    words = [draw.choice(WORDS) for _ in range(8)]
    words.insert(2, draw.choice(list(NAMES.values())))
    words.insert(7, draw.choice(list(NAMES.values())))
    return " ".join(words)


def _settings(files: Files) -> list[str]:
    return [
        f"output = {str(files.folder / 'run')!r}",
        "[data]",
        f"text = [{str(files.text)!r}]",
        "[prepare]",
        f"cache = {str(files.folder / 'cache')!r}",
        "workers = 1",
        "[model.config]",
        "hidden_size = 16",
        "num_hidden_layers = 2",
        "num_attention_heads = 2",
        "intermediate_size = 32",
        "[tokenizer]",
        "vocabulary = 300",
        "[batch]",
        "row_tokens = 128",
        "rows = 4",
        "[train]",
        "steps = 2",
        "threads = 1",
    ]


def _lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def run(*arguments: object) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def document(*arguments: object) -> Any:
    """Return the JSON document that a command prints, and make sure that it is one."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)

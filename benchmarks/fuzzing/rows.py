"""Readers of rows: each row is used or refused, and what is used is sound."""

from __future__ import annotations

import csv
import functools
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pyarrow
import pyarrow.parquet

from benchmarks.fuzzing import counting
from benchmarks.fuzzing.cases import Files, Reader
from benchmarks.fuzzing.rules import encodes, once, require
from benchmarks.fuzzing.words import IDS, LANGUAGES, cell, phrase
from ptm_plus.components import Refused
from ptm_plus.examples import Example
from ptm_plus.questions import read_questions
from ptm_plus.sources import SourceSpec, parse_source, read_pairs, read_text

Read = Callable[[SourceSpec], Iterator[Example | Refused]]
Row = dict[str, Any]


# ---------------------------------------------------------------------------------------------
# Documents


def _marks(text: str, random: Random) -> list[Row]:
    """Return marks within a text; now and then one that is just outside."""
    marks = []
    if random.random() < 0.04:
        start, end = random.choice(((-1, 1), (0, 0), (1, 0), (0, len(text) + 1)))
        marks.append({"start": start, "end": end, "id": "Q1"})
    for _ in range(random.choice((0, 1, 2))):
        start = random.choice((0, random.randrange(len(text))))
        end = random.choice((len(text), random.randint(start + 1, len(text))))
        key = random.choice(("id", "qid", "entity"))
        marks.append({"start": start, "end": end, key: random.choice(IDS)})
    return marks


def _text_row(random: Random) -> Row:
    row: Row = {"text": phrase(random)}
    if random.random() < 0.5:
        row["lang"] = random.choice(LANGUAGES)
    if random.random() < 0.3:
        row["id"] = random.choice(("a1", 7, "é"))
    row["mentions"] = _marks(row["text"], random)
    if random.random() < 0.2:
        row["spans"] = [{"start": 0, "end": 1, "kind": "year", "id": "1990"}]
    return row


def _pair_row(random: Random) -> Row:
    halves = {"src": phrase(random), "tgt": phrase(random)}
    if random.random() < 0.2:
        return {"translation": {"en": halves["src"], "fr": halves["tgt"]}, "score": 0.5}
    marks = {f"{half}_mentions": _marks(text, random) for half, text in halves.items()}
    languages = {f"{half}_lang": random.choice(LANGUAGES) for half in halves}
    return {**halves, **languages, **marks, "score": random.choice((None, 1, 0.5))}


def _question_row(random: Random) -> Row:
    text = phrase(random)
    mentions = _marks(text, random) or [{"start": 0, "end": 1, "id": "Q1"}]
    for mention in mentions:
        mention.setdefault("id", "Q2")
    target = random.randrange(len(mentions))
    return {"text": text, "lang": "en", "mentions": mentions, "target": target, "group": "all"}


def _some(row: Callable[[Random], Row], random: Random) -> list[Row]:
    return [row(random) for _ in range(random.randint(1, 5))]


def _json_lines(rows: Iterable[Row], random: Random) -> bytes:
    escaped = random.random() < 0.5
    return "".join(f"{json.dumps(row, ensure_ascii=escaped)}\n" for row in rows).encode()


def _jsonl(row: Callable[[Random], Row], name: str, random: Random) -> Files:
    return {name: _json_lines(_some(row, random), random)}


def _cells(columns: Iterable[str], random: Random) -> list[list[str]]:
    header = random.sample(list(columns), len(list(columns)))
    rows = [
        [random.choice(LANGUAGES) if "lang" in name else cell(random) for name in header]
        for _ in range(random.randint(1, 5))
    ]
    return [header, *rows]


def _tsv(columns: tuple[str, ...], name: str, random: Random) -> Files:
    rows = _cells(columns, random)
    if "src" in columns and random.random() < 0.5:
        width = random.choice((2, 4))
        rows = [[cell(random), cell(random), "en", "fr"][:width] for _ in rows]
    return {name: "".join("\t".join(row) + "\n" for row in rows).encode()}


def _csv(columns: tuple[str, ...], name: str, random: Random) -> Files:
    stream = io.StringIO()
    ends = random.choice(("\n", "\r\n"))
    csv.writer(stream, lineterminator=ends).writerows(_cells(columns, random))
    return {name: stream.getvalue().encode()}


@functools.cache
def _parquet_file(row: Callable[[Random], Row], number: int) -> bytes:
    random = Random(number)
    rows = _some(row, random)
    names = sorted({name for one in rows for name in one} - {"id", "translation"})
    columns = {name: [one.get(name) for one in rows] for name in names}
    columns = {name: values for name, values in columns.items() if any(values)}
    if number % 4 == 1:
        columns = {name: values for name, values in columns.items() if "mentions" not in name}
    stream = io.BytesIO()
    packed = random.choice(("none", "snappy", "gzip", "zstd"))
    pyarrow.parquet.write_table(pyarrow.table(columns), stream, compression=packed)
    return stream.getvalue()


def _parquet(row: Callable[[Random], Row], name: str, random: Random) -> Files:
    return {name: _parquet_file(row, random.randrange(200))}


def _txt(random: Random) -> Files:
    paragraphs = ["\n".join(cell(random) for _ in range(random.randint(1, 3))) for _ in range(3)]
    return {"a.txt": random.choice(("\n\n", "\n \n\n", "\r\n\r\n")).join(paragraphs).encode()}


def _tmx(random: Random) -> Files:
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<tmx version="1.4"><header/><body>']
    for number in range(random.randint(1, 4)):
        lines.append(f'<tu tuid="{number}">')
        for language in ("en", random.choice(("fr", "fr-FR", "FR"))):
            text = escape(_XML_ONLY.sub("", cell(random)))
            mark = random.choice(("", "<ph>{b}</ph>", "<hi>bold</hi>", "<![CDATA[<b>]]>"))
            key = random.choice(("xml:lang", "lang"))
            lines.append(f'  <tuv {key}="{language}"><seg>{text}{mark}</seg></tuv>')
        lines.append("</tu>")
    return {"a.tmx": "\n".join([*lines, "</body></tmx>", ""]).encode()}


_XML_ONLY = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _parallel(random: Random) -> Files:
    """Return two files of as many lines."""
    lines = [(cell(random), cell(random)) for _ in range(random.randint(1, 5))]
    halves = zip(*lines, strict=True)
    return {
        name: "".join(f"{text}\n" for text in half).encode()
        for name, half in zip(("a.en", "a.fr"), halves, strict=True)
    }


# ---------------------------------------------------------------------------------------------
# Rules


def _rows(path: Path, format: str, has_header: Callable[[Path], bool]) -> int:
    if format == ".txt":
        return counting.documents(path)
    if format == ".parquet":
        return counting.parquet_rows(path)
    if format == ".csv":
        return counting.csv_records(path) - 1
    return counting.lines(path) - (format == ".tsv" and has_header(path))


def _names_halves(path: Path) -> bool:
    cells = [one.strip() for one in counting.plain_lines(path)[0].decode().split("\t")]
    return "src" in cells and "tgt" in cells


def _check_rows(read: Read, has_header: Callable[[Path], bool], path: Path) -> int:
    # Files of odd length name their languages in the flag; so both ways are tried.
    odd = path.stat().st_size % 2
    argument = ("", "en-fr=" if read is read_pairs else "en=")[odd] + str(path)
    found = list(read(parse_source(argument)))
    format = next(suffix for suffix in path.suffixes if suffix not in (".gz", ".xz", ".bz2"))
    held = _rows(path, format, has_header)
    require(len(found) == held, f"{held} rows in the file, {len(found)} used or refused")
    used = [one for one in found if isinstance(one, Example)]
    for example in used:
        check_example(example)
    if format == ".jsonl":
        columns = ("mentions",) if read is read_questions else ("mentions", "spans")
        _check_json(counting.plain_lines(path), found, columns)
    return len(used)


def check_example(example: Example) -> None:
    """Check that an example's spans lie within and that all of it can be written down."""
    texts = [example.id, *example.fields.values(), *example.languages.values()]
    for span in example.spans:
        length = len(example.fields[span.field])
        require(0 <= span.start < span.end <= length, f"a span outside its text: {span}")
        texts += [span.kind, span.id]
    require(all(isinstance(text, str) for text in texts), "an example with what is no text")
    require(all(map(encodes, texts)), "an example that cannot be written down")
    require(set(example.fields) == set(example.languages), "a field without a language")
    require(all(example.languages.values()), "an empty language")


def _check_json(
    lines: list[bytes], found: list[Example | Refused], columns: tuple[str, ...]
) -> None:
    """Every text and every mark with an id is there, and no key was said twice."""
    for line, example in zip(lines, found, strict=True):
        if isinstance(example, Example):
            row = json.loads(line.decode(), object_pairs_hook=once)
            halves = row.get("translation")
            in_halves = isinstance(halves, Mapping) and "text" not in example.fields
            texts = halves if in_halves else row
            for text in example.fields.values():
                require(text in texts.values(), "a text that the row does not have")
            require(len(example.spans) == _identified(row, columns), "a mark was lost")


def _identified(row: Row, columns: tuple[str, ...]) -> int:
    found = 0
    for column in columns:
        for prefix in ("", "src_", "tgt_"):
            if ("text" in row) == (prefix == ""):
                for mark in row.get(prefix + column) or ():
                    kind = mark.get("kind") if column == "spans" else None
                    ids = [mark.get(name) for name in ("qid", "id", "entity")]
                    named = any(one is not None and one != "" for one in ids)
                    found += named or kind not in (None, "", "entity")
    return found


def _check_tmx(path: Path) -> int:
    found = list(read_pairs(parse_source(str(path))))
    tree = ElementTree.fromstring(b"\n".join(counting.plain_lines(path)))
    held = sum(1 for _ in tree.iter("tu"))
    require(len(found) == held, f"{held} units in the file, {len(found)} used or refused")
    return _sound(found)


def _check_parallel(path: Path) -> int:
    src, tgt = (next(path.parent.glob(f"a.{code}*")) for code in ("en", "fr"))
    found = list(read_pairs(parse_source(f"{src},{tgt}")))
    held = [counting.lines(half) for half in (src, tgt)]
    require(held == [len(found)] * 2, f"{held} lines in the files, {len(found)} used or refused")
    return _sound(found)


def _sound(found: Iterable[Example | Refused]) -> int:
    used = [one for one in found if isinstance(one, Example)]
    for example in used:
        check_example(example)
    return len(used)


def _header(path: Path) -> bool:
    return True


# ---------------------------------------------------------------------------------------------
# The list


def _reader(name: str, document: Callable[[Random], Files], read: Read) -> Reader:
    has_header = _names_halves if read is read_pairs else _header
    return Reader(
        name,
        document,
        functools.partial(_check_rows, read, has_header),
        by_line=not name.endswith("parquet"),
        compressible=not name.endswith("parquet"),
    )


_TEXT = ("text", "lang", "id")
_PAIR = ("src", "tgt", "src_lang", "tgt_lang")
_p = functools.partial

READERS = (
    _reader("text.txt", _txt, read_text),
    _reader("text.jsonl", _p(_jsonl, _text_row, "a.jsonl"), read_text),
    _reader("text.tsv", _p(_tsv, _TEXT, "a.tsv"), read_text),
    _reader("text.csv", _p(_csv, _TEXT, "a.csv"), read_text),
    _reader("text.parquet", _p(_parquet, _text_row, "a.parquet"), read_text),
    _reader("pairs.jsonl", _p(_jsonl, _pair_row, "a.jsonl"), read_pairs),
    _reader("pairs.tsv", _p(_tsv, _PAIR, "a.tsv"), read_pairs),
    _reader("pairs.csv", _p(_csv, _PAIR, "a.csv"), read_pairs),
    _reader("pairs.parquet", _p(_parquet, _pair_row, "a.parquet"), read_pairs),
    Reader("pairs.tmx", _tmx, _check_tmx, by_line=True, compressible=True),
    Reader("pairs.parallel", _parallel, _check_parallel, by_line=False),
    _reader("questions", _p(_jsonl, _question_row, "a.jsonl"), read_questions),
)

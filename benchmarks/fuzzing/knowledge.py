"""Readers of graphs, links, names and vectors."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from random import Random

import numpy as np

from benchmarks.fuzzing import counting
from benchmarks.fuzzing.cases import Files, Reader
from benchmarks.fuzzing.rules import encodes, once, require
from benchmarks.fuzzing.words import IDS, LANGUAGES, cell
from ptm_plus.knowledge import VectorTable, read_graph, read_labels, write_table
from ptm_plus.knowledge.labels import NAME_COLUMNS, iter_names
from ptm_plus.knowledge.links import read_links


def _table(rows: Iterable[Iterable[str]]) -> bytes:
    return "".join("\t".join(row) + "\n" for row in rows).encode()


def _triples(random: Random) -> Files:
    return {"kg.tsv": _table(random.choices(IDS, k=3) for _ in range(random.randint(1, 8)))}


def _links(random: Random) -> Files:
    return {"links.tsv": _table(random.choices(IDS, k=2) for _ in range(random.randint(0, 8)))}


def _labels_tsv(random: Random) -> Files:
    header = ["id", "lang", random.choice(NAME_COLUMNS), "aliases"][: random.randint(3, 4)]
    rows = [
        [random.choice(IDS), random.choice(LANGUAGES), cell(random), f"{cell(random)}|x"]
        for _ in range(random.randint(1, 5))
    ]
    return {"names.tsv": _table([header, *(row[: len(header)] for row in rows)])}


def _labels_jsonl(random: Random) -> Files:
    rows = [
        {
            "id": random.choice((*IDS, 7)),
            "lang": random.choice(LANGUAGES),
            "label": cell(random),
            "aliases": [cell(random)] * random.randint(0, 2),
        }
        for _ in range(random.randint(1, 5))
    ]
    escaped = random.random() < 0.5
    lines = [json.dumps(row, ensure_ascii=escaped) for row in rows]
    return {"names.jsonl": "".join(f"{line}\n" for line in lines).encode()}


@functools.cache
def _vector_files(number: int) -> Files:
    random = Random(number)
    ids = random.sample(IDS, random.randint(1, len(IDS)))
    dtype = random.choice((np.float16, np.float32))
    vectors = np.ones((len(ids), random.randint(1, 5)), dtype=dtype)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.safetensors"
        write_table(path, ids, vectors, {"model": "transe"})
        files = {path.name: path.read_bytes()}
        files["v.ids.json"] = path.with_suffix(".ids.json").read_bytes()
    if number % 2:  # as another program writes it: without hashes, so that more of it is read
        from safetensors.numpy import save

        files[path.name] = save({"vectors": vectors})
    return files


def _vectors(random: Random) -> Files:
    return dict(_vector_files(random.randrange(100)))


# ---------------------------------------------------------------------------------------------
# Rules


def _rows(path: Path) -> list[tuple[str, ...]]:
    lines = [line.decode() for line in counting.plain_lines(path)]
    return [tuple(cell.strip() for cell in line.split("\t")) for line in lines if line.strip()]


def _check_graph(path: Path) -> int:
    graph = read_graph([path])
    named, kinds = graph.entities, graph.relations
    found = {(named[h], kinds[r], named[t]) for h, r, t in graph.triples.tolist()}
    require(found == set(_rows(path)), "the graph does not have the triples of the file")
    require(len(graph.fingerprint) == 64, "no fingerprint")
    return len(found)


def _check_links(path: Path) -> int:
    united = read_links([path])
    pairs = _rows(path)
    group = {label: {label} for pair in pairs for label in pair}
    for left, right in pairs:
        joined = group[left] | group[right]
        group |= dict.fromkeys(joined, joined)
    shortest = {label: min(all, key=lambda id: (len(id), id)) for label, all in group.items()}
    require(united == shortest, "ids are united in another way than the file says")
    return len(pairs)


def _check_names(path: Path) -> int:
    names = list(iter_names(path))
    held = counting.filled_lines(path)
    if ".tsv" in path.suffixes:
        header = counting.plain_lines(path)[0].decode().split("\t")
        require(len(set(header)) == len(header), "takes one of two columns of a name")
        held -= 1
    else:
        for line in counting.plain_lines(path):
            if line.decode().strip():
                json.loads(line.decode(), object_pairs_hook=once)
    require(len(names) == held, f"{held} rows in the file, {len(names)} used")
    texts = [text for row in names for text in (row.id, row.language, row.label, *row.aliases)]
    require(all(map(encodes, texts)), "names that cannot be written down")
    require(len(read_labels([path]).fingerprint) == 64, "no fingerprint")
    return len(names)


def _check_vectors(path: Path) -> int:
    table = VectorTable.open(path)
    require(all(map(encodes, table.labels)), "ids that cannot be written down")
    require(len(set(table.labels)) == len(table), "ids and vectors differ in number")
    found = table.gather(table.rows(table.labels))
    require(found.shape == table.vectors.shape, "not all vectors can be gathered")
    require(bool(np.isfinite(found).all()), "vectors that are not finite")
    return len(found)


_row = functools.partial(Reader, by_line=True, compressible=True)

READERS = (
    _row("triples", _triples, _check_graph),
    _row("links", _links, _check_links),
    _row("labels.tsv", _labels_tsv, _check_names),
    _row("labels.jsonl", _labels_jsonl, _check_names),
    Reader("vectors", _vectors, _check_vectors),
)

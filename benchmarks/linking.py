"""How fast text is linked to a dictionary of a million names, beside the bare libraries.

    python -m benchmarks.linking --json linking.json
    python -m benchmarks.linking --labels names.jsonl --text 'corpus/*.jsonl' --json linking.json

The dictionary is grown to the wanted size by combining words of real names: those of the sample
world, or of ``--labels``. The text is ``--text``, or sentences of English words in which one word
in 30 begins a name. Each tool runs in a process of its own, on one core, over the same text: the
project's linker (word borders, ambiguity, offsets), and what the libraries do by themselves,
without any of these: ``ahocorasick_rs`` and ``daachorse`` (leftmost longest), spaCy's
``PhraseMatcher`` (tokenised by ``spacy.blank``). A tool that is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import multiprocessing
import os
import platform
import random
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ptm_plus.knowledge import DictionaryLinker, EntityLabels, LinkCounts, Names
from ptm_plus.knowledge.labels import iter_names
from ptm_plus.sample import build_world
from ptm_plus.sources import parse_source, read_text

SHARES = (0.25, 0.5, 1.0)
"""Parts of the text, to see whether time grows with it in a line."""

Tool = Callable[[Sequence[str]], Callable[[str], int]]
"""Names to a function that links a text and returns the number of names found."""


# ---------------------------------------------------------------------------------------------
# Names and text


def real_names(labels: Sequence[str]) -> list[str]:
    """Return English names: of files, or of the sample world."""
    if labels:
        rows = itertools.chain.from_iterable(map(iter_names, labels))
        return sorted({row.label for row in rows if row.language == "en"})
    return sorted({row["label"] for row in build_world().labels if row["lang"] == "en"})


def grown(names: Sequence[str], size: int, seed: int = 0) -> list[str]:
    """Return so many distinct names: the given ones and combinations of their words."""
    rng = random.Random(seed)
    words = sorted({word for name in names for word in name.split()})
    found = dict.fromkeys(names[:size])
    while len(found) < size:
        first = rng.choice(names).split()[:2]
        found[" ".join((*first, *rng.choices(words, k=rng.choice((1, 1, 2)))))] = None
    return list(found)


def made_text(names: Sequence[str], megabytes: float, seed: int = 0) -> Iterator[str]:
    """Yield documents of words by Zipf's law, with a name at one place in 30."""
    rng = random.Random(seed)
    letters = "etaoinshrdlucmfwypvbgk"
    plain = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(30_000)]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(plain) + 1)))
    size = 0
    while size < megabytes * 1e6:
        words = rng.choices(plain, cum_weights=weights, k=600)
        for place in range(rng.randrange(30), 600, 30):
            words[place] = rng.choice(names)
        text = " ".join(words)
        size += len(text.encode())
        yield text


def given_text(sources: Sequence[str], megabytes: float) -> Iterator[str]:
    """Yield the texts of some sources, up to a size."""
    size = 0.0
    for source in sources:
        for example in read_text(parse_source(source)):
            text = getattr(example, "fields", {}).get("text", "")
            size += len(text.encode()) / 1e6
            if size > megabytes:
                return
            yield text


# ---------------------------------------------------------------------------------------------
# Tools


def our_linker(names: Sequence[str]) -> Callable[[str], int]:
    """Return the project's linker."""
    rows = (Names(f"Q{number}", "en", name) for number, name in enumerate(names))
    linker = DictionaryLinker(EntityLabels.build(rows), ambiguity="first")

    def link(text: str) -> int:
        return len(linker.link(text, "en", LinkCounts()))

    link("")
    return link


def bare_ahocorasick(names: Sequence[str]) -> Callable[[str], int]:
    """Return ahocorasick_rs by itself."""
    from ahocorasick_rs import AhoCorasick, MatchKind

    automaton = AhoCorasick(names, matchkind=MatchKind.LeftmostLongest, store_patterns=False)
    return lambda text: len(automaton.find_matches_as_indexes(text))


def bare_daachorse(names: Sequence[str]) -> Callable[[str], int]:
    """Return daachorse by itself."""
    import daachorse

    automaton = daachorse.CharwiseDoubleArrayAhoCorasick(
        list(names), daachorse.MATCH_KIND_LEFTMOST_LONGEST
    )
    return lambda text: len(automaton.find(text))


def phrase_matcher(names: Sequence[str]) -> Callable[[str], int]:
    """Return spaCy's matcher over its own tokens."""
    import spacy
    from spacy.matcher import PhraseMatcher

    language = spacy.blank("en")
    language.max_length = 1 << 30
    matcher = PhraseMatcher(language.vocab)
    matcher.add("name", list(language.tokenizer.pipe(names)))
    return lambda text: len(matcher(language.make_doc(text)))


TOOLS: dict[str, tuple[str, Tool]] = {
    "ptm-plus": ("ptm_plus", our_linker),
    "ahocorasick_rs": ("ahocorasick_rs", bare_ahocorasick),
    "daachorse": ("daachorse", bare_daachorse),
    "spacy PhraseMatcher": ("spacy", phrase_matcher),
}


def measure(tool: Tool, names: Sequence[str], texts: Sequence[str], rounds: int) -> dict[str, Any]:
    """Build a tool and time it on growing parts of the text."""
    before = _resident()
    began = time.process_time()
    link = tool(names)
    built = time.process_time() - began
    after, found, points = _resident(), 0, []
    for share in SHARES:
        part = texts[: max(1, round(len(texts) * share))]
        size = sum(len(text.encode()) for text in part) / 1e6
        seconds = []
        for _ in range(rounds):
            began = time.process_time()
            found = sum(map(link, part))
            seconds.append(time.process_time() - began)
        points.append((size, min(seconds)))
    return {
        "megabytes_a_second": round(points[-1][0] / points[-1][1], 2),
        "by_size": [
            {"megabytes": round(size, 2), "seconds": round(seconds, 3)} for size, seconds in points
        ],
        "seconds_to_build": round(built, 2),
        "mib_to_build": round((after - before) / 2**20),
        "found": found,
    }


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _in_a_process(name: str, names: Sequence[str], texts: Sequence[str], rounds: int) -> Any:
    """Measure in a process of its own, so that memory is the tool's."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def work() -> None:
        there.send(measure(TOOLS[name][1], names, texts, rounds))

    process = context.Process(target=work)
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        return {"failed": "the process died"}
    finally:
        process.join()


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--names", type=int, default=1_000_000, help="size of the dictionary")
    parser.add_argument("--megabytes", type=float, default=8.0, help="of text")
    parser.add_argument("--labels", action="append", default=[], help="names to grow from")
    parser.add_argument("--text", action="append", default=[], help="text to link")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tool", choices=TOOLS, action="append", help="repeatable")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    real = real_names(given.labels)
    names = grown(real, given.names)
    texts = list(
        given_text(given.text, given.megabytes) if given.text else made_text(real, given.megabytes)
    )
    tools = {}
    for name in given.tool or TOOLS:
        if importlib.util.find_spec(TOOLS[name][0]) is None:
            tools[name] = {"failed": "not installed"}
        else:
            tools[name] = _in_a_process(name, names, texts, given.rounds)
        print(name, json.dumps(tools[name]), flush=True)
    if given.json:
        machine = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        document = {**machine, "names": len(names), "texts": len(texts), "tools": tools}
        given.json.write_text(json.dumps(document, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

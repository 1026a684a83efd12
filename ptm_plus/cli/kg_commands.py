"""Linking text to a graph by names, and checking what fits together, file to file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptm_plus.components import Refused
from ptm_plus.errors import DataError, EnvironmentProblem, SettingsError
from ptm_plus.examples import Example, Span
from ptm_plus.knowledge.common_words import WordCounter, common_words
from ptm_plus.knowledge.graph import Graph, read_graph
from ptm_plus.knowledge.labels import EntityLabels, read_labels
from ptm_plus.knowledge.ledger import Ledger
from ptm_plus.knowledge.ledger import check as check_fit
from ptm_plus.knowledge.linker import DictionaryLinker, LinkCounts
from ptm_plus.progress import Watch
from ptm_plus.sources import parse_source, read_text

if TYPE_CHECKING:
    from ptm_plus.prepare.mention_cuts import CutCounter

_ENTITY = "entity"
_EVERY = 1000


@dataclass(frozen=True, kw_only=True)
class LinkRequest:
    """Which text is linked to what, and how.

    Attributes:
        text: as after ``--text``.
        kg: triple files.
        labels: label files.
        links: files of ids that are one.
        ambiguity: the linker's policy; by default the best connected entity where there is a
            graph, and none where there is not.
        min_length: shortest name.
        lower_case: also look for names without an upper-case letter.
        common_words: leave out aliases that are common words of the text.
    """

    text: tuple[str, ...] = ()
    kg: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    ambiguity: str | None = None
    min_length: int = 3
    lower_case: bool = False
    common_words: bool = True

    def graph(self) -> Graph | None:
        """Return the graph, ``None`` where there is none."""
        return read_graph(self.kg, self.links) if self.kg else None

    def names(self) -> EntityLabels | None:
        """Return the names, ``None`` where there are none."""
        return read_labels(self.labels, self.links) if self.labels else None

    def linker(self, labels: EntityLabels, graph: Graph | None, watch: Watch) -> DictionaryLinker:
        """Return the linker over some names, which looks at the text for common words."""
        policy: Any = self.ambiguity or ("skip" if graph is None else "most_connected")
        return DictionaryLinker(
            labels,
            min_length=self.min_length,
            ambiguity=policy,
            lower_case=self.lower_case,
            degree=None if graph is None else graph.degree_by_label(),
            common=self._common(labels, watch) if self.common_words else None,
        )

    def _common(self, labels: EntityLabels, watch: Watch) -> dict[str, frozenset[str]]:
        counter = WordCounter(labels)
        with watch.task("count words") as task:
            number = 0
            for number, example in enumerate(read_examples(self.text, _Tally()), start=1):
                counter.add(example.fields["text"], example.languages.get("text", "und"))
                if number % _EVERY == 0:
                    task.update(number)
            task.update(number)
        return common_words(labels, counter.counts)


def link_files(request: LinkRequest, output: Path, watch: Watch) -> dict[str, int]:
    """Write the text with its mentions, whole or not at all.

    An example that comes with entities keeps them and gets no others, as in training.

    Args:
        request: text, names, and perhaps a graph that restricts them.
        output: ``.jsonl`` file, one object per text.
        watch: where progress goes.

    Returns:
        What was counted: texts, refused, given mentions, names found, linked, ambiguous, common
        words, entities.

    Raises:
        SettingsError: no text, no names, or another suffix.
        DataError: an input is wrong.
        EnvironmentProblem: the file cannot be written.
    """
    if output.suffix != ".jsonl":
        raise SettingsError(f"--output {output}: must end in .jsonl", "name a .jsonl file")
    if not request.text:
        raise SettingsError("no text was given", "give --text FILE")
    graph, names = request.graph(), request.names()
    if names is None:
        raise SettingsError("no names were given", "give --labels FILE")
    if graph is not None:
        names = names.restricted(set(graph.entities))
    linker, tally = request.linker(names, graph, watch), _Tally()
    with watch.task("link") as task:
        found = _linked(read_examples(request.text, tally), linker, tally)
        _write(output, (_row(*one) for one in _counted(found, task)))
    return tally.counts()


def cut_counter(tokenizer: str, max_length: int) -> CutCounter:
    """Return the counter of mentions that the ends of sequences cut.

    Args:
        tokenizer: its folder or hub name.
        max_length: longest sequence in tokens, specials included.

    Raises:
        SettingsError: no such folder, or the special tokens leave no room.
        EnvironmentProblem: the tokenizer cannot be loaded, or is not a fast one.
    """
    from ptm_plus.prepare.mention_cuts import CutCounter
    from ptm_plus.prepare.tokenization import load_tokenizer

    return CutCounter(load_tokenizer(tokenizer), max_length)


def check_files(
    request: LinkRequest, vectors: Path | None, cutting: CutCounter | None, watch: Watch
) -> Ledger:
    """Compare graph, names, text and vectors.

    Text is linked with all names, not only those of the graph's entities, so that the share of
    mentions that the graph knows says something.

    Args:
        request: graph, names and text.
        vectors: file of entity vectors.
        cutting: counts the mentions that the ends of sequences cut.
        watch: where progress goes.

    Raises:
        SettingsError: no graph was given.
        DataError: an input is wrong.
    """
    from ptm_plus.knowledge.table import VectorTable

    graph, names = request.graph(), request.names()
    if graph is None:
        raise SettingsError("no graph was given", "give --kg FILE")
    tally = _Tally()
    if request.text:
        linker = request.linker(names or EntityLabels({}), graph, watch)
        with watch.task("link") as task:
            found = _linked(read_examples(request.text, tally), linker, tally)
            for example, mentions in _counted(found, task):
                if cutting is not None:
                    cutting.add(example, mentions)
    cuts = None if cutting is None else cutting.total()
    table = None if vectors is None else VectorTable.open(vectors)
    return check_fit(graph, names, tally.all_links(), table, cuts)


def require(ledger: Ledger, fail_below: float = 0.0) -> None:
    """Stop where text and graph share too little.

    Args:
        ledger: what was counted.
        fail_below: smallest share of linked mentions that must be in the graph.

    Raises:
        DataError: they share nothing, or less than that.
    """
    ledger.require_overlap()
    share = mention_share(ledger)
    if share < fail_below:
        raise DataError(
            f"{share:.1%} of the linked mentions are in the graph, fewer than {fail_below:.1%}",
            "give a graph that knows the text's entities, or lower --fail-below",
        )


def mention_share(ledger: Ledger) -> float:
    """Return the share of linked mentions whose entity is in the graph."""
    return ledger.mentions_in_graph / max(1, ledger.mentions["linked"])


# ---------------------------------------------------------------------------------------------
# Rows


class _Tally:
    """What was seen: texts, refusals, given mentions, links."""

    def __init__(self) -> None:
        self.texts = self.refused = self.given = 0
        self.links = LinkCounts()
        self.given_by_id: dict[str, int] = {}

    def all_links(self) -> LinkCounts:
        """Return what was linked, given mentions among it."""
        given = LinkCounts(self.given, self.given, 0)
        given.by_id.update(self.given_by_id)
        return self.links + given

    def counts(self) -> dict[str, int]:
        """Return the counts by name."""
        return {
            "texts": self.texts,
            "refused": self.refused,
            "mentions_given": self.given,
            "names_found": self.links.found,
            "linked": self.links.linked,
            "ambiguous": self.links.ambiguous,
            "common_words": self.links.common,
            "entities": len(self.all_links().by_id),
        }


def read_examples(arguments: Sequence[str], tally: Any) -> Iterator[Example]:
    """Yield the examples of some sources; refusals are counted in ``tally.refused``."""
    for argument in arguments:
        for row in read_text(parse_source(argument)):
            if isinstance(row, Refused):
                tally.refused += 1
            else:
                yield row


def _linked(
    examples: Iterable[Example], linker: DictionaryLinker, tally: _Tally
) -> Iterator[tuple[Example, list[Span]]]:
    """Yield examples with their mentions: those that came with them, else those of the linker."""
    for example in examples:
        tally.texts += 1
        given = [span for span in example.spans if span.kind == _ENTITY]
        tally.given += len(given)
        for span in given:
            tally.given_by_id[span.id] = tally.given_by_id.get(span.id, 0) + 1
        yield example, given or _link(example, linker, tally)


def _link(example: Example, linker: DictionaryLinker, tally: _Tally) -> list[Span]:
    text, language = example.fields["text"], example.languages.get("text", "und")
    links = linker.link(text, language, tally.links)
    return [Span("text", link.start, link.end, _ENTITY, link.id) for link in links]


def _row(example: Example, mentions: Sequence[Span]) -> dict[str, Any]:
    others = [span for span in example.spans if span.kind != _ENTITY]
    row: dict[str, Any] = {
        "id": example.id,
        "lang": example.languages.get("text", "und"),
        "text": example.fields["text"],
        "mentions": [{"start": one.start, "end": one.end, "id": one.id} for one in mentions],
    }
    if others:
        row["spans"] = [
            {"start": one.start, "end": one.end, "kind": one.kind, "id": one.id} for one in others
        ]
    return row


def _counted(rows: Iterable[Any], task: Any) -> Iterator[Any]:
    number = 0
    for number, row in enumerate(rows, start=1):
        yield row
        if number % _EVERY == 0:
            task.update(number)
    task.update(number)


def _write(output: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    draft = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(output)
    except OSError as error:
        raise EnvironmentProblem(
            f"{output}: cannot be written: {error.strerror or error}",
            "name another file, or make room",
        ) from error
    finally:
        draft.unlink(missing_ok=True)

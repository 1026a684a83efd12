"""What the commands of ``kg`` read, and whether graph, names, text and vectors fit together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptm_plus.components import Refused
from ptm_plus.errors import DataError, SettingsError
from ptm_plus.examples import Example, Span
from ptm_plus.knowledge.common_words import WordCounter, common_words
from ptm_plus.knowledge.graph import Graph, read_graph
from ptm_plus.knowledge.labels import EntityLabels, read_labels
from ptm_plus.knowledge.ledger import Ledger
from ptm_plus.knowledge.ledger import check as check_fit
from ptm_plus.knowledge.linker import DictionaryLinker, LinkCounts
from ptm_plus.progress import Watch
from ptm_plus.sources import SourceSpec, parse_source, read_text

if TYPE_CHECKING:
    from ptm_plus.prepare.mention_cuts import CutCounter

Common = Mapping[str, frozenset[str]]
"""Aliases that are common words, by language."""

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

    def linker(
        self, labels: EntityLabels, graph: Graph | None, common: Common | None = None
    ) -> DictionaryLinker:
        """Return the linker over some names, some of which may be common words."""
        policy: Any = self.ambiguity or ("skip" if graph is None else "most_connected")
        return DictionaryLinker(
            labels,
            min_length=self.min_length,
            ambiguity=policy,
            lower_case=self.lower_case,
            degree=None if graph is None else graph.degree_by_label(),
            common=common,
        )

    def common(self, labels: EntityLabels, watch: Watch) -> Common:
        """Return the aliases that are common words of the text, where that counts."""
        if not self.common_words:
            return {}
        counter = WordCounter(labels)
        with watch.task("count words") as task:
            number = 0
            for number, example in enumerate(read_examples(self.text), start=1):
                counter.add(example.fields["text"], example.languages.get("text", "und"))
                if number % _EVERY == 0:
                    task.update(number)
            task.update(number)
        return common_words(labels, counter.counts)


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
    counts = LinkCounts()
    if request.text:
        names = names or EntityLabels({})
        linker = request.linker(names, graph, request.common(names, watch))
        with watch.task("link") as task:
            number = 0
            for number, example in enumerate(read_examples(request.text), start=1):
                given = entity_spans(example)
                counts.add_known(one.id for one in given)
                mentions = given or linked_spans(example, linker, counts)
                if cutting is not None:
                    cutting.add(example, mentions)
                if number % _EVERY == 0:
                    task.update(number)
            task.update(number)
    cuts = None if cutting is None else cutting.total()
    table = None if vectors is None else VectorTable.open(vectors)
    return check_fit(graph, names, counts, table, cuts)


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
# Reading


def read_examples(arguments: Sequence[str]) -> Iterator[Example]:
    """Yield the examples of some sources, without the rows that are refused."""
    return (row for _, spec in single_files(arguments) for row in used_rows(spec))


def used_rows(spec: SourceSpec) -> Iterator[Example]:
    """Yield the examples of a source, without the rows that are refused."""
    return (row for row in read_text(spec) if not isinstance(row, Refused))


def single_files(arguments: Sequence[str]) -> Iterator[tuple[str, SourceSpec]]:
    """Yield (name, source) for every file or dataset that the arguments name."""
    for spec in map(parse_source, arguments):
        if spec.hub is not None:
            yield str(spec.hub), spec
        for path in spec.files:
            yield path, replace(spec, files=(path,))


def entity_spans(example: Example) -> list[Span]:
    """Return the mentions of entities that came with a text."""
    return [span for span in example.spans if span.kind == _ENTITY]


def linked_spans(example: Example, linker: DictionaryLinker, counts: LinkCounts) -> list[Span]:
    """Return the mentions that the linker finds, and count them."""
    text, language = example.fields["text"], example.languages.get("text", "und")
    links = linker.link(text, language, counts)
    return [Span("text", link.start, link.end, _ENTITY, link.id) for link in links]

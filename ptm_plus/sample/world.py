"""Building the sample world: sentences and translation pairs from facts and names."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TypedDict

from ptm_plus.examples import Example, Span
from ptm_plus.knowledge.shuffling import shuffled_triples
from ptm_plus.sample.cldr import LANGUAGES, Names, Triple, read_aliases, read_world
from ptm_plus.sample.facts import SHARED_BY, Fact, split_facts
from ptm_plus.sample.templates import Mention, card, fill, namings, statements
from ptm_plus.word_draws import draw, pick

SHARED_SENTENCES = 2
"""Sentences per language, by different patterns, for a fact whose object others share."""

UNSHARED_LANGUAGES = 3
"""Languages that have a sentence for a fact whose object fewer than ``SHARED_BY`` share."""

PAIRS_PER_FACT = 7
"""Pairs of languages, of the 21 there are, in which a fact is stated in both."""

NAMING_PAIRS = 3
"""Pairs of languages in which a subject's name and code are stated in both."""

HELD_OUT = (("en", "fr"), ("en", "ru"), ("en", "zh"), ("es", "de"))
"""Pairs of languages from which translations are held out for retrieval."""

HELD_OUT_EACH = 50
"""Translations held out per pair of languages, each about another subject."""

LanguagePair = tuple[str, str]


class Label(TypedDict):
    """Names of one entity in one language."""

    id: str
    lang: str
    label: str
    aliases: list[str]


@dataclass(frozen=True)
class World:
    """The sample world.

    Attributes:
        seed: what every choice was keyed with.
        triples: the whole graph, with the facts that no text tells.
        labels: names and aliases by entity and language.
        text: sentences and short documents, field ``text``, with their mentions as spans.
        pairs: translations, fields ``src`` and ``tgt``, with the mentions of both.
        facts: the graph's facts, each with whether the text may tell it and when it is asked.
    """

    seed: int
    triples: list[Triple]
    labels: list[Label]
    text: list[Example]
    pairs: list[Example]
    facts: list[Fact]

    def statements(self) -> Iterator[tuple[Fact, Example]]:
        """Yield the facts that a sentence of the text states, each with its sentence."""
        facts = {"/".join(fact.triple): fact for fact in self.facts}
        for example in self.text:
            _, _, said = example.id.partition("/")
            triple, _, _ = said.rpartition("/")
            if triple in facts:
                yield facts[triple], example

    @cached_property
    def names(self) -> Names:
        """Name by entity by language."""
        names: Names = {language: {} for language in LANGUAGES}
        for label in self.labels:
            names[label["lang"]][label["id"]] = label["label"]
        return names


def can_state(fact: Fact, language: str, names: Names) -> bool:
    """Tell whether both ends have a name in the language, and not the same one."""
    subject, object_ = (names[language].get(end) for end in (fact.subject, fact.object))
    return bool(subject and object_ and subject.casefold() != object_.casefold())


def _mentions(language: str, names: Names, **ends: str) -> dict[str, Mention]:
    return {hole: Mention(entity, names[language][entity]) for hole, entity in ends.items()}


def state(
    fact: Fact, language: str, template: int, names: Names, field: str = "text"
) -> tuple[str, list[Span]]:
    """Return one sentence that states the fact, with spans on its subject and object."""
    pattern = statements(language, fact.relation)[template]
    return fill(pattern, _mentions(language, names, s=fact.subject, o=fact.object), field)


def choose_template(seed: int, fact: Fact, *words: str) -> int:
    """Return the number of the pattern that states the fact on this occasion."""
    patterns = range(len(statements(LANGUAGES[0], fact.relation)))
    return pick(seed, patterns, "template", *fact.triple, *words)


def state_pair(fact: Fact, languages: LanguagePair, template: int, names: Names) -> Example:
    """Return a pair that states the fact by one pattern in two languages."""
    src, src_spans = state(fact, languages[0], template, names, "src")
    tgt, tgt_spans = state(fact, languages[1], template, names, "tgt")
    return Example(
        id="/".join([*languages, *fact.triple, str(template)]),
        fields={"src": src, "tgt": tgt},
        languages={"src": languages[0], "tgt": languages[1]},
        spans=src_spans + tgt_spans,
    )


def held_out(facts: Iterable[Fact], names: Names, seed: int) -> list[tuple[Fact, LanguagePair]]:
    """Return what retrieval is asked with: facts of the text, and two languages for each.

    Within two languages every subject occurs once.  The training pairs state none of these facts
    in those two languages, in either direction and by whatever pattern.
    """
    told = [fact for fact in facts if fact.in_text]
    found: list[tuple[Fact, LanguagePair]] = []
    for languages in HELD_OUT:
        usable = [fact for fact in told if all(can_state(fact, one, names) for one in languages)]
        usable.sort(key=lambda fact: (draw(seed, "hold", *languages, *fact.triple), fact))
        first = {fact.subject: fact for fact in reversed(usable)}
        chosen = [fact for fact in usable if first[fact.subject] is fact]
        found.extend((fact, languages) for fact in chosen[:HELD_OUT_EACH])
    return found


def _occasions(fact: Fact, shared: bool, names: Names, seed: int) -> Iterator[tuple[str, int]]:
    """Yield the languages and patterns in which the text has the fact as a sentence of its own."""
    able = [language for language in LANGUAGES if can_state(fact, language, names)]
    if not shared:
        able.sort(key=lambda language: draw(seed, "tell", language, *fact.triple))
        able = able[:UNSHARED_LANGUAGES]
    for language in able:
        first = choose_template(seed, fact, "text", language)
        for number in range(SHARED_SENTENCES if shared else 1):
            yield language, (first + number) % len(statements(language, fact.relation))


def _sentences(facts: Iterable[Fact], names: Names, seed: int) -> Iterator[Example]:
    """Yield the sentences that state one fact each.

    Half of the facts are a subject's own (Japan alone has the yen); they are told less often,
    because a short training has nothing to learn from them but one more name.
    """
    facts = list(facts)
    subjects = Counter((fact.relation, fact.object) for fact in facts)
    for fact in facts:
        if fact.in_text:
            shared = subjects[fact.relation, fact.object] >= SHARED_BY
            for language, template in _occasions(fact, shared, names, seed):
                text, spans = state(fact, language, template, names)
                name = "/".join([language, *fact.triple, str(template)])
                yield Example(name, {"text": text}, {"text": language}, spans)


def _cards(facts: Iterable[Fact], names: Names, seed: int) -> Iterator[Example]:
    """Yield a document with two facts about every subject and language that has two."""
    told: dict[tuple[str, str], list[Fact]] = defaultdict(list)
    for fact in facts:
        for language in LANGUAGES:
            if fact.in_text and can_state(fact, language, names):
                told[fact.subject, language].append(fact)
    for (subject, language), choices in told.items():
        couples = list(combinations(choices, 2))
        if couples:
            one, two = pick(seed, couples, "card", subject, language)
            ends = _mentions(language, names, s=subject, o=one.object, o2=two.object)
            text, spans = fill(card(language, one.relation, two.relation), ends)
            name = f"{language}/{subject}/{one.object}/{two.object}"
            yield Example(name, {"text": text}, {"text": language}, spans)


def _naming(subject: str, language: str, template: int, names: Names, field: str) -> Example:
    code = subject.split(":", 1)[1]
    ends = _mentions(language, names, s=subject)
    text, spans = fill(namings(language, code)[template], ends, field)
    return Example(f"{language}/{subject}/{template}", {field: text}, {field: language}, spans)


def _namings(subjects: Iterable[str], names: Names, seed: int) -> Iterator[Example]:
    """Yield one sentence per subject and language that only names it."""
    for subject in subjects:
        for language in LANGUAGES:
            if subject in names[language]:
                template = draw(seed, "naming", subject, language) % 2
                yield _naming(subject, language, template, names, "text")


def _directed(seed: int, couple: LanguagePair, *words: str) -> LanguagePair:
    """Return the two languages in the order in which this pair is written."""
    return couple if draw(seed, "direction", *couple, *words) % 2 else (couple[1], couple[0])


def _couples(seed: int, languages: Iterable[str], *words: str) -> list[LanguagePair]:
    """Return every two of the languages, in an order of the words' own."""
    couples = combinations(languages, 2)
    return sorted(couples, key=lambda couple: draw(seed, "couple", *couple, *words))


def _fact_pairs(facts: Iterable[Fact], names: Names, seed: int) -> Iterator[Example]:
    facts = list(facts)
    kept_back = {(fact, frozenset(couple)) for fact, couple in held_out(facts, names, seed)}
    for fact in facts:
        if not fact.in_text:
            continue
        able = [language for language in LANGUAGES if can_state(fact, language, names)]
        couples = [
            couple
            for couple in _couples(seed, able, *fact.triple)
            if (fact, frozenset(couple)) not in kept_back
        ]
        for couple in couples[:PAIRS_PER_FACT]:
            template = choose_template(seed, fact, "pair", *couple)
            yield state_pair(fact, _directed(seed, couple, *fact.triple), template, names)


def _naming_pairs(subjects: Iterable[str], names: Names, seed: int) -> Iterator[Example]:
    for subject in subjects:
        able = [language for language in LANGUAGES if subject in names[language]]
        for couple in _couples(seed, able, subject)[:NAMING_PAIRS]:
            template = draw(seed, "naming pair", subject, *couple) % 2
            one, two = _directed(seed, couple, subject)
            src = _naming(subject, one, template, names, "src")
            tgt = _naming(subject, two, template, names, "tgt")
            yield Example(
                id=f"{one}/{two}/{subject}/{template}",
                fields=src.fields | tgt.fields,
                languages=src.languages | tgt.languages,
                spans=src.spans + tgt.spans,
            )


def _labels(names: Names) -> list[Label]:
    found = []
    for language, known in names.items():
        aliases = read_aliases(language, known)
        found += [
            Label(id=entity, lang=language, label=name, aliases=aliases.get(entity, []))
            for entity, name in known.items()
        ]
    return sorted(found, key=lambda label: (label["id"], label["lang"]))


def _mixed(examples: Iterable[Example], seed: int, kind: str) -> list[Example]:
    """Return the examples in keyed order, so that any stretch of them is a fair sample."""
    return sorted(examples, key=lambda one: (draw(seed, "order", kind, one.id), one.id))


def build_world(seed: int = 0) -> World:
    """Build the sample world; the same seed and the same CLDR give the same world.

    Args:
        seed: decides which facts are withheld, which patterns state a fact, and the order.
    """
    triples, names = read_world()
    facts = split_facts(triples, names, seed)
    subjects = sorted({fact.subject for fact in facts})
    text = [
        *_sentences(facts, names, seed),
        *_cards(facts, names, seed),
        *_namings(subjects, names, seed),
    ]
    pairs = [*_fact_pairs(facts, names, seed), *_naming_pairs(subjects, names, seed)]
    return World(
        seed=seed,
        triples=triples,
        labels=_labels(names),
        text=_mixed(text, seed, "text"),
        pairs=_mixed(pairs, seed, "pairs"),
        facts=facts,
    )


def shuffled(world: World, seed: int = 0) -> list[Triple]:
    """Return the placebo graph: the world's graph with objects permuted within each relation."""
    return shuffled_triples(world.triples, seed)

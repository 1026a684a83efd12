"""The sample world: what its sentences say, and what they never say."""

from __future__ import annotations

import re
import subprocess
import sys
import unicodedata
from collections import Counter, defaultdict
from itertools import combinations, pairwise

import pytest

from ptm_plus.examples import Example
from ptm_plus.sample import (
    LANGUAGES,
    World,
    build_world,
    majority_guess,
    probe_examples,
    retrieval_pairs,
    score,
    shuffled,
)
from ptm_plus.sample.evaluation import asked_object, head_questions
from ptm_plus.sample.facts import ASKED
from ptm_plus.sample.templates import Mention, card, fill, namings, statements
from ptm_plus.sample.trees import parsed


@pytest.fixture(scope="module", params=[0, 7])
def world(request: pytest.FixtureRequest) -> World:
    return build_world(request.param)


def halves(examples: list[Example]) -> list[tuple[str, str, list[tuple[int, int, str]]]]:
    """Language, text and mentions of every field of every example."""
    return [
        (
            example.languages[field],
            text,
            [(s.start, s.end, s.id) for s in example.spans if s.field == field],
        )
        for example in examples
        for field, text in example.fields.items()
    ]


def everything(world: World) -> list[Example]:
    probes = [
        example
        for in_text in (True, False)
        for half in ("development", "reported")
        for example in probe_examples(world, in_text=in_text, half=half)
    ]
    return world.text + world.pairs + retrieval_pairs(world) + probes


def test_every_span_covers_the_entitys_name(world: World) -> None:
    names = {(label["lang"], label["id"]): label["label"] for label in world.labels}
    for language, text, mentions in halves(everything(world)):
        assert mentions
        assert all(text[start:end] == names[language, id_] for start, end, id_ in mentions)
        for (_, end, _), (start, _, _) in pairwise(mentions):
            assert end < start
        assert "{" not in text


def test_all_spans_are_entities_of_the_graph(world: World) -> None:
    entities = {entity for subject, _, object_ in world.triples for entity in (subject, object_)}
    for example in everything(world):
        assert {span.kind for span in example.spans} == {"entity"}
        assert {span.id for span in example.spans} <= entities


def test_no_mentions_of_a_withheld_fact_meet(world: World) -> None:
    withheld = {frozenset({f.subject, f.object}) for f in world.facts if not f.in_text}
    for _, text, mentions in halves(world.text + world.pairs):
        for couple in combinations([id_ for _, _, id_ in mentions], 2):
            assert frozenset(couple) not in withheld, text


def test_no_names_of_a_withheld_fact_meet(world: World) -> None:
    """As strings: a name counts wherever it stands, unless it is a part of a longer mention."""
    by_language: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for fact in world.facts:
        for language, names in world.names.items():
            if not fact.in_text and fact.subject in names and fact.object in names:
                both = names[fact.subject].casefold(), names[fact.object].casefold()
                by_language[language].append((*both, str(fact.triple)))
    for language, text, mentions in halves(world.text + world.pairs):
        folded = text.casefold()
        spans = [(start, end) for start, end, _ in mentions]
        for subject, object_, triple in by_language[language]:
            if subject in folded and object_ in folded:
                alone = [stands_alone(folded, name, spans) for name in (subject, object_)]
                assert not all(alone), (triple, text)


def stands_alone(text: str, name: str, spans: list[tuple[int, int]]) -> bool:
    """Whether the name occurs as words of its own, and not as a part of a longer mention.

    Chinese has no spaces: there a name counts wherever its characters stand.
    """
    edge = "" if unicodedata.name(name[0]).startswith("CJK") else r"\b"
    return any(
        not any(
            start <= hit.start() and hit.end() <= end and end - start > len(name)
            for start, end in spans
        )
        for hit in re.finditer(edge + re.escape(name) + edge.replace(r"\b", r"(?!\w)"), text)
    )


def test_the_string_search_can_find_a_leak(world: World) -> None:
    text = "niger – official language: french; nigeria – official language: english."
    assert stands_alone(text, "niger", [(0, 5)])
    assert not stands_alone("nigeria: french", "niger", [(0, 7)])
    assert stands_alone("nigeria: french", "french", [(0, 7), (9, 15)])
    assert not stands_alone("у этого языка", "того", [])
    assert stands_alone("以下地方有多哥", "多哥", [])


def test_two_fifths_per_shared_object(world: World) -> None:
    total = Counter((fact.relation, fact.object) for fact in world.facts)
    gone = Counter((fact.relation, fact.object) for fact in world.facts if not fact.in_text)
    assert sum(gone.values()) > 100
    for key, count in total.items():
        assert gone[key] == (int(count * 2 / 5 + 1e-9) if count >= 4 else 0), key


def test_every_object_asked_for_is_learnable_from_the_text(world: World) -> None:
    facts = {(f.subject, f.object): f for f in world.facts}
    seen: Counter[tuple[str, str, str]] = Counter()
    for language, _, mentions in halves(world.text):
        for couple in combinations([id_ for _, _, id_ in mentions], 2):
            fact = facts.get(couple) or facts.get((couple[1], couple[0]))
            if fact:
                seen[language, fact.relation, fact.object] += 1
    for fact in world.facts:
        for language, names in world.names.items():
            if fact.half and fact.object in names and fact.subject in names:
                assert seen[language, fact.relation, fact.object] >= 2


def test_every_subject_is_named_in_every_language_that_names_it(world: World) -> None:
    named = {(lang, id_) for lang, _, found in halves(world.text) for _, _, id_ in found}
    for fact in world.facts:
        assert all(
            (lang, fact.subject) in named for lang in LANGUAGES if fact.subject in world.names[lang]
        )


def test_a_subject_has_an_object_under_one_relation_only(world: World) -> None:
    """Else a fact withheld in one relation could be told in another."""
    couples = [(fact.subject, fact.object) for fact in world.facts]
    assert len(couples) == len(set(couples))


def test_no_sentence_says_that_a_name_is_itself(world: World) -> None:
    for _, text, mentions in halves(everything(world)):
        names = [text[start:end].casefold() for start, end, _ in mentions]
        assert len(names) == len(set(names)), text


def test_no_name_is_a_code(world: World) -> None:
    for label in world.labels:
        code = label["id"].split(":", 1)[1]
        assert label["label"].casefold() != code.casefold()
        assert label["label"] not in label["aliases"]


def test_facts_that_everybody_knows(world: World) -> None:
    triples = set(world.triples)
    assert ("T:JP", "currency", "C:JPY") in triples
    assert ("T:CH", "official_language", "L:de") in triples
    assert ("T:SE", "spoken_language", "L:en") in triples
    assert ("T:PL", "time_zone", "Z:Europe_Central") in triples
    assert ("T:DE", "currency", "C:DEM") not in triples
    names = world.names
    assert [names[lang]["T:DE"] for lang in ("en", "fr", "ru", "zh")] == [
        "Germany",
        "Allemagne",
        "Германия",
        "德国",
    ]


def test_languages_and_scripts() -> None:
    world = build_world(0)
    told = Counter(example.languages["text"] for example in world.text)
    assert set(told) == set(LANGUAGES)
    assert len(LANGUAGES) >= 6
    assert min(told.values()) > 0.8 * max(told.values())
    scripts: dict[str, Counter[str]] = defaultdict(Counter)
    for label in world.labels:
        letters = (char for char in label["label"] if char.isalpha())
        scripts[label["lang"]].update(unicodedata.name(char).split()[0] for char in letters)
    commonest = {counter.most_common(1)[0][0] for counter in scripts.values()}
    assert commonest == {"LATIN", "CYRILLIC", "CJK", "ARABIC"}


def test_sizes_are_those_of_a_few_minutes(world: World) -> None:
    assert 5_000 <= len(world.text) <= 12_000
    assert 4_000 <= len(world.pairs) <= 8_000
    assert 200 <= len({subject for subject, _, _ in world.triples}) <= 300
    assert 700 <= len(world.triples) <= 1_500
    for examples in (world.text, world.pairs):
        assert len({example.id for example in examples}) == len(examples)


def test_the_text_has_no_sentence_twice(world: World) -> None:
    told = Counter((example.languages["text"], example.fields["text"]) for example in world.text)
    assert max(told.values()) == 1


def test_both_halves_of_a_pair_mention_the_same_entities(world: World) -> None:
    for pair in world.pairs + retrieval_pairs(world):
        sides = [
            sorted(span.id for span in pair.spans if span.field == field)
            for field in ("src", "tgt")
        ]
        assert sides[0] == sides[1]
        assert pair.languages["src"] != pair.languages["tgt"]
    couples = Counter(frozenset(pair.languages.values()) for pair in world.pairs)
    assert len(couples) == 21


def test_patterns_agree_across_languages() -> None:
    mentions = {"s": Mention("S", "<s>"), "o": Mention("O", "<o>")}
    for relation in ("currency", "official_language", "spoken_language", "time_zone"):
        by_language = [statements(language, relation) for language in LANGUAGES]
        assert len({len(patterns) for patterns in by_language}) == 1
        for parallel in zip(*by_language, strict=True):
            orders = {tuple(span.id for span in fill(pattern, mentions)[1]) for pattern in parallel}
            assert len(orders) == 1
            assert len(set(parallel)) == len(LANGUAGES)


def test_filling_a_pattern_by_hand() -> None:
    mentions = {"s": Mention("T:JP", "Japan"), "o": Mention("C:JPY", "Yen")}
    text, spans = fill("{o} / {s}.", mentions, "src")
    assert text == "Yen / Japan."
    assert [(s.field, s.start, s.end, s.id) for s in spans] == [
        ("src", 0, 3, "C:JPY"),
        ("src", 6, 11, "T:JP"),
    ]
    assert card("en", "currency", "time_zone") == (
        "Country or territory: {s}. Currency: {o}. Time zone: {o2}."
    )
    assert card("zh", "currency") == "国家或地区：{s}。货币：{o}。"
    assert namings("en", "JP")[0] == "Country or territory: {s}. Code: JP."


def test_retrieval_pairs_are_held_out_and_distinct(world: World) -> None:
    pairs = retrieval_pairs(world)
    assert 150 <= len(pairs) <= 250
    told = {(f.subject, f.object) for f in world.facts if f.in_text}

    def content(pair: Example) -> tuple[frozenset[str], frozenset[str]]:
        return frozenset(s.id for s in pair.spans), frozenset(pair.languages.values())

    trained = {content(pair) for pair in world.pairs}
    subjects = []
    for pair in pairs:
        assert content(pair) not in trained
        ends = {span.id for span in pair.spans}
        subject = next(id_ for id_ in ends if id_.startswith("T:"))
        assert any((subject, object_) in told for object_ in ends)
        subjects.append((pair.languages["src"], pair.languages["tgt"], subject))
    assert len(subjects) == len(set(subjects))
    targets = {(pair.languages["tgt"], pair.fields["tgt"]) for pair in pairs}
    assert len(targets) >= len(pairs) - 2


def test_probes_ask_the_right_facts(world: World) -> None:
    facts = {(f.subject, f.object): f for f in world.facts}
    shown = {example.fields["text"] for example in world.text}
    asked: dict[tuple[bool, str], set[tuple[str, str]]] = {}
    for in_text in (True, False):
        for half in ("development", "reported"):
            examples = probe_examples(world, in_text=in_text, half=half)
            for example in examples:
                (subject,) = (s.id for s in example.spans if s.id != asked_object(example))
                fact = facts[subject, asked_object(example)]
                assert (fact.in_text, fact.half) == (in_text, half)
                assert in_text or example.fields["text"] not in shown
            asked[in_text, half] = {
                (example.spans[0].id, example.spans[1].id) for example in examples
            }
    assert not asked[False, "development"] & asked[False, "reported"]
    hidden = sum(not fact.in_text for fact in world.facts)
    assert sum(bool(fact.half) for fact in world.facts) == 2 * hidden
    french = probe_examples(world, in_text=False, languages=["fr"])
    assert {example.languages["text"] for example in french} == {"fr"}


def test_heads_are_asked_of_sentences_that_no_training_has(world: World) -> None:
    told = {" ".join(found[0]) for one in world.statements() if (found := parsed(*one))}
    sides = []
    for half in ASKED:
        rows = head_questions(world, half)
        assert {row["lang"] for row in rows[:50]} == {row["lang"] for row in rows}
        assert len(rows) > 500
        for row in rows:
            tokens, heads = row["tokens"], row["heads"]
            assert len(tokens) == len(heads)
            assert heads.count(0) == 1
            for place in range(1, len(heads) + 1):  # every word hangs on the root in the end
                seen = set()
                while place and place not in seen:
                    seen.add(place)
                    place = heads[place - 1]
                assert not place
        sides.append({" ".join(row["tokens"]) for row in rows})
    learned, asked = sides
    assert not learned & asked
    assert not told & (learned | asked)


def test_majority_guess_against_counting_by_hand(world: World) -> None:
    examples = probe_examples(world, in_text=False, languages=["en"])
    told: dict[str, Counter[str]] = defaultdict(Counter)
    relation = {}
    for fact in world.facts:
        relation[fact.subject, fact.object] = fact.relation
        if fact.in_text:
            told[fact.relation][fact.object] += 1
    right, per_object = 0, defaultdict(list)
    for fact in world.facts:
        if fact.half == "reported" and not fact.in_text:
            hit = told[fact.relation][fact.object] == max(told[fact.relation].values())
            right += hit
            per_object[fact.object].append(hit)
    found = majority_guess(world, examples)
    assert found.count == len(examples) == sum(map(len, per_object.values()))
    assert found.plain == pytest.approx(right / len(examples))
    means = [sum(hits) / len(hits) for hits in per_object.values()]
    assert found.over_objects == pytest.approx(sum(means) / len(means))
    assert found.over_objects < 0.25
    assert found.plain < 0.5


def test_scores_and_their_misuse(world: World) -> None:
    examples = probe_examples(world, in_text=True, languages=["en"])
    assert score(examples, [True] * len(examples)).over_objects == 1.0
    with pytest.raises(ValueError, match="no probes"):
        score([], [])
    with pytest.raises(ValueError, match="shorter"):
        score(examples, [True])


def test_the_placebo_graph_is_mostly_false(world: World) -> None:
    placebo = shuffled(world, 3)
    assert Counter((r, o) for _, r, o in placebo) == Counter((r, o) for _, r, o in world.triples)
    assert len(set(placebo)) == len(placebo)
    true = len(set(placebo) & set(world.triples)) / len(placebo)
    assert true < 0.2


def test_same_seed_same_world_in_another_process() -> None:
    code = (
        "import hashlib; from ptm_plus.sample import build_world, shuffled; w = build_world(0);"
        "print(hashlib.sha256(repr((w, shuffled(w, 1))).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_another_seed_withholds_other_facts() -> None:
    one, two = ({f.triple for f in build_world(s).facts if not f.in_text} for s in (0, 1))
    assert len(one) == len(two)
    assert len(one & two) < 0.8 * len(one)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, ptm_plus.sample;"
        "print([name for name in ('babel', 'torch') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_the_public_face_is_whole() -> None:
    import ptm_plus.sample as sample

    for name in sample.__all__:
        assert getattr(sample, name) is not None
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = sample.nothing_like_it

"""What a model trained on the sample world is asked, and what guessing would score."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from ptm_plus.examples import Example
from ptm_plus.sample.cldr import LANGUAGES
from ptm_plus.sample.facts import Half, commonest_objects
from ptm_plus.sample.trees import PATTERNS, parsed
from ptm_plus.sample.world import (
    World,
    can_state,
    choose_template,
    held_out,
    state,
    state_pair,
)
from ptm_plus.word_draws import draw


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy of answers.

    Attributes:
        plain: share of questions answered rightly.
        over_objects: mean over the objects asked for of the share per object, so that answering
            with the commonest one is worth little.
        count: number of questions.
    """

    plain: float
    over_objects: float
    count: int


def probe_examples(
    world: World,
    *,
    in_text: bool,
    half: Half = "reported",
    languages: Sequence[str] = LANGUAGES,
) -> list[Example]:
    """Return sentences whose object a model is asked to fill in.

    Args:
        world: the world that the model was trained on.
        in_text: facts that the text tells, or those that only the graph holds; both come from the
            same objects in the same numbers.
        half: ``"development"`` for tuning, ``"reported"`` for the figures that are given.
        languages: languages to ask in.

    Returns:
        One sentence per fact and language that has both names, by a pattern that the text uses for
        other facts; spans on subject and object, and ``labels["target"]``, the index in ``spans``
        of the object's.
    """
    asked = [fact for fact in world.facts if fact.in_text == in_text and fact.half == half]
    examples = []
    for fact in asked:
        for language in languages:
            if not can_state(fact, language, world.names):
                continue
            template = choose_template(world.seed, fact, "probe", language)
            text, spans = state(fact, language, template, world.names)
            target = next(i for i, span in enumerate(spans) if span.id == fact.object)
            name = "/".join(["probe", language, *fact.triple, str(template)])
            example = Example(name, {"text": text}, {"text": language}, spans, {"target": target})
            examples.append(example)
    return examples


def retrieval_pairs(world: World) -> list[Example]:
    """Return translations that were not trained on, fields ``src`` and ``tgt``.

    Between two languages every pair is about another subject; ask for the nearest ``tgt`` among
    those of the same two languages, or of all.
    """
    pairs = []
    for fact, languages in held_out(world.facts, world.names, world.seed):
        template = choose_template(world.seed, fact, "retrieve", *languages)
        pairs.append(state_pair(fact, languages, template, world.names))
    return pairs


def head_questions(world: World, half: Half) -> list[dict[str, object]]:
    """Return sentences that state facts that only the graph holds, with the head of every word.

    Args:
        world: the world; its text has the same patterns with other facts.
        half: of the facts.

    Returns:
        Rows of the task ``heads``: ``lang``, ``tokens`` and ``heads``, from 1, 0 for the root; in
        keyed order, so that any stretch of them is a fair sample.
    """
    found: dict[str, dict[str, object]] = {}
    asked = [fact for fact in world.facts if not fact.in_text and fact.half == half]
    patterns = range(1, 1 + len(PATTERNS))
    for fact, language, pattern in product(asked, LANGUAGES, patterns):
        if can_state(fact, language, world.names):
            text, spans = state(fact, language, pattern, world.names)
            name = "/".join(["heads", language, *fact.triple, str(pattern)])
            tree = parsed(fact, Example(name, {"text": text}, {"text": language}, spans))
            if tree is not None:
                found[name] = {"lang": language, "tokens": tree[0], "heads": tree[1]}
    return [found[name] for name in sorted(found, key=lambda one: draw(world.seed, one))]


def asked_object(example: Example) -> str:
    """Return the label of the object that a probe asks for."""
    return example.spans[example.labels["target"]].id


def score(examples: Sequence[Example], right: Iterable[bool]) -> Score:
    """Return accuracy, plain and as a mean over objects.

    Args:
        examples: probes.
        right: for each, whether it was answered rightly.

    Raises:
        ValueError: when there is not one answer per probe, or no probe at all.
    """
    by_object: dict[str, list[bool]] = defaultdict(list)
    for example, hit in zip(examples, right, strict=True):
        by_object[asked_object(example)].append(bool(hit))
    if not by_object:
        raise ValueError("no probes to score")
    shares = [sum(hits) / len(hits) for hits in by_object.values()]
    hits = sum(sum(hits) for hits in by_object.values())
    return Score(hits / len(examples), sum(shares) / len(shares), len(examples))


def majority_guess(world: World, examples: Sequence[Example]) -> Score:
    """Return the score of answering with the object that the text shows most per relation."""
    relation = {(fact.subject, fact.object): fact.relation for fact in world.facts}
    guess = commonest_objects(world.facts)
    right = []
    for example in examples:
        target = example.labels["target"]
        object_ = example.spans[target].id
        subject = next(span.id for i, span in enumerate(example.spans) if i != target)
        right.append(guess[relation[subject, object_]] == object_)
    return score(examples, right)

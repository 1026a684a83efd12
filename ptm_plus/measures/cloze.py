"""Facts as cloze sentences: which of a relation's objects does the model put into the gap?

Typed queries with any number of tokens (Kassner et al. 2021, *Multilingual LAMA*, section 3): the
gap is as many mask tokens as a candidate has, and the candidate's score is the mean log probability
of its tokens, all of them masked. Candidates are the objects of the relation's facts. Several
patterns of one relation also say how often a model contradicts itself (Elazar et al. 2021,
*ParaRel*).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ptm_plus.errors import DataError, SettingsError, shown
from ptm_plus.files import open_lines
from ptm_plus.json_rows import json_row
from ptm_plus.measures.plain_model import Encoded, PlainModel
from ptm_plus.progress import Watch

SUBJECT, GAP = "[X]", "[Y]"

_FACT = 'write {"relation": "P36", "subject": "France", "object": "Paris"}, or {"text": "… [Y] …"}'
_PATTERN = 'write {"relation": "P36", "pattern": "The capital of [X] is [Y] ."}'


@dataclass(frozen=True)
class Fact:
    """A fact, and what is asked of it.

    Attributes:
        subject: what stands for ``[X]``; the whole sentence, of a fact that has one.
        object: what belongs into the gap.
        text: the sentence with the gap, of a fact that brings its own.
    """

    subject: str
    object: str
    text: str = ""


@dataclass(frozen=True)
class Relation:
    """Facts of one kind.

    Attributes:
        facts: the facts.
        patterns: sentences with ``[X]`` and ``[Y]``; one empty one where facts have their own.
    """

    facts: Sequence[Fact]
    patterns: Sequence[str]

    @property
    def candidates(self) -> list[str]:
        """What may stand in the gap, sorted."""
        return sorted({one.object for one in self.facts})

    def sentence(self, fact: Fact, pattern: str, filled: str) -> tuple[str, tuple[int, int]]:
        """Return a sentence, and where what fills its gap stands."""
        text = fact.text or pattern.replace(SUBJECT, fact.subject)
        start = text.index(GAP)
        return text.replace(GAP, filled, 1), (start, start + len(filled))


def parse_facts(argument: str) -> tuple[str, str]:
    """Return the files of ``FACTS,PATTERNS`` or ``FACTS``.

    Raises:
        SettingsError: it is not of that form.
    """
    names = argument.split(",")
    if len(names) > 2 or not all(names):
        raise SettingsError(
            f"--facts {argument}: not FACTS,PATTERNS", "such as facts.jsonl,patterns.jsonl"
        )
    return names[0], names[1] if len(names) == 2 else ""


def read_facts(argument: str, limit: int = 0) -> tuple[dict[str, Relation], int]:
    """Return the relations of files by name, and how many facts have no pattern.

    Args:
        argument: ``FACTS,PATTERNS`` or ``FACTS``.
        limit: most facts of a relation; 0 for all.

    Raises:
        DataError: a row is not what it must be, or nothing can be asked.
    """
    path, patterns_path = parse_facts(argument)
    patterns = _read_patterns(patterns_path) if patterns_path else {}
    facts: dict[str, list[Fact]] = defaultdict(list)
    without = 0
    for number, line in open_lines(path):
        if not line.strip():
            continue
        row = json_row(line, path, number)
        own = isinstance(row.get("text"), str)
        keys = ("text", "object") if own else ("relation", "subject", "object")
        values = {key: _string(row, key, _FACT, path, number) for key in keys}
        relation = str(row.get("relation") or "all")
        if own and GAP not in values["text"]:
            raise DataError(f"its text has no {GAP}", _FACT, path=path, line=number)
        if not own and relation not in patterns:
            without += 1
        elif not limit or len(facts[relation]) < limit:
            subject = values["text" if own else "subject"]
            facts[relation].append(Fact(subject, values["object"], values.get("text", "")))
    if not facts:
        raise DataError(
            f"nothing to ask: {without} facts without a pattern",
            "give patterns of their relations: --facts FACTS,PATTERNS",
            path=path,
        )
    found = {name: Relation(of, patterns.get(name, [""])) for name, of in sorted(facts.items())}
    return found, without


def _read_patterns(path: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for number, line in open_lines(path):
        if line.strip():
            row = json_row(line, path, number)
            name, pattern = (_string(row, key, _PATTERN, path, number) for key in _PATTERN_KEYS)
            if SUBJECT not in pattern or GAP not in pattern:
                words = f"the pattern {shown(pattern)} has not both {SUBJECT} and {GAP}"
                raise DataError(words, _PATTERN, path=path, line=number)
            found[name].append(pattern)
    return dict(found)


_PATTERN_KEYS = ("relation", "pattern")


def _string(row: Mapping[str, Any], key: str, hint: str, path: str, line: int) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"its {key} is {shown(value)}, not a text", hint, path=path, line=line)
    return value


# ---------------------------------------------------------------------------------------------
# Asking


def ask_facts(model: PlainModel, relations: Mapping[str, Relation], watch: Watch) -> dict[str, Any]:
    """Return how often the right object is the likeliest, by relation and over all.

    Other right objects of the same subject are no candidates. Over all, every relation counts
    alike.

    Args:
        model: with a head for masked words.
        relations: by name.
        watch: where progress goes.
    """
    found, pieces = {}, Counter[str]()
    with watch.task("facts") as task:
        for done, (name, relation) in enumerate(relations.items()):
            task.update(done, len(relations), name)
            found[name], by_size = _ask(model, relation)
            pieces.update(by_size)
        task.update(len(relations), len(relations))
    asked = [one for one in found.values() if one["accuracy"] is not None]
    several = [one["consistency"] for one in asked if one["consistency"] is not None]

    def share(kind: str) -> float | None:
        return pieces[f"{kind} right"] / pieces[kind] if pieces[kind] else None

    return {
        "accuracy": fmean(one["accuracy"] for one in asked) if asked else None,
        "commonest": fmean(one["commonest"] for one in asked) if asked else None,
        "consistency": fmean(several) if several else None,
        "one_token": share("one"),
        "several_tokens": share("several"),
        "relations": found,
    }


def _ask(model: PlainModel, relation: Relation) -> tuple[dict[str, Any], Counter[str]]:
    answers = [_answers(model, relation, pattern) for pattern in relation.patterns]
    told = [(fact, of_fact) for fact, *of_fact in zip(relation.facts, *answers, strict=True)]
    right = [one == fact.object for fact, of_fact in told for one in of_fact if one is not None]
    sizes = _pieces(model, relation, relation.patterns[0])
    counted: Counter[str] = Counter()
    for fact, of_fact in told:
        kind = "one" if len(sizes[fact.object]) == 1 else "several"
        asked = [one for one in of_fact if one is not None]
        counted[kind] += len(asked)
        counted[f"{kind} right"] += sum(one == fact.object for one in asked)
    same = [
        first == second
        for _, of_fact in told
        for first, second in combinations([one for one in of_fact if one is not None], 2)
    ]
    objects = Counter(one.object for one in relation.facts)
    figures = {
        "facts": len(relation.facts),
        "patterns": len(relation.patterns),
        "candidates": len(objects),
        "unread": len(told) * len(relation.patterns) - len(right),
        "accuracy": sum(right) / len(right) if right else None,
        "commonest": objects.most_common(1)[0][1] / len(relation.facts),
        "consistency": sum(same) / len(same) if same else None,
    }
    return figures, counted


def _answers(model: PlainModel, relation: Relation, pattern: str) -> list[str | None]:
    """Return the likeliest candidate of each fact; ``None`` where its gap is not read whole."""
    by_size: dict[int, list[str]] = defaultdict(list)
    pieces = _pieces(model, relation, pattern)
    for candidate, ids in pieces.items():
        if ids:
            by_size[len(ids)].append(candidate)
    scores: list[dict[str, float]] = [{} for _ in relation.facts]
    for size, candidates in by_size.items():
        choices = torch.tensor([pieces[one] for one in candidates])
        sentences = [relation.sentence(one, pattern, candidates[0]) for one in relation.facts]
        encoded = model.encode([text for text, _ in sentences])
        gaps = [_inside(encoded, n, place) for n, (_, place) in enumerate(sentences)]
        asked = [gap if len(gap) == size else [] for gap in gaps]
        for number, found in _scores(model, encoded, asked, choices):
            scores[number] |= dict(zip(candidates, found.tolist(), strict=True))
    others: dict[str, set[str]] = defaultdict(set)
    for fact in relation.facts:
        others[fact.subject].add(fact.object)
    return [
        _likeliest(of_fact, others[fact.subject] - {fact.object}, fact.object)
        for fact, of_fact in zip(relation.facts, scores, strict=True)
    ]


def _likeliest(scores: Mapping[str, float], left_out: set[str], wanted: str) -> str | None:
    if wanted not in scores:
        return None
    return max((one for one in sorted(scores) if one not in left_out), key=lambda one: scores[one])


def _pieces(model: PlainModel, relation: Relation, pattern: str) -> dict[str, list[int]]:
    """Return the tokens of each candidate where it stands in a sentence; none if it is cut."""
    candidates, fact = relation.candidates, relation.facts[0]
    sentences = [relation.sentence(fact, pattern, one) for one in candidates]
    encoded = model.encode([text for text, _ in sentences])
    return {
        one: [encoded.ids[n][place] for place in _inside(encoded, n, where)]
        for n, (one, (_, where)) in enumerate(zip(candidates, sentences, strict=True))
    }


def _inside(encoded: Encoded, number: int, where: tuple[int, int]) -> list[int]:
    """Return the places of a range's tokens; none where a part of it is not read."""
    start, end = where
    places = [
        place
        for place, (first, last) in enumerate(encoded.spans[number])
        if first < end and last > start and last > first
    ]
    whole = bool(places) and encoded.spans[number][places[-1]][1] >= end
    return places if whole else []


def _scores(
    model: PlainModel, encoded: Encoded, gaps: Sequence[Sequence[int]], choices: Tensor
) -> Iterator[tuple[int, Tensor]]:
    """Yield, per text with a gap, its number and ``[c]`` mean log probabilities of the choices.

    Args:
        model: the model.
        encoded: the texts.
        gaps: per text, the places of the gap's tokens, ``n`` of them or none.
        choices: ``[c, n]`` token ids.
    """
    size = choices.shape[1]
    for numbers, logits in model.masked_logits(encoded, gaps):
        known = logits.log_softmax(-1).reshape(len(numbers), size, -1)
        index = choices.T.to(known.device).expand(len(numbers), -1, -1)
        found = known.gather(2, index).mean(dim=1).cpu()
        yield from zip(numbers, found, strict=True)

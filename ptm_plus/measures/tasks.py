"""Tasks: how much a fine-tuned encoder gets right, over seeds."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ptm_plus.errors import DataError, EnvironmentProblem
from ptm_plus.measures.fine_tuning import Asked, Budget, ask, fine_tuned
from ptm_plus.measures.plain_model import PlainModel
from ptm_plus.measures.task_files import Kind, Question, parse_task, read_questions
from ptm_plus.progress import Watch

_CHUNK = re.compile(r"O|[BIES]-.+")


def measure_task(
    model: PlainModel, argument: str, seeds: int, budget: Budget, watch: Watch
) -> dict[str, Any]:
    """Fine-tune on one file and ask about another, seed by seed; return the scores.

    Args:
        model: left as it is.
        argument: ``KIND=TRAIN,TEST``.
        seeds: how many.
        budget: of each fine-tuning.
        watch: where progress goes.

    Raises:
        SettingsError: the argument is not of that form.
        DataError: a file cannot be read, or has one class alone.
    """
    given = _read(argument)
    kind, paths, test, classes = given.kind, given.paths, given.test, given.classes
    learned, asked = (ask(model, one, given.labels) for one in (given.train, test))
    scores = []
    for seed in range(seeds):
        logits = _learned(model, kind, learned, asked, seed, budget, watch)
        scores.append(score(kind, logits, test, classes))
    return {
        "kind": kind,
        "train": paths[0],
        "test": paths[1],
        "classes": len(classes),
        "budget": asdict(budget) | {"rate": budget.rate_for(model.model.config.hidden_size)},
        "unread": {"train": learned.unread, "test": asked.unread},
        **_counted(given.train, test, classes),
        "seeds": scores,
        "scores": over_seeds(scores),
    }


def right_items(
    model: PlainModel, argument: str, seed: int, budget: Budget, watch: Watch
) -> list[float]:
    """Fine-tune once; return, per sentence asked about, the share of its items that is right.

    Args:
        model: left as it is.
        argument: ``KIND=TRAIN,TEST``.
        seed: of the fine-tuning.
        budget: of it.
        watch: where progress goes.

    Raises:
        SettingsError: the argument is not of that form.
        DataError: a file cannot be read, or has one class alone.
    """
    task = _read(argument)
    learned, asked = (ask(model, one, task.labels) for one in (task.train, task.test))
    logits = _learned(model, task.kind, learned, asked, seed, budget, watch)
    several = task.kind == "typing"
    return [
        sum(answer == set(labels) for answer, labels in zip(answers, one.answers, strict=True))
        / len(answers)
        for answers, one in zip(_told(logits, task.classes, several), task.test, strict=True)
    ]


def _learned(
    model: PlainModel,
    kind: Kind,
    learned: Asked,
    asked: Asked,
    seed: int,
    budget: Budget,
    watch: Watch,
) -> list[Tensor]:
    with watch.task(f"fine-tune, seed {seed}") as task:
        tell = partial(task.update, detail="steps")
        several = kind == "typing"
        return fine_tuned(model, learned, asked, seed, budget, several=several, progress=tell)


def _told(
    logits: Sequence[Tensor], classes: Sequence[str], several: bool
) -> Iterator[list[set[str]]]:
    """Yield, per sentence, the labels that each of its items is given."""
    for one in logits:
        if several:
            yield [{classes[n] for n in row.nonzero().flatten().tolist()} for row in one > 0]
        else:
            yield [{classes[n]} for n in one.argmax(-1).tolist()]


@dataclass(frozen=True)
class Task:
    """A task that was read.

    Attributes:
        kind: what is asked for.
        paths: of training and test sentences.
        train: training sentences.
        test: test sentences.
        classes: labels of the training sentences, sorted; of heads, all numbers of words.
    """

    kind: Kind
    paths: tuple[str, str]
    train: Sequence[Question]
    test: Sequence[Question]
    classes: list[str]

    @property
    def labels(self) -> list[str] | None:
        """What ``ask`` takes for classes: none where words point at each other."""
        return None if self.kind == "heads" else self.classes


def _read(argument: str) -> Task:
    kind, *paths = parse_task(argument)
    train, test = (read_questions(kind, path) for path in paths)
    classes = sorted({label for one in train for labels in one.answers for label in labels})
    if kind == "heads":
        classes = [str(n) for n in range(1 + max(len(one.items) for one in (*train, *test)))]
    elif len(classes) < 2:
        raise DataError(f"has {len(classes)} labels; two at least are needed", path=paths[0])
    return Task(kind, (paths[0], paths[1]), train, test, classes)


def need_extra() -> None:
    """Check that what scores are computed with is installed.

    Raises:
        EnvironmentProblem: scikit-learn or seqeval is missing.
    """
    import importlib.util

    names = {"sklearn": "scikit-learn", "seqeval": "seqeval"}
    missing = [name for module, name in names.items() if not importlib.util.find_spec(module)]
    if missing:
        raise EnvironmentProblem(
            f"tasks need {' and '.join(missing)}, which is not installed",
            'pip install "ptm-plus[tasks]"',
        )


def _counted(
    train: Sequence[Question], test: Sequence[Question], classes: Sequence[str]
) -> dict[str, Any]:
    """Return how much there is, and what the commonest answer is worth."""
    answers = [labels for one in test for labels in one.answers]
    learned = Counter(labels for one in train for labels in one.answers)
    commonest = learned.most_common(1)[0][0]
    return {
        "sentences": {"train": len(train), "test": len(test)},
        "items": {"train": learned.total(), "test": len(answers)},
        "unseen": sum(not set(labels) <= set(classes) for labels in answers),
        "most_frequent": sum(labels == commonest for labels in answers) / len(answers),
    }


def score(
    kind: Kind, logits: Sequence[Tensor], test: Sequence[Question], classes: Sequence[str]
) -> dict[str, float]:
    """Return the measures of a kind of task.

    ``text`` and ``relation``: accuracy and macro F1. ``tokens``: accuracy, and precision, recall
    and F1 of whole chunks where tags are B-…, I-… and O, else macro F1. ``typing``: a type is told
    where its logit is above 0; strict accuracy, micro precision, recall and F1, macro F1.
    ``heads``: the unlabelled attachment score, UAS: the share of words with the right head.
    """
    if kind == "typing":
        return _types(logits, test, classes)
    told = [[classes[n] for n in one.argmax(-1).tolist()] for one in logits]
    true = [[label for (label,) in one.answers] for one in test]
    flat = [[label for of_text in side for label in of_text] for side in (true, told)]
    right = [t == p for t, p in zip(*flat, strict=True)]
    accuracy = {"accuracy": sum(right) / len(right)}
    if kind == "heads":
        return {"uas": accuracy["accuracy"]}
    if kind == "tokens" and all(map(_CHUNK.fullmatch, {*flat[0], *classes})):
        return accuracy | _chunks(true, told)
    from sklearn.metrics import f1_score

    labels = sorted(set(flat[0]))
    macro = f1_score(*flat, labels=labels, average="macro", zero_division=0)
    return accuracy | {"macro_f1": float(macro)}


def _chunks(true: list[list[str]], told: list[list[str]]) -> dict[str, float]:
    from seqeval.metrics import f1_score, precision_score, recall_score

    measures = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
    return {name: float(of(true, told, zero_division=0)) for name, of in measures.items()}


def _types(
    logits: Sequence[Tensor], test: Sequence[Question], classes: Sequence[str]
) -> dict[str, float]:
    from sklearn.metrics import f1_score, precision_recall_fscore_support

    true = [set(labels) for one in test for labels in one.answers]
    names = [*classes, *sorted(set().union(*true) - set(classes))]  # no logit, never told
    wanted = torch.tensor([[name in labels for name in names] for labels in true]).int()
    told = torch.zeros_like(wanted)
    told[:, : len(classes)] = (torch.cat(list(logits)) > 0).int()
    y = wanted.numpy(), told.numpy()
    precision, recall, f1, _ = precision_recall_fscore_support(*y, average="micro", zero_division=0)
    return {
        "strict": float((wanted == told).all(1).float().mean()),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "macro_f1": float(f1_score(*y, average="macro", zero_division=0)),
    }


def over_seeds(scores: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Return mean, smallest, largest and the 95 % t interval of the mean, by measure."""
    return {
        name: {
            "mean": statistics.mean(values),
            "least": min(values),
            "most": max(values),
            "interval": interval(values),
        }
        for name in scores[0]
        for values in [[one[name] for one in scores]]
    }


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Return the t interval of the mean of some values; none for fewer than two."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    middle, count = statistics.mean(values), len(values)
    half = float(t.ppf((1 + level) / 2, count - 1)) * statistics.stdev(values) / count**0.5
    return middle - half, middle + half

"""Relations from a few examples: N-way K-shot, by the nearest prototype, with nothing trained.

An episode draws N relations, K sentences of each as its prototype (the mean of their states) and
others to be told apart: the one whose prototype is nearest by cosine (prototypical networks, Snell
et al. 2017, on a frozen encoder; episodes as in FewRel, Han et al. 2018).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from ptm_plus.errors import DataError
from ptm_plus.measures.fine_tuning import ask
from ptm_plus.measures.plain_model import PlainModel
from ptm_plus.measures.task_files import Question, read_questions
from ptm_plus.progress import Watch

SETTINGS = ((5, 1), (5, 5), (10, 1), (10, 5))
"""Relations of an episode, and examples of each."""

EPISODES, QUERIES = 1000, 5
"""How many are drawn, and sentences of each relation that are asked about."""

_NORMAL = 1.96

Floats = NDArray[np.float64]


def few_shot(
    model: PlainModel, path: str, layers: Sequence[int], seed: int, watch: Watch
) -> dict[str, Any]:
    """Return accuracies on the sentences of a file, for each block and setting that it allows.

    Args:
        model: the model.
        path: sentences with head, tail and relation.
        layers: blocks whose states are compared.
        seed: of the episodes.
        watch: where progress goes.

    Raises:
        DataError: the file cannot be read, or has too few relations with enough sentences.
    """
    questions = read_questions("relation", path)
    states, read = _states(model, questions, layers, watch)
    names = [of for question in questions for (of,) in question.answers]
    groups: dict[str, list[int]] = defaultdict(list)
    for number in np.flatnonzero(read).tolist():
        groups[names[number]].append(number)
    found = []
    for place, layer in enumerate(layers):
        figures = {
            f"{ways}-way {shots}-shot": _accuracy(states[place], groups, ways, shots, seed)
            for ways, shots in SETTINGS
            if len(_large(groups, shots)) >= ways
        }
        found.append({"layer": layer, **figures})
    if not found or len(found[0]) == 1:
        ways, shots = SETTINGS[0]
        raise DataError(
            f"has {len(_large(groups, shots))} relations with {shots + QUERIES} sentences or more",
            f"{ways} at least are needed",
            path=path,
        )
    return {
        "file": path,
        "relations": len(groups),
        "sentences": len(questions),
        "unread": int(len(questions) - read.sum()),
        "episodes": EPISODES,
        "layers": found,
    }


def _large(groups: dict[str, list[int]], shots: int) -> list[str]:
    return sorted(name for name, of in groups.items() if len(of) >= shots + QUERIES)


def _accuracy(
    states: Floats, groups: dict[str, list[int]], ways: int, shots: int, seed: int
) -> dict[str, Any]:
    rng = np.random.default_rng((seed, ways, shots))
    names = _large(groups, shots)
    shares = [
        _episode(
            np.stack(
                [
                    states[rng.choice(groups[names[n]], shots + QUERIES, replace=False)]
                    for n in rng.choice(len(names), ways, replace=False)
                ]
            ),
            shots,
        )
        for _ in range(EPISODES)
    ]
    error = _NORMAL * float(np.std(shares, ddof=1)) / len(shares) ** 0.5
    mean = float(np.mean(shares))
    return {"accuracy": mean, "interval": [mean - error, mean + error], "chance": 1 / ways}


def _episode(drawn: Floats, shots: int) -> float:
    """Return the share of an episode's sentences that are nearest to their own prototype.

    Args:
        drawn: ``[ways, shots + queries, d]`` states of unit length.
        shots: how many of each make the prototype.
    """
    prototypes = drawn[:, :shots].mean(axis=1)
    prototypes /= np.maximum(np.linalg.norm(prototypes, axis=1, keepdims=True), 1e-12)
    told = (drawn[:, shots:] @ prototypes.T).argmax(axis=2)
    return float((told == np.arange(len(drawn))[:, None]).mean())


def _states(
    model: PlainModel, questions: Sequence[Question], layers: Sequence[int], watch: Watch
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return ``[layers, n, 2 d]`` states of head and tail, and which questions are read whole."""
    asked = ask(model, questions, [])
    read = np.array([all(ranges) for (ranges,) in asked.places])
    width = int(model.model.config.hidden_size)
    found = np.zeros((len(layers), len(questions), 2 * width))
    with watch.task("encode") as task, torch.inference_mode():
        done = 0
        for batch in asked.encoded.batches():
            inputs = model.padded(asked.encoded, batch)
            states = model.base(**inputs, output_hidden_states=True).hidden_states
            for place, layer in enumerate(layers):
                for row, number in enumerate(batch):
                    if read[number]:
                        (ranges,) = asked.places[number]
                        means = [states[layer][row, places].mean(0) for places in ranges]
                        both = normalize(torch.cat(means).double(), dim=0)
                        found[place, number] = both.cpu().numpy()
            done += len(batch)
            task.update(done, len(questions), "sentences")
    return found, read

"""What probes compute with, and the core's own: losses, masked mentions, retrieval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ptm_plus.attention import Rule
from ptm_plus.compose import Contribution
from ptm_plus.data import HELD_OUT_EPOCH, Collator, HostBatch, Row, StreamData, held_out_rows
from ptm_plus.errors import PluginError, SettingsError, nearest
from ptm_plus.masking import force_spans, hide_attached, word_kind
from ptm_plus.measures.neighbours import middle, nearer_wrong
from ptm_plus.measures.translations import translations
from ptm_plus.microbatch import MicroBatch, to_device
from ptm_plus.sources.spec import split_argument
from ptm_plus.stages import CORE
from ptm_plus.step import Tally, add_outcome, shares
from ptm_plus.views import View

if TYPE_CHECKING:
    from ptm_plus.run import Run

MENTIONS = "mentions"
"""Evaluation set of masked mentions."""

RETRIEVAL = "retrieval"
"""Evaluation set of translations, one sequence per half."""


_CHUNK = 4096
"""Sequences of a view."""


@dataclass(frozen=True)
class Difference:
    """A paired difference of losses.

    Attributes:
        mean: mean over sequences of (changed minus whole).
        error: standard error of that mean.
        count: number of sequences.
    """

    mean: float
    error: float
    count: int


@dataclass(frozen=True)
class ProbeContext:
    """A run in evaluation mode, with frozen masks.

    Attributes:
        run: the run.
    """

    run: Run

    @cached_property
    def losses(self) -> Mapping[str, float]:
        """Loss and metrics per ``stream/objective`` on held-out sequences; computed once."""
        run, tally = self.run, Tally()
        for stream in self.streams:
            for host in self.held_out(stream):
                counts = run.root.count(host)
                _, sums, found = run.root.losses(
                    self.on_device(host), counts, run.planner.objective_weights
                )
                add_outcome(tally, sums, found)
                for key, count in counts.items():
                    tally.counts[key] = tally.counts.get(key, 0.0) + count
        losses = {"/".join(k): float(v) / tally.counts[k] for k, v in sorted(tally.sums.items())}
        metrics = {"/".join(name): pair for name, pair in tally.metrics.items()}
        return {**losses, **shares(metrics)}

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the run's streams."""
        return tuple(self.run.prepared.streams)

    def held_out(self, stream: str) -> Iterator[HostBatch]:
        """Yield micro-batches of a stream's held-out sequences, masked once and for all."""
        settings = self.run.settings
        data = self.data(stream)
        size = settings.batch.evaluated_tokens
        for row in held_out_rows(data, size, settings.evaluate.sequences):
            yield self.run.collator.batch([row], [row], settings.masking.rate)

    def masked_spans(
        self,
        stream: str,
        kind: str,
        choose: Callable[[View], NDArray[np.bool_]],
        *,
        attached: bool = False,
    ) -> Iterator[HostBatch]:
        """Yield held-out micro-batches in which chosen spans are masked, and nothing else.

        Args:
            stream: stream or evaluation set.
            kind: span kind.
            choose: view to ``[M]`` bool, the spans to mask.
            attached: leave what is attached to them (an entity) in place.
        """
        settings = self.run.settings
        data = self.data(stream)
        size = settings.batch.evaluated_tokens
        limit = len(data.held_out) if stream == MENTIONS else settings.evaluate.sequences
        for row in held_out_rows(data, size, limit):
            view = self.run.collator.view([row])
            vocabulary = self.run.collator.vocabulary
            plan = force_spans(view, kind, choose(view), vocabulary, attached=attached)
            spans = self.run.collator.step_spans(stream, [row])
            yield self.run.collator.complete(view, plan, spans)

    def views(self, stream: str, *, held_out: bool) -> Iterator[View]:
        """Yield all sequences of a stream that are trained on, or held out, as they were prepared.

        Args:
            stream: stream or evaluation set.
            held_out: those held out, instead of those trained on.
        """
        data = self.data(stream)
        numbers = data.held_out if held_out else data.training
        for chunk in range(0, len(numbers), _CHUNK):
            row = Row(stream, "", HELD_OUT_EPOCH, numbers[chunk : chunk + _CHUNK])
            yield self.run.collator.view([row])

    def metrics(self, stream: str, objective: str) -> dict[str, tuple[float, float]]:
        """Return an objective's metrics on held-out sequences, as numerator and denominator."""
        tally = Tally()
        for host in self.held_out(stream):
            counts = self.run.root.count(host)
            wanted = {key: value for key, value in counts.items() if key[1] == objective}
            weights = self.run.planner.objective_weights
            _, sums, found = self.run.root.losses(self.on_device(host), wanted, weights)
            add_outcome(tally, sums, found)
        pairs = tally.metrics.items()
        return {name: (float(top), float(bottom)) for (_, _, name), (top, bottom) in pairs}

    def on_device(self, batch: HostBatch) -> MicroBatch:
        """Move a micro-batch to the model."""
        return to_device(batch, self.run.device, self.run.float_dtype())

    def scores(
        self, batch: MicroBatch, *, taps: bool = True, rules: Sequence[Rule] = ()
    ) -> tuple[Tensor, Tensor]:
        """Return the loss and the correctness ``[K]`` of every predicted token.

        Args:
            batch: the micro-batch.
            taps: whether parts write into the encoder.
            rules: further visibility rules.
        """
        states = self.run.encoder.encode(batch, taps=taps, rules=rules)
        logits = self.run.encoder.logits(states.top[batch.predicted]).float()
        losses = cross_entropy(logits, batch.labels, reduction="none")
        return losses.cpu(), (logits.argmax(-1) == batch.labels).cpu()

    def data(self, stream: str) -> StreamData:
        """Return a stream, or an evaluation set.

        Raises:
            PluginError: the run has none of that name.
        """
        known = {**self.run.prepared.streams, **self.run.prepared.sets}
        if stream not in known:
            raise PluginError(
                f"a probe asks for stream {stream!r}, which this run does not have"
                f"{nearest(stream, known)}",
                "look at ProbeContext.streams first",
            )
        return known[stream]


def predicted_sequences(batch: HostBatch) -> NDArray[np.int64]:
    """Return ``[K]`` the sequence of every predicted token."""
    return batch.view.sequence[np.flatnonzero(batch.plan.predicted)]


def paired(
    sequences: Sequence[NDArray[np.int64]], whole: Sequence[Tensor], changed: Sequence[Tensor]
) -> Difference:
    """Return the difference of two losses per predicted token, paired by sequence.

    Args:
        sequences: per micro-batch, the sequence of each predicted token.
        whole: per micro-batch, the losses of the model as it is.
        changed: the same with something taken away.
    """
    means = []
    for owner, before, after in zip(sequences, whole, changed, strict=True):
        if len(owner):
            rows = np.unique(owner, return_inverse=True)[1]
            total = np.bincount(rows, (after - before).double().numpy())
            means.append(total / np.bincount(rows))
    values = np.concatenate(means) if means else np.zeros(0)
    if not len(values):
        return Difference(float("nan"), float("nan"), 0)
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return Difference(float(values.mean()), float(error), len(values))


def asked_texts(arguments: Sequence[str]) -> dict[str, str]:
    """Return the sources of ``evaluate.text`` by name, which is that of the file.

    Raises:
        SettingsError: two have one name.
    """
    found: dict[str, str] = {}
    for argument in arguments:
        name = Path(split_argument(argument)[1]).name
        if name in found:
            raise SettingsError(
                f"evaluate.text: {found[name]!r} and {argument!r} are both called {name!r}",
                "figures are told by the name of the file: rename one",
            )
        found[name] = argument
    return found


def masked_words(
    context: ProbeContext, stream: str
) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
    """Yield micro-batches of held-out sequences: of every masked token its sequence, loss, hit.

    Words are masked alike in every run, by the core's own kind and one key; an entity whose words
    are masked is hidden, too.

    Args:
        context: the run.
        stream: stream or evaluation set.
    """
    run, settings = context.run, context.run.settings
    plain = Collator(
        run.collator.streams,
        [Contribution(CORE, word_kind(settings.masking.unit))],
        (),
        run.collator.vocabulary,
        seed=0,
    )
    data = context.data(stream)
    for row in held_out_rows(data, settings.batch.evaluated_tokens, settings.evaluate.sequences):
        view = run.collator.view([row])
        plan = hide_attached(view, plain.masks(view, settings.masking.rate), view.spans)
        host = run.collator.complete(view, plan, run.collator.step_spans(stream, [row]))
        losses, correct = context.scores(context.on_device(host))
        yield view.numbers[predicted_sequences(host)], losses, correct


def held_out_text(context: ProbeContext) -> dict[str, Any]:
    """Return, for each file of ``evaluate.text``, loss and accuracy on masked words."""
    found = {}
    for name in asked_texts(context.run.settings.evaluate.text):
        found_here = [(losses, correct) for _, losses, correct in masked_words(context, name)]
        losses, correct = (torch.cat(parts).double() for parts in zip(*found_here, strict=True))
        found[name] = {
            "loss": float(losses.mean()),
            "accuracy": float(correct.mean()),
            "tokens": len(losses),
        }
    return found


@dataclass(frozen=True)
class Answer:
    """What became of one question about a masked mention.

    Attributes:
        number: of the question.
        group: the share that it is counted in.
        asked: row of the entity that belongs there.
        around: rows of all entities of the sentence.
        right: whether every token was predicted.
    """

    number: int
    group: str
    asked: int
    around: tuple[int, ...]
    right: bool


def mention_answers(context: ProbeContext) -> Iterator[Answer]:
    """Yield the answer to each question about a masked mention."""
    groups = context.run.prepared.sets[MENTIONS].store.labels["group"] or ()
    for host in context.masked_spans(MENTIONS, "entity", _targets):
        _, correct = context.scores(context.on_device(host))
        chosen = _targets(host.view)
        spans = host.view.spans_of("entity")
        order = host.view.sequence[np.flatnonzero(host.plan.predicted)]
        missed = np.bincount(order, ~correct.numpy(), minlength=len(host.view.numbers))
        for row in np.flatnonzero(chosen):
            sequence = spans.sequence[row]
            yield Answer(
                number=int(host.view.numbers[sequence]),
                group=groups[host.view.labels["group"][sequence]],
                asked=int(spans.id[row]),
                around=tuple(spans.id[spans.sequence == sequence].tolist()),
                right=bool(missed[sequence] == 0),
            )


def masked_mentions(context: ProbeContext) -> dict[str, Any]:
    """Return, per group, how often every token of the asked mention is predicted.

    ``accuracy`` counts questions; ``over_objects`` is the mean over the entities asked for.
    """
    groups = context.run.prepared.sets[MENTIONS].store.labels["group"] or ()
    answers = list(mention_answers(context))
    found = {}
    for name in groups:
        of_group = [one for one in answers if one.group == name]
        found[name] = _accuracy([one.right for one in of_group], [one.asked for one in of_group])
    return found


def _targets(view: View) -> NDArray[np.bool_]:
    """Return which spans are asked for: the ``target``-th of each sequence."""
    spans = view.spans_of("entity")
    first = np.searchsorted(spans.sequence, spans.sequence, side="left")
    place = np.arange(len(spans)) - first
    return np.asarray(place == view.labels["target"][spans.sequence])


def _accuracy(right: Sequence[bool], asked: Sequence[int]) -> dict[str, float]:
    if not right:
        return {"accuracy": float("nan"), "over_objects": float("nan"), "questions": 0}
    hits, objects = np.array(right, dtype=np.float64), np.unique(asked, return_inverse=True)[1]
    shares = np.bincount(objects, hits) / np.bincount(objects)
    return {
        "accuracy": float(hits.mean()),
        "over_objects": float(shares.mean()),
        "questions": len(right),
    }


def translation_retrieval(context: ProbeContext) -> dict[str, Any]:
    """Return how often a sentence's nearest neighbour is its translation, both ways."""
    hits = [right for _, right in translation_answers(context)]
    return {"accuracy": float(np.mean(hits)) if hits else float("nan"), "questions": len(hits)}


def translation_answers(context: ProbeContext) -> Iterator[tuple[int, bool]]:
    """Yield, for each sentence, its number and whether its nearest neighbour is its translation.

    Sentences are encoded alone; states of the middle block are averaged over tokens and compared by
    cosine, among the candidates of the same two languages, each different sentence once. Pairs with
    a half that is longer than a sequence are left out.
    """
    data = context.run.prepared.sets[RETRIEVAL]
    block = middle(context.run.encoder.blocks)
    vectors = torch.cat([_pooled(context, data, n, block) for n in _chunks(data)])
    example, stratum = np.array(data.store.example), np.array(data.store.stratum)
    whole = np.bincount(example)[example] == 2  # neither half was split
    first = np.flatnonzero(whole & np.append(example[1:] == example[:-1], False))
    for languages in np.unique(stratum[first]):
        rows = first[stratum[first] == languages]
        halves = (_firsts(data, rows), _firsts(data, rows + 1))
        texts = translations(zip(*halves, strict=True))
        one, two = vectors[texts.first], vectors[texts.second]
        yield from zip(texts.first, (nearer_wrong(one, two, texts.pairs) < 1).tolist(), strict=True)
        wrong = nearer_wrong(two, one, texts.turned)
        yield from zip(texts.second, (wrong < 1).tolist(), strict=True)


def _firsts(data: StreamData, numbers: NDArray[np.int64]) -> list[int]:
    """Return, for each of some sequences, the first of them that has the same tokens."""
    store, seen = data.store, dict[bytes, int]()
    return [
        seen.setdefault(store.ids[store.offsets[n] : store.offsets[n + 1]].tobytes(), int(n))
        for n in numbers
    ]


def _chunks(data: StreamData, size: int = 256) -> Iterator[NDArray[np.int64]]:
    numbers = np.arange(len(data.store), dtype=np.int64)
    return (numbers[first : first + size] for first in range(0, len(numbers), size))


def _pooled(
    context: ProbeContext, data: StreamData, numbers: NDArray[np.int64], block: int
) -> Tensor:
    """Return mean states ``[n, d]`` of sequences, of unit length, in the order of ``numbers``."""
    row = Row(data.name, "", HELD_OUT_EPOCH, numbers)
    view = context.run.collator.view([row])
    nothing = np.zeros(len(view.spans_of("entity")), dtype=np.bool_)
    plan = force_spans(view, "entity", nothing, context.run.collator.vocabulary)
    host = context.run.collator.complete(
        view, plan, context.run.collator.step_spans(data.name, [row])
    )
    batch = context.on_device(host)
    states = context.run.encoder.encode(batch).blocks[block - 1]
    inner = torch.from_numpy(view.words >= 0).to(states.device)
    total = states.new_zeros(len(numbers), states.shape[1])
    total = total.index_add(0, batch.sequence[inner], states[inner])
    pooled = normalize(total.float(), dim=1).cpu()
    order = torch.from_numpy(np.argsort(view.numbers, kind="stable"))
    return pooled[order]


def core_probes(run: Run, *, at_start: bool = False) -> dict[str, Any]:
    """Return the core's probes that the run's evaluation sets allow.

    Args:
        run: the run.
        at_start: those that are also run before the first step.
    """
    sets = run.prepared.sets
    probes: dict[str, Any] = {}
    if run.settings.evaluate.text:
        probes["held_out_text"] = held_out_text
    if at_start:
        return probes
    probes["held_out"] = lambda context: context.losses
    if MENTIONS in sets:
        probes["masked_mentions"] = masked_mentions
    if RETRIEVAL in sets:
        probes["translation_retrieval"] = translation_retrieval
    return probes

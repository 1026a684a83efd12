"""The run's data at training time: rows by step, views by row, plans and columns by view.

Everything here is a pure function of the settings, the stores and the cursors; a cursor is two
integers (epoch, row) per stratum.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ptm_plus.components import Emphasis, Feature, FeatureInput, MaskPlan, UnitKind
from ptm_plus.compose import Contribution
from ptm_plus.errors import DataError, SettingsError
from ptm_plus.holding_out import are_held_out
from ptm_plus.keyed import Draws, derive_key, uniform
from ptm_plus.masking import Vocabulary, plan_masks, weighed_kind
from ptm_plus.mixture import StepPlan, draw_rows
from ptm_plus.prepare.store import SequenceStore
from ptm_plus.rows import RowPlan, plan_rows
from ptm_plus.settings import RunSettings
from ptm_plus.views import SpanTable, View, ViewMaker

Ints = NDArray[np.int64]

HELD_OUT_EPOCH = -1

NOTHING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class Row:
    """A packed row: sequence numbers of one stratum, and the epoch that they are read in."""

    stream: str
    stratum: str
    epoch: int
    numbers: Ints


@dataclass(frozen=True)
class HostBatch:
    """A micro-batch on the host: view, mask plan, feature columns (named ``instance.column``)."""

    view: View
    plan: MaskPlan
    columns: Mapping[str, NDArray[np.generic]]


class StreamData:
    """One stream: its store, split into training and held-out sequences by keyed draws.

    Args:
        name: stream name.
        store: its sequences.
        labels: the run's label list by span kind.
        settings: the run's settings.
        train: whether it is trained on; otherwise every sequence is held out.
        links: label that stands for another one.

    Attributes:
        held_out: numbers of the sequences that are held out.
        tokens: training tokens by stratum.
        unsplit: strata of which nothing is held out because everything would have been.
    """

    def __init__(
        self,
        name: str,
        store: SequenceStore,
        labels: Mapping[str, tuple[str, ...]],
        settings: RunSettings,
        train: bool = True,
        links: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.store = store
        self.maker = ViewMaker(name, store, labels, settings.train.seed, links)
        self._settings = settings
        self._plans: dict[tuple[str, int], RowPlan] = {}
        longest = int(self.maker.lengths.max())
        if longest > settings.batch.row_tokens:
            raise SettingsError(
                f"batch.row_tokens is {settings.batch.row_tokens}, but stream {name!r} has a "
                f"sequence of {longest} tokens",
                f"set batch.row_tokens to at least {longest} or lower prepare.max_length",
            )
        held = (
            are_held_out(store.identity, settings) if train else np.ones(len(store.identity), bool)
        )
        self.unsplit = _whole_strata(store, held) if train else ()
        for stratum in self.unsplit:
            held[store.stratum == store.strata.index(stratum)] = False
        self.held_out: Ints = np.flatnonzero(held)
        self._training = {
            stratum: np.flatnonzero(~held & (store.stratum == number))
            for number, stratum in enumerate(store.strata)
        }
        self.tokens = {
            stratum: int(self.maker.lengths[numbers].sum())
            for stratum, numbers in self._training.items()
            if len(numbers)
        }
        if train and not self.tokens:
            raise DataError(
                f"stream {name!r} has no sequence left for training "
                f"({len(self.held_out)} are held out)",
                "give more text or lower data.held_out",
            )

    @property
    def training(self) -> Ints:
        """Numbers of the sequences that are trained on."""
        return np.concatenate([np.zeros(0, dtype=np.int64), *self._training.values()])

    def rows(self, stratum: str, epoch: int) -> RowPlan:
        """Return the row plan of a stratum and epoch (the two newest of each are kept)."""
        key = (stratum, epoch)
        if key not in self._plans:
            self._plans.pop((stratum, epoch - 2), None)
            numbers = self._training[stratum]
            self._plans[key] = plan_rows(
                numbers,
                self.maker.lengths[numbers],
                self._settings.batch.row_tokens,
                seed=self._settings.train.seed,
                stream=self.name,
                stratum=stratum,
                epoch=epoch,
            )
        return self._plans[key]


Cursors = dict[str, dict[str, tuple[int, int]]]


class Reader:
    """Takes rows off the streams, step after step.

    Args:
        streams: the run's streams.
        settings: the run's settings.
        cursors: (epoch, row) by stream and stratum, to go on from.
    """

    def __init__(
        self,
        streams: Mapping[str, StreamData],
        settings: RunSettings,
        cursors: Cursors | None = None,
    ) -> None:
        self.streams = dict(sorted(streams.items()))
        self._settings = settings
        self.cursors: Cursors = {
            name: dict.fromkeys(data.tokens, (0, 0)) for name, data in self.streams.items()
        }
        for name, strata in (cursors or {}).items():
            known = self.cursors.get(name, {})
            known.update({stratum: at for stratum, at in strata.items() if stratum in known})

    def step_rows(self, plan: StepPlan) -> dict[str, list[Row]]:
        """Take the rows of a step, by stream, and move the cursors."""
        tokens = {name: data.tokens for name, data in self.streams.items()}
        seed = self._settings.train.seed
        taken: dict[str, list[Row]] = {}
        for (stream, stratum), count in draw_rows(
            plan, self._settings.batch.rows, seed, tokens
        ).items():
            rows = taken.setdefault(stream, [])
            rows.extend(self._take(stream, stratum) for _ in range(count))
        return taken

    def _take(self, stream: str, stratum: str) -> Row:
        data = self.streams[stream]
        epoch, number = self.cursors[stream][stratum]
        if number >= len(data.rows(stratum, epoch)):
            epoch, number = epoch + 1, 0
        self.cursors[stream][stratum] = (epoch, number + 1)
        return Row(stream, stratum, epoch, data.rows(stratum, epoch).row(number))


class Collator:
    """Makes host micro-batches out of rows.

    Args:
        streams: the run's streams.
        kinds: unit kinds with their owners.
        features: features with their owners.
        vocabulary: what replacement may write.
        seed: the run's seed.
        unmasked: names of streams that are read as they are.
        emphases: what makes tokens likelier to be masked, with owners.
    """

    def __init__(
        self,
        streams: Mapping[str, StreamData],
        kinds: Sequence[Contribution[UnitKind]],
        features: Sequence[Contribution[Feature]],
        vocabulary: Vocabulary,
        seed: int,
        unmasked: Collection[str] = (),
        emphases: Sequence[Contribution[Emphasis]] = (),
    ) -> None:
        self.streams = streams
        self.vocabulary = vocabulary
        self._kinds = kinds
        self.features = features
        self._seed = seed
        self._unmasked = frozenset(unmasked)
        self._emphases = emphases

    def batch(
        self,
        rows: Sequence[Row],
        step_rows: Sequence[Row],
        rate: float,
        weights: Mapping[str, float] = NOTHING,
    ) -> HostBatch:
        """Return the micro-batch of some rows.

        Args:
            rows: rows of one stream.
            step_rows: all rows of this stream in the step, on every rank.
            rate: mask rate.
            weights: factor by unit kind.
        """
        view = self.view(rows)
        plan = self.masks(view, rate, weights)
        return self.complete(view, plan, self.step_spans(view.stream, step_rows))

    def masked(
        self, rows: Sequence[Row], rate: float, weights: Mapping[str, float] = NOTHING
    ) -> HostBatch:
        """Return the micro-batch of some rows without feature columns."""
        view = self.view(rows)
        return HostBatch(view, self.masks(view, rate, weights), {})

    def view(self, rows: Sequence[Row]) -> View:
        """Return the view of some rows of one stream."""
        numbers = np.concatenate([row.numbers for row in rows])
        epochs = np.repeat([row.epoch for row in rows], [len(row.numbers) for row in rows])
        return self.streams[rows[0].stream].maker.view(numbers, epochs)

    def masks(self, view: View, rate: float, weights: Mapping[str, float] = NOTHING) -> MaskPlan:
        """Return the mask plan of a view."""
        kinds = [c for c in self._kinds if _applies(c.component.streams, view.stream)]
        draws = {c.component.name: Draws(self._seed, c.instance, view.stream) for c in kinds}
        weighed = [weighed_kind(c.component, weights) for c in kinds]
        rate = 0.0 if view.stream in self._unmasked else rate
        return plan_masks(view, weighed, rate, draws, self.vocabulary, self._emphasis(view))

    def _emphasis(self, view: View) -> NDArray[np.float64] | None:
        """Return the product of all emphases on a view; ``None`` where there is none."""
        product = None
        for owner in self._emphases:
            if _applies(owner.component.streams, view.stream):
                found = owner.component.weigh(view, Draws(self._seed, owner.instance, view.stream))
                product = found if product is None else product * found
        return product

    def step_spans(self, stream: str, rows: Sequence[Row]) -> dict[str, SpanTable]:
        """Return the spans of all rows of a step: what features of scope ``step`` may see."""
        needed = any(
            c.component.scope == "step" and _applies(c.component.streams, stream)
            for c in self.features
        )
        if not needed:
            return {}
        numbers = np.concatenate([row.numbers for row in rows])
        return self.streams[stream].maker.spans(numbers)

    def split_dependent(self, stream: str) -> list[str]:
        """Return plugins with features of scope ``micro``: their columns depend on the split."""
        return [
            c.instance
            for c in self.features
            if c.component.scope == "micro" and _applies(c.component.streams, stream)
        ]

    def complete(
        self, view: View, plan: MaskPlan, step_spans: Mapping[str, SpanTable]
    ) -> HostBatch:
        """Compute the feature columns of a masked view."""
        columns: dict[str, NDArray[np.generic]] = {}
        for owner in self.features:
            feature = owner.component
            if not _applies(feature.streams, view.stream):
                continue
            draws = Draws(self._seed, owner.instance, view.stream)
            seen = step_spans if feature.scope == "step" else {}
            made = feature.compute(FeatureInput(view, plan, draws, seen))
            columns.update({f"{owner.instance}.{name}": array for name, array in made.items()})
        return HostBatch(view, plan, columns)


def held_out_rows(data: StreamData, row_tokens: int, limit: int) -> list[Row]:
    """Return up to ``limit`` held-out sequences, drawn by key, as rows with frozen masks."""
    order = np.argsort(uniform(derive_key(0, "held out order", data.name), data.held_out))
    numbers = data.held_out[order[:limit]]
    strata = data.store.stratum[numbers]
    rows = []
    for number, stratum in enumerate(data.store.strata):
        chosen = numbers[strata == number]
        packed = plan_rows(
            chosen,
            data.maker.lengths[chosen],
            row_tokens,
            seed=0,
            stream=data.name,
            stratum=stratum,
            epoch=HELD_OUT_EPOCH,
        )
        rows += [
            Row(data.name, stratum, HELD_OUT_EPOCH, packed.row(row)) for row in range(len(packed))
        ]
    return rows


def _whole_strata(store: SequenceStore, held: NDArray[np.bool_]) -> tuple[str, ...]:
    """Return strata that are held out whole, such as a language of one document.

    Of a stream that is held out whole there is none.
    """
    counts = np.bincount(store.stratum, minlength=len(store.strata))
    held_counts = np.bincount(store.stratum[held], minlength=len(store.strata))
    whole = np.flatnonzero((counts > 0) & (held_counts == counts))
    return () if held.all() else tuple(store.strata[number] for number in whole)


def _applies(streams: tuple[str, ...], stream: str) -> bool:
    return not streams or stream in streams

"""The hooks of the ernie-masking plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import nn

from ptm_plus import (
    Annotator,
    ContextView,
    Draws,
    Encode,
    Feature,
    MicroBatch,
    Objective,
    Outcome,
    Part,
    Placebo,
    RunSettings,
    Schedule,
    SpanUnits,
    StepPlan,
    UnitKind,
    Units,
    View,
    hookimpl,
    loss_sum,
)
from ptm_plus_ernie_masking.boundary import Boundary, boundary_columns
from ptm_plus_ernie_masking.phrases import corpus_phrases
from ptm_plus_ernie_masking.settings import ErnieMaskingSettings
from ptm_plus_ernie_masking.units import WordRuns, geometric_lengths, inverse_lengths

ORDER = {"entity": 50, "phrase": 60, "ngram": 70, "span": 80}
"""Who chooses first; words choose last. A kind of spans gives way to one that was linked."""


@dataclass
class ErnieMasking:
    """Phrases, entities, n-grams and spans as units (Sun et al. 2019, section 3.2)."""

    settings: ErnieMaskingSettings
    instance: str

    @property
    def _has_boundary(self) -> bool:
        return "span" in self.settings.kinds and self.settings.boundary_weight > 0

    @hookimpl
    def ptm_annotators(self, context: ContextView) -> list[Annotator]:
        """Return the finder of phrases, for text that brings none."""
        if "phrase" not in self.settings.kinds:
            return []
        finder = corpus_phrases(context, self.settings.phrases)
        return [
            Annotator(
                name=self.instance,
                annotate=finder,
                fingerprint=finder.fingerprint,
                kinds=("phrase",),
                account=finder.account,
            )
        ]

    @hookimpl
    def ptm_masking(self, context: ContextView) -> list[UnitKind]:
        """Return the kinds of units."""
        settings = self.settings
        propose: dict[str, Callable[[View, Draws], Units]] = {
            "entity": SpanUnits("entity"),
            "phrase": SpanUnits("phrase", grouped=False),
            "ngram": WordRuns("n-gram", inverse_lengths(settings.ngram)),
            "span": WordRuns("span", geometric_lengths(settings.stop, settings.span)),
        }
        return [
            UnitKind(
                name=kind,
                propose=propose[kind],
                weight=settings.weights.get(kind, 1.0),
                rate=settings.rates.get(kind),
                order=ORDER[kind],
                per_unit=kind == "span",  # SpanBERT, section 3.1: all of a span or none
            )
            for kind in settings.kinds
        ]

    @hookimpl
    def ptm_schedule(self, context: ContextView) -> list[Schedule]:
        """Return the stages: words, and then one kind more at a time."""
        if self.settings.schedule == "mixture":
            return []
        return [Schedule(name="stages", change=self._weighed, resource="unit kinds")]

    @hookimpl
    def ptm_features(self, context: ContextView) -> list[Feature]:
        """Return the columns of the span-boundary objective."""
        if "entity" in self.settings.kinds and not context.labels.get("entity"):
            context.watch.note(
                f"{self.instance}: no entity is linked, so none is masked whole; give --labels "
                "NAMES, or mentions in the text"
            )
        if not self._has_boundary:
            return []
        return [Feature(name="boundary", compute=boundary_columns)]

    @hookimpl
    def ptm_parts(self, context: ContextView) -> list[Part]:
        """Return the layers of the span-boundary objective."""
        if not self._has_boundary:
            return []
        hidden = context.model_config.hidden_size
        width = getattr(context.model_config, "embedding_size", hidden)
        return [Part(name="boundary", build=partial(Boundary, hidden, width))]

    @hookimpl
    def ptm_objectives(self, context: ContextView) -> list[Objective]:
        """Return the span-boundary objective."""
        if not self._has_boundary:
            return []
        name = "sbo" if self.instance == "ernie-masking" else f"sbo:{self.instance}"
        return [
            Objective(
                name=name,
                count=self._count,
                compute=self._boundary_loss,
                weight=self.settings.boundary_weight,
                streams=(),
            )
        ]

    @hookimpl
    def ptm_placebos(self, context: ContextView) -> list[Placebo]:
        """Return runs of words as units, wherever they begin, in place of phrases and entities."""
        if not {"phrase", "entity"} & set(self.settings.kinds):
            return []
        words = "random n-grams masked instead of phrases and entities"
        return [Placebo(name="n-grams", summary=words, change=self._n_grams)]

    def _n_grams(self, settings: RunSettings, folder: Path, seed: int) -> RunSettings:
        plain = {"weights": {}, "rates": {}, "schedule": "mixture", "shares": []}
        return settings.with_plugin(self.instance, kinds=["ngram"], **plain)

    def _weighed(self, plan: StepPlan) -> StepPlan:
        done = plan.step / plan.steps
        joins = zip(self.settings.kinds, self.settings.bounds(), strict=True)
        weights = dict(plan.kind_weights)
        weights.update({kind: 0.0 for kind, begin in joins if done < begin})
        return plan.changed(kind_weights=weights)

    def _count(self, columns: Mapping[str, NDArray[Any]]) -> float:
        return float(len(columns[f"{self.instance}.labels"]))

    def _boundary_loss(
        self, batch: MicroBatch, encode: Encode, parts: Mapping[str, nn.Module]
    ) -> Outcome:
        states = encode(batch)
        left, right, place, labels = (
            batch.column(self.instance, name) for name in ("left", "right", "place", "labels")
        )
        logits = states.project(parts["boundary"](states.top[left], states.top[right], place))
        right_ones = (logits.argmax(-1) == labels).sum()
        total = right_ones.new_full((), len(labels))
        return Outcome(loss_sum(logits, labels), {"accuracy": (right_ones, total)})

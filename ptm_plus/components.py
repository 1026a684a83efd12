"""What hooks return: plain objects that the core composes and then runs without pluggy.

Shape letters: T tokens of a micro-batch (flat, packed), S sequences in it, M spans of one kind,
K predicted slots, d hidden width of the backbone.

Nothing here imports torch: a plugin's static side can be read in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ptm_plus.examples import Example, Span

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from ptm_plus.encoder import Encode, PassContext
    from ptm_plus.keyed import Draws
    from ptm_plus.microbatch import MicroBatch
    from ptm_plus.mixture import StepPlan
    from ptm_plus.prepare.layouts import LaidOut, LayoutInput
    from ptm_plus.probes import ProbeContext
    from ptm_plus.settings import RunSettings
    from ptm_plus.views import SpanTable, View

ExportClass = Literal["train-only", "foldable", "needed"]
Site = Literal["embeddings", "block_in", "attn_out", "ffn_pre", "ffn_hidden", "block_out", "top"]
EventKind = Literal["train_start", "stage_start", "after_step", "evaluated", "saving", "train_end"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """How a plugin uses a resource that others may use too.

    ``backbone`` is claimed stage by stage: shared by whoever has an objective that trains it (the
    core among them), kept by whoever trains beside it.

    Attributes:
        resource: what is used, for example ``"text truth"``.
        mode: ``share`` goes with other shares; ``own`` excludes every other claim; ``keep`` needs
            it unchanged and goes with other keeps; ``require`` needs somebody (the core or a
            plugin) to provide it.
    """

    resource: str
    mode: Literal["share", "own", "keep", "require"] = "share"


@dataclass(frozen=True, kw_only=True)
class PluginInfo:
    """The static data of a plugin, readable without importing anything heavy.

    Attributes:
        name: the word after ``--plugin``; the same as the entry point's name.
        hooks: class with the hook implementations, or ``"module:Class"`` (imported only when the
            plugin is asked for). It is called as ``Class(settings=…, instance=…)``.
        summary: one line for ``plugins list``.
        contract: range of contract versions that it was written for, such as ``">=1,<2"``.
        settings: pydantic model of ``[plugin.NAME]``, or ``"module:Class"``; ``None`` for none.
        needs: what it needs, such as ``"spans:entity"``, ``"graph"`` or ``"pairs"``.
        uses: what it takes where there is some, and does without: ``"spans:entity"``.
        claims: shared resources.
        before: plugins whose chain members come after this one's.
        after: plugins whose chain members come before this one's.
        extra: the extra that installs what it imports.
        paths: settings that name files, dotted; a run folder holds them as absolute paths, and a
            run whose settings name one is not the sample's.
    """

    name: str
    hooks: str | type[Any]
    summary: str = ""
    contract: str = ">=1,<2"
    settings: str | type[Any] | None = None
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    extra: str = ""
    paths: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------
# Vocabulary and text


@dataclass(frozen=True, kw_only=True)
class ControlToken:
    """A token with a meaning of its own: a marker, a separator, a sentinel.

    Attributes:
        text: how it is written, for example ``"[REL]"``.
        start: first vector: ``"mean"`` of the vocabulary, ``"random"``, or an existing token that
            is copied.
    """

    text: str
    start: str = "mean"


@dataclass(frozen=True)
class Refused:
    """A row that is not used.

    Attributes:
        reason: what the account prints.
        path: file of the row.
        line: its line.
    """

    reason: str
    path: str = ""
    line: int = 0


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A named source of examples.

    Attributes:
        name: unique in the run.
        examples: returns a fresh iterator in an order that never changes.
        fingerprint: hash of the content behind ``examples`` (files, not settings).
        layout: name of the layout that turns its examples into sequences.
        objectives: names of the objectives that it serves.
        weight: share of the step's rows against the other streams.
        alpha: exponent of token counts when strata are sampled (p ∝ n^alpha).
        masked: whether units of it are masked and predicted; otherwise it is read as it is.
    """

    name: str
    examples: Callable[[], Iterator[Example | Refused]]
    fingerprint: str
    layout: str = "text"
    objectives: tuple[str, ...] = ("mlm",)
    weight: float = 1.0
    alpha: float = 1.0
    masked: bool = True


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """Adds spans to examples; never edits text.

    Attributes:
        name: unique in the run; names the span table on disk.
        annotate: examples to one list of new spans each. Must pickle: it runs in worker processes.
        fingerprint: hash of everything that it depends on (dictionary, version, settings).
        kinds: span kinds that it adds.
        streams: streams that it reads; empty for all.
        account: names what was counted since the last call (mentions found, linked, …).
    """

    name: str
    annotate: Callable[[Sequence[Example]], list[list[Span]]]
    fingerprint: str
    kinds: tuple[str, ...] = ("entity",)
    streams: tuple[str, ...] = ()
    account: Callable[[], Mapping[str, int]] | None = None


@dataclass(frozen=True, kw_only=True)
class Rewriter:
    """Edits text and moves the spans with it, before tokenising.

    Attributes:
        name: unique in the run.
        rewrite: example and keyed draws to the edited example. Must pickle.
        fingerprint: hash of version and settings.
        streams: streams that it edits.
        versions: how many differently edited copies are prepared.
    """

    name: str
    rewrite: Callable[[Example, Draws], Example]
    fingerprint: str
    streams: tuple[str, ...]
    versions: int = 1


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Turns a tokenised example into sequences.

    Attributes:
        name: what a stream refers to.
        lay_out: tokenised example to laid-out sequences. Must pickle.
        fingerprint: hash of version and settings.
        columns: dtype of extra token columns that it fills, by name: ``int32``, say, or ``u1``.
    """

    name: str
    lay_out: Callable[[LayoutInput], list[LaidOut]]
    fingerprint: str
    columns: Mapping[str, str] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------
# Masking and features (array work on micro-batches)


@dataclass(frozen=True, kw_only=True)
class Units:
    """Maskable units of one kind in a view: contiguous token ranges.

    Attributes:
        start: ``[U]`` first token (index into the view).
        length: ``[U]`` number of tokens.
        weight: ``[U]`` relative chance to be drawn within the kind; ``None`` for equal.
        group: ``[U]`` units of one sequence with the same group ≥ 0 stand for one thing (the two
            halves' mentions of one entity); ``None`` when nothing is grouped.
        span: ``[U]`` row of the span table that the unit comes from; ``None`` if none.
    """

    start: NDArray[np.int64]
    length: NDArray[np.int64]
    weight: NDArray[np.float64] | None = None
    group: NDArray[np.int64] | None = None
    span: NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """What happens to what is attached to a unit (an entity id), by whether its tokens are masked.

    The four modes of a mention follow: tokens only (``hit``, keep), both (``hit``, masked or
    random), entity only (``missed``, masked or random), neither (``missed``, keep).

    Attributes:
        hit: probabilities (keep, mask, random) when the unit's tokens are predicted.
        missed: the same when they are not.
    """

    hit: tuple[float, float, float] = (1.0, 0.0, 0.0)
    missed: tuple[float, float, float] = (1.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class UnitKind:
    """A kind of unit that may be masked, with its replacement rule.

    Attributes:
        name: unique in the run: ``"word"`` (the core's), ``"entity"``, ``"phrase"``, …
        propose: view and draws to units. Called once per micro-batch.
        weight: chance of a token of this kind against a token of kind ``word``.
        rate: share of this kind's tokens that is predicted, taken off the budget before the others
            share what is left by their weights; ``None`` for a share by weight.
        order: kinds with a lower order choose first; words (100) choose last.
        replacement: probabilities (mask token, random token, keep).
        per_unit: draw the replacement once per unit instead of once per token.
        exclusive: the kind's tokens may be predicted through this kind only.
        mirror: for a group with members in several segments, the chance that the members are
            masked together; otherwise one segment is drawn and the others' tokens stay visible.
        treatment: what happens to the thing attached to the unit.
        streams: streams where the kind is proposed; empty for all.
    """

    name: str
    propose: Callable[[View, Draws], Units]
    weight: float = 1.0
    rate: float | None = None
    order: int = 50
    replacement: tuple[float, float, float] = (0.8, 0.1, 0.1)
    per_unit: bool = False
    exclusive: bool = False
    mirror: float = 0.1
    treatment: Treatment | None = None
    streams: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Emphasis:
    """Makes some tokens likelier to be masked than others, whatever kind they are masked by.

    A unit's chance is multiplied by the mean over its tokens; those of several plugins are
    multiplied. The budgets of sequence and kinds stay: what some tokens win, others lose.

    Attributes:
        name: unique within the plugin.
        weigh: view and draws to ``[T]`` positive relative chances, 1 for no change.
        streams: streams where it applies; empty for all.
    """

    name: str
    weigh: Callable[[View, Draws], NDArray[np.float64]]
    streams: tuple[str, ...] = ()


@dataclass(frozen=True)
class MaskPlan:
    """What the arbiter decided for one view.

    Attributes:
        predicted: ``[T]`` bool, tokens with a masked-LM label.
        kind: ``[T]`` index of the unit kind that took the token, -1 where not predicted.
        ids: ``[T]`` token ids after replacement.
        hit: per kind name ``[M]`` bool: the span's tokens are predicted.
        treatment: per kind name ``[M]``: 0 keep, 1 mask, 2 random.
        kinds: names that ``kind`` indexes.
        budget: per kind name, expected number of predicted tokens.
    """

    predicted: NDArray[np.bool_]
    kind: NDArray[np.int64]
    ids: NDArray[np.int64]
    hit: Mapping[str, NDArray[np.bool_]]
    treatment: Mapping[str, NDArray[np.int64]]
    kinds: tuple[str, ...]
    budget: Mapping[str, float]


@dataclass(frozen=True)
class FeatureInput:
    """What a feature function may look at.

    Attributes:
        view: the micro-batch before replacement.
        plan: the mask plan.
        draws: keyed draws of the plugin for this stream and epoch.
        step_spans: for scope ``step``: per span kind, the spans of every row of this stream in the
            whole step, on all ranks; empty otherwise.
    """

    view: View
    plan: MaskPlan
    draws: Draws
    step_spans: Mapping[str, SpanTable]


@dataclass(frozen=True, kw_only=True)
class Feature:
    """Computes columns (named arrays) for a micro-batch.

    Attributes:
        name: unique within the plugin; columns are stored as ``instance.column``.
        compute: input to arrays by column name.
        scope: ``sequence`` looks at one sequence at a time; ``step`` also at the prepared spans of
            all rows of the step; ``micro`` at its micro-batch only, so that results depend on the
            split (``plan`` prints it).
        streams: streams where it runs; empty for all.
    """

    name: str
    compute: Callable[[FeatureInput], Mapping[str, NDArray[Any]]]
    scope: Literal["sequence", "step", "micro"] = "sequence"
    streams: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------
# Model


@dataclass(frozen=True, kw_only=True)
class EmbeddingDelta:
    """Adds vectors to the word embeddings. Deltas of several plugins are summed.

    Attributes:
        name: unique within the plugin.
        delta: micro-batch and the plugin's parts to ``[T, d]``.
        streams: streams where it applies; empty for all.
    """

    name: str
    delta: Callable[[MicroBatch, Mapping[str, nn.Module]], Tensor]
    streams: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EmbeddingReplacement:
    """Replaces word embeddings at some positions; two plugins may not replace the same position.

    Attributes:
        name: unique within the plugin.
        replace: micro-batch and parts to (``[R]`` positions, ``[R, d]`` vectors).
        streams: streams where it applies; empty for all.
    """

    name: str
    replace: Callable[[MicroBatch, Mapping[str, nn.Module]], tuple[Tensor, Tensor]]
    streams: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Visibility:
    """Says which token may attend to which. Rules of several plugins are combined by AND.

    Attributes:
        name: unique within the plugin.
        rule: ``rule(q, k, columns) -> bool``, elementwise on broadcastable index tensors; it must
            let every token see itself.
        streams: streams where it applies; empty for all.
    """

    name: str
    rule: Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]
    streams: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Tap:
    """A place where a part reads or writes the hidden states.

    Attributes:
        site: where in the block; the family card maps it to a module.
        blocks: block indexes, negative ones count from the end; ignored for ``embeddings`` and
            ``top``.
        run: pass context, block index and ``[T, width]`` states to new states, or ``None`` when it
            only reads.
        writes: whether it returns states.
    """

    site: Site
    run: Callable[[PassContext, int, Tensor], Tensor | None]
    blocks: tuple[int, ...] = ()
    writes: bool = False


@dataclass(frozen=True, kw_only=True)
class Part:
    """A module beside the backbone.

    Attributes:
        name: unique within the plugin; weights are stored as ``instance.name.…``.
        build: returns the module, freshly initialised.
        export: ``train-only`` is dropped, ``foldable`` is folded into the backbone, ``needed``
            belongs to the trained model (the export says what is lost without it).
        taps: returns the taps of the built module.
        frozen: no gradient, evaluation mode, no optimizer slot.
        identity: the module changes nothing at its start (checked by the self-check).
        rows: kind of label (``context.labels``) that the first dimension of its tensors counts; a
            run that goes on with more labels keeps the rows of those that it had.
    """

    name: str
    build: Callable[[], nn.Module]
    export: ExportClass = "train-only"
    taps: Callable[[nn.Module], Iterable[Tap]] | None = None
    frozen: bool = False
    identity: bool = False
    rows: str = ""


@dataclass(frozen=True, kw_only=True)
class MovingAverage:
    """Weights that follow the trained ones: ``m · average + (1 - m) · weight`` after every step.

    They start as what they follow. The core makes, places, updates, saves and loads them; no export
    has them. ``encode(batch, weights=NAME)`` runs a pass with them, without gradient.

    Attributes:
        name: unique within the plugin, its parts included.
        of: whole module paths, as in a :class:`ParameterRule`: ``backbone``, ``parts.NAME``.
        momentum: m of the update that follows step n (from 0, counted in the stage). Must be a pure
            function of n.
    """

    name: str
    momentum: Callable[[int], float]
    of: tuple[str, ...] = ("backbone",)


@dataclass(frozen=True, kw_only=True)
class ExternalTable:
    """A table that stays on disk: only path, hash and id map belong to the run.

    Attributes:
        name: unique within the plugin.
        path: file.
        sha256: hash of the file.
        rows: number of rows.
    """

    name: str
    path: Path
    sha256: str
    rows: int


@dataclass(frozen=True)
class Outcome:
    """What an objective computed: a loss sum, and sums for metrics.

    Attributes:
        sum: scalar.
        metrics: by name, (numerator, denominator) as scalars on the device.
        kept: by name, ``[n, …]`` tensors without gradient that :class:`Event` brings back when the
            step is done; what is kept in an evaluation, or in a step that fails, is dropped.
    """

    sum: torch.Tensor
    metrics: Mapping[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    kept: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A loss as a sum, with a count that is known before any forward pass.

    Attributes:
        name: unique in the run; losses are keyed (stream, name).
        count: host columns of a micro-batch to the divisor's share. Depends on data and mask plan
            only, never on the model.
        compute: micro-batch, ``encode`` and the plugin's parts to the loss sum over what was
            counted.
        weight: factor on the mean.
        streams: streams where it applies; ``None`` for those that name it; empty for all but the
            streams of plugins that train in other stages.
        takes_over: name of another objective that this one replaces on the same streams.
        reads: whose states it reads after the last block: of ``all`` tokens, or of ``predicted``
            ones alone. Where all objectives of a micro-batch say the latter, the last block's
            feed-forward leaves the other tokens out: ``top`` and the last of ``blocks`` are zero
            there.
    """

    name: str
    count: Callable[[Mapping[str, NDArray[Any]]], float]
    compute: Callable[[MicroBatch, Encode, Mapping[str, nn.Module]], Outcome]
    weight: float = 1.0
    streams: tuple[str, ...] | None = None
    takes_over: str = ""
    reads: Literal["all", "predicted"] = "all"


# ---------------------------------------------------------------------------------------------
# Training


@dataclass(frozen=True, kw_only=True)
class ParameterRule:
    """Treats some parameters differently.

    Attributes:
        path: whole module path (``backbone.bert.encoder.layer.1`` does not match ``layer.11``),
            or ``parts.NAME``; everything below it is meant. The longest matching path wins.
        frozen: no gradient, evaluation mode, no decay, no optimizer slot.
        lr: factor on the learning rate.
        decay: factor on the weight decay.
        rows_from: train only the rows of a matrix from this one on (new vocabulary).
    """

    path: str
    frozen: bool | None = None
    lr: float | None = None
    decay: float | None = None
    rows_from: int | None = None


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Changes the plan of a step. Must be a pure function of its arguments.

    The learning rate alone may depend on what the plugin's ``state_dict`` keeps as well: data and
    masks are planned ahead, and checked when a run is resumed.

    Attributes:
        name: unique within the plugin.
        change: plan so far to the changed plan.
        resource: what it changes; two schedules that change one resource need a declared order.
    """

    name: str
    change: Callable[[StepPlan], StepPlan]
    resource: str = "plan"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A named evaluation.

    Attributes:
        name: key in the report.
        run: context to figures.
        at_start: also run before the first step.
    """

    name: str
    run: Callable[[ProbeContext], Mapping[str, Any]]
    at_start: bool = False


@dataclass(frozen=True, kw_only=True)
class Exporter:
    """Writes a plugin's own files beside the plain model.

    Attributes:
        name: unique within the plugin.
        write: target folder and the plugin's parts to a list of notes for the model card.
        fold: folds ``foldable`` parts into the backbone, before it is saved; ``None`` for none.
        read: folder and encoder, as plain transformers loads it, to a module that takes the
            encoder's arguments and returns ``[B, L, d]`` states of both, for tasks to be learned
            from; ``None`` where the encoder alone is read.
    """

    name: str
    write: Callable[[Path, Mapping[str, nn.Module]], Sequence[str]] | None = None
    fold: Callable[[nn.Module, Mapping[str, nn.Module]], None] | None = None
    read: Callable[[Path, nn.Module], nn.Module] | None = None


@dataclass(frozen=True, kw_only=True)
class Placebo:
    """A run like the plugin's own with what it stands for taken out, for ``ptm-plus ablate``.

    What the plugin gains over it, and the placebo does not gain over a run without plugins, is the
    doing of the plugin's knowledge and not of its parts, masks or rows.

    Attributes:
        name: unique within the plugin, for example ``"shuffled-graph"``.
        summary: what is wrong in it, in a few words.
        change: settings of a run with the plugin, a folder to write files in and a seed to the
            settings of the placebo.
    """

    name: str
    summary: str
    change: Callable[[RunSettings, Path, int], RunSettings]


@dataclass(frozen=True)
class Event:
    """What ``ptm_event`` is told.

    Attributes:
        kind: what happened.
        step: optimizer steps done.
        figures: figures that go with it (losses, evaluation results).
        stage: name of the stage.
        kept: at ``after_step``, by ``STREAM/OBJECTIVE`` and name, what :class:`Outcome` kept, of
            the whole step: joined over micro-batches and processes. The order depends on the
            split, so keep a column to sort by.
    """

    kind: EventKind
    step: int
    figures: Mapping[str, Any] = field(default_factory=dict)
    stage: str = "main"
    kept: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)

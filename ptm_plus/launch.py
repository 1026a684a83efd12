"""The model side of a run: backbone, parts, objectives, in the order of the hook phases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ptm_plus.arrangement import gather
from ptm_plus.components import (
    Emphasis,
    Exporter,
    ExternalTable,
    Feature,
    MovingAverage,
    Objective,
    ParameterRule,
    Part,
    Probe,
    Schedule,
    Tap,
    UnitKind,
)
from ptm_plus.compose import Contribution, chain
from ptm_plus.data import Collator
from ptm_plus.encoder import Encoder
from ptm_plus.errors import PluginError, SettingsError, nearest
from ptm_plus.families import card_of
from ptm_plus.keyed import derive_key
from ptm_plus.label_lists import Labels
from ptm_plus.masking import Vocabulary, word_kind
from ptm_plus.mixture import Planner
from ptm_plus.model import build_backbone, build_config, check_length
from ptm_plus.objectives import masked_lm
from ptm_plus.plugins import Plugins
from ptm_plus.prepare.tokenization import ordinary_ids
from ptm_plus.prepared import NOTHING, Prepared, prepare
from ptm_plus.progress import Watch
from ptm_plus.run import Run
from ptm_plus.sampling import make_planner
from ptm_plus.settings import RunSettings
from ptm_plus.stages import CORE, Stage, make_stages
from ptm_plus.step import Root


def of_type(contributions: Iterable[Contribution[Any]], kind: type[Any]) -> list[Contribution[Any]]:
    """Return the contributions of one component type."""
    return [one for one in contributions if isinstance(one.component, kind)]


def launch(
    settings: RunSettings,
    watch: Watch,
    device: torch.device | None = None,
    kept_labels: Labels = NOTHING,
) -> Run:
    """Compose a run: data, model, parts, objectives.

    Args:
        settings: the resolved settings.
        watch: where progress goes.
        device: where the model lives; the CPU by default.
        kept_labels: label lists of the run that goes on.
    """
    return compose(prepare(settings, watch, kept_labels), device or torch.device("cpu"))


def compose(prepared: Prepared, device: torch.device) -> Run:
    """Build the model side of a run on prepared data."""
    settings, plugins, context = prepared.settings, prepared.plugins, prepared.context
    longest = settings.prepare.max_length
    config = build_config(settings.model, prepared.tokenizer, longest)
    card = card_of(config.model_type)
    check_length(card, config, longest)
    kinds = gather(plugins, "ptm_masking", context, [word_kind(settings.masking.unit)])
    context.advance(
        "labels",
        labels=prepared.labels,
        occurrences=_occurrences(prepared),
        sizes={name: sum(data.tokens.values()) for name, data in prepared.streams.items()},
        graph=prepared.graph,
        vectors=settings.data.vectors or None,
        model_config=config,
        card=card,
    )
    features = gather(plugins, "ptm_features", context)
    inputs = gather(plugins, "ptm_inputs", context)
    declared = gather(plugins, "ptm_parts", context)
    objectives = gather(plugins, "ptm_objectives", context, [masked_lm()])
    parts = of_type(declared, Part)
    torch.manual_seed(settings.train.seed)
    backbone = build_backbone(
        settings.model, config, prepared.tokens, prepared.tokenizer, settings.train.precision
    )
    modules = _build_parts(parts, settings.train.seed, next(backbone.parameters()).dtype)
    taps = _taps(parts, modules, plugins, config)
    averages = of_type(declared, MovingAverage)
    encoder = Encoder(backbone, card, modules, taps, inputs, averages).to(device)
    if settings.model.gradient_checkpointing:
        encoder.enable_checkpointing()
    context.advance("modules", backbone=backbone, parts=modules)
    collator = Collator(
        {**prepared.streams, **prepared.sets},
        of_type(kinds, UnitKind),
        of_type(features, Feature),
        Vocabulary(int(prepared.tokenizer.mask_token_id), ordinary_ids(prepared.tokenizer)),
        settings.train.seed,
        prepared.unmasked,
        of_type(kinds, Emphasis),
    )
    known = of_type(objectives, Objective)
    _check_served(prepared, known)
    stages = make_stages(settings.train, plugins.instances, partial(_by_stream, prepared, known))
    run = Run(
        prepared=prepared,
        collator=collator,
        encoder=encoder,
        root=Root(encoder, _in_any(stages)),
        planner=_planner(prepared, known, stages),
        stages=stages,
        parts=parts,
        tables=of_type(declared, ExternalTable),
        averages=averages,
        rules=of_type(gather(plugins, "ptm_parameters", context), ParameterRule),
        probes=of_type(gather(plugins, "ptm_probes", context), Probe),
        exporters=of_type(gather(plugins, "ptm_export", context), Exporter),
        device=device,
    )
    context.advance("run", run=run)
    return run


def _occurrences(prepared: Prepared) -> dict[str, NDArray[np.int64]]:
    """Return how often each label of a span kind is marked in the streams."""
    return {
        kind: sum(
            (data.maker.occurrences(kind, len(labels)) for data in prepared.streams.values()),
            np.zeros(len(labels), dtype=np.int64),
        )
        for kind, labels in prepared.labels.items()
    }


def _build_parts(
    parts: Sequence[Contribution[Part]], seed: int, dtype: torch.dtype
) -> dict[str, dict[str, nn.Module]]:
    """Build every part from its own seed, so that no part changes another's start."""
    modules: dict[str, dict[str, nn.Module]] = {}
    for owner in parts:
        name = owner.component.name
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_key(seed, "part", owner.instance, name) % 2**63)
            module = owner.component.build().to(dtype)
        if owner.component.frozen:
            module.requires_grad_(False)
        modules.setdefault(owner.instance, {})[name] = module
    return modules


def _taps(
    parts: Sequence[Contribution[Part]],
    modules: Mapping[str, Mapping[str, nn.Module]],
    plugins: Plugins,
    config: Any,
) -> list[Contribution[Tap]]:
    """Return all taps: writers as a chain per block and site, readers after them."""
    blocks = int(config.num_hidden_layers)
    taps = [
        Contribution(owner.instance, tap)
        for owner in parts
        if owner.component.taps
        for tap in owner.component.taps(modules[owner.instance][owner.component.name])
    ]

    def places(tap: Tap) -> list[tuple[str, int]]:
        return [(tap.site, index % blocks) for index in tap.blocks] or [(tap.site, 0)]

    writers = [one for one in taps if one.component.writes]
    readers = [one for one in taps if not one.component.writes]
    ordered = chain(writers, places, "writers", plugins.order)
    return [*ordered, *sorted(readers, key=lambda one: one.instance)]


def _by_stream(
    prepared: Prepared, objectives: Sequence[Contribution[Objective]], instances: frozenset[str]
) -> dict[str, list[Contribution[Objective]]]:
    """Return some instances' objectives of each stream, after some took over others' places.

    The stream of a plugin that is not among them rests if they have no objective of its own:
    what serves every stream would otherwise draw the data of another stage.
    """
    known = {one.component.name for one in objectives}
    result = {}
    for stream, names in prepared.stream_objectives.items():
        for name in names:
            if name not in known:
                raise PluginError(
                    f"stream {stream!r} serves objective {name!r}, which nobody "
                    f"provides{nearest(name, known)}"
                )
        chosen = [
            one
            for one in objectives
            if one.instance in instances and _serves(one.component, stream, names)
        ]
        replaced = {one.component.takes_over for one in chosen}
        serves = prepared.stream_owners[stream] in {CORE, *instances} or any(
            _is_own(one.component, stream, names) for one in chosen
        )
        result[stream] = [one for one in chosen if serves and one.component.name not in replaced]
    return result


def _check_served(prepared: Prepared, objectives: Sequence[Contribution[Objective]]) -> None:
    """Check that every objective of a plugin that waits for a stream to name it is named."""
    named = {name for names in prepared.stream_objectives.values() for name in names}
    for owner in objectives:
        objective = owner.component
        if owner.instance != CORE and objective.streams is None and objective.name not in named:
            raise PluginError(
                f"plugin {owner.instance!r}: objective {objective.name!r} would never be computed: "
                "no stream names it",
                "give it streams=() for all streams, or a stream objectives=(…, "
                f"{objective.name!r})",
            )


def _in_any(stages: Sequence[Stage]) -> dict[str, list[Contribution[Objective]]]:
    """Return the objectives of each stream, of all stages together."""
    found: dict[str, list[Contribution[Objective]]] = {}
    for stage in stages:
        for stream, owners in stage.objectives.items():
            kept = found.setdefault(stream, [])
            kept += [one for one in owners if one not in kept]
    return {stream: sorted(kept, key=lambda one: one.instance) for stream, kept in found.items()}


def _is_own(objective: Objective, stream: str, names: Sequence[str]) -> bool:
    """Tell whether a stream names an objective, or one whose place it took, or it the stream."""
    named = {objective.name, objective.takes_over} & {*names}
    return bool(named) or stream in (objective.streams or ())


def _serves(objective: Objective, stream: str, names: Sequence[str]) -> bool:
    if objective.name in names:
        return True
    return objective.streams is not None and (not objective.streams or stream in objective.streams)


def _planner(
    prepared: Prepared, objectives: Sequence[Contribution[Objective]], stages: Sequence[Stage]
) -> Planner:
    settings = prepared.settings
    defaults = {one.component.name: one.component.weight for one in objectives}
    factors = settings.train.objective_weights
    for name in factors:
        if name not in defaults:
            raise SettingsError(
                f"train.objective_weights.{name}: there is no objective "
                f"{name!r}{nearest(name, defaults)}",
                f"objectives of this run: {', '.join(sorted(defaults))}",
            )
    weights = {name: value * factors.get(name, 1.0) for name, value in defaults.items()}
    schedules = gather(prepared.plugins, "ptm_schedule", prepared.context)
    changes = [one.component.change for one in of_type(schedules, Schedule)]
    return make_planner(prepared, weights, changes, stages)

"""From settings to a run: plugins, data, model, checks, in the order of the hook phases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ptm_plus.components import (
    Annotator,
    Exporter,
    ExternalTable,
    Feature,
    Objective,
    ParameterRule,
    Part,
    Probe,
    Schedule,
    Stream,
    Tap,
    UnitKind,
)
from ptm_plus.compose import Contribution, chain, check_claims, check_needs
from ptm_plus.context import Context
from ptm_plus.data import Collator, StreamData
from ptm_plus.encoder import Encoder
from ptm_plus.errors import DataError, PluginError, SettingsError, nearest
from ptm_plus.families import card_of
from ptm_plus.inputs import (
    cache_folder,
    file_stream,
    given_inputs,
    halves_stream,
    linking_annotator,
    load_graph,
    text_stream,
)
from ptm_plus.keyed import derive_key
from ptm_plus.knowledge.graph import Graph
from ptm_plus.layouts import TEXT_LAYOUT
from ptm_plus.linked_pairs import LinkedPairs, linked_pairs
from ptm_plus.masking import Vocabulary, word_kind
from ptm_plus.mixture import Planner
from ptm_plus.model import build_backbone, build_config, check_length
from ptm_plus.objectives import masked_lm
from ptm_plus.plugins import Plugins, load
from ptm_plus.prepare import prepare_stream
from ptm_plus.probes import MENTIONS, RETRIEVAL
from ptm_plus.progress import Watch
from ptm_plus.questions import read_questions
from ptm_plus.rules import settle
from ptm_plus.run import Prepared, Run
from ptm_plus.settings import RunSettings
from ptm_plus.sources import read_pairs
from ptm_plus.step import Root
from ptm_plus.store import SequenceStore
from ptm_plus.tokenization import load_tokenizer, ordinary_ids
from ptm_plus.tokenizer_cache import cached_tokenizer
from ptm_plus.views import LANGUAGE


def gather(plugins: Plugins, hook: str, context: Context, core: Sequence[Any] = ()) -> list[Any]:
    """Return the composed answers of a hook, the core's own among them."""
    own = [Contribution("core", component) for component in core]
    return settle([*own, *plugins.collect(hook, context)], plugins.order)


def of_type(contributions: Iterable[Contribution[Any]], kind: type[Any]) -> list[Contribution[Any]]:
    """Return the contributions of one component type."""
    return [one for one in contributions if isinstance(one.component, kind)]


# ---------------------------------------------------------------------------------------------
# Data


def prepare(settings: RunSettings, watch: Watch) -> Prepared:
    """Load plugins and tokenizer, prepare every stream.

    Raises:
        PtmPlusError: a setting, a plugin or an input is wrong.
    """
    plugins = load(settings.plugins, settings.plugin)
    inputs = given_inputs(settings)
    _check_inputs(settings, plugins, inputs)
    context = Context(settings, inputs, watch)
    streams = _streams(settings, plugins, context, inputs)
    tokenizer = _tokenizer(settings, streams, watch)
    context.advance("tokenizer", tokenizer=tokenizer)
    tokens = [one.component for one in gather(plugins, "ptm_special_tokens", context)]
    tokenizer.add_tokens([token.text for token in tokens], special_tokens=True)
    graph = load_graph(settings)
    stores = _prepare_streams(settings, plugins, context, streams, tokenizer, graph, watch)
    labels = _label_lists(stores.values(), graph)
    _check_overlap(plugins, stores, labels, graph)
    sets = {one.name for one in _sets(settings)}
    data = {
        name: StreamData(name, store, labels, settings, train=name not in sets)
        for name, store in stores.items()
    }
    trained = {one.component.name: one.component for one in streams}
    linked = {name: linked_pairs(store) for name, store in stores.items() if name in trained}
    _tell_streams({name: data[name] for name in trained}, linked, watch)
    return Prepared(
        settings=settings,
        plugins=plugins,
        context=context,
        tokenizer=tokenizer,
        tokens=tokens,
        streams={name: data[name] for name in trained},
        sets={name: data[name] for name in sets},
        labels=labels,
        graph=graph,
        accounts={name: stores[name].account for name in stores},
        linked_pairs={name: found for name, found in linked.items() if found},
        stream_objectives={name: one.objectives for name, one in trained.items()},
        stream_weights={
            name: settings.batch.weights.get(name, one.weight) for name, one in trained.items()
        },
        stream_alpha={
            name: settings.batch.alpha.get(name, one.alpha) for name, one in trained.items()
        },
    )


def _check_inputs(settings: RunSettings, plugins: Plugins, inputs: frozenset[str]) -> None:
    provided = set(inputs) | {"spans:entity"}
    check_needs(plugins.instances, provided)
    check_claims(plugins.instances, provided)
    if not {"text", "pairs"} & inputs and not plugins.instances:
        raise SettingsError(
            "no text was given", "give --text FILE, --pairs FILE, or no input for the sample"
        )


def _streams(
    settings: RunSettings, plugins: Plugins, context: Context, inputs: frozenset[str]
) -> list[Contribution[Stream]]:
    core = []
    if "text" in inputs:
        core.append(text_stream(settings))
    if "pairs" in inputs and not any("pairs" in p.info.needs for p in plugins.instances):
        core.append(halves_stream(settings))
    streams = gather(plugins, "ptm_streams", context, core)
    names = {one.component.name for one in streams}
    for section in ("weights", "alpha"):
        for name in getattr(settings.batch, section):
            if name not in names:
                raise SettingsError(
                    f"batch.{section}.{name}: there is no stream {name!r}{nearest(name, names)}",
                    f"streams of this run: {', '.join(sorted(names))}",
                )
    return streams


def _tokenizer(settings: RunSettings, streams: Sequence[Contribution[Stream]], watch: Watch) -> Any:
    path = settings.tokenizer.path or settings.model.path
    if path:
        return load_tokenizer(path, settings.model.trust_remote_code)
    texts = (
        text
        for one in streams
        for example in one.component.examples()
        for text in getattr(example, "fields", {}).values()
    )
    key = [one.component.fingerprint for one in streams]
    size, family = settings.tokenizer.vocabulary, settings.model.family
    tokenizer, fresh = cached_tokenizer(texts, size, family, key, cache_folder(settings))
    watch.note(f"{'trained' if fresh else 'found'} a tokenizer of {len(tokenizer):,} pieces")
    return tokenizer


def _prepare_streams(
    settings: RunSettings,
    plugins: Plugins,
    context: Context,
    streams: Sequence[Contribution[Stream]],
    tokenizer: Any,
    graph: Graph | None,
    watch: Watch,
) -> dict[str, SequenceStore]:
    layouts = gather(plugins, "ptm_layouts", context, [TEXT_LAYOUT])
    by_name = {one.component.name: one.component for one in layouts}
    core: list[Annotator] = []
    if settings.data.labels and any("spans:entity" in p.info.needs for p in plugins.instances):
        core.append(linking_annotator(settings, graph))
    annotators = [one.component for one in gather(plugins, "ptm_annotators", context, core)]
    rewriters = [one.component for one in gather(plugins, "ptm_rewriters", context)]
    sources = [*(one.component for one in streams), *_sets(settings)]
    stores = {}
    for stream in sources:
        if stream.layout not in by_name:
            raise PluginError(
                f"stream {stream.name!r} needs layout {stream.layout!r}, which nobody "
                f"provides{nearest(stream.layout, by_name)}"
            )
        with watch.task(f"prepare {stream.name}") as task:
            stores[stream.name] = prepare_stream(
                stream,
                by_name[stream.layout],
                [one for one in annotators if not one.streams or stream.name in one.streams],
                [one for one in rewriters if stream.name in one.streams],
                tokenizer,
                settings,
                cache_folder(settings),
                task.update,
                settings.train.seed,
            )
        watch.figures("account", {"stream": stream.name, "account": stores[stream.name].account})
    return stores


def _sets(settings: RunSettings) -> list[Stream]:
    """Return the evaluation sets: prepared like streams, never trained on."""
    given = settings.evaluate
    sets = []
    if given.mentions:
        sets.append(file_stream(MENTIONS, given.mentions, read_questions, settings))
    if given.pairs:
        sets.append(file_stream(RETRIEVAL, given.pairs, read_pairs, settings))
    return sets


def _label_lists(
    stores: Iterable[SequenceStore], graph: Graph | None
) -> dict[str, tuple[str, ...]]:
    """Return all labels by span kind, sorted, the graph's entities among them, and languages."""
    found: dict[str, set[str]] = {LANGUAGE: set()}
    for store in stores:
        found[LANGUAGE].update(store.languages)
        for spans in store.spans.values():
            for kind in spans.kinds:
                found.setdefault(kind, set()).update(spans.ids)
    if graph is not None:
        found.setdefault("entity", set()).update(graph.entities)
    return {kind: tuple(sorted(labels - {""})) for kind, labels in sorted(found.items())}


def _tell_streams(
    streams: Mapping[str, StreamData], linked: Mapping[str, LinkedPairs | None], watch: Watch
) -> None:
    """Say how full the rows are, and how many pairs speak of one entity in both halves."""
    for name, data in streams.items():
        fill = min(data.rows(stratum, 0).fill for stratum in data.tokens)
        watch.note(
            f"{name}: {sum(data.tokens.values()):,} training tokens in {len(data.tokens)} strata, "
            f"rows at least {fill:.1%} full, {len(data.held_out):,} sequences held out"
        )
        found = linked.get(name)
        if found and found.any:
            share = found.both / found.pairs
            few = "; too few for them to act together" if share < 0.01 else ""
            watch.note(
                f"{name}: {found.both:,} of {found.pairs:,} pairs ({share:.1%}) have one entity "
                f"linked in both halves, {found.any:,} in one at least{few}"
            )


def _check_overlap(
    plugins: Plugins,
    stores: Mapping[str, SequenceStore],
    labels: Mapping[str, tuple[str, ...]],
    graph: Graph | None,
) -> None:
    """Check that the spans that plugins need exist and speak of the graph."""
    for plugin in plugins.instances:
        for need in plugin.info.needs:
            kind = need.removeprefix("spans:")
            if kind == need:
                continue
            linked = {
                label
                for store in stores.values()
                for spans in store.spans.values()
                if kind in spans.kinds
                for label in spans.ids
            }
            known = linked if graph is None else linked & set(graph.entities)
            if not known:
                raise DataError(
                    f"plugin {plugin.instance!r} needs {kind} spans, but the text mentions "
                    + (
                        "none"
                        if not linked
                        else f"none of the graph's entities ({len(linked)} others)"
                    ),
                    "give --labels with the entities' names in the text's languages, or text with "
                    "mentions; `ptm-plus kg check` shows what matches",
                )


# ---------------------------------------------------------------------------------------------
# Model


def launch(settings: RunSettings, watch: Watch, device: torch.device | None = None) -> Run:
    """Compose a run: data, model, parts, objectives.

    Args:
        settings: the resolved settings.
        watch: where progress goes.
        device: where the model lives; the CPU by default.
    """
    return compose(prepare(settings, watch), device or torch.device("cpu"))


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
    encoder = Encoder(backbone, card, modules, taps, inputs).to(device)
    if settings.model.gradient_checkpointing:
        encoder.enable_checkpointing()
    context.advance("modules", backbone=backbone, parts=modules)
    collator = Collator(
        {**prepared.streams, **prepared.sets},
        of_type(kinds, UnitKind),
        of_type(features, Feature),
        Vocabulary(int(prepared.tokenizer.mask_token_id), ordinary_ids(prepared.tokenizer)),
        settings.train.seed,
    )
    run = Run(
        prepared=prepared,
        collator=collator,
        encoder=encoder,
        root=Root(encoder, _by_stream(prepared, of_type(objectives, Objective))),
        planner=_planner(prepared, of_type(objectives, Objective)),
        parts=parts,
        tables=of_type(declared, ExternalTable),
        rules=of_type(gather(plugins, "ptm_parameters", context), ParameterRule),
        probes=of_type(gather(plugins, "ptm_probes", context), Probe),
        exporters=of_type(gather(plugins, "ptm_export", context), Exporter),
        device=device,
    )
    context.advance("run", run=run)
    return run


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
    prepared: Prepared, objectives: Sequence[Contribution[Objective]]
) -> dict[str, list[Contribution[Objective]]]:
    """Return the objectives of each stream, after some took over others' places."""
    known = {one.component.name for one in objectives}
    result = {}
    for stream, names in prepared.stream_objectives.items():
        for name in names:
            if name not in known:
                raise PluginError(
                    f"stream {stream!r} serves objective {name!r}, which nobody "
                    f"provides{nearest(name, known)}"
                )
        chosen = [one for one in objectives if _serves(one.component, stream, names)]
        replaced = {one.component.takes_over for one in chosen}
        result[stream] = [one for one in chosen if one.component.name not in replaced]
    return result


def _serves(objective: Objective, stream: str, names: Sequence[str]) -> bool:
    if objective.name in names:
        return True
    return objective.streams is not None and (not objective.streams or stream in objective.streams)


def _planner(prepared: Prepared, objectives: Sequence[Contribution[Objective]]) -> Planner:
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
    return Planner(
        settings,
        prepared.stream_weights,
        prepared.stream_alpha,
        weights,
        [one.component.change for one in of_type(schedules, Schedule)],
    )

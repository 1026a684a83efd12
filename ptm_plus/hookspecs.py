"""The contract: every hook that a plugin may implement.

A plugin is a :class:`~ptm_plus.components.PluginInfo` and a class. The class is called once as
``Class(settings=…, instance=…)``; its methods marked ``@hookimpl`` are called once each, in the
order below, while a run is composed. They return lists of components (an empty list for nothing);
numpy and torch then run those without coming back here. ``ptm_event`` alone is called in training.

``context`` (:class:`~ptm_plus.context.ContextView`) holds what is known so far:

    settings    settings, inputs, watch
    tokenizer   + tokenizer
    labels      + labels, sizes, graph, vectors, model_config, card      (prepare is over)
    modules     + backbone, parts
    run         + run

Each hook below says up to which phase it may read; reading on is an error. An implementation may
leave out arguments that it does not use. How the answers of several plugins compose is written at
each hook and never depends on the order of ``--plugin`` (``compose.py``).

The examples are run by ``tests/test_hookspecs.py``. A complete plugin is one of them and

    plugin = PluginInfo(name="markers", hooks=Markers, summary="Adds a marker.")

in a file (``--plugin ./markers.py``), or named by an entry point of group ``ptm_plus.plugins``.
"""

# mypy: disable-error-code="empty-body"
from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from ptm_plus import components as c
    from ptm_plus.context import ContextView

CONTRACT = "1.0"
"""Version of the contract. The first number changes when a plugin must be changed."""

PROJECT = "ptm_plus"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def ptm_streams(context: ContextView) -> list[c.Stream]:
    r"""Add named sources of examples.

    Called before prepare; reads phase ``settings`` (``context.inputs`` says what was given).

    Composes by union: two streams of one name are refused.

    Example::

        import hashlib
        from dataclasses import dataclass
        from ptm_plus import Example, Stream, hookimpl

        LINES = ["Ende gut, alles gut.", "Ohne Fleiß kein Preis."]

        def proverbs():
            for number, line in enumerate(LINES):
                yield Example(f"proverb-{number}", {"text": line}, {"text": "de"})

        @dataclass
        class Proverbs:
            settings: None
            instance: str

            @hookimpl
            def ptm_streams(self, context):
                content = hashlib.sha256("\n".join(LINES).encode()).hexdigest()
                return [Stream(name=self.instance, examples=proverbs, fingerprint=content)]
    """


@hookspec
def ptm_special_tokens(context: ContextView) -> list[c.ControlToken]:
    """Add control tokens: markers, separators, sentinels.

    Called before prepare; reads up to phase ``tokenizer``. The vocabulary is widened once, after
    all plugins have answered, and only at its end.

    Composes by union: equal tokens of two plugins are one token; the same text with two different
    starts is refused.

    Example::

        from dataclasses import dataclass
        from ptm_plus import ControlToken, hookimpl

        @dataclass
        class Markers:
            settings: None
            instance: str

            @hookimpl
            def ptm_special_tokens(self, context):
                return [ControlToken(text="[REL]", start="mean")]
    """


@hookspec
def ptm_annotators(context: ContextView) -> list[c.Annotator]:
    r"""Add spans to examples: linking, phrases, parts of speech.

    Called before prepare; reads phase ``streams``, so that what the function needs to know of all
    text (which words belong together, say) can be counted first; it is kept in
    ``cache_folder(context.settings)`` by what it was made of. The function runs in worker processes
    over batches of examples and returns one list of new spans each; it never edits text. Each
    annotator has a table of its own on disk, so adding one prepares nothing else again.

    Composes by union: two annotators of one name are refused. They do not see each other's spans.

    Example::

        import re
        from dataclasses import dataclass
        from ptm_plus import Annotator, Span, hookimpl

        YEAR = re.compile(r"(?<!\d)[12]\d{3}(?!\d)")

        def years(examples):
            return [[Span(field, found.start(), found.end(), "year", found.group())
                     for field, text in example.fields.items() for found in YEAR.finditer(text)]
                    for example in examples]

        @dataclass
        class Years:
            settings: None
            instance: str

            @hookimpl
            def ptm_annotators(self, context):
                return [Annotator(name=self.instance, annotate=years, fingerprint="1",
                                  kinds=("year",))]
    """


@hookspec
def ptm_rewriters(context: ContextView) -> list[c.Rewriter]:
    """Edit text before it is tokenised, and move its spans with it.

    Called before prepare; reads phase ``settings``. Chance comes from the keyed draws that the
    function is given.

    Composes by chain on each stream: two plugins that edit one stream need a declared order
    (``before`` or ``after`` in a PluginInfo), else the launch stops.

    Example::

        from dataclasses import dataclass, replace
        from ptm_plus import Rewriter, hookimpl

        def plain_quotes(example, draws):
            # One character for one: every span stays where it is.
            table = str.maketrans("‘’“”", "''" + '""')
            fields = {name: text.translate(table) for name, text in example.fields.items()}
            return replace(example, fields=fields)

        @dataclass
        class PlainQuotes:
            settings: None
            instance: str

            @hookimpl
            def ptm_rewriters(self, context):
                return [Rewriter(name=self.instance, rewrite=plain_quotes, fingerprint="1",
                                 streams=("text",))]
    """


@hookspec
def ptm_layouts(context: ContextView) -> list[c.Layout]:
    """Add named layouts, which turn a tokenised example into sequences.

    Called before prepare; reads up to phase ``tokenizer``. A stream chooses its layout by name.
    The function runs in worker processes and must pickle.

    Composes by union: two layouts of one name are refused.

    Example::

        from dataclasses import dataclass
        from ptm_plus import LaidOut, Layout, field_segment, hookimpl, special_segment

        def opening(given):
            before = special_segment(given.template.prefix)
            after = special_segment(given.template.suffix)
            room = given.max_length - len(before) - len(after)
            language = given.example.languages
            return [LaidOut((before, field_segment(piece, name, language[name], 0, room), after),
                            truncated=max(0, len(piece) - room))
                    for name, piece in given.pieces.items()]

        @dataclass
        class Opening:
            settings: None
            instance: str

            @hookimpl
            def ptm_layouts(self, context):
                return [Layout(name=self.instance, lay_out=opening, fingerprint="opening 1")]
    """


@hookspec
def ptm_masking(context: ContextView) -> list[c.UnitKind | c.Emphasis]:
    """Propose units to mask: phrases, entities, spans of random length.

    Called after prepare; reads up to phase ``tokenizer``. One arbiter draws from the units of all
    kinds under one token budget; nobody masks beside it.

    Composes by union: two kinds of one name are refused. Kinds of a lower ``order`` choose first,
    those of one order by name. Emphases, which make tokens of whatever kind likelier to be chosen,
    are multiplied.

    Example::

        from dataclasses import dataclass
        from ptm_plus import UnitKind, Units, hookimpl

        def years(view, draws):
            spans = view.spans_of("year")
            return Units(start=spans.start, length=spans.length)

        @dataclass
        class MaskYears:
            settings: None
            instance: str

            @hookimpl
            def ptm_masking(self, context):
                return [UnitKind(name=self.instance, propose=years, weight=2.0)]
    """


@hookspec
def ptm_features(context: ContextView) -> list[c.Feature]:
    """Compute columns (named arrays) for a micro-batch, after the mask plan is drawn.

    Called after prepare; reads up to phase ``labels``. The function is array work in numpy, off
    the device; columns reach the model as ``instance.column``.

    Composes by union: names are each plugin's own, so plugins cannot collide.

    Example::

        from dataclasses import dataclass
        from ptm_plus import Feature, hookimpl

        def lengths(given):
            return {"length": given.view.lengths}

        @dataclass
        class Lengths:
            settings: None
            instance: str

            @hookimpl
            def ptm_features(self, context):
                return [Feature(name="lengths", compute=lengths)]
    """


@hookspec
def ptm_inputs(
    context: ContextView,
) -> list[c.EmbeddingDelta | c.EmbeddingReplacement | c.Visibility]:
    """Change what the encoder is given: vectors added, vectors replaced, who sees whom.

    Called after prepare; reads up to phase ``labels``. The functions run on the device at the
    start of every pass.

    Composes by type: deltas are summed, visibility rules combined by AND, and two replacements of
    one position are refused. Names are each plugin's own.

    Example::

        from dataclasses import dataclass
        from ptm_plus import Visibility, hookimpl

        def near(q, k, columns):
            return (q - k).abs() <= 64

        @dataclass
        class Window:
            settings: None
            instance: str

            @hookimpl
            def ptm_inputs(self, context):
                return [Visibility(name="window", rule=near, streams=("text",))]
    """


@hookspec
def ptm_parts(context: ContextView) -> list[c.Part | c.ExternalTable | c.MovingAverage]:
    """Add modules beside the backbone, and say where they read or write its states.

    Tables that stay on disk and moving averages of weights belong here, too.

    Called after prepare; reads up to phase ``labels`` (``context.card`` says which sites there
    are). ``build`` is called once the backbone stands; weights are stored under the instance's
    name in a file of their own.

    Composes by union, names being each plugin's own; parts that write at one block and site form a
    chain, which needs a declared order.

    Example::

        from dataclasses import dataclass
        from ptm_plus import Part, Tap, hookimpl

        def build():
            import torch
            gate = torch.nn.Linear(1, 1, bias=False)
            torch.nn.init.zeros_(gate.weight)  # identity at the start
            return gate

        def taps(gate):
            def scale(context, block, states):
                return states * (1 + gate.weight[0, 0])
            yield Tap(site="block_out", blocks=(-1,), run=scale, writes=True)

        @dataclass
        class Gate:
            settings: None
            instance: str

            @hookimpl
            def ptm_parts(self, context):
                return [Part(name="gate", build=build, taps=taps, export="needed", identity=True)]
    """


@hookspec
def ptm_objectives(context: ContextView) -> list[c.Objective]:
    """Add losses: a sum over what is counted, with a count that is known beforehand.

    Called after prepare; reads up to phase ``labels``.

    Composes by union: two objectives of one name are refused, and so are two that take over the
    same one. The losses are summed with their weights.

    Example::

        from dataclasses import dataclass
        from ptm_plus import Objective, Outcome, hookimpl

        def count(columns):
            return len(columns["predicted"])

        def compute(batch, encode, parts):
            states = encode(batch).top[batch.predicted]
            return Outcome(sum=states.square().mean(dim=-1).sum())

        @dataclass
        class SmallStates:
            settings: None
            instance: str

            @hookimpl
            def ptm_objectives(self, context):
                return [Objective(name=self.instance, count=count, compute=compute, streams=())]
    """


@hookspec
def ptm_parameters(context: ContextView) -> list[c.ParameterRule]:
    """Freeze parameters, or give them a learning rate or decay of their own.

    Called when the modules stand; reads up to phase ``modules``.

    Composes by the longest matching path; two rules that give one path different values for the
    same thing are refused.

    Example::

        from dataclasses import dataclass
        from ptm_plus import ParameterRule, hookimpl

        @dataclass
        class SlowBackbone:
            settings: None
            instance: str

            @hookimpl
            def ptm_parameters(self, context):
                return [ParameterRule(path="backbone", lr=0.1)]
    """


@hookspec
def ptm_schedule(context: ContextView) -> list[c.Schedule]:
    """Change the plan of a step: rows per stream, loss weights, mask rate, learning rate.

    Called when the modules stand; reads up to phase ``modules``. The function must be a pure
    function of the plan that it is given (and so of the step's number): resuming depends on it.
    Only the learning rate may depend on what the plugin's ``state_dict`` keeps, too.

    Composes by chain on each ``resource``: two plugins that change one need a declared order.

    Example::

        from dataclasses import dataclass
        from ptm_plus import Schedule, hookimpl

        def calmer(plan):
            return plan.changed(mask_rate=plan.mask_rate * (1 - 0.5 * plan.step / plan.steps))

        @dataclass
        class Calmer:
            settings: None
            instance: str

            @hookimpl
            def ptm_schedule(self, context):
                return [Schedule(name="calmer", change=calmer, resource="mask rate")]
    """


@hookspec
def ptm_probes(context: ContextView) -> list[c.Probe]:
    """Add named evaluations.

    Called when the modules stand; reads up to phase ``modules``. Figures go to the report under
    the probe's name.

    Composes by union: two probes of one name are refused.

    Example::

        from dataclasses import dataclass
        from ptm_plus import Probe, hookimpl

        @dataclass
        class Size:
            settings: None
            instance: str

            @hookimpl
            def ptm_probes(self, context):
                numbers = sum(p.numel() for p in context.backbone.parameters())
                return [Probe(name=self.instance, run=lambda run: {"parameters": numbers})]
    """


@hookspec
def ptm_export(context: ContextView) -> list[c.Exporter]:
    """Write a plugin's own files beside the exported model, or fold its parts into it.

    Called when the modules stand; reads up to phase ``modules``. The core always writes the plain
    model first.

    Composes by union, names being each plugin's own.

    Example::

        import json
        from dataclasses import dataclass
        from ptm_plus import Exporter, hookimpl

        def write(folder, parts):
            (folder / "parts.json").write_text(json.dumps(sorted(parts)), encoding="utf-8")
            return ["parts.json: names of the parts that were trained beside the model"]

        @dataclass
        class PartNames:
            settings: None
            instance: str

            @hookimpl
            def ptm_export(self, context):
                return [Exporter(name="names", write=write)]
    """


@hookspec
def ptm_placebos(context: ContextView) -> list[c.Placebo]:
    """Say what a run looks like that has everything of the plugin but its knowledge.

    Called by ``ptm-plus ablate`` alone, before any run; reads phase ``settings``. The first one is
    the plugin's own in the quick design. :func:`~ptm_plus.shuffled_graph` and
    :func:`~ptm_plus.mispaired` make the common ones.

    Composes freely: each is a run of its own, with its plugin alone.

    Example::

        from dataclasses import dataclass
        from ptm_plus import Placebo, hookimpl, shuffled_graph

        @dataclass
        class Facts:
            settings: None
            instance: str

            @hookimpl
            def ptm_placebos(self, context):
                return [Placebo(name="shuffled-graph", summary="objects permuted",
                                change=shuffled_graph)]
    """


@hookspec
def ptm_event(event: c.Event, context: ContextView) -> None:
    """Hear what happens in training: the one hook that is called while it runs.

    Called at ``train_start``, ``stage_start``, ``after_step``, ``evaluated``, ``saving`` and
    ``train_end``; reads everything (``context.run`` too). It returns nothing and must neither
    change parameters nor wait for the device. At ``evaluated`` every process hears the figures of
    the first, and a :class:`~ptm_plus.errors.GuardStop` ends the run once its state is saved.

    Composes freely: every plugin hears every event, in order of instance name.

    Example::

        from dataclasses import dataclass
        from ptm_plus import hookimpl

        @dataclass
        class StepCounter:
            settings: None
            instance: str
            steps: int = 0

            @hookimpl
            def ptm_event(self, event):
                if event.kind == "after_step":
                    self.steps += 1
    """

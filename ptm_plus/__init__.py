"""ptm-plus: pre-train encoder language models with plugins that combine.

This is the public face: what plugins may import, besides ``ptm_plus.knowledge``. Every name is
loaded on first use, so that ``from ptm_plus import hookimpl`` imports neither torch nor
transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ptm_plus._version import __version__

if TYPE_CHECKING:
    from ptm_plus.attention import attend, attend_within
    from ptm_plus.components import (
        Annotator,
        Claim,
        ControlToken,
        EmbeddingDelta,
        EmbeddingReplacement,
        Emphasis,
        Event,
        Exporter,
        ExternalTable,
        Feature,
        FeatureInput,
        Layout,
        MaskPlan,
        MovingAverage,
        Objective,
        Outcome,
        ParameterRule,
        Part,
        Placebo,
        PluginInfo,
        Probe,
        Refused,
        Rewriter,
        Schedule,
        Stream,
        Tap,
        Treatment,
        UnitKind,
        Units,
        Visibility,
    )
    from ptm_plus.context import ContextView
    from ptm_plus.data import HostBatch
    from ptm_plus.encoder import Encode, PassContext, States
    from ptm_plus.errors import (
        DataError,
        EnvironmentProblem,
        GuardStop,
        PluginError,
        PtmPlusError,
        SettingsError,
        StopRequested,
        nearest,
        shown,
    )
    from ptm_plus.examples import Example, Span
    from ptm_plus.files import file_sha256, open_lines
    from ptm_plus.holding_out import is_held_out
    from ptm_plus.hookspecs import CONTRACT, hookimpl
    from ptm_plus.inputs import cache_folder, load_graph, pairs_stream, text_stream
    from ptm_plus.json_rows import json_row
    from ptm_plus.keyed import Draws
    from ptm_plus.masking import SpanUnits, span_units
    from ptm_plus.microbatch import MicroBatch
    from ptm_plus.mixture import StepPlan
    from ptm_plus.objectives import loss_sum, masked_lm
    from ptm_plus.placebos import mispaired, shuffled_graph
    from ptm_plus.prepare.layouts import (
        LaidOut,
        LayoutInput,
        Piece,
        Segment,
        Template,
        field_segment,
        special_segment,
    )
    from ptm_plus.prepare.tokenization import template
    from ptm_plus.probes import ProbeContext, paired, predicted_sequences
    from ptm_plus.settings import RunSettings, Section
    from ptm_plus.views import SpanTable, View

__all__ = [
    "CONTRACT",
    "Annotator",
    "Claim",
    "ContextView",
    "ControlToken",
    "DataError",
    "Draws",
    "EmbeddingDelta",
    "EmbeddingReplacement",
    "Emphasis",
    "Encode",
    "EnvironmentProblem",
    "Event",
    "Example",
    "Exporter",
    "ExternalTable",
    "Feature",
    "FeatureInput",
    "GuardStop",
    "HostBatch",
    "LaidOut",
    "Layout",
    "LayoutInput",
    "MaskPlan",
    "MicroBatch",
    "MovingAverage",
    "Objective",
    "Outcome",
    "ParameterRule",
    "Part",
    "PassContext",
    "Piece",
    "Placebo",
    "PluginError",
    "PluginInfo",
    "Probe",
    "ProbeContext",
    "PtmPlusError",
    "Refused",
    "Rewriter",
    "RunSettings",
    "Schedule",
    "Section",
    "Segment",
    "SettingsError",
    "Span",
    "SpanTable",
    "SpanUnits",
    "States",
    "StepPlan",
    "StopRequested",
    "Stream",
    "Tap",
    "Template",
    "Treatment",
    "UnitKind",
    "Units",
    "View",
    "Visibility",
    "__version__",
    "attend",
    "attend_within",
    "cache_folder",
    "field_segment",
    "file_sha256",
    "hookimpl",
    "is_held_out",
    "json_row",
    "load_graph",
    "loss_sum",
    "masked_lm",
    "mispaired",
    "nearest",
    "open_lines",
    "paired",
    "pairs_stream",
    "predicted_sequences",
    "shown",
    "shuffled_graph",
    "span_units",
    "special_segment",
    "template",
    "text_stream",
]

_HOMES = {
    "attention": ("attend", "attend_within"),
    "context": ("ContextView",),
    "data": ("HostBatch",),
    "encoder": ("Encode", "PassContext", "States"),
    "errors": (
        "DataError",
        "EnvironmentProblem",
        "GuardStop",
        "PluginError",
        "PtmPlusError",
        "SettingsError",
        "StopRequested",
        "nearest",
        "shown",
    ),
    "examples": ("Example", "Span"),
    "files": ("file_sha256", "open_lines"),
    "holding_out": ("is_held_out",),
    "hookspecs": ("CONTRACT", "hookimpl"),
    "json_rows": ("json_row",),
    "keyed": ("Draws",),
    "prepare.layouts": (
        "LaidOut",
        "LayoutInput",
        "Piece",
        "Segment",
        "Template",
        "field_segment",
        "special_segment",
    ),
    "prepare.tokenization": ("template",),
    "microbatch": ("MicroBatch",),
    "mixture": ("StepPlan",),
    "inputs": ("cache_folder", "load_graph", "pairs_stream", "text_stream"),
    "masking": ("SpanUnits", "span_units"),
    "objectives": ("loss_sum", "masked_lm"),
    "placebos": ("mispaired", "shuffled_graph"),
    "probes": ("ProbeContext", "paired", "predicted_sequences"),
    "settings": ("RunSettings", "Section"),
    "views": ("SpanTable", "View"),
}
_ELSEWHERE = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ptm_plus' has no attribute {name!r}")
    # What hooks return lives in one module; the other homes are listed above.
    home = importlib.import_module(f"ptm_plus.{_ELSEWHERE.get(name, 'components')}")
    value = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

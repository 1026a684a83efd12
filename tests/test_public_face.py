"""What plugins may import: a change here is a change of the contract."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import ptm_plus

PINNED = [
    *("CONTRACT", "Annotator", "Claim", "ContextView", "ControlToken", "DataError", "Draws"),
    *(
        "EmbeddingDelta",
        "EmbeddingReplacement",
        "Emphasis",
        "Encode",
        "EnvironmentProblem",
        "Event",
    ),
    *(
        "Example",
        "Exporter",
        "ExternalTable",
        "Feature",
        "FeatureInput",
        "GuardStop",
        "HostBatch",
        "LaidOut",
    ),
    *("Layout", "LayoutInput", "MaskPlan", "MicroBatch"),
    *("MovingAverage", "Objective", "Outcome"),
    *(
        "ParameterRule",
        "Part",
        "PassContext",
        "Piece",
        "Placebo",
        "PluginError",
        "PluginInfo",
        "Probe",
    ),
    *("ProbeContext", "PtmPlusError", "Refused", "Rewriter", "RunSettings", "Schedule"),
    *("Section", "Segment", "SettingsError", "Span", "SpanTable", "SpanUnits"),
    *("States", "StepPlan"),
    *("StopRequested", "Stream", "Tap", "Template", "Treatment", "UnitKind", "Units", "View"),
    *("Visibility", "__version__", "attend", "attend_within", "cache_folder"),
    *("field_segment", "file_sha256", "hookimpl", "is_held_out", "json_row"),
    *(
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
    ),
    "special_segment",
    "template",
    "text_stream",
]


def imported_for_types() -> dict[str, str]:
    """Names that type checkers see, with the modules that they see them in."""
    tree = ast.parse(Path(ptm_plus.__file__).read_text(encoding="utf-8"))
    return {
        alias.name: str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ptm_plus")
        for alias in node.names
    }


def test_names_are_pinned() -> None:
    assert ptm_plus.__all__ == PINNED
    assert dir(ptm_plus) == sorted(PINNED)


def test_type_checkers_see_the_same_names() -> None:
    assert set(imported_for_types()) == set(PINNED)


@pytest.mark.parametrize("name", PINNED)
def test_every_name_loads_from_the_module_that_type_checkers_see(name: str) -> None:
    home = importlib.import_module(imported_for_types()[name])
    assert getattr(ptm_plus, name) is getattr(home, name)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = ptm_plus.nothing
    assert not hasattr(ptm_plus, "derive_key")

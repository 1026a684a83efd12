"""What hooks may read, phase by phase."""

from __future__ import annotations

from typing import Any

import pytest

from ptm_plus.context import ATTRIBUTES, Context, ContextView
from ptm_plus.contract import HOOKS, PHASES, Phase
from ptm_plus.errors import PluginError
from ptm_plus.settings import RunSettings

LATER = [phase for phase in PHASES if phase != "settings"]


def advanced(context: Context, phase: Phase, **values: Any) -> None:
    context.advance(phase, **{name: values.get(name) for name in ATTRIBUTES[phase]})


def full() -> Context:
    context = Context(RunSettings(), ["text"])
    for phase in LATER:
        advanced(context, phase)
    return context


def test_every_attribute_is_readable_in_some_hook() -> None:
    named = {name for names in ATTRIBUTES.values() for name in names}
    public = {name for name in vars(ContextView) if not name.startswith("_")}
    assert named == public
    view = full().view("x", "ptm_event")
    for name in named:
        getattr(view, name)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_reads_its_phase_and_nothing_later(hook: str) -> None:
    view = full().view("kg-fusion", hook)
    limit = PHASES.index(HOOKS[hook].phase)
    for phase, names in ATTRIBUTES.items():
        for name in names:
            if PHASES.index(phase) <= limit:
                getattr(view, name)
            else:
                with pytest.raises(PluginError, match=f"context.{name}"):
                    getattr(view, name)


def test_reading_on_names_everything_even_when_the_core_knows_it_already() -> None:
    with pytest.raises(PluginError) as caught:
        _ = full().view("kg-fusion", "ptm_annotators").graph
    assert caught.value.message == (
        "plugin 'kg-fusion': ptm_annotators reads context.graph, which is known from phase "
        "'labels' on; ptm_annotators may read up to phase 'streams'"
    )
    assert caught.value.hint == "ptm_features is the first hook that may read it"


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("tokenizer", "ptm_special_tokens"),
        ("card", "ptm_features"),
        ("backbone", "ptm_parameters"),
        ("run", "ptm_event"),
    ],
)
def test_the_first_hook_that_may_read_is_named(name: str, first: str) -> None:
    with pytest.raises(PluginError) as caught:
        getattr(full().view("x", "ptm_streams"), name)
    assert caught.value.hint.startswith(f"{first} is the first")


def test_values_are_read_and_mappings_cannot_be_changed() -> None:
    context = Context(RunSettings(), ["text", "kg"])
    advanced(context, "streams")
    advanced(context, "tokenizer", tokenizer="a tokenizer")
    advanced(context, "labels", labels={"entity": ("Q1",)})
    view = context.view("x", "ptm_parts")
    assert view.inputs == {"text", "kg"}
    assert view.tokenizer == "a tokenizer"
    assert view.labels == {"entity": ("Q1",)}
    with pytest.raises(TypeError):
        view.labels["entity"] = ()  # type: ignore[index]
    with pytest.raises(AttributeError):
        view.tokenizer = "another"  # type: ignore[misc]


def test_phases_are_entered_in_order_and_whole() -> None:
    context = Context(RunSettings())
    with pytest.raises(ValueError, match="does not follow"):
        context.advance("labels")
    with pytest.raises(ValueError, match="takes"):
        context.advance("streams")
    with pytest.raises(ValueError, match="takes"):
        context.advance("streams", streams={}, labels={})
    with pytest.raises(ValueError, match="does not follow"):
        full().advance("run", run=1)


def test_a_hook_is_not_called_before_its_phase() -> None:
    with pytest.raises(ValueError, match="ptm_parts is called in phase 'settings'"):
        Context(RunSettings()).view("x", "ptm_parts")

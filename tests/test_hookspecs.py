"""Every hook's documentation is true: its example loads, answers, composes and works."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ptm_plus import hookspecs
from ptm_plus.components import Event, FeatureInput
from ptm_plus.compose import Contribution
from ptm_plus.context import ATTRIBUTES, Context
from ptm_plus.contract import HOOKS, PHASES
from ptm_plus.errors import PluginError
from ptm_plus.examples import Example, Span
from ptm_plus.keyed import Draws
from ptm_plus.mixture import StepPlan
from ptm_plus.placebos import shuffled_graph
from ptm_plus.plugins import Plugins, load
from ptm_plus.prepare.layouts import LayoutInput, Piece, Template
from ptm_plus.rules import settle
from ptm_plus.settings import RunSettings
from ptm_plus.views import SpanTable

SPECS = {
    name: function
    for name, function in vars(hookspecs).items()
    if name.startswith("ptm_") and inspect.isfunction(function)
}
CONTRIBUTING = [hook for hook in HOOKS if hook != "ptm_event"]
NEEDS_ORDER = {"ptm_rewriters", "ptm_schedule"}


def docstring(hook: str) -> str:
    return inspect.getdoc(SPECS[hook]) or ""


def example(hook: str) -> str:
    blocks = docstring(hook).split("Example::\n")
    assert len(blocks) == 2, f"{hook} must have one example"
    return textwrap.dedent(blocks[1])


def plugin_file(hook: str, folder: Path) -> Path:
    source = example(hook)
    (hooks,) = re.findall(r"^class (\w+):", source, flags=re.M)
    path = folder / f"{hook}.py"
    path.write_text(
        f"{source}\nfrom ptm_plus import PluginInfo\n"
        f"plugin = PluginInfo(name={hook.replace('_', '-')!r}, hooks={hooks})\n",
        encoding="utf-8",
    )
    return path


def full_context() -> Context:
    context = Context(RunSettings(), {"text"})
    values: dict[str, Any] = {"backbone": torch.nn.Linear(2, 3)}
    for phase in PHASES[1:]:
        context.advance(phase, **{name: values.get(name) for name in ATTRIBUTES[phase]})
    return context


def loaded(hook: str, folder: Path, *suffixes: str) -> Plugins:
    path = plugin_file(hook, folder)
    return load([f"{path}{suffix}" for suffix in suffixes], {})


def test_table_and_descriptions_name_the_same_hooks_in_the_same_order() -> None:
    assert list(SPECS) == list(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_description_agrees_with_the_table(hook: str) -> None:
    signature = inspect.signature(SPECS[hook])
    returned = set(re.findall(r"c\.(\w+)", str(signature.return_annotation)))
    phases = re.findall(r"phase ``(\w+)``", docstring(hook))

    assert tuple(signature.parameters) == HOOKS[hook].arguments
    assert returned == {kind.__name__ for kind in HOOKS[hook].returns}
    assert phases[:1] == ([HOOKS[hook].phase] if hook != "ptm_event" else [])
    assert "Called " in docstring(hook)
    assert "Composes " in docstring(hook)


@pytest.mark.parametrize("hook", CONTRIBUTING)
def test_example_answers_with_what_its_hook_returns(hook: str, tmp_path: Path) -> None:
    answers = loaded(hook, tmp_path, "").collect(hook, full_context())
    assert answers
    for answer in answers:
        assert isinstance(answer.component, HOOKS[hook].returns)


@pytest.mark.parametrize("hook", CONTRIBUTING)
def test_example_composes_with_itself_as_its_rule_says(hook: str, tmp_path: Path) -> None:
    plugins = loaded(hook, tmp_path, ":a", ":b")
    answers = plugins.collect(hook, full_context())
    if hook in NEEDS_ORDER:
        with pytest.raises(PluginError, match="no order is declared"):
            settle(answers, plugins.order)
    elif hook == "ptm_special_tokens":
        assert len(settle(answers, plugins.order)) == 1
    else:
        assert len(settle(answers, plugins.order)) == len(answers) == 2


def only(hook: str, folder: Path) -> Contribution[Any]:
    (answer,) = loaded(hook, folder, "").collect(hook, full_context())
    return answer


def works_streams(stream: Any) -> None:
    first, second = stream.examples(), stream.examples()
    assert list(first) == list(second)
    assert all(isinstance(one, Example) for one in stream.examples())


def works_annotators(annotator: Any) -> None:
    text = Example("1", {"text": "From 1969 to 12345, then 2001"}, {"text": "en"})
    ((first, second),) = annotator.annotate([text])
    assert first == Span("text", 5, 9, "year", "1969")
    assert second == Span("text", 25, 29, "year", "2001")
    assert {first.kind} <= set(annotator.kinds)


def works_rewriters(rewriter: Any) -> None:
    given = Example("1", {"text": "“It’s”"}, {"text": "en"}, [Span("text", 1, 5, "entity", "Q1")])
    edited = rewriter.rewrite(given, Draws(0, "x", "text"))
    assert edited.fields == {"text": '"It\'s"'}
    assert edited.spans == given.spans


def works_layouts(layout: Any) -> None:
    numbers = np.arange(9)
    piece = Piece(numbers + 10, numbers, numbers + 1, numbers)
    template = Template((1,), (2,), (1,), (2,), (2,), (0, 0, 0, 0, 0), False, 1, 2, 0, 3)
    text = Example("1", {"text": "abcdefghi"}, {"text": "en"})
    (sequence,) = layout.lay_out(LayoutInput(text, {"text": piece}, template, 6))
    ids = np.concatenate([segment.ids for segment in sequence.segments])
    assert ids.tolist() == [1, 10, 11, 12, 13, 2]
    assert sequence.truncated == 5


def works_masking(kind: Any) -> None:
    column = np.array([3, 8])
    table = SpanTable(column, column * 0 + 2, column * 0, column * 0, column)
    units = kind.propose(SimpleNamespace(spans_of=lambda kind: table), Draws(0, "x", "text"))
    assert units.start.tolist() == [3, 8]
    assert units.length.tolist() == [2, 2]


def works_features(feature: Any) -> None:
    view: Any = SimpleNamespace(lengths=np.array([4, 2]))
    plan: Any = None
    columns = feature.compute(FeatureInput(view, plan, Draws(0, "x", "text"), {}))
    assert {name: column.tolist() for name, column in columns.items()} == {"length": [4, 2]}


def works_inputs(visibility: Any) -> None:
    q, k = torch.arange(100)[:, None], torch.arange(100)[None]
    seen = visibility.rule(q, k, {})
    assert bool(seen.diagonal().all())
    assert not bool(seen[0, 99])


def works_parts(part: Any) -> None:
    module = part.build()
    (tap,) = part.taps(module)
    states = torch.randn(3, 4)
    assert torch.equal(tap.run(None, 1, states), states)
    module.weight.data.fill_(1.0)
    assert torch.equal(tap.run(None, 1, states), 2 * states)


def works_objectives(objective: Any) -> None:
    top = torch.tensor([[1.0, 3.0], [2.0, 2.0], [0.0, 4.0]])
    batch = SimpleNamespace(predicted=torch.tensor([0, 2]))
    outcome = objective.compute(batch, lambda batch: SimpleNamespace(top=top), {})
    assert outcome.sum.item() == 5 + 8
    assert objective.count({"predicted": np.array([0, 2])}) == 2


def works_schedule(schedule: Any) -> None:
    plan = StepPlan(10, 20, "main", 10, 20, {"text": 1.0}, {}, {}, 0.2, 1.0)
    assert schedule.change(plan).mask_rate == pytest.approx(0.15)
    assert plan.mask_rate == 0.2


def works_probes(probe: Any) -> None:
    assert probe.run(None) == {"parameters": 9}


def works_export(exporter: Any, folder: Path) -> None:
    notes = exporter.write(folder, {"b": None, "a": None})
    assert (folder / "parts.json").read_text() == '["a", "b"]'
    assert "parts.json" in notes[0]


def works_placebos(placebo: Any) -> None:
    assert placebo.change is shuffled_graph


WORKS: dict[str, Callable[[Any], None]] = {
    "ptm_streams": works_streams,
    "ptm_annotators": works_annotators,
    "ptm_rewriters": works_rewriters,
    "ptm_layouts": works_layouts,
    "ptm_masking": works_masking,
    "ptm_features": works_features,
    "ptm_inputs": works_inputs,
    "ptm_parts": works_parts,
    "ptm_objectives": works_objectives,
    "ptm_schedule": works_schedule,
    "ptm_probes": works_probes,
    "ptm_placebos": works_placebos,
}


@pytest.mark.parametrize("hook", WORKS)
def test_example_does_what_it_says(hook: str, tmp_path: Path) -> None:
    WORKS[hook](only(hook, tmp_path).component)


def test_export_example_writes_its_file(tmp_path: Path) -> None:
    works_export(only("ptm_export", tmp_path).component, tmp_path)


def test_event_example_counts_steps(tmp_path: Path) -> None:
    plugins = loaded("ptm_event", tmp_path, ":a", ":b")
    for event in (Event("train_start", 0), Event("after_step", 1), Event("after_step", 2)):
        plugins.event(event, full_context())
    assert [one.implementation.steps for one in plugins.instances] == [2, 2]

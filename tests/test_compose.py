"""The composition rules, each with a conflict that is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptm_plus import components as c
from ptm_plus.compose import (
    Contribution,
    Order,
    chain,
    check_claims,
    check_needs,
    check_owners,
    commuting,
    union,
    unique,
)
from ptm_plus.errors import PluginError
from ptm_plus.masking import SpanUnits
from ptm_plus.rules import settle


@dataclass(frozen=True)
class Plugin:
    info: c.PluginInfo
    instance: str


def plugin(instance: str, **values: Any) -> Plugin:
    name = instance.partition(":")[0]
    return Plugin(c.PluginInfo(name=name, hooks=object, **values), instance)


def by(instance: str, component: Any) -> Contribution[Any]:
    return Contribution(instance, component)


def nothing(*values: Any) -> Any:
    return None


def rewriter(name: str, *streams: str) -> c.Rewriter:
    return c.Rewriter(name=name, rewrite=nothing, fingerprint="1", streams=streams)


def stream(name: str) -> c.Stream:
    return c.Stream(name=name, examples=nothing, fingerprint="1")


def objective(name: str, takes_over: str = "") -> c.Objective:
    return c.Objective(name=name, count=nothing, compute=nothing, takes_over=takes_over)


def owners(contributions: Sequence[Contribution[Any]]) -> list[str]:
    return [one.instance for one in contributions]


# Declared order


def test_before_and_after_say_the_same() -> None:
    for order in (
        Order([plugin("a", after=("b",)), plugin("b")]),
        Order([plugin("a"), plugin("b", before=("a",))]),
    ):
        assert order.precedes("b", "a")
        assert not order.precedes("a", "b")
        assert order.sorted(["a", "b"]) == ["b", "a"]


def test_order_reaches_through_others() -> None:
    order = Order([plugin("c"), plugin("b", before=("c",)), plugin("a", before=("b",))])
    assert order.precedes("a", "c")
    assert order.sorted(["c", "a"]) == ["a", "c"]


def test_order_names_plugins_or_instances() -> None:
    plugins = [plugin("ad:x"), plugin("ad:y"), plugin("kg", after=("ad",))]
    assert Order(plugins).sorted(["kg", "ad:x", "ad:y"]) == ["ad:x", "ad:y", "kg"]
    plugins = [plugin(name, after=("ad:y",)) for name in ("ad:x", "ad:y")]
    assert Order(plugins).sorted(["ad:x", "ad:y"]) == ["ad:y", "ad:x"]


def test_order_ignores_plugins_that_are_not_in_the_run() -> None:
    assert Order([plugin("a", after=("absent",))]).sorted(["a"]) == ["a"]


def test_a_circle_is_refused() -> None:
    with pytest.raises(PluginError, match="form a circle: a, b"):
        Order([plugin("a", after=("b",)), plugin("b", after=("a",)), plugin("c", after=("b",))])


edges = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda edge: edge[0] < edge[1]),
    max_size=8,
)


@given(edges, st.permutations("fedcba"))
def test_order_is_that_of_the_smallest_topological_sort(
    pairs: list[tuple[int, int]], names: list[str]
) -> None:
    plugins = [
        plugin(name, before=tuple(names[j] for i, j in pairs if i == at))
        for at, name in enumerate(names)
    ]
    allowed = [
        list(way)
        for way in permutations("abcdef")
        if all(way.index(names[i]) < way.index(names[j]) for i, j in pairs)
    ]
    assert Order(plugins).sorted("abcdef") == min(allowed)


# The four rules


def test_commuting_is_by_instance_name_and_keeps_each_list() -> None:
    given_order = [by("b", 1), by("a", 2), by("b", 0)]
    assert commuting(given_order) == [by("a", 2), by("b", 1), by("b", 0)]


def test_union_keeps_all_and_refuses_a_name_twice() -> None:
    kept = union([by("tlm", stream("pairs")), by("kg", stream("triples"))], "streams")
    assert [one.component.name for one in kept] == ["triples", "pairs"]
    with pytest.raises(PluginError, match="two streams for 'pairs': plugins 'kg' and 'tlm'"):
        union([by("tlm", stream("pairs")), by("kg", stream("pairs"))], "streams")
    with pytest.raises(PluginError, match="plugin 'kg', twice"):
        union([by("kg", stream("pairs")), by("kg", stream("pairs"))], "streams")


def test_unique_has_one_owner_and_names_both_with_the_mend() -> None:
    values = [by("b", "right"), by("a", "left")]
    assert unique(values, lambda one: one.component, "owners") == {
        "left": by("a", "left"),
        "right": by("b", "right"),
    }
    with pytest.raises(PluginError) as caught:
        unique([by("b", "left"), *values], lambda one: "positions", "owners", "set x.y=1")
    assert caught.value.message == "two owners for 'positions': plugins 'a' and 'b'"
    assert caught.value.hint == "set x.y=1"


def test_chain_follows_the_declared_order() -> None:
    order = Order([plugin("a", after=("b",)), plugin("b")])
    members = [by("a", "x"), by("b", "x")]
    assert owners(chain(members, lambda one: one, "taps", order)) == ["b", "a"]


def test_chain_without_an_order_stops_with_the_line_to_add() -> None:
    members = [by("tlm", "block 3 block_out"), by("kg-fusion", "block 3 block_out")]
    with pytest.raises(PluginError) as caught:
        chain(members, lambda one: [one], "taps", Order())
    assert caught.value.message == (
        "taps on 'block 3 block_out': plugins 'kg-fusion' and 'tlm' act one after another, and "
        "no order is declared"
    )
    assert "add after=(\"kg-fusion\",) to the PluginInfo of 'tlm'" in caught.value.hint


def test_chain_of_instances_of_one_plugin_needs_an_order_too() -> None:
    members = [by("ad:x", "3"), by("ad:y", "3")]
    with pytest.raises(PluginError, match="'ad:x' and 'ad:y'"):
        chain(members, lambda one: [one], "taps", Order([plugin("ad:x"), plugin("ad:y")]))
    apart = [by("ad:y", "4"), by("ad:x", "3")]
    assert owners(chain(apart, lambda one: [one], "taps", Order())) == ["ad:x", "ad:y"]


def test_chain_asks_for_an_order_between_any_two() -> None:
    order = Order([plugin("a", before=("c",)), plugin("b", before=("c",)), plugin("c")])
    with pytest.raises(PluginError, match="'a' and 'b'"):
        chain([by(name, "x") for name in "abc"], lambda one: one, "taps", order)
    order = Order([plugin("a", before=("c",)), plugin("b", after=("c",)), plugin("c")])
    assert owners(chain([by(name, "x") for name in "abc"], lambda one: one, "taps", order)) == [
        *"acb"
    ]
    order = Order([plugin("a"), plugin("b", after=("a",)), plugin("c", after=("b",))])
    assert len(chain([by(name, "x") for name in "abc"], lambda one: one, "taps", order)) == 3
    order = Order([plugin("a"), plugin("b", after=("a",)), plugin("c", after=("a",))])
    with pytest.raises(PluginError, match="'b' and 'c'"):
        chain([by(name, "x") for name in "abc"], lambda one: one, "taps", order)
    order = Order([plugin("b", before=("a", "c")), plugin("a"), plugin("c")])
    with pytest.raises(PluginError, match="'a' and 'c'"):
        chain([by(name, "x") for name in "abc"], lambda one: one, "taps", order)


def test_chain_keeps_the_order_of_one_plugins_own_list() -> None:
    members = [by("a", "second"), by("a", "first")]
    assert chain(members, lambda one: ["same"], "taps", Order()) == members


@given(st.permutations([by("a", "1"), by("b", "2"), by("c", "1"), by("d", "2")]))
def test_chain_does_not_depend_on_call_order(members: list[Contribution[str]]) -> None:
    order = Order([plugin("a", after=("c",)), *map(plugin, "bcd"), plugin("b", after=("d",))])
    result = owners(chain(members, lambda one: [one], "taps", order))
    assert result == ["c", "a", "d", "b"]


# The rule of each component type


@pytest.mark.parametrize(
    "make",
    [
        stream,
        objective,
        lambda name: c.Annotator(name=name, annotate=nothing, fingerprint="1"),
        lambda name: c.Layout(name=name, lay_out=nothing, fingerprint="1"),
        lambda name: c.Probe(name=name, run=nothing),
        lambda name: rewriter(name),
    ],
)
def test_names_that_are_the_runs_may_be_taken_once(make: Any) -> None:
    assert len(settle([by("a", make("x")), by("b", make("y"))], Order())) == 2
    with pytest.raises(PluginError, match="for 'x': plugins 'a' and 'b'"):
        settle([by("a", make("x")), by("b", make("x"))], Order())


@pytest.mark.parametrize(
    "make",
    [
        lambda name: c.Feature(name=name, compute=nothing),
        lambda name: c.Part(name=name, build=nothing),
        lambda name: c.ExternalTable(name=name, path=nothing(), sha256="", rows=0),
        lambda name: c.EmbeddingDelta(name=name, delta=nothing),
        lambda name: c.EmbeddingReplacement(name=name, replace=nothing),
        lambda name: c.Visibility(name=name, rule=nothing),
        lambda name: c.Exporter(name=name),
        lambda name: c.Schedule(name=name, change=nothing, resource=name),
    ],
)
def test_names_that_are_a_plugins_own_are_free_among_plugins(make: Any) -> None:
    resources_differ = [by("a", make("x")), by("b", make("y")), by("a", make("y"))]
    if not isinstance(make("x"), c.Schedule):
        assert len(settle([by("a", make("x")), by("b", make("x"))], Order())) == 2
        assert len(settle(resources_differ, Order())) == 3
    with pytest.raises(PluginError, match=r"for 'a\.x': plugin 'a', twice"):
        settle([by("a", make("x")), by("a", make("x"))], Order())


def test_unit_kinds_of_one_name_are_one_where_each_says_what_the_other_leaves_open() -> None:
    treated = c.UnitKind(name="x", propose=SpanUnits("x"), treatment=c.Treatment(), exclusive=True)
    weighed = c.UnitKind(name="x", propose=SpanUnits("x"), weight=3.0)
    for pair in ([by("b", treated), by("a", weighed)], [by("a", weighed), by("b", treated)]):
        (one,) = settle(pair, Order())
        assert one.instance == "a"
        assert one.component == replace(treated, weight=3.0)
    with pytest.raises(
        PluginError, match=r"'x' with different weight \(3.0, 2.0\): .* 'a' and 'b'"
    ):
        settle([by("a", weighed), by("b", replace(weighed, weight=2.0))], Order())
    with pytest.raises(PluginError, match="different propose"):
        settle([by("a", weighed), by("b", replace(weighed, propose=SpanUnits("y")))], Order())


def test_control_tokens_are_shared_when_equal_and_sorted_by_text() -> None:
    tokens = [c.ControlToken(text="[B]"), c.ControlToken(text="[A]"), c.ControlToken(text="[B]")]
    settled = settle([by("y", tokens[0]), by("z", tokens[1]), by("x", tokens[2])], Order())
    assert [(one.instance, one.component.text) for one in settled] == [("z", "[A]"), ("x", "[B]")]
    with pytest.raises(PluginError, match=r"starts of a control token for '\[A\]'"):
        settle([by("y", tokens[1]), by("z", c.ControlToken(text="[A]", start="random"))], Order())


def test_one_objective_may_be_taken_over_once() -> None:
    settle([by("a", objective("x", "mlm")), by("b", objective("y", "tlm"))], Order())
    with pytest.raises(PluginError, match="objectives that take over for 'mlm'"):
        settle([by("a", objective("x", "mlm")), by("b", objective("y", "mlm"))], Order())


def test_rewriters_of_one_stream_need_an_order() -> None:
    both = [by("a", rewriter("a", "text", "pairs")), by("b", rewriter("b", "text"))]
    with pytest.raises(PluginError, match="rewriters on 'text'"):
        settle(both, Order())
    order = Order([plugin("a", after=("b",)), plugin("b")])
    assert owners(settle(both, order)) == ["b", "a"]
    settle([by("a", rewriter("a", "pairs")), by("b", rewriter("b", "text"))], Order())


def test_schedules_of_one_resource_need_an_order() -> None:
    both = [
        by(name, c.Schedule(name="s", change=nothing, resource="mask rate")) for name in ("a", "b")
    ]
    with pytest.raises(PluginError, match="schedules on 'mask rate'"):
        settle(both, Order())


def test_parameter_rules_may_not_contradict_each_other() -> None:
    slow, slow_too = (c.ParameterRule(path="backbone", lr=0.1) for _ in range(2))
    plain = c.ParameterRule(path="backbone", decay=0.0)
    fast = c.ParameterRule(path="backbone", lr=2.0)
    deeper = c.ParameterRule(path="backbone.bert", lr=2.0)
    settled = [by("a", slow), by("b", slow_too), by("c", plain), by("d", deeper)]
    assert settle(settled, Order()) == settled
    with pytest.raises(
        PluginError, match=r"'backbone' with different lr \(0.1, 2.0\).*'a' and 'b'"
    ):
        settle([by("a", slow), by("b", fast)], Order())


@given(st.permutations("abcd"))
def test_settling_does_not_depend_on_call_order(names: list[str]) -> None:
    mixed = [
        by(name, part(name=name))
        for name in names
        for part in (
            lambda name: c.Visibility(name=name, rule=nothing),
            lambda name: c.EmbeddingDelta(name=name, delta=nothing),
        )
    ]
    assert [(one.component.name, type(one.component)) for one in settle(mixed, Order())] == [
        (name, kind) for kind in (c.EmbeddingDelta, c.Visibility) for name in "abcd"
    ]


# Claims and needs


def claims(instance: str, mode: Any, resource: str = "text truth") -> Plugin:
    return plugin(instance, claims=(c.Claim(resource=resource, mode=mode),))


def test_what_is_shared_is_shared() -> None:
    check_claims([claims("a", "share"), claims("b", "share")], ())


@pytest.mark.parametrize("mode", ["share", "own", "require"])
def test_what_is_owned_is_claimed_by_no_other(mode: str) -> None:
    plugins = [claims("wklm", "own"), claims("kg-fusion", mode)]
    with pytest.raises(PluginError) as caught:
        check_claims(plugins, {"text truth"})
    assert "'wklm'" in str(caught.value)
    assert "'kg-fusion'" in str(caught.value)
    assert "'text truth'" in str(caught.value)


def test_owners_of_different_things_go_together() -> None:
    check_owners(
        (name, c.Claim(resource=resource, mode="own")) for name, resource in pairwise("abcd")
    )


def test_what_is_required_is_provided() -> None:
    check_claims([claims("a", "require")], {"text truth"})
    check_claims([claims("a", "require"), claims("b", "share")], ())
    with pytest.raises(PluginError, match=r"'a' requires 'text truth'.*did you mean 'text truths'"):
        check_claims([claims("a", "require")], {"text truths"})


def test_needs_are_met() -> None:
    needy = plugin("kg-fusion", needs=("graph", "spans:entity"))
    check_needs([needy], {"graph", "spans:entity", "text"})
    with pytest.raises(PluginError) as caught:
        check_needs([needy], {"graph", "text"})
    assert caught.value.message.startswith("plugin 'kg-fusion' needs 'spans:entity'")
    assert caught.value.hint == "it has: graph, text"

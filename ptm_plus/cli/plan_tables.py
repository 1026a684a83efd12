"""A plan as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from ptm_plus.cli.rendering import (
    columns,
    duration,
    firsts,
    named_rows,
    number,
    percent,
    quantity,
    size,
    span,
)

_SHORT = 12
_MOST_STRATA = 8
_EXHAUSTED = {
    "repeat": "then again in a new order, as often as the share asks for",
    "limit": "then again in a new order, at most {:g} times: shares are made for it",
}


def plan_tables(plan: Mapping[str, Any]) -> Group:
    """Return a plan, as ``plan.make_plan`` makes it, for a console."""
    parts: list[RenderableType] = [_run(plan["run"])]
    if plan["plugins"]:
        parts.append(_plugins(plan["plugins"]))
    if plan["prepare"]:
        parts.append(_prepare(plan["prepare"]))
    if "streams" in plan:
        parts += [_streams(plan["streams"]), named_rows("strata", list(_mixture(plan)))]
        parts.append(_masking(plan["masking"]))
    if len(plan.get("stages", ())) > 1:
        parts.append(_stages(plan["stages"]))
    if "model" in plan:
        parts += _model(plan["model"], plan["run"])
        parts += list(_features(plan["features"]))
    if "tried" in plan:
        parts.append(named_rows("tried here", list(_tried(plan["tried"], plan["run"]))))
    if plan["missing"]:
        parts.append(Text(f"Not all is known: {plan['missing']}. With --prepare it is done first."))
    return Group(*parts)


def _run(run: Mapping[str, Any]) -> RenderableType:
    tokens = quantity(run["tokens_at_most"])
    rows = [
        ("model", run["model"]),
        (
            "budget",
            f"{run['steps']:,} steps × {run['rows_per_step']} rows × {run['row_tokens']} tokens "
            f"= up to {tokens} tokens",
        ),
        ("masking", _range(run["mask_rate"], run["final_mask_rate"])),
        ("peak rate", number(run["lr"])),
        ("seed", str(run["seed"])),
        ("run folder", run["output"]),
    ]
    return named_rows("run", rows)


def _range(first: float, last: float) -> str:
    return percent(first) if first == last else f"{percent(first)} to {percent(last)}"


def _plugins(plugins: list[dict[str, Any]]) -> RenderableType:
    rows = [
        (
            one["instance"],
            f"{one['distribution']} {one['version']}",
            ", ".join(one["needs"]) or "–",
            ", ".join(hook.removeprefix("ptm_") for hook in one["hooks"]),
            ", ".join(f"{c['resource']} ({c['mode']})" for c in one["claims"]),
        )
        for one in plugins
    ]
    headings = ("plugin", "from", "needs", "hooks", "claims")
    used = 5 if any(row[4] for row in rows) else 4
    return columns(headings[:used], [row[:used] for row in rows])


def _prepare(artifacts: list[dict[str, Any]]) -> RenderableType:
    if all(one["present"] for one in artifacts):
        return named_rows("", [("prepare", f"{len(artifacts)} artifacts, all in the cache")])
    rows = [
        (
            one["stream"],
            one["artifact"],
            "in the cache" if one["present"] else "to be made",
            one["reason"] or one["key"][:_SHORT],
        )
        for one in artifacts
    ]
    return columns(("stream", "prepared", "state", "why, or key"), rows)


def _streams(streams: list[dict[str, Any]]) -> RenderableType:
    rows = [
        (
            *((stream["stream"], _objectives(stream["objectives"])) if first else ("", "")),
            *cells,
        )
        for stream in streams
        for first, cells in firsts(_strata(stream["strata"]))
    ]
    headings = ("stream", "objectives", "stratum", "tokens", "rows", "epochs", "fill")
    return columns(headings, rows, right=headings[3:])


def _strata(strata: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a stream's strata; many small ones share the last row.

    Those that are read too often have rows of their own.
    """
    few = len(strata) <= _MOST_STRATA + 1
    shown = [s for place, s in enumerate(strata) if few or place < _MOST_STRATA or s["too_often"]]
    for one in shown:
        epochs = f"{one['epochs']:.1f}{' !' if one['too_often'] else ''}"
        cells = f"{one['tokens']:,}", percent(one["share"]), epochs, percent(one["fill"])
        yield one["stratum"], *cells
    if rest := [one for one in strata if one not in shown]:
        epochs_of = [one["epochs"] for one in rest]
        tokens = sum(one["tokens"] for one in rest)
        fill = sum(one["fill"] * one["rows"] for one in rest) / sum(one["rows"] for one in rest)
        yield (
            f"{len(rest)} more",
            f"{tokens:,}",
            percent(sum(one["share"] for one in rest)),
            span(min(epochs_of), max(epochs_of)),
            percent(fill),
        )


def _mixture(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Say how strata are drawn and what becomes of those that were read whole."""
    mixture, steps = plan["mixture"], plan["run"]["steps"]
    several = [one["stream"] for one in plan["streams"] if len(one["strata"]) > 1]
    for stream in several:
        course = mixture["alpha"][stream]
        joins = mixture["joins"].get(stream, {})
        late = [f"{name} from {percent(share)} on" for name, share in joins.items() if share]
        yield stream, "; ".join([f"p ∝ tokens^α, α = {_course(course)}", *late])
    used = [
        (one["used_up"], f"{stream['stream']}/{one['stratum']}")
        for stream in plan["streams"]
        for one in stream["strata"]
        if one["used_up"] is not None
    ]
    count = sum(len(stream["strata"]) for stream in plan["streams"])
    if used:
        step, first = min(used)
        yield (
            "read whole",
            f"{len(used)} of {count}, {first} first (step {step:,} of {steps:,}); "
            f"{_EXHAUSTED[mixture['exhausted']].format(mixture['max_epochs'])}",
        )
    else:
        yield "read whole", f"none of {count} in {steps:,} steps"
    yield from (("warning", words) for words in mixture["warnings"])


def _course(course: Any) -> str:
    """Return a number, or a number and where in the run the next ones begin."""
    if isinstance(course, int | float):
        return f"{course:g}"
    first, *later = course
    return ", ".join([f"{first[1]:g}", *(f"{v:g} from {percent(s)} on" for s, v in later)])


def _objectives(objectives: list[dict[str, Any]]) -> str:
    return ", ".join(
        one["name"] if one["weight"] is None else f"{one['name']} × {one['weight']:g}"
        for one in objectives
    )


def _masking(masking: list[dict[str, Any]]) -> RenderableType:
    rows = [
        (
            one["stream"],
            one["kind"],
            percent(one["rate"]),
            percent(one["budget"]),
            percent(one["predicted"]),
        )
        for one in masking
    ]
    headings = ("stream", "masked kind", "mask rate", "budget", "in 16 rows")
    return columns(headings, rows, right=headings[2:])


def _stages(stages: list[dict[str, Any]]) -> RenderableType:
    rows = [
        (
            one["name"],
            f"{one['first'] + 1:,}–{one['first'] + one['steps']:,}",
            ", ".join(one["plugins"]),
            ", ".join(one["losses"]),
            f"{one['trained']:,}",
        )
        for one in stages
    ]
    return columns(
        ("stage", "steps", "who trains", "losses", "parameters"), rows, right=("parameters",)
    )


def _model(model: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[RenderableType]:
    backbone = model["backbone"]
    rows = [
        ("backbone", backbone["class"], backbone["trained"], backbone["frozen"], "plain"),
        *(
            (one["plugin"], one["name"], one["trained"], one["frozen"], one["export"])
            for one in model["parts"]
        ),
    ]
    shown = [(a, b, f"{c:,}", f"{d:,}" if d else "–", e) for a, b, c, d, e in rows]
    headings = ("owner", "part", "trained", "frozen", "at export")
    yield columns(headings, shown, right=("trained", "frozen"))
    tables = [(one["plugin"], f"{one['rows']:,} rows in {one['path']}") for one in model["tables"]]
    yield named_rows("cost", [*tables, *_costs(model, run)])


def _costs(model: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    work = model["operations_per_token"]
    each = ", ".join(f"{name} {quantity(work[name])}" for name in ("blocks", "head", "parts"))
    yield "FLOPs per token", f"{quantity(work['total'])} ({each})"
    yield "FLOPs in all", f"up to {quantity(work['total'] * run['tokens_at_most'])}"
    memory = model["memory"]
    each = ", ".join(f"{name} {size(memory[name])}" for name in memory if name != "total")
    yield "memory", f"{size(memory['total'])} ({each}); activations on top"


def _tried(tried: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    memory = tried["memory"]
    yield "speed", f"{tried['tokens_per_second']:,.0f} tokens/s"
    yield "training", f"{duration(tried['seconds'])} for {run['steps']:,} steps, evaluations in it"
    yield "memory", f"{size(memory['peak_bytes'])} at most, {memory['device']}"
    for one in tried["micro_rows"]:
        speed = f"{one['tokens_per_second']:,.0f} tokens/s"
        yield f"micro_rows = {one['rows']}", f"{speed}, {size(one['peak_bytes'])}"


def _features(features: list[dict[str, Any]]) -> Iterator[RenderableType]:
    if not features:
        return
    rows = [
        (
            one["plugin"],
            one["name"],
            one["scope"],
            "depends on how a step is split" if one["scope"] == "micro" else "",
        )
        for one in features
    ]
    yield columns(("plugin", "feature", "scope", ""), rows)

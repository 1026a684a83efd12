"""The table at the end of a run, made of its report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from ptm_plus.cli.rendering import (
    MOST_STRATA,
    columns,
    firsts,
    named_rows,
    number,
    quantity,
    readable,
    span,
)
from ptm_plus.report import COLUMN_TITLES

_PROBES = {
    "in_text_facts": "facts in the text",
    "graph_only_facts": "facts only in the graph",
    "translation_retrieval": "translation retrieval",
}


def report_tables(report: Mapping[str, Any], folder: Path) -> Group:
    """Return what a run learnt, what its plugins did, and where it lies.

    Args:
        report: as ``report.py`` describes it.
        folder: the run folder.
    """
    parts: list[RenderableType] = [_losses(report)]
    parts += list(_texts(report["evaluation"].get("held_out_text", {})))
    parts += list(_strata(report["strata"]))
    parts += list(_probes(report["probes"]))
    parts += list(_evaluation(report))
    parts.append(named_rows("run", _run(report, folder)))
    return Group(*parts)


def _losses(report: Mapping[str, Any]) -> RenderableType:
    """Show each objective on each stream: training loss, held-out loss, and the run without."""
    other = (report.get("baseline") or {}).get("objectives", {})
    held_out = report["evaluation"].get("held_out", {})
    rows = []
    for name, losses in report["objectives"].items():
        for stream, moments in losses["streams"].items():
            without = other.get(name, {}).get("streams", {}).get(stream, {}).get("last")
            cells = [moments["first"], moments["last"], held_out.get(f"{stream}/{name}")]
            cells += [without] if other else []
            rows.append((name, stream, *(_decimals(cell) for cell in cells)))
    beside = ("last without plugins",) if other else ()
    headings = ("loss", "stream", "first", "last", "held out", *beside)
    return columns(headings, rows, right=headings[2:])


def _texts(found: Mapping[str, Mapping[str, Any]]) -> Iterator[RenderableType]:
    """Show the losses on text that the user kept for measuring."""
    rows = [
        (name, _decimals(one["loss"]), _decimals(one["accuracy"]), number(one["tokens"]))
        for name, one in found.items()
    ]
    if rows:
        headings = ("held-out text", "loss", "accuracy", "masked tokens")
        yield columns(headings, rows, right=headings[1:])


def _strata(strata: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Show what was read of each language or pair beside what was planned, where several are."""
    rows = [
        (stream if first else "", *cells)
        for stream, of_stream in strata.items()
        for first, cells in firsts(_taken(of_stream))
    ]
    if any(len(of_stream) > 1 for of_stream in strata.values()):
        headings = ("read from", "stratum", "rows", "planned", "tokens", "epochs")
        yield columns(headings, rows, right=headings[2:])


def _taken(strata: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the strata of a stream, those of most rows first; many small ones share the last."""
    ordered = sorted(strata.items(), key=lambda item: -item[1]["rows"])
    shown = ordered if len(ordered) <= MOST_STRATA + 1 else ordered[:MOST_STRATA]
    groups = [(name, [one]) for name, one in shown]
    if rest := [one for _, one in ordered[len(shown) :]]:
        groups.append((f"{len(rest)} more", rest))
    for name, group in groups:
        epochs = [one["epochs"] for one in group]
        yield (
            name,
            f"{sum(one['rows'] for one in group):,}",
            f"{sum(one['planned_rows'] for one in group):,.1f}",
            quantity(sum(one["tokens"] for one in group)),
            span(min(epochs), max(epochs)),
        )


def _probes(probes: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Show the probes that were measured; what was not is left out, column by column."""
    scores = []
    for name, probe in probes.items():
        title = _PROBES.get(name, name)
        scores.append((title, "accuracy", probe))
        if "over_objects" in probe:
            scores.append((title, "mean over objects", probe["over_objects"]))
    used = [name for name in COLUMN_TITLES if any(s.get(name) is not None for _, _, s in scores)]
    rows = [
        (title, figure, *(_decimals(score.get(name)) for name in used))
        for title, figure, score in scores
        if any(score.get(name) is not None for name in used)
    ]
    if rows:
        headings = ("probe", "", *(COLUMN_TITLES[name] for name in used))
        yield columns(headings, rows, right=headings[2:])


def _decimals(value: Any) -> str:
    """Return a figure with three decimals, so that those of a column stand under each other."""
    return f"{value:.3f}" if isinstance(value, float) else number(value)


def _evaluation(report: Mapping[str, Any]) -> Iterator[RenderableType]:
    shown = {"held_out", "held_out_text", "masked_mentions", "translation_retrieval"}  # above
    figures = {name: one for name, one in report["evaluation"].items() if name not in shown}
    rows = [(name.replace("_", " "), words) for name, words in readable(figures)]
    if rows:
        yield named_rows("probes of plugins", rows)


def _run(report: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
    yield "trained", f"{report['steps']:,} steps, {quantity(report['tokens'])} tokens"
    yield "speed", f"{report['speed']['tokens_per_second']:,.0f} tokens/s"
    yield "in all", f"{report['seconds']:,.0f} s"
    plugins = ", ".join(f"{one['name']} {one['version']}" for one in report["plugins"])
    yield "plugins", plugins or "none"
    yield "run folder", f"{folder} ({len(report['files'])} files; every figure in report.json)"
    yield "next", f"ptm-plus export {folder} --to {folder}/exported --verify"


# ---------------------------------------------------------------------------------------------
# Export


def export_tables(document: Mapping[str, Any]) -> Group:
    """Return what an export wrote, what it left out and what was proved.

    Args:
        document: as ``export.export`` returns it.
    """
    parts: list[RenderableType] = []
    if document["left_out"]:
        parts.append(_left_out(document["left_out"]))
    parts.append(named_rows(f"exported {document['checkpoint']}", _exported(document)))
    return Group(*parts)


def _left_out(parts: list[Mapping[str, Any]]) -> RenderableType:
    rows = [
        (one["plugin"], one["part"], one["export"], f"{one['parameters']:,}", _loss(one))
        for one in parts
    ]
    headings = ("left out of the plain model", "part", "class", "parameters", "held-out loss")
    return columns(headings, rows, right=("parameters",))


def _loss(part: Mapping[str, Any]) -> str:
    """Say what a part is worth: the losses with it and without it."""
    with_part, without = part.get("with_part") or {}, part.get("without_part") or {}
    return "\n".join(
        f"{name} {number(with_part[name])}, without it {number(without.get(name))}"
        for name in with_part
    )


def _exported(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "folder", str(document["target"])
    verified = document["verified"]
    if verified is None:
        yield "verified", "no: --verify loads it without ptm-plus and compares the logits"
    else:
        yield (
            "verified",
            f"{verified['model']} loads without ptm-plus; {verified['logits']:,} logits differ by "
            f"at most {verified['max_difference']:g}",
        )
        if verified.get("fill_mask"):
            yield "fill-mask", ", ".join(map(str, verified["fill_mask"]))
    yield "files", "\n".join(document["files"])

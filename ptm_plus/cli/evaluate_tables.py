"""What ``evaluate`` measured, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from ptm_plus.cli.rendering import columns, named_rows, number, percent, readable


def evaluation_tables(document: Mapping[str, Any]) -> Group:
    """Return the figures of every probe."""
    parts: list[RenderableType] = []
    if "retrieval" in document:
        parts.append(_retrieval(document["retrieval"]))
    if "words" in document:
        parts.append(_words(document["words"]))
    if "perplexity" in document:
        parts += _perplexity(document["perplexity"])
    for one in document.get("facts", ()):
        parts.append(_facts(one))
    parts += [_few_shot(one) for one in document.get("few_shot", ())]
    if "tasks" in document:
        parts.append(_tasks(document["tasks"]))
    if "run" in document:
        parts.append(_of_run(document["run"]))
    if document.get("refused"):
        reasons = ", ".join(f"{name} {count:,}" for name, count in document["refused"].items())
        parts.append(named_rows("", [("refused", reasons)]))
    return Group(*parts)


def _of_run(figures: Mapping[str, Any]) -> RenderableType:
    """Show the losses on held-out data, and below them what the probes said."""
    rows = [(name.replace("/", " "), number(value)) for name, value in figures["held_out"].items()]
    others = {name: one for name, one in figures.items() if name not in ("held_out", "checkpoint")}
    rows += [(name.replace("_", " "), words) for name, words in readable(others)]
    return named_rows(f"held-out data of the run, at {figures['checkpoint']}", rows)


def _facts(found: Mapping[str, Any]) -> RenderableType:
    rows: list[tuple[str, ...]] = [
        (
            name,
            f"{one['facts']:,}",
            f"{one['candidates']:,}",
            f"{one['patterns']}",
            _share(one["accuracy"]),
            percent(one["commonest"]),
            _share(one["consistency"]),
        )
        for name, one in found["relations"].items()
    ]
    means = (found[name] for name in ("accuracy", "commonest", "consistency"))
    rows += [("mean", "", "", "", *map(_share, means))]
    headings = ("relation", "facts", "candidates", "patterns", "right", "commonest", "consistent")
    sizes = ", ".join(
        f"{words} {_share(found[key])}"
        for key, words in (("one_token", "objects of one token"), ("several_tokens", "of several"))
    )
    return columns(headings, rows, right=headings[1:], title=f"facts: {sizes}")


def _few_shot(found: Mapping[str, Any]) -> RenderableType:
    rows = [
        (str(one["layer"]), name, percent(of["accuracy"]), _between(of), percent(of["chance"]))
        for one in found["layers"]
        for name, of in one.items()
        if name != "layer"
    ]
    headings = ("block", "episodes", "right", "95 %", "chance")
    title = f"{found['relations']} relations, {Path(found['file']).name}"
    return columns(headings, rows, right=headings[2:], title=title)


def _between(figures: Mapping[str, Any]) -> str:
    low, high = figures["interval"]
    return f"{percent(low)} – {percent(high)}"


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)


def _tasks(tasks: Sequence[Mapping[str, Any]]) -> RenderableType:
    rows = [
        (
            one["kind"] if first else "",
            Path(one["test"]).name if first else "",
            name.replace("_", " ").replace("f1", "F1").replace("uas", "UAS"),
            percent(found["mean"]),
            f"{percent(found['least'])} – {percent(found['most'])}",
            percent(one["most_frequent"]) if name in ("accuracy", "strict") else "",
        )
        for one in tasks
        for first, (name, found) in zip(
            (True, *(False for _ in one["scores"])), one["scores"].items(), strict=False
        )
    ]
    headings = ("task", "test", "measure", "mean", "over seeds", "commonest answer")
    return columns(headings, rows, right=headings[3:], title="tasks")


def _retrieval(layers: Sequence[Mapping[str, Any]]) -> RenderableType:
    csls = "csls" in layers[0]
    kinds = ("accuracy", "csls") if csls else ("accuracy",)
    shares = [f"{kind}_{way}" for kind in kinds for way in ("forward", "backward")]
    rows = []
    for one in layers:
        for languages, found in one["pairs"].items():
            rows.append(
                (
                    str(one["layer"]),
                    languages,
                    f"{found['sentences']:,}",
                    percent(found["chance"]),
                    *(percent(found[name]) for name in shares),
                    number(found["alignment"]),
                    number(found["uniformity"]),
                )
            )
    ways = ("→", "←", *(("CSLS →", "CSLS ←") if csls else ()))
    headings = ("layer", "pairs", "sentences", "chance", *ways, "alignment", "uniformity")
    return columns(headings, rows, right=headings[2:], title="translations found")


def _words(layers: Sequence[Mapping[str, Any]]) -> RenderableType:
    rows = []
    for one in layers:
        for languages, ways in one["pairs"].items():
            for way, found in ways.items():
                shares = [value for name, value in found.items() if "within" in name]
                arrow = {"forward": "→", "backward": "←"}[way]
                counts = (f"{found['words']:,}", f"{found['candidates']:,}")
                rows.append((str(one["layer"]), languages, arrow, *counts, *map(percent, shares)))
    ranks = ["first", "in 5"]
    if len(rows[0]) > 7:
        ranks += ["CSLS first", "CSLS in 5"]
    headings = ("layer", "pairs", "", "words", "among", *ranks)
    return columns(headings, rows, right=headings[3:], title="words found")


def _perplexity(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    if found["languages"]:
        yield _languages(found["languages"])
    if found["pairs"]:
        yield _pairs(found["pairs"])


def _languages(found: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    rows = [
        (
            language,
            f"{one['texts']:,}",
            f"{one['predicted']:,}",
            number(one["loss"]),
            number(one["perplexity"]),
            percent(one["accuracy"]),
            number(one["bits_per_character"]),
        )
        for language, one in found.items()
    ]
    headings = ("language", "lines", "asked", "loss", "perplexity", "right", "bits/character")
    return columns(headings, rows, right=headings[1:], title="masked tokens")


def _pairs(found: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    rows = [
        (
            languages,
            f"{one['pairs']:,}",
            f"{one['predicted']:,}",
            number(one["loss"]),
            number(one["loss_alone"]),
            f"{number(one['rise']['mean'])} ± {number(one['rise']['error'])}",
        )
        for languages, one in found.items()
    ]
    headings = ("languages", "pairs", "asked", "loss", "other half hidden", "rise")
    return columns(headings, rows, right=headings[1:], title="masked tokens of pairs")

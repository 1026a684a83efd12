"""An ablation as a page: verdicts, differences with their intervals, means, costs, curves."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import tomli_w

from ptm_plus.ablation.comparisons import ROLES
from ptm_plus.ablation.curves import unit_of
from ptm_plus.pages.page import figures, folded, page, plot, table, words
from ptm_plus.pages.plots import Interval, forest, lines


def ablation_page(document: Mapping[str, Any], curves: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page.

    Args:
        document: as ``ablation.ablate`` returns it.
        curves: by figure and arm, its points over seconds, mean over seeds.
    """
    return page(
        f"Ablation of {', '.join(document['plugins'])}",
        f"{escape(document['design'])} design, {len(document['seeds'])} seeds, "
        "equal tokens in every run.",
        [
            *_overview(document),
            *_verdicts(document),
            *_differences(document),
            *_means(document),
            *_resolution(document),
            *_costs(document),
            *_curves(document, curves),
            *_settings(document),
        ],
    )


def _overview(document: Mapping[str, Any]) -> Iterator[str]:
    runs = len(document["arms"]) * len(document["seeds"])
    tokens = statistics.mean(document["arms"][0]["tokens"])
    yield from figures(
        [
            (f"{runs}", "runs"),
            (f"{tokens:,.0f}", "tokens in each, without plugins"),
            (f"{len(document['measures'])}", "measures"),
            (f"{len(document['comparisons'])}", "comparisons, corrected for their number"),
        ]
    )


def _verdicts(document: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>Verdict</h2>"
    for one in document["verdicts"]:
        yield f"<p><b>{escape(one['plugin'])}</b>: {escape(one['words'])}</p>"


def _differences(document: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>Differences</h2>"
    yield (
        "<p>Means of paired differences with 95 % intervals over seeds and test items, by a "
        "bootstrap over both. Coloured where the p value, corrected for all comparisons (Holm), is "
        "below 0.05.</p>"
    )
    for measure in document["measures"]:
        found = [one for one in document["comparisons"] if one["measure"] == measure["name"]]
        better = "more" if measure["higher_is_better"] else "less"
        yield f"<h3>{escape(measure['name'])}</h3>"
        yield (
            f'<p class="soft">{measure["items"]:,} items in {measure["clusters"]:,} groups; '
            f"{better} is better.</p>"
        )
        rows = [
            Interval(
                label=f"{one['arm']} − {one['against']}",
                mean=one["difference"],
                low=one["interval"][0],
                high=one["interval"][1],
                effect=one["effect"],
            )
            for one in found
        ]
        yield plot(forest(rows, f"difference in {measure['unit']}"))
        yield from folded("figures", _difference_table(found))


def _difference_table(found: list[Any]) -> Iterator[str]:
    heads = ("difference", "says", "mean", "95 %", "corrected interval", "p", "corrected p")
    rows = [
        (
            escape(f"{one['arm']} − {one['against']}"),
            words(ROLES[one["role"]]),
            f'<span class="{one["effect"]}">{one["difference"]:+.3f}</span>',
            _between(one["interval"]),
            _between(one["corrected_interval"]),
            f"{one['p']:.4f}",
            f"{one['corrected_p']:.4f}",
        )
        for one in found
    ]
    yield from table(heads, rows)


def _between(interval: list[float]) -> str:
    return f"{interval[0]:+.3f} to {interval[1]:+.3f}"


def _means(document: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>Means</h2>"
    yield "<p>Mean over seeds, and from the least to the most.</p>"
    measures = document["measures"]
    heads = ("arm", *(f"{one['name']} ({one['unit']})" for one in measures))
    rows = [
        (escape(arm["name"]), *(_mean(one, arm["name"]) for one in measures))
        for arm in document["arms"]
    ]
    yield from table(heads, rows)


def _mean(measure: Mapping[str, Any], arm: str) -> str:
    values = measure["seeds"][arm]
    decimals = 1 if measure["unit"] == "points" else 3
    mean, least, most = (
        f"{one:.{decimals}f}" for one in (statistics.mean(values), min(values), max(values))
    )
    return mean if len(values) == 1 else f'{mean}<div class="soft">{least} – {most}</div>'


def _resolution(document: Mapping[str, Any]) -> Iterator[str]:
    if not document["resolution"]:
        return
    yield "<h2>Would half the effect have been seen?</h2>"
    yield (
        "<p>Where a plugin helps, its placebo's interval (corrected for all comparisons) must be "
        "narrow enough to show half as much; only then does it say something that the placebo has "
        "no effect.</p>"
    )
    rows = [
        (
            escape(one["placebo"]),
            words(one["measure"]),
            f'<span class="{one["effect"]}">{one["effect"]}</span>',
            f"± {one['half_width']:.2f}",
            f"{one['half_of_the_plugins']:.2f}",
            "yes" if one["would_be_seen"] else "no",
        )
        for one in document["resolution"]
    ]
    heads = ("placebo", "measure", "its effect", "interval", "half of the plugin's", "seen")
    yield from table(heads, rows)


def _costs(document: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>Costs</h2>"
    rows = [
        (
            escape(one["name"]),
            words(one["placebo"] or ", ".join(one["plugins"]) or "no plugin"),
            f"{one['steps']:,}",
            f"{statistics.mean(one['tokens']):,.0f}",
            f"{one['tokens_per_second']:,.0f}",
            f"{one['relative']['speed']:.1%}",
            f"{one['peak_memory'] / 2**20:,.0f} MiB",
        )
        for one in document["arms"]
    ]
    heads = ("arm", "what it is", "steps", "tokens", "tokens/s", "of no plugin", "memory")
    yield from table(heads, rows)


def _curves(document: Mapping[str, Any], curves: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if not curves:
        return
    yield "<h2>Over time</h2>"
    yield (
        "<p>Mean over seeds of what the runs' own evaluations said, against the time spent in "
        "steps. At equal time a slower run is read where the quickest one ended: before its last "
        "steps, whose falling learning rate gains most.</p>"
    )
    for name, of_arms in curves.items():
        yield f"<h3>{escape(name)}</h3>"
        yield plot(lines(of_arms, "seconds in steps", unit_of(name)))
    rows = [
        (escape(f"{name} ({unit_of(name)})"), f"{one['seconds']:,.0f}", escape(arm), f"{mean:.3g}")
        for name, one in document["equal_time"].items()
        for arm, mean in one["means"].items()
    ]
    heads = ("figure", "seconds", "arm", "at equal time")
    yield from folded("at equal time", table(heads, rows))


def _settings(document: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>Settings</h2>"
    text = tomli_w.dumps(document["settings"])
    yield from folded("of the run with all plugins", [f"<pre>{escape(text)}</pre>"])

"""A run as a page: curves, what was read, what was masked, what it got right, what it cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import tomli_w

from ptm_plus.pages.page import bar, figures, folded, page, plot, table, words
from ptm_plus.pages.plots import bars, lines
from ptm_plus.report import COLUMN_TITLES

_MOST_BARS = 12
"""Strata of a stream that a picture has room for; the table has all."""


def run_page(
    title: str,
    report: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    preview: Mapping[str, Any] | None,
) -> str:
    """Return the page.

    Args:
        title: of the page.
        report: as ``report.py`` describes it.
        records: of the run's log, see ``run_log.read_log``.
        settings: the run's, as plain values.
        preview: masked sequences, as ``ptm-plus preview --json`` prints them; ``None`` where the
            data are gone.
    """
    plugins = ", ".join(one["name"] for one in report["plugins"]) or "no plugin"
    return page(
        title,
        f"ptm-plus, {escape(plugins)}.",
        [
            *_overview(report),
            *_losses(report, records),
            *_probes(report),
            *_accuracies(report["evaluation"]),
            *_evaluation(report["evaluation"]),
            *_shares(report),
            *_preview(preview),
            *_accounts(report),
            *_settings(settings),
            *_provenance(report, records),
        ],
    )


def _overview(report: Mapping[str, Any]) -> Iterator[str]:
    memory = report.get("memory") or {}
    pairs = [
        (f"{report['steps']:,}", "steps"),
        (f"{report['tokens']:,}", "tokens"),
        (f"{report['speed']['tokens_per_second']:,.0f}", "tokens per second"),
        (f"{report['seconds']:,.0f}", "seconds in all"),
    ]
    if memory:
        pairs.append((f"{memory['peak_bytes'] / 2**20:,.0f} MiB", f"at most, {memory['device']}"))
    yield from figures(pairs)


def _losses(report: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "<h2>Losses</h2>"
    logged: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        if record.get("kind") == "step":
            for name, value in record["losses"].items():
                if value is not None:
                    logged.setdefault(name, []).append((record["step"], value))
    yield plot(lines(logged, "step", "training loss (nats)"))
    held_out = _curves(records, _losses_of)
    if any(len(points) > 1 for points in held_out.values()):
        yield plot(lines(held_out, "step", "held-out loss (nats)"))
    of_end = report["evaluation"].get("held_out", {})
    rows = [
        (
            escape(name),
            words(stream),
            _decimals(moments["first"]),
            _decimals(moments["last"]),
            _decimals(of_end.get(f"{stream}/{name}")),
        )
        for name, losses in report["objectives"].items()
        for stream, moments in losses["streams"].items()
    ]
    yield from table(("objective", "stream", "first", "last", "held out"), rows)


def _losses_of(record: Mapping[str, Any]) -> dict[str, float]:
    held_out = (record.get("held_out") or {}).items()
    texts = (record.get("held_out_text") or {}).items()
    return {
        **{name: value for name, value in held_out if name.count("/") == 1},
        **{name: found["loss"] for name, found in texts},
    }


def _curves(records: Sequence[Mapping[str, Any]], read: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for record in records:
        if record.get("kind") == "evaluation":
            for name, value in read(record).items():
                if isinstance(value, int | float):
                    found.setdefault(name, []).append((record["step"], value))
    return found


def _probes(report: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for name, probe in report["probes"].items():
        if any(probe.get(column) is not None for column in COLUMN_TITLES):
            title = f"{name.replace('_', ' ')}, {probe['questions']:,} questions"
            rows.append((title, *(_decimals(probe.get(column)) for column in COLUMN_TITLES)))
            other = probe.get("over_objects")
            if other:
                cells = (_decimals(other.get(column)) for column in COLUMN_TITLES)
                rows.append(("… mean over objects", *cells))
    if rows:
        yield "<h2>What it knows</h2>"
        yield from table(("accuracy", *COLUMN_TITLES.values()), rows)


def _accuracies(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """Show every accuracy that was measured over questions: by group, by mode of the mention."""
    rows = [
        (
            escape(name.replace("_", " ")),
            words(", ".join(path)),
            _decimals(found["accuracy"]),
            f"{found.get('questions', found.get('asked')):,}",
            bar(found["accuracy"] or 0.0, 1.0),
        )
        for name, of_probe in evaluation.items()
        for path, found in _asked(of_probe)
    ]
    if rows:
        yield "<h2>Accuracies</h2>"
        yield from table(("probe", "of", "accuracy", "questions", ""), rows)


def _asked(
    found: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    if not isinstance(found, Mapping):
        return
    if "accuracy" in found and {"questions", "asked"} & set(found):
        yield path, found
        return
    for name, inner in found.items():
        yield from _asked(inner, (*path, str(name)))


def _evaluation(evaluation: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>All figures of the last evaluation</h2>"
    rows = [(escape(name), _decimals(value)) for name, value in _leaves(evaluation)]
    yield from folded(f"{len(rows)} figures", table(("figure", "value"), rows))


def _leaves(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, values


def _shares(report: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>What was read</h2>"
    for stream, strata in report["strata"].items():
        ordered = sorted(strata.items(), key=lambda item: -item[1]["rows"])
        shown = ordered[:_MOST_BARS]
        yield f"<h3>{escape(stream)}</h3>"
        series = {
            "planned": [one["planned_rows"] for _, one in shown],
            "read": [one["rows"] for _, one in shown],
        }
        if len(shown) > 1:
            yield plot(bars([name for name, _ in shown], series, "rows"))
        rows = [
            (
                escape(name),
                f"{one['rows']:,}",
                f"{one['planned_rows']:,.1f}",
                f"{one['tokens']:,}",
                f"{one['epochs']:.2f}",
            )
            for name, one in ordered
        ]
        heads = ("language or pair", "rows", "planned", "tokens", "epochs")
        yield from folded(f"{len(rows)} strata", table(heads, rows))


def _preview(preview: Mapping[str, Any] | None) -> Iterator[str]:
    yield "<h2>As the model sees it</h2>"
    if preview is None:
        yield "<p>The prepared data are not at hand any more.</p>"
        return
    yield (
        "<p>Marked tokens are predicted: hidden, kept (=) or replaced (→). Underlined is what was "
        "found in the text, with the id of what it names.</p>"
    )
    for stream, found in preview["streams"].items():
        for sequence in found["sequences"]:
            yield f'<div class="soft">{escape(stream)}, {escape(sequence["stratum"])}</div>'
            yield f'<blockquote dir="auto">{_sequence(sequence)}</blockquote>'


def _sequence(sequence: Mapping[str, Any]) -> str:
    tokens, spans = sequence["tokens"], sequence["mentions"]
    inside = {at for span in spans for at in range(span["start"], span["end"])}
    ends = {span["end"] - 1: span for span in spans if span["id"]}
    parts = []
    for at, token in enumerate(tokens):
        parts.append(" " if at and not token["glued"] else "")
        text = escape(token["text"])
        if token["special"]:
            text = f'<span class="soft">{text}</span>'
        elif token["kind"] is not None:
            more = {"keep": "=", "random": f"→{escape(token['input'])}", "mask": ""}
            kind = escape(token["kind"])
            text = f'<mark title="{kind}">{text}{more[token["replaced"]]}</mark>'
        text = f"<u>{text}</u>" if at in inside else text
        if at in ends:
            text += f'<sub class="soft">{escape(str(ends[at]["id"]))}</sub>'
        parts.append(text)
    return "".join(parts)


def _accounts(report: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>Ledger</h2>"
    yield "<p>What became of every row, and of every mention that was found.</p>"
    rows, spans = [], []
    for stream, one in report["accounts"].items():
        refused = ", ".join(f"{name} {count:,}" for name, count in one["refused"].items()) or "–"
        rows.append(
            (
                escape(stream),
                f"{one['rows']:,}",
                f"{one['used']:,}",
                words(refused),
                f"{one['sequences']:,}",
                f"{one['tokens']:,}",
                f"{one['unknown']:,}",
                f"{one['truncated_tokens']:,}",
            )
        )
        for annotator, found in one["spans"].items():
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in found["kinds"].items())
            counted = ", ".join(f"{name} {count:,}" for name, count in found["counts"].items())
            cells = (f"{found[name]:,}" for name in ("found", "kept", "cut"))
            spans.append((escape(stream), words(annotator), *cells, words(kinds), words(counted)))
    heads = ("stream", "rows", "used", "refused", "sequences", "tokens", "unknown", "cut off")
    yield from table(heads, rows)
    if spans:
        found_by = ("stream", "found by", "found", "kept", "cut", "kinds", "counted")
        yield from table(found_by, spans)


def _settings(settings: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>Settings</h2>"
    yield from folded("settings.toml", [f"<pre>{escape(tomli_w.dumps(settings))}</pre>"])


def _provenance(report: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "<h2>Provenance</h2>"
    started = next((one for one in records if one.get("kind") == "started"), {})
    rows = [(escape(name), words(version)) for name, version in started.get("versions", {}).items()]
    rows += [
        (escape(one["name"]), words(f"{one['distribution']} {one['version']}"))
        for one in report["plugins"]
    ]
    yield from table(("what", "version"), rows)
    files = [f"<div><code>{escape(name)}</code></div>" for name in report["files"]]
    yield from folded(f"{len(files)} files", files)


def _decimals(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool | str):
        return escape(str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"

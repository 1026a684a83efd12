"""The README.md of an exported model: what it is, what was left out, how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ptm_plus import __version__
from ptm_plus.exporting.data_section import data_section
from ptm_plus.exporting.left_out import LeftOut
from ptm_plus.run import Run

_FATE = {
    "train-only": "dropped: it only served training, the plain model equals the trained one",
    "foldable": "folded into the model: the plain model equals the trained one",
    "needed": "left out, and missed: see the losses below",
}


def model_card(
    run: Run, left_out: Sequence[LeftOut], notes: Sequence[str], verified: Mapping[str, Any] | None
) -> str:
    """Return the card as Markdown.

    Args:
        run: the exported run.
        left_out: its parts.
        notes: what plugins say about their files.
        verified: figures of the load without ptm-plus, if it was tried.
    """
    sections = [
        _head(run),
        _loading(),
        data_section(run.settings),
        _parts(left_out),
        _losses(left_out),
        _tables(run),
        _list("## Files of the plugins", notes),
        _proof(verified),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(run: Run) -> str:
    config = run.encoder.backbone.config
    languages = ", ".join(run.prepared.labels["language"])
    number = sum(p.numel() for p in run.encoder.backbone.parameters())
    plugins = ", ".join(f"{one.instance} {one.version}" for one in run.plugins.instances)
    return (
        "---\nlibrary_name: transformers\npipeline_tag: fill-mask\n---\n\n"
        f"# Masked language model ({config.model_type})\n\n"
        f"{number:,} parameters, trained with ptm-plus {__version__}; "
        f"plugins: {plugins or 'none'}; languages of the data: {languages}."
    )


def _loading() -> str:
    return (
        "## How to load it\n\n```python\n"
        "from transformers import AutoModelForMaskedLM, AutoTokenizer\n\n"
        'model = AutoModelForMaskedLM.from_pretrained("path/to/this/folder")\n'
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")\n```\n\n'
        "Nothing but transformers is needed. The folder `ptm_plus/` keeps the weights of the "
        "plugins' parts, which transformers does not read."
    )


def _parts(left_out: Sequence[LeftOut]) -> str:
    if not left_out:
        return "## What was left out\n\nNothing: no plugin added a part."
    rows = [
        f"| {one.plugin} | {one.part} | {one.parameters:,} | {_FATE[one.export]} |"
        for one in left_out
    ]
    head = "| plugin | part | parameters | |\n|---|---|---:|---|\n"
    return "## What was left out\n\n" + head + "\n".join(rows)


def _losses(left_out: Sequence[LeftOut]) -> str:
    """Return the measured losses of needed parts, once per plugin."""
    needed = {one.plugin: one for one in left_out if one.with_part and one.without_part}
    rows = [
        f"| {plugin} | {name} | {loss:.4f} | {(one.without_part or {})[name]:.4f} |"
        for plugin, one in needed.items()
        for name, loss in (one.with_part or {}).items()
    ]
    if not rows:
        return ""
    return (
        "## Held-out loss with and without the needed parts\n\n"
        "| plugin | stream/objective | with | without |\n|---|---|---:|---:|\n" + "\n".join(rows)
    )


def _tables(run: Run) -> str:
    lines = [
        f"{o.instance}: `{o.component.name}`, {o.component.rows:,} rows, "
        f"sha256 {o.component.sha256}"
        for o in run.tables
    ]
    return _list("## Tables that the plugins' parts read", lines)


def _proof(verified: Mapping[str, Any] | None) -> str:
    if verified is None:
        return "## Proof\n\nThe load without ptm-plus was not tried."
    return (
        "## Proof\n\nLoaded by plain transformers where ptm-plus could not be imported: the logits "
        f"at {verified['logits']} positions of the stored samples differ by "
        f"{verified['max_difference']:.1e} at most."
    )


def _list(title: str, lines: Sequence[str]) -> str:
    return f"{title}\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""

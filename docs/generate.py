"""Writes the references that are made from the code: hooks, settings and commands.

Run it after a change of the contract, a setting or a flag; a test asserts that they are up to date:

    python docs/generate.py
"""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import BaseModel

import ptm_plus
from ptm_plus import components, data, hookspecs
from ptm_plus.cli import app
from ptm_plus.context import ATTRIBUTES, ContextView
from ptm_plus.contract import HOOKS, PHASES
from ptm_plus.settings import RunSettings, StageSettings

HERE = Path(__file__).parent
HEADER = "<!-- Made by docs/generate.py from the code. Do not edit. -->\n"

GIVEN = (
    "Example",
    "Span",
    "Draws",
    "View",
    "SpanTable",
    "FeatureInput",
    "MaskPlan",
    "MicroBatch",
    "Encode",
    "States",
    "PassContext",
    "StepPlan",
    "ProbeContext",
    "HostBatch",
    "LayoutInput",
    "Piece",
    "Template",
)
"""What a plugin's functions are given, in the order in which a run comes to it."""

MADE = ("Units", "Treatment", "Tap", "Outcome", "Refused", "LaidOut", "Segment", "Claim", "Event")
"""What they make, or hooks get, beside the components themselves."""

HELPERS = (
    "span_units",
    "masked_lm",
    "loss_sum",
    "attend",
    "paired",
    "predicted_sequences",
    "pairs_stream",
    "text_stream",
    "load_graph",
    "shuffled_graph",
    "mispaired",
    "cache_folder",
    "field_segment",
    "special_segment",
    "template",
    "nearest",
)

COMPOSES = {
    "ControlToken": "union; equal ones are one",
    "Stream": "union",
    "Annotator": "union",
    "Rewriter": "chain on each stream",
    "Layout": "union",
    "UnitKind": "union, under one token budget",
    "Emphasis": "product",
    "Feature": "union",
    "EmbeddingDelta": "sum",
    "EmbeddingReplacement": "unique per position",
    "Visibility": "AND",
    "Part": "union; its writing taps: chain on block and site",
    "ExternalTable": "union",
    "MovingAverage": "union",
    "Objective": "weighted sum; one may take over another's place",
    "ParameterRule": "longest path wins; equal paths must agree",
    "Schedule": "chain on each resource",
    "Probe": "union",
    "Exporter": "union",
    "Placebo": "each a run of its own",
}


SITES = {
    "embeddings": "output of the embeddings, before the first block; once per pass",
    "block_in": "input of a block",
    "attn_out": "output of a block's attention, with its residual where the family adds it there",
    "ffn_pre": "feed-forward, before its activation (wider than d)",
    "ffn_hidden": "feed-forward, after its activation (wider than d)",
    "block_out": "output of a block",
    "top": "last states, as objectives get them; once per pass",
}
"""Where taps may sit."""


def hooks_page() -> str:
    """Return ``hooks.md``."""
    parts = [HEADER, _HOOKS_INTRODUCTION, _class("PluginInfo"), _phases(), _table_of_hooks()]
    for name in HOOKS:
        parts.append(_hook(name))
    parts.append("## What functions are given\n")
    parts += [_class(name) for name in GIVEN]
    parts.append("## What else they return\n")
    parts += [_class(name) for name in MADE]
    parts.append("## Sites of taps\n")
    parts.append(_table(("site", "where"), [(f"`{k}`", v) for k, v in SITES.items()]))
    parts.append("## Functions to use\n")
    parts += [_function(name) for name in HELPERS]
    return "\n".join(parts).rstrip() + "\n"


_HOOKS_INTRODUCTION = f"""# Hooks

The reference of the plugin contract, version {hookspecs.CONTRACT}. The tutorial is
[writing-a-plugin.md](writing-a-plugin.md). What a plugin names in its code is imported from
`ptm_plus`; `array` stands for a numpy array, `Tensor` for torch's, and

| letter | is the number of |
|---|---|
| T | tokens of a micro-batch (flat, packed; there is no padding) |
| S | sequences in it |
| M | spans of one kind |
| U | units of one kind |
| K | predicted tokens |
| d | numbers in a hidden state |

A plugin is a `PluginInfo` and a class. The class is called once as
`Class(settings=…, instance=…)`; its methods marked `@hookimpl` are called once each, in the order
below, while a run is composed. They return lists of components, an empty list for nothing. A hook
may leave out arguments that it does not use. `ptm_event` alone is called in training.
"""


def _phases() -> str:
    rows = []
    for phase in PHASES:
        for name in ATTRIBUTES[phase]:
            said = _inline(inspect.getdoc(getattr(ContextView, name)) or "")
            said = said.replace(f" (from phase {phase})", "")
            rows.append((f"`{phase}`", f"`context.{name}`", said))
    text = (
        "## What a hook may read\n\n"
        "`context` holds what is known so far. Each hook may read up to its phase; reading on "
        "raises an error that names the phase.\n\n"
    )
    return text + _table(("known from phase", "attribute", "what it is"), rows)


def _table_of_hooks() -> str:
    rows = []
    for name, hook in HOOKS.items():
        kinds = [kind.__name__ for kind in hook.returns]
        rules = "<br>".join(COMPOSES[kind] for kind in kinds) or "every plugin hears every event"
        returned = "<br>".join(f"`{kind}`" for kind in kinds) or "nothing"
        rows.append((f"[`{name}`](#{name})", f"`{hook.phase}`", returned, rules))
    return "## All hooks\n\n" + _table(("hook", "reads up to", "returns", "composes by"), rows)


def _hook(name: str) -> str:
    function = getattr(hookspecs, name)
    text, example = (inspect.getdoc(function) or "").split("Example::\n")
    arguments = ", ".join(["self", *HOOKS[name].arguments])
    parts = [f"## {name}\n", f"```text\n{name}({arguments})\n```\n", _markdown(text)]
    parts.append("Example:\n\n```python\n" + textwrap.dedent(example).strip() + "\n```\n")
    parts += [_class(kind.__name__) for kind in HOOKS[name].returns]
    return "\n".join(parts)


def _class(name: str) -> str:
    kind = data.HostBatch if name == "HostBatch" else getattr(ptm_plus, name)
    summary, attributes = _split(inspect.getdoc(kind) or "")
    if not attributes and is_dataclass(kind):
        attributes = [(field.name, "") for field in fields(kind)]
    parts = [f"### {name}\n", _markdown(summary)]
    if attributes:
        rows = [
            (f"`{key}`", f"`{_type(kind, key)}`", _default(kind, key), text)
            for key, text in attributes
        ]
        parts.append(_table(("field", "type", "default", "meaning"), rows))
    methods = list(_methods(kind))
    if methods:
        parts.append(_table(("method", "what it does"), methods))
    return "\n".join(parts)


def _function(name: str) -> str:
    function = getattr(ptm_plus, name)
    signature = str(inspect.signature(function)).replace("'", "")
    text = inspect.getdoc(function) or ""
    body, _, arguments = text.partition("Args:\n")
    arguments = re.split(r"\n\n?(?:Returns|Raises):", arguments)[0]
    parts = [f"### {name}\n", f"```text\n{name}{signature}\n```\n", _markdown(body)]
    if arguments:
        rows = [(f"`{key}`", said) for key, said in _entries(arguments)]
        parts.append(_table(("argument", "meaning"), rows))
    return "\n".join(parts)


def _methods(kind: Any) -> Iterator[tuple[str, str]]:
    for name, member in vars(kind).items():
        if isinstance(member, property):
            yield f"`{name}`", _inline((inspect.getdoc(member) or "").splitlines()[0])
        elif inspect.isfunction(member) and (not name.startswith("_") or name == "__call__"):
            signature = re.sub(r"\(self(, )?", "(", str(inspect.signature(member)), count=1)
            said = (inspect.getdoc(member) or "").splitlines()
            called = name if name != "__call__" else kind.__name__.lower()
            text = f"{called}{signature}".replace("'", "")
            yield f"`{_short(text)}`", _inline(said[0]) if said else ""


def _split(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Split a docstring into its text and its ``Attributes:`` or ``Args:``."""
    parts = re.split(r"^(?:Attributes|Args):\n", text, maxsplit=1, flags=re.M)
    return parts[0], _entries(parts[1]) if len(parts) > 1 else []


def _entries(block: str) -> list[tuple[str, str]]:
    entries = re.split(r"^(?=\*{0,2}\w+: )", textwrap.dedent(block), flags=re.M)
    return [
        (entry.partition(": ")[0], _inline(" ".join(entry.partition(": ")[2].split())))
        for entry in entries
        if entry.strip()
    ]


SHORT = {
    "NDArray[np.": "array[",
    "Ints": "array[int64]",
    "Sequence[Rule]": "Sequence[Callable]",
    "ExportClass": " | ".join(repr(name) for name in get_args(components.ExportClass)),
    "Site": " | ".join(repr(name) for name in get_args(components.Site)),
    "EventKind": " | ".join(repr(name) for name in get_args(components.EventKind)),
}
"""How names of types that a plugin's author does not know are written."""


def _type(kind: Any, key: str) -> str:
    said = str(inspect.get_annotations(kind).get(key, ""))
    return _short(said) or "…"


def _short(text: str) -> str:
    for name, meaning in SHORT.items():
        text = text.replace(name, meaning)
    return text.replace("|", "\\|")


def _default(kind: Any, key: str) -> str:
    if not is_dataclass(kind):
        return ""
    one = {field.name: field for field in fields(kind)}.get(key)
    if one is None:
        return ""
    if one.default_factory is not MISSING:
        return f"`{one.default_factory()!r}`"
    return "" if one.default is MISSING else f"`{one.default!r}`"


# ---------------------------------------------------------------------------------------------
# Settings


def settings_page() -> str:
    """Return ``settings.md``."""
    parts = [HEADER, _SETTINGS_INTRODUCTION, "## The run\n"]
    plain = [
        (name, field)
        for name, field in RunSettings.model_fields.items()
        if not _is_section(field.annotation)
    ]
    parts.append(_settings_table(plain, ""))
    for name, field in RunSettings.model_fields.items():
        if _is_section(field.annotation):
            parts.append(_section(f"[{name}]", field.annotation, f"{name}."))
    parts.append(_section("[[train.stages]]", StageSettings, ""))
    for plugin, model in plugin_settings():
        parts.append(_section(f"[plugin.{plugin}]", model, ""))
    return "\n".join(parts).rstrip() + "\n"


_SETTINGS_INTRODUCTION = """# Settings

A value's way: default < settings file (TOML) < command-line flag < `--set section.key=value`.
Unknown keys are errors with the nearest valid name. `ptm-plus config show --origin` says where each
value came from, and `settings.toml` in the run folder holds all of them as they were.

A settings file runs no code: a plugin in a Python file, and `model.trust_remote_code`, count only
from the command line, or with `--allow-code`, which lets the file, or a run folder that is resumed
or exported, name them. Plugins that are installed may be named anywhere. See
[SECURITY.md](../SECURITY.md).

```toml
plugins = ["kg-fusion", "tlm"]

[data]
text = ["en=news-en.txt.gz", "linked/*.jsonl"]
pairs = ["en-fr=bitext.tsv"]
kg = ["triples.tsv"]
labels = ["labels.jsonl"]

[train]
steps = 20000
lr = 3e-4

[plugin.kg-fusion]
blocks = [4]
```

On the built-in sample, some of the defaults below are replaced by smaller ones; what you set wins.
"""


def plugin_settings() -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the settings of the plugins of this repository."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    for name, target in sorted(project["project"]["entry-points"]["ptm_plus.plugins"].items()):
        info = _object(target)
        if info.settings is not None:
            yield name, _object(info.settings) if isinstance(info.settings, str) else info.settings


def _object(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _section(heading: str, model: type[BaseModel], prefix: str) -> str:
    text = _inline((inspect.getdoc(model) or "").split("\n\n")[0])
    said = "" if text.startswith("`[plugin.") else f"{text}\n\n"
    return f"## `{heading}`\n\n{said}" + _settings_table(list(_leaves(model)), prefix)


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        if _is_section(field.annotation):
            yield from _leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _settings_table(named: list[tuple[str, Any]], prefix: str) -> str:
    rows = [
        (f"`{prefix}{name}`", f"`{_toml(field)}`", _inline(field.description or ""))
        for name, field in named
    ]
    return _table(("key", "default", "meaning"), rows)


def _toml(field: Any) -> str:
    if field.is_required():
        return "none"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return str(list(value))
    return f'"{value}"' if isinstance(value, str | Path) else str(value)


# ---------------------------------------------------------------------------------------------
# Commands

_COMMANDS_INTRODUCTION = """
# Commands

`ptm-plus COMMAND --help` says the same on the terminal. Every command takes `--json` (one document
on stdout), `--quiet`, `--verbose` (tracebacks of errors) and `--log-format`; progress goes to
stderr. Flags that may be repeated are marked with …; exit codes are under
[what is refused](formats.md#what-is-refused). Commands that plugins add, such as `kg train`, are in
the plugins' cards.
"""

_EVERYWHERE = {"--json", "--quiet", "--verbose", "--log-format", "--help"}


def commands_page() -> str:
    """Return ``commands.md``."""
    top = typer.main.get_command(app)
    context = typer.Context(top, info_name="ptm-plus")
    return "\n".join([HEADER, _COMMANDS_INTRODUCTION.lstrip(), *_of_group(top, context)])


def _of_group(group: Any, context: Any) -> Iterator[str]:
    for name, command in group.commands.items():
        inner = typer.Context(command, parent=context, info_name=name)
        if hasattr(command, "commands"):
            yield from _of_group(command, inner)
        else:
            yield _command(command, inner)


def _command(command: Any, context: Any) -> str:
    paragraphs = (command.help or "").strip().split("\n\n")
    examples = [one for one in paragraphs if one.startswith("ptm-plus ")]
    told = [_markdown(one) for one in paragraphs if one not in examples]
    shown = "\n".join(f"    {' '.join(one.split())}" for one in examples)
    given = [one for one in command.params if not set(one.opts) & _EVERYWHERE]
    rows = [(_flag(one), _default_of(one), _inline(one.help or "")) for one in given]
    table = _table(("flag", "default", "meaning"), rows) if rows else ""
    parts = [f"## {context.command_path}\n", *told, shown and f"{shown}\n", table]
    return "\n".join(part for part in parts if part)


def _flag(parameter: Any) -> str:
    metavar = (parameter.metavar or "").replace("|", "\\|")
    many = " …" if parameter.multiple or parameter.nargs == -1 else ""
    if parameter.param_type_name == "argument":
        return f"`{metavar or parameter.name.upper()}`{many}"
    names = ", ".join(f"`{name}`" for name in parameter.opts)
    return f"{names} `{metavar}`{many}" if metavar else f"{names}{many}"


def _default_of(parameter: Any) -> str:
    value = parameter.default
    if value in (None, "", False, 0, 0.0) or parameter.required or callable(value):
        return "needed" if parameter.required else ""
    return f"`{value}`"


# ---------------------------------------------------------------------------------------------
# Markdown


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _markdown(text: str) -> str:
    """Turn the text of a docstring into paragraphs of Markdown."""
    paragraphs = [_inline(" ".join(one.split())) for one in text.strip().split("\n\n")]
    filled = [
        textwrap.fill(one, 100, break_long_words=False, break_on_hyphens=False)
        for one in paragraphs
    ]
    return "\n\n".join(filled) + "\n"


def _inline(text: str) -> str:
    text = re.sub(r":\w+:`([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")


PAGES = {"commands.md": commands_page, "hooks.md": hooks_page, "settings.md": settings_page}


def main() -> None:
    """Write the pages."""
    for name, make in PAGES.items():
        (HERE / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Flags that several commands share, declared once.

A command takes a dataclass of flags as one argument; :func:`spread` shows its fields to typer as
if the command had declared them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from ptm_plus.errors import SettingsError

if TYPE_CHECKING:
    from ptm_plus.settings_files import Resolved

Names = list[str] | None

_INPUTS, _RUN, _OUTPUT = "Inputs", "Run", "Output"


def _many(flag: str, help_text: str) -> Any:
    return typer.Option(
        flag, metavar="FILE", help=help_text, rich_help_panel=_INPUTS, show_default=False
    )


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """What a run is made of: a settings file, and flags that go over it."""

    settings_file: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="Settings file (TOML).")
    ] = None
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", metavar="FILE", help="Settings file, as a flag.", rich_help_panel=_RUN
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="Checkpoint folder or hub name; default: a small new model.",
            rich_help_panel=_RUN,
        ),
    ] = None
    init_from: Annotated[
        str | None,
        typer.Option(
            "--init-from",
            metavar="RUN",
            help="Start with the weights of another run, or of a checkpoint.",
            rich_help_panel=_RUN,
        ),
    ] = None
    text: Annotated[Names, _many("--text", "Text: a.jsonl, 'a/*.txt', en=FILE. Repeatable.")] = None
    pairs: Annotated[
        Names, _many("--pairs", "Pairs: a.tsv, a.tmx, en-fr=FILE, en-fr=A,B. Repeatable.")
    ] = None
    kg: Annotated[Names, _many("--kg", "Triples (TSV). Repeatable.")] = None
    labels: Annotated[Names, _many("--labels", "Names of entities. Repeatable.")] = None
    links: Annotated[Names, _many("--links", "Ids that are one (TSV). Repeatable.")] = None
    vectors: Annotated[
        str | None,
        typer.Option(
            "--vectors",
            metavar="FILE",
            help="Entity vectors (.safetensors); default: trained.",
            rich_help_panel=_INPUTS,
        ),
    ] = None
    plugin: Annotated[
        Names,
        typer.Option(
            "--plugin",
            "-p",
            metavar="NAME",
            help="NAME, NAME:INSTANCE or ./file.py; repeatable, in any order.",
            rich_help_panel=_RUN,
            show_default=False,
        ),
    ] = None
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Run folder.", rich_help_panel=_RUN),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option("--steps", metavar="N", help="Optimizer steps.", rich_help_panel=_RUN),
    ] = None
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Seed.", rich_help_panel=_RUN)
    ] = None
    sets: Annotated[
        Names,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any setting, such as train.lr=1e-4. Repeatable.",
            rich_help_panel=_RUN,
            show_default=False,
        ),
    ] = None

    def resolve(self) -> Resolved:
        """Return the settings: default < file < flags < ``--set``.

        Raises:
            SettingsError: something in them is wrong, or two files are given.
        """
        from ptm_plus.settings_files import resolve

        if self.settings_file and self.config:
            raise SettingsError(
                f"two settings files: {self.settings_file} and {self.config}", "give one"
            )
        values = {
            "model.path": self.model,
            "model.init_from": self.init_from,
            "data.text": self.text,
            "data.pairs": self.pairs,
            "data.kg": self.kg,
            "data.labels": self.labels,
            "data.links": self.links,
            "data.vectors": self.vectors,
            "plugins": self.plugin,
            "output": self.output,
            "train.steps": self.steps,
            "train.seed": self.seed,
        }
        given = {key: value for key, value in values.items() if value not in (None, [])}
        return resolve(self.settings_file or self.config, given, self.sets or ())


@dataclass(frozen=True, kw_only=True)
class CodeFlag:
    """Whether files may name code."""

    allow_code: Annotated[
        bool,
        typer.Option(
            "--allow-code",
            help="Run code that the settings file or run folder names.",
            rich_help_panel=_RUN,
        ),
    ] = False

    def checked(self, resolved: Resolved, *, flags: bool = True) -> Resolved:
        """Return the settings if they may be used.

        Args:
            resolved: the settings and their origins.
            flags: whether the command takes ``--plugin`` and ``--set``.

        Raises:
            SettingsError: the settings file names code, and the command line does not allow it.
        """
        from ptm_plus.consent import consented

        return consented(resolved, self.allow_code, flags=flags)


@dataclass(frozen=True, kw_only=True)
class OutputFlags:
    """How a command speaks."""

    json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout.", rich_help_panel=_OUTPUT)
    ] = False
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=_OUTPUT)
    ] = False
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Tracebacks of errors.", rich_help_panel=_OUTPUT),
    ] = False
    log_format: Annotated[
        str,
        typer.Option(
            "--log-format",
            metavar="NAME",
            help="auto, rich, plain or json lines.",
            rich_help_panel=_OUTPUT,
        ),
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class DeviceFlag:
    """Where the model lives."""

    device: Annotated[
        str,
        typer.Option("--device", metavar="NAME", help="auto, cpu or cuda.", rich_help_panel=_RUN),
    ] = "auto"

    def checked(self) -> str:
        """Return the device.

        Raises:
            SettingsError: it is none of the three.
            EnvironmentProblem: CUDA was asked for and is not there.
        """
        from ptm_plus.errors import EnvironmentProblem, nearest

        known = ("auto", "cpu", "cuda")
        if self.device not in known:
            raise SettingsError(
                f"--device {self.device}: unknown{nearest(self.device, known)}", "auto, cpu or cuda"
            )
        if self.device == "cuda":
            import torch

            if not torch.cuda.is_available():
                raise EnvironmentProblem(
                    "--device cuda: this machine has no usable CUDA device",
                    "leave the flag out, or look with: ptm-plus doctor",
                )
        return self.device


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with the fields of its flag dataclasses as parameters of its own."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if isinstance(kind, type) and is_dataclass(kind):
            groups[parameter.name] = kind
            parameters += _parameters(kind)
        else:
            parameters.append(parameter.replace(annotation=kind))

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{one.name: given.pop(one.name) for one in fields(kind)})
        command(**given)

    keyword = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    run.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in keyword}
    return run


def _parameters(kind: type) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    for one in fields(kind):
        yield inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(one),
            annotation=hints[one.name],
        )


def _default(one: Field[Any]) -> Any:
    return inspect.Parameter.empty if one.default is MISSING else one.default

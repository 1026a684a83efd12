"""``evaluate``: what any model makes of one's own files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ptm_plus.cli.flags import CodeFlag, DeviceFlag, Names, OutputFlags, spread
from ptm_plus.cli.outlet import open_outlet, stoppable
from ptm_plus.errors import SettingsError, nearest

OWN = "run"
"""The probe that reads no file: what the run's own evaluation measures."""

FILES = {
    "retrieval": ("pairs",),
    "perplexity": ("text", "pairs"),
    "words": ("words",),
    "facts": ("facts",),
    "few-shot": ("few_shot",),
    "tasks": ("task",),
    OWN: (),
}
"""What each probe reads."""


@spread
def evaluate(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Run, checkpoint or model folder, or hub name.")
    ],
    code: CodeFlag,
    where: DeviceFlag,
    out: OutputFlags,
    probe: Annotated[
        Names,
        typer.Option(
            "--probe",
            metavar="NAME",
            help="retrieval, perplexity, words, facts, few-shot, tasks or run; default: what the "
            "files allow, run without any. Repeatable.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        Names, typer.Option("--text", metavar="FILE", help="Text; en=FILE. Repeatable.")
    ] = None,
    pairs: Annotated[
        Names, typer.Option("--pairs", metavar="FILE", help="Sentence pairs; en-fr=FILE.")
    ] = None,
    words: Annotated[
        Names, typer.Option("--words", metavar="FILE", help="Pairs of words, as --pairs.")
    ] = None,
    facts: Annotated[
        Names,
        typer.Option(
            "--facts",
            metavar="FACTS,PATTERNS",
            help="Cloze sentences: relation, subject and object; patterns with [X] and [Y].",
        ),
    ] = None,
    few_shot: Annotated[
        Names,
        typer.Option(
            "--few-shot",
            metavar="FILE",
            help="Relations by a few examples; rows as those of --task relation.",
        ),
    ] = None,
    task: Annotated[
        Names,
        typer.Option(
            "--task",
            metavar="KIND=TRAIN,TEST",
            help="Fine-tune on TRAIN, ask about TEST: text, tokens, relation, typing or heads.",
        ),
    ] = None,
    with_plugins: Annotated[
        bool,
        typer.Option(
            "--with-plugins",
            help="Tasks are learned on what a run's plugins keep beside the encoder, too.",
        ),
    ] = False,
    layer: Annotated[
        str,
        typer.Option(
            "--layer", metavar="N", help="Block whose states are compared, or all; default: middle."
        ),
    ] = "",
    csls: Annotated[
        int, typer.Option("--csls", metavar="K", min=0, help="CSLS with K neighbours as well.")
    ] = 0,
    limit: Annotated[
        int,
        typer.Option("--limit", metavar="N", min=0, help="Most lines or pairs a language; 0 all."),
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the masks.")] = 0,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", min=1, help="How often a task is learned.")
    ] = 3,
    epochs: Annotated[
        int, typer.Option("--epochs", metavar="N", min=1, help="Of learning a task.")
    ] = 3,
    rate: Annotated[
        float,
        typer.Option(
            "--rate", metavar="R", min=0.0, help="Of learning a task; 0: by the model's width."
        ),
    ] = 0.0,
) -> None:
    """Measure a model, as plain transformers loads it, on files of one's own.

    Without files, a run is measured as while it was trained: held-out data, its plugins' probes.

    ptm-plus evaluate runs/first --pairs en-sw=test.tsv --text sw=sw.txt --json
    """
    outlet = open_outlet(context, out)
    flags = {
        "text": text,
        "pairs": pairs,
        "words": words,
        "facts": facts,
        "few_shot": few_shot,
        "task": task,
    }
    given = {name: tuple(one or ()) for name, one in flags.items()}
    probes = chosen(tuple(probe or ()), given)
    from ptm_plus.cli.evaluate_tables import evaluation_tables
    from ptm_plus.measures.fine_tuning import Budget
    from ptm_plus.measures.measuring import Request, measure
    from ptm_plus.measures.plain_model import chosen_device, loaded
    from ptm_plus.measures.task_files import parse_task
    from ptm_plus.measures.tasks import need_extra
    from ptm_plus.trained_run import measure_run

    request = Request(
        probes,
        **given,
        layer=layer,
        csls=csls,
        limit=limit,
        seed=seed,
        seeds=seeds,
        budget=Budget(epochs=epochs, rate=rate),
        chosen=bool(probe),
    )
    document = {"model": model, "asked": {**request.told(), "with_plugins": with_plugins}}
    if with_plugins and "tasks" not in probes:
        raise SettingsError("--with-plugins needs --task", "add --task KIND=TRAIN,TEST")
    if given["task"]:
        need_extra()
        list(map(parse_task, given["task"]))
    device = chosen_device(where.checked())
    with stoppable("measuring"):
        if OWN in probes:
            document[OWN] = measure_run(Path(model), device, code.allow_code, outlet.watch)
        if set(probes) - {OWN}:
            opened = loaded(model, device, code.allow_code, outlet.watch, with_plugins=with_plugins)
            with opened as plain:
                document |= measure(request, plain, outlet.watch)
    outlet.show(document, lambda: evaluation_tables(document))


def chosen(probes: tuple[str, ...], given: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the probes that are asked for, or all that the files allow; a run's own without any.

    Raises:
        SettingsError: a probe is unknown or lacks its files.
    """
    for name in probes:
        if name not in FILES:
            raise SettingsError(
                f"--probe {name}: unknown{nearest(name, FILES)}", " or ".join(FILES)
            )
        if name != OWN and not any(given[kind] for kind in FILES[name]):
            flags = " or ".join(f"--{kind.replace('_', '-')}" for kind in FILES[name])
            raise SettingsError(f"--probe {name} needs {flags}", f"add {flags} FILE")
    allowed = tuple(name for name, kinds in FILES.items() if any(given[kind] for kind in kinds))
    return tuple(dict.fromkeys(probes)) or allowed or (OWN,)

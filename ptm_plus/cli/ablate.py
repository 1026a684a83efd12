"""``ablate``: does a plugin help, or would anything have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptm_plus.cli.flags import CodeFlag, DeviceFlag, OutputFlags, RunFlags, spread
from ptm_plus.cli.outlet import open_outlet, stoppable
from ptm_plus.cli.sample_inputs import given_or_sample
from ptm_plus.errors import SettingsError, nearest

if TYPE_CHECKING:
    from ptm_plus.ablation.planning import Request
    from ptm_plus.settings import RunSettings

DESIGNS = ("quick", "full")


@spread
def ablate(
    context: typer.Context,
    run: RunFlags,
    code: CodeFlag,
    where: DeviceFlag,
    output: OutputFlags,
    design: Annotated[
        str,
        typer.Option(
            "--design",
            metavar="NAME",
            help="quick: none, each, all, each one's placebo; full: also all but each, and every "
            "placebo.",
        ),
    ] = "quick",
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", min=1, help="Runs of each arm.")
    ] = 3,
    hours: Annotated[
        float,
        typer.Option("--hours", metavar="H", min=0.0, help="Take fewer steps, to end in H hours."),
    ] = 0.0,
    jobs: Annotated[
        int,
        typer.Option("--jobs", metavar="N", min=0, help="Runs at a time; default: one a device."),
    ] = 0,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            metavar="KIND=TRAIN,TEST",
            help="Fine-tune on files, as `evaluate` does. Repeatable.",
            show_default=False,
        ),
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Only say what would run, and how long.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the checkpoints of runs that were measured.")
    ] = False,
) -> None:
    """Compare runs with and without each plugin, and with placebos, at equal tokens over seeds.

    Without files, on the built-in sample. What is finished stays so: run the same command again.

    ptm-plus ablate --plugin kg-fusion --plugin tlm

    ptm-plus ablate run.toml --seeds 5 --task text=train.jsonl,test.jsonl --hours 12
    """
    outlet = open_outlet(context, output)
    if design not in DESIGNS:
        raise SettingsError(
            f"--design {design}: unknown{nearest(design, DESIGNS)}", " or ".join(DESIGNS)
        )
    resolved = code.checked(run.resolve())
    with stoppable("ablating", goes_on=True):
        from ptm_plus.ablation.ablation import ablate as run_all
        from ptm_plus.ablation.planning import plan_ablation
        from ptm_plus.cli.ablation_tables import (
            ablation_tables,
            plan_document,
            plan_table,
            plan_words,
        )
        from ptm_plus.sample_run import sample_tasks

        settings = given_or_sample(resolved, outlet.watch)
        given = {"design": design, "seeds": seeds, "hours": hours, "keep": keep}
        tasks = tuple(task or ()) or sample_tasks(settings)
        request = _request(settings, where.checked(), jobs, tasks, given)
        planned = plan_ablation(request, outlet.watch)
        plan = plan_document(request, planned)
        if plan_only:
            outlet.show(plan, lambda: plan_table(plan))
            return
        outlet.watch.note(plan_words(plan))
        document = run_all(request, planned, outlet.watch)
    outlet.show(document, lambda: ablation_tables(document, settings.output))


def _request(
    settings: RunSettings, device: str, jobs: int, tasks: tuple[str, ...], given: dict[str, Any]
) -> Request:
    """Return what is asked for; runs that share the processors share their threads, too."""
    from ptm_plus.ablation.planning import Request
    from ptm_plus.ablation.processes import slots
    from ptm_plus.crew import cores
    from ptm_plus.measures.plain_model import chosen_device
    from ptm_plus.measures.task_files import parse_task

    list(map(parse_task, tasks))
    where = chosen_device(device)
    places = slots(where, jobs, settings.train.threads)
    threads = max(1, cores() // len(places)) if where == "cpu" and len(places) > 1 else 0
    return Request(
        settings=settings,
        tasks=tasks,
        device=where,
        slots=tuple(places),
        threads=threads,
        **given,
    )

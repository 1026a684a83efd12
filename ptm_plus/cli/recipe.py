"""``recipe list``, ``show``, ``check``, ``new``, ``schema`` and ``build``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from ptm_plus.cli.flags import OutputFlags, spread
from ptm_plus.cli.outlet import open_outlet, stoppable
from ptm_plus.errors import SettingsError, nearest

app = typer.Typer(
    help="Domain corpora: recipes from raw files to cleaned, measured text.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="RECIPE", help="Name, or path of a .toml file.")]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Where the sources' files are; default: beside a recipe named by its path, else here.",
    ),
]


@app.command("list")
@spread
def list_(context: typer.Context, out: OutputFlags) -> None:
    """List the recipes: those that come with ptm-plus, and those of other packages."""
    outlet = open_outlet(context, out)
    from ptm_plus.cli.recipe_tables import recipes_table
    from ptm_plus.recipes.finding import all_recipes

    document = [
        {
            "name": one.name,
            "title": recipe.title,
            "languages": recipe.languages,
            "sources": [source.name for source in recipe.sources],
            "from": one.owner,
            "path": str(one.path),
        }
        for one in all_recipes()
        for recipe in [one.read()]
    ]
    outlet.show(document, lambda: recipes_table(document))


@app.command()
@spread
def show(context: typer.Context, name: Name, out: OutputFlags) -> None:
    """Show a recipe: sources and licences, steps and thresholds with their reasons, the papers'."""
    outlet = open_outlet(context, out)
    from ptm_plus.cli.recipe_tables import shown_recipe
    from ptm_plus.recipes.finding import find_recipe

    recipe = find_recipe(name).read()
    outlet.show(recipe.model_dump(mode="json"), *shown_recipe(recipe))


@app.command()
@spread
def check(
    context: typer.Context,
    name: Name,
    out: OutputFlags,
    data: Data = None,
    sample: Annotated[bool, typer.Option("--sample", help="Check the samples instead.")] = False,
) -> None:
    """Check a recipe and that its sources are there; read nothing but their checksums."""
    outlet = open_outlet(context, out)
    import tempfile

    from ptm_plus.cli.recipe_tables import check_table
    from ptm_plus.recipes.finding import find_recipe
    from ptm_plus.recipes.shards import find_inputs

    found = find_recipe(name)
    recipe = found.read()
    missing = _missing_extra()
    beside = found.samples if sample else None
    local = recipe.model_copy(
        update={"sources": tuple(one for one in recipe.sources if sample or one.files)}
    )
    with tempfile.TemporaryDirectory() as nowhere:
        inputs = find_inputs(
            local, data or _default_data(name, found.path), beside, Path(nowhere), (), outlet.watch
        )
    document = {
        "recipe": recipe.name,
        "files": [
            {"source": local.sources[one.source].name, "path": one.path, "bytes": one.size}
            for one in inputs.files
        ],
        "shards": len(inputs.shards),
        "not looked at": [one.name for one in recipe.sources if one not in local.sources],
        "missing": missing,
    }
    outlet.show(document, lambda: check_table(document))


@app.command()
def new(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Recipe to write (.toml).")],
) -> None:
    """Write a recipe to fill in, with a comment on every part."""
    from ptm_plus.recipes.template import template

    if target.suffix != ".toml":
        raise SettingsError(f"{target}: must end in .toml", f"for example {target}.toml")
    if target.exists():
        raise SettingsError(f"{target}: is there already", "name another file")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", target.stem).strip("-._") or "domain"
    try:
        target.write_text(template(name), encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{target}: cannot be written: {error.strerror}") from error
    typer.echo(f"wrote {target}; next: ptm-plus recipe check {target}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a recipe, for editors."""
    from ptm_plus.recipes.recipe import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@app.command()
@spread
def build(
    context: typer.Context,
    name: Name,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Corpus folder.")],
    out: OutputFlags,
    data: Data = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Take the recipe's small samples as its sources.")
    ] = False,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="FILE",
            help="Evaluation file whose text must not be in the corpus. Repeatable.",
        ),
    ] = None,
    general: Annotated[
        list[str] | None,
        typer.Option(
            "--general",
            metavar="FILE",
            help="General text that training replays; en=FILE. Repeatable.",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=0, help="Processes; 0: one a core.")
    ] = 0,
    shard: Annotated[
        str,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Do the share of job I (from 0) of N; call again when the others are done.",
            show_default=False,
        ),
    ] = "",
    on: Annotated[
        str, typer.Option("--on", metavar="ENGINE", help="local, slurm or ray.")
    ] = "local",
    jobs: Annotated[
        int, typer.Option("--jobs", metavar="N", min=1, help="Jobs on slurm or ray.")
    ] = 8,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm", metavar="OPTION", help="Of sbatch: --slurm=--time=4:00:00. Repeatable."
        ),
    ] = None,
) -> None:
    """Build the corpus of a recipe, or go on with a build that was broken off.

    ptm-plus recipe build biomedical --sample -o corpus
    """
    outlet = open_outlet(context, out)
    share = _share(shard)
    _need_extra()
    from ptm_plus.cli.recipe_tables import account_tables
    from ptm_plus.recipes.build import Request
    from ptm_plus.recipes.build import build as build_corpus
    from ptm_plus.recipes.finding import find_recipe
    from ptm_plus.settings_paths import absolute, with_path

    found = find_recipe(name)
    folder = data or _default_data(name, found.path)
    evaluation = tuple(map(absolute, against or ()))
    replayed = tuple(with_path(one, absolute) for one in general or ())
    request = Request(output, folder, sample, workers, evaluation, replayed, share)
    with stoppable("building", goes_on=True):
        if on != "local":
            arguments = _job_arguments(name, request)
            if not _on_cluster(outlet, on, jobs, slurm or [], found, request, arguments):
                return
        outcome = build_corpus(found, request, outlet.watch)
    if outcome.account is None:
        waits: dict[str, Any] = {"stage": outcome.stage, "stages": outcome.stages, "done": False}
        said = (
            f"stage {outcome.stage} of {outcome.stages}: this job's share is done; run the same "
            "command again when the other jobs' are"
        )
        outlet.show(waits, lambda: said)
        return
    account = outcome.account
    outlet.show({"output": str(output), **account}, *account_tables(account, output))


@app.command()
@spread
def vocabulary(
    context: typer.Context,
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="Folder of a built corpus.")],
    out: OutputFlags,
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="Model to go on with.")
    ] = "",
    family: Annotated[
        str,
        typer.Option("--family", metavar="NAME", help="Model type, for a vocabulary of its own."),
    ] = "",
    characters: Annotated[
        int,
        typer.Option("--characters", metavar="N", min=1, help="How much of the text is looked at."),
    ] = 10_000_000,
) -> None:
    """Do what the recipe says of the vocabulary: keep it, extend it, or train one.

    ptm-plus recipe vocabulary CORPUS --model bert-base-cased

    CORPUS/train.toml then names the model that came of it.
    """
    outlet = open_outlet(context, out)
    from ptm_plus.cli.recipe_tables import vocabulary_tables
    from ptm_plus.recipes.vocabulary import settle_vocabulary

    with stoppable("the vocabulary"):
        found = settle_vocabulary(corpus, model, family, characters, outlet.watch)
    outlet.show(found, *vocabulary_tables(found))


def _job_arguments(name: str, request: Any) -> list[str]:
    """Return the arguments of a job's command: paths in full, as it may start elsewhere."""
    recipe = str(Path(name).absolute()) if name.endswith(".toml") or "/" in name else name
    arguments = [recipe, "--output", str(request.output.absolute())]
    arguments += ["--sample"] if request.sample else ["--data", str(request.data.absolute())]
    given = {"--against": request.against, "--general": request.general}
    return [*arguments, *(word for flag, of in given.items() for one in of for word in (flag, one))]


def _on_cluster(
    outlet: Any,
    on: str,
    jobs: int,
    slurm: list[str],
    found: Any,
    request: Any,
    arguments: list[str],
) -> bool:
    """Hand a build to a cluster; return whether it is done when this returns."""
    from ptm_plus.recipes.build import count_stages
    from ptm_plus.recipes.clusters import ENGINES, run_on_ray, submit_to_slurm

    if on not in ENGINES:
        raise SettingsError(f"--on {on}: unknown{nearest(on, ENGINES)}", ", ".join(ENGINES))
    stages = count_stages(found, request, outlet.watch)
    if on == "ray":
        run_on_ray(arguments, jobs, stages, outlet.watch)
        return True
    numbers = submit_to_slurm(arguments, jobs, stages, slurm, request.output.absolute())
    said = f"submitted {stages} arrays of {jobs} jobs; see squeue, and {request.output / 'slurm'}"
    outlet.show({"stages": stages, "jobs": jobs, "numbers": numbers, "done": False}, lambda: said)
    return False


def _share(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise SettingsError(f"--shard {text}: no share", "write I/N with I from 0 to N-1: 0/8")
    return int(match[1]), int(match[2])


def _default_data(name: str, path: Path) -> Path:
    named_by_path = name.endswith(".toml") or "/" in name
    return path.parent if named_by_path else Path()


def _missing_extra() -> list[str]:
    import importlib.util

    names = {"datatrove": "datatrove", "ftfy": "ftfy", "nltk": "nltk"}
    return [name for module, name in names.items() if importlib.util.find_spec(module) is None]


def _need_extra() -> None:
    from ptm_plus.errors import EnvironmentProblem

    missing = _missing_extra()
    if missing:
        raise EnvironmentProblem(
            f"building needs {', '.join(missing)}, which is not installed",
            'pip install "ptm-plus[recipes]"',
        )
